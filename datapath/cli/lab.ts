/** `tunpath lab ...` */
import { resolve } from 'node:path';
import { isDeepStrictEqual } from 'node:util';

import { Lab } from '../lab/lab.ts';
import { LabError, requireRoot } from '../lab/lab-error.ts';
import { type Mode, type ModeOptions, PROFILES, parseMode } from '../lab/modes.ts';
import { checkLabName, kubeconfigOf, namespacePrefix } from '../lab/names.ts';
import { aroundCommand } from '../lab/subnet-env.ts';
import { terminalEnvironment } from '../lab/terminal-files.ts';
import type { Topology } from '../lab/topology.ts';
import { printTopology } from '../lab/topology-file.ts';
import { listNodes } from './client.ts';
import { DONE, NO, UsageError } from './exit.ts';
import type { Format } from './format.ts';
import { openLab } from './lab-look.ts';
import { readTopology } from './lab-topology.ts';
import { didYouMean } from './manners.ts';
import { print } from './output.ts';
import { type Column, printRows } from './table.ts';

export interface UpFlags {
  name: string;
  mode?: string;
  topology?: string;
  file?: string;
  print?: boolean;
  profile?: string;
  offload: string;
  api: boolean;
  etcd?: string;
  processes?: boolean;
  loops?: number;
  ui?: boolean;
  simulate?: boolean;
  nodes?: number;
  pods?: number;
  policies?: boolean;
  everyPod?: boolean;
  output: Format;
}

const STATUS_COLUMNS: Column<ReturnType<Lab['status']>[number]>[] = [
  { title: 'HOST', value: row => row.host },
  { title: 'KIND', value: row => row.kind },
  { title: 'NODE', value: row => row.node },
  { title: 'ADDRESS', value: row => row.address },
  { title: 'STATE', value: row => row.state },
  { title: 'NAMESPACE', value: row => row.namespace, wide: true },
  { title: 'PID', value: row => row.pid, wide: true, align: 'right' },
];

export async function up(flags: UpFlags): Promise<number> {
  if (flags.simulate) return (await import('./simulate.ts')).simulated(flags);
  for (const name of ['nodes', 'pods', 'policies', 'everyPod'] as const) {
    if (flags[name] !== undefined) throw new UsageError(`--${optionOf(name)}: expected with --simulate`);
  }
  if (flags.processes && flags.loops !== undefined) throw new UsageError('--loops: expected without --processes');
  const topology = readTopology(flags);
  const options = parseModeFlags(flags, topology.mode);
  if (flags.print) {
    await print(printTopology({ ...topology, mode: options.mode, profile: options.profile ?? topology.profile }));
    return DONE;
  }
  const started = performance.now();
  if (await repair(flags, topology)) return flags.ui ? serveLab(flags.name) : DONE;
  // A lab of that name that is there already has been refused when this returns: what a signal takes down is our own.
  const rising = Lab.up({
    name: flags.name,
    topology,
    api: flags.api,
    etcd: etcdAddress(flags),
    processes: flags.processes,
    loops: flags.loops,
    ...options,
  });
  const release = closeOnSignal(flags.name);
  const lab = await rising.finally(release);
  process.stderr.write(`lab '${lab.name}' is up: ${lab.mode}, ${seconds(started)}\n`);
  if (flags.api) process.stderr.write(`for kubectl: export KUBECONFIG=${kubeconfigOf(lab.name)}\n`);
  await printRows(flags.output, lab.status(), STATUS_COLUMNS);
  return flags.ui ? serveLab(lab.name) : DONE;
}

/** A page about the nodes of the lab, until SIGINT; the lab stays. */
async function serveLab(name: string): Promise<number> {
  const { serve } = await import('./ui.ts');
  const prefix = namespacePrefix(name);
  return serve('127.0.0.1:0', () => listNodes().filter(node => node.startsWith(prefix)));
}

/** @throws UsageError */
function etcdAddress({ etcd, api }: UpFlags): string | undefined {
  if (etcd === undefined) return undefined;
  if (!api) throw new UsageError('--etcd: expected without --no-api');
  if (!/^(\[[0-9a-f:.]+\]|[\w.-]+):\d{1,5}$/i.test(etcd)) throw new UsageError(`--etcd ${etcd}: expected HOST:PORT`);
  return etcd;
}

/** `everyPod` -> `every-pod` */
function optionOf(name: string): string {
  return name.replace(/[A-Z]/g, letter => `-${letter.toLowerCase()}`);
}

/**
 * A lab of that name, and of the topology and mode that are asked for, if any are, gets back nodes or an API that have died.
 * @returns whether there was one
 */
async function repair(flags: UpFlags, topology: Topology): Promise<boolean> {
  requireRoot('a lab');
  if (!Lab.exists(flags.name)) return false;
  let lab: Lab;
  try {
    lab = Lab.open(flags.name);
  } catch {
    return false;
  }
  const dead = lab.status().filter(({ kind, state }) => kind === 'node' && state === 'down');
  const lostApi = lab.hasLostApi;
  const isOther =
    (flags.mode !== undefined && flags.mode !== lab.mode) ||
    ((flags.topology ?? flags.file) !== undefined &&
      !isDeepStrictEqual(lab.topology, JSON.parse(JSON.stringify(topology))));
  if ((dead.length === 0 && !lostApi) || isOther) return false;
  const started = new Set<string>();
  for (const { host } of dead) {
    if (!started.has(host)) for (const name of await lab.restartNode(host)) started.add(name);
  }
  if (lostApi) await lab.restartApi();
  const mended = [...started, ...(lostApi ? ['the API'] : [])].join(', ');
  process.stderr.write(`lab '${lab.name}' is mended: ${mended} started again\n`);
  await printRows(flags.output, lab.status(), STATUS_COLUMNS);
  return true;
}

export async function down(flags: { name?: string; all?: boolean }): Promise<number> {
  requireRoot('a lab');
  const up = Lab.list();
  const names = flags.all ? up : [flags.name ?? (up.length === 1 ? up[0] : 'lab')];
  let removed = false;
  for (const name of names) {
    const started = performance.now();
    if (await Lab.down(name)) {
      removed = true;
      process.stderr.write(`lab '${name}' is gone: ${seconds(started)}\n`);
    } else {
      process.stderr.write(`no lab '${name}'\n`);
    }
  }
  return removed || flags.all ? DONE : NO;
}

/** Answers no when a part of the lab is missing. */
export async function status(flags: { name?: string; output: Format }): Promise<number> {
  const rows = openLab(flags.name).status();
  await printRows(flags.output, rows, STATUS_COLUMNS);
  return rows.every(row => row.state !== 'down') ? DONE : NO;
}

/**
 * Makes a lab's name free for a command that brings labs of that name up and down: removes what a killed run left, and
 * takes the lab down when a signal ends this one.
 * @throws LabError when another run has it
 */
export async function claimLab(name: string): Promise<void> {
  checkLabName(name);
  requireRoot('a lab');
  if (Lab.exists(name)) {
    if (Lab.ownerRuns(name)) throw new LabError(`lab '${name}' is in use by another run: choose another --name`);
    await Lab.down(name);
  }
  closeOnSignal(name);
}

const ENDING: NodeJS.Signals[] = ['SIGINT', 'SIGTERM', 'SIGHUP'];

/** @returns what makes the signals end the process at once again */
function closeOnSignal(name: string): () => void {
  let signals = 0;
  // Stays in place after the first signal: execa, too, ends the process when it finds no other listener than its own.
  const stop = (signal: NodeJS.Signals): void => {
    if (signals++ > 0) return;
    process.stderr.write(`${signal}: taking the lab down\n`);
    void Lab.close(name).finally(() => process.exit(NO));
  };
  for (const signal of ENDING) process.on(signal, stop);
  return () => {
    for (const signal of ENDING) process.off(signal, stop);
  };
}

/** Streams and exit code are the command's own. */
export async function exec(host: string, line: string[], flags: { name?: string }): Promise<number> {
  const { argv, name } = splitCommand(line);
  const lab = openLab(name ?? flags.name);
  checkHost(lab, host);
  return runOn(lab, host, argv);
}

export interface TcpdumpFlags {
  name?: string;
  interface: string;
  write?: string;
  count?: string;
}

/** tcpdump on a host, whose interfaces are in a namespace of their own. Its streams and exit code are the command's. */
export async function capture(host: string, filter: string[], flags: TcpdumpFlags): Promise<number> {
  const { name, interface: device, write, count } = flags;
  if (count !== undefined && !/^[1-9]\d*$/.test(count))
    throw new UsageError(`--count ${count}: expected a number from 1`);
  const lab = openLab(name);
  checkHost(lab, host);
  const to = write === undefined ? ['-l'] : ['-U', '-w', write === '-' ? '-' : resolve(write)];
  return runOn(lab, host, [
    'tcpdump',
    '-n',
    '-i',
    device,
    ...(count === undefined ? [] : ['-c', count]),
    ...to,
    ...filter,
  ]);
}

/** A shell on a host, which is the machine of the articles: kubectl, cilium, hubble and the others are there. */
export async function shell(host: string, flags: { name?: string }): Promise<number> {
  const lab = openLab(flags.name);
  checkHost(lab, host);
  return runOn(lab, host, [process.env.SHELL ?? 'sh']);
}

/** The machine is called like the host for what runs there. */
const UNDER_ITS_NAME = ['unshare', '--uts', 'sh', '-c', 'echo "$0" > /proc/sys/kernel/hostname; exec "$@"'];

function runOn(lab: Lab, host: string, argv: string[]): Promise<number> {
  const words = [...UNDER_ITS_NAME, host, ...aroundCommand(lab, host), ...argv];
  const child = lab.spawn(host, words, { stdio: 'inherit', env: terminalEnvironment(lab.name, host) });
  const forward = (signal: NodeJS.Signals): void => {
    child.kill(signal);
  };
  process.on('SIGTERM', forward).on('SIGHUP', forward);
  // The terminal sends this one to the whole group: the command has it already and decides.
  process.on('SIGINT', () => {});
  return new Promise((done, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => done(code ?? 128 + (SIGNAL_NUMBERS[signal ?? 'SIGTERM'] ?? 15)));
  });
}

/** @throws UsageError */
function checkHost(lab: Lab, host: string): void {
  const { hosts } = lab;
  if (hosts.includes(host)) return;
  throw new UsageError(
    `lab '${lab.name}' has no host '${host}'${didYouMean(host, hosts)}: expected one of ${hosts.join(', ')}`,
  );
}

/** What stands behind `--` is the command's own; before it there may still be our --name. @throws UsageError */
function splitCommand(line: string[]): { argv: string[]; name?: string } {
  const dashes = line.indexOf('--');
  const own = dashes < 0 ? [] : line.slice(0, dashes);
  const argv = line.slice(dashes + 1);
  if (argv.length === 0) throw new UsageError('expected a command after --');
  const name = /^--name=(.*)$/.exec(own[0] ?? '')?.[1] ?? (own[0] === '--name' ? own[1] : undefined);
  const taken = name === undefined ? 0 : own[0] === '--name' ? 2 : 1;
  // A command of the user's may have dashes of its own.
  if (own.length !== taken) return { argv: line };
  return { argv, name };
}

const SIGNAL_NUMBERS: Partial<Record<NodeJS.Signals, number>> = { SIGHUP: 1, SIGINT: 2, SIGKILL: 9, SIGTERM: 15 };

function parseModeFlags(flags: { mode?: string; profile?: string; offload: string }, mode: Mode): ModeOptions {
  const profile = PROFILES.find(known => known === flags.profile);
  if (profile === undefined && flags.profile !== undefined) throw unknownValue('profile', flags.profile, PROFILES);
  if (flags.offload !== 'auto' && flags.offload !== 'none')
    throw unknownValue('offload', flags.offload, ['auto', 'none']);
  return { mode: flags.mode === undefined ? mode : parseMode(flags.mode), profile, offload: flags.offload };
}

function unknownValue(what: string, value: string, known: readonly string[]): LabError {
  return new LabError(`--${what} ${value}: expected one of ${known.join(', ')}`, { usage: true });
}

function seconds(since: number): string {
  return `${((performance.now() - since) / 1000).toFixed(1)} s`;
}
