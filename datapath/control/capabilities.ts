/**
 * Linux capabilities (capabilities(7)): which ones this process has, and how it gives up those that it no longer needs.
 * They belong to threads, and only a thread itself can give up its own. Node has made a handful before our first line runs,
 * so the way to be rid of a capability is to execute ourselves again with less.
 */
import { readFileSync } from 'node:fs';
import * as libc from '../io/libc.ts';

/** Capabilities that we speak of, by their bit (include/uapi/linux/capability.h). */
export const CAPABILITIES = { CAP_NET_ADMIN: 12, CAP_NET_RAW: 13, CAP_SYS_ADMIN: 21 } as const;
export type Capability = keyof typeof CAPABILITIES;

/** What a node needs while it runs: devices, routes and rules of its own namespace, and raw sockets. */
export const RUNNING: readonly Capability[] = ['CAP_NET_ADMIN', 'CAP_NET_RAW'];

/** _LINUX_CAPABILITY_VERSION_3: two words for each set. */
const VERSION = 0x20080522;
/** More than any kernel has. */
const BITS = 64;

/** The sets of one thread, as in /proc/PID/task/TID/status. */
export interface CapabilitySets {
  inheritable: bigint;
  permitted: bigint;
  effective: bigint;
  bounding: bigint;
}

/** @param status the text of /proc/PID/status or of a task's; default: the main thread's */
export function capabilitySets(status = readFileSync('/proc/self/status', 'utf8')): CapabilitySets {
  const set = (name: string) => BigInt(`0x${new RegExp(`^Cap${name}:\\s*([0-9a-f]+)$`, 'm').exec(status)?.[1] ?? 0}`);
  return { inheritable: set('Inh'), permitted: set('Prm'), effective: set('Eff'), bounding: set('Bnd') };
}

export function maskOf(names: readonly Capability[]): bigint {
  return names.reduce((mask, name) => mask | (1n << BigInt(CAPABILITIES[name])), 0n);
}

/** Those of `needed` that are not there. */
export function missingCapabilities(
  needed: readonly Capability[],
  effective = capabilitySets().effective,
): Capability[] {
  return needed.filter(name => (effective & maskOf([name])) === 0n);
}

/**
 * Executes this program again, as the same process, with no other capability than `keep` in any thread.
 * @param handed descriptors that stay open, close-on-exec again as soon as the next image calls takeOver()
 * @param variables added to the environment
 * @throws Error when the system refuses; on success it does not return
 */
export function executeWith(
  keep: readonly Capability[],
  handed: readonly number[],
  variables: Readonly<Record<string, string>>,
): never {
  keepOnly(keep);
  for (const fd of handed) check('fcntl', libc.fcntl(fd, libc.F_SETFD, 0));
  const argv = [process.execPath, ...process.execArgv, ...process.argv.slice(1)];
  execute(process.execPath, argv, { ...process.env, ...variables });
}

/**
 * Takes all but `keep` from the calling thread, and sees to it that what it executes cannot have more either
 * (no_new_privs: without that a process of root has all of its bounding set after execve).
 */
export function keepOnly(keep: readonly Capability[]): void {
  const mask = maskOf(keep);
  const { permitted, inheritable } = capabilitySets();
  // As far as we may: it needs CAP_SETPCAP, and no_new_privs does without.
  for (let bit = 0; bit < BITS; bit++) {
    if ((mask & (1n << BigInt(bit))) === 0n) libc.prctl(libc.PR_CAPBSET_DROP, bit, 0, 0, 0);
  }
  check('no_new_privs', libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
  const header = new Int32Array([VERSION, 0]);
  const sets = [permitted & mask, permitted & mask, inheritable & mask];
  const words = [0n, 32n].flatMap(shift => sets.map(set => Number(BigInt.asIntN(32, set >> shift))));
  check('capset', libc.capset(libc.addressOf(header), libc.addressOf(new Int32Array(words))));
}

/** execve(2). Standard input and output stay. @throws Error when it fails; else it does not return */
export function execute(path: string, argv: readonly string[], environment: Readonly<NodeJS.ProcessEnv>): never {
  // Node keeps even its first three descriptors for itself (uv_disable_stdio_inheritance).
  for (const fd of [0, 1, 2]) libc.fcntl(fd, libc.F_SETFD, 0);
  const args = cStrings(argv);
  const env = cStrings(Object.entries(environment).map(([name, value]) => `${name}=${value}`));
  libc.execve(path, args.address, env.address);
  const reason = libc.errnoName(libc.errno());
  throw new Error(`${path}: ${reason}`);
}

/** Makes descriptors that were handed over by executeWith() close in children, as all others do. */
export function takeOver(handed: readonly number[]): void {
  for (const fd of handed) check('fcntl', libc.fcntl(fd, libc.F_SETFD, libc.FD_CLOEXEC));
}

function check(what: string, result: number): void {
  if (result < 0) throw new Error(`${what}: ${libc.errnoName(libc.errno())}`);
}

/** An array of C strings, and 0 behind them. `memory` keeps it from being collected. */
function cStrings(texts: readonly string[]): { address: number; memory: Uint8Array[] } {
  const memory = texts.map(text => new TextEncoder().encode(`${text}\0`));
  const pointers = new BigUint64Array(memory.length + 1);
  memory.forEach((bytes, i) => {
    pointers[i] = BigInt(libc.addressOf(bytes));
  });
  const bytes = new Uint8Array(pointers.buffer);
  return { address: libc.addressOf(bytes), memory: [...memory, bytes] };
}
