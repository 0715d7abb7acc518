/**
 * What a new configuration changes of a running node. Pure: compares two configurations that loadConfig has accepted, and
 * says what the loop and the kernel must be told, or what cannot change while the node runs.
 */
import { isDeepStrictEqual } from 'node:util';
import { PROFILES } from '../profile.ts';
import { compile } from '../program/compile.ts';
import { type Change, diff } from '../program/diff.ts';
import { findFaults, type Program } from '../program/program.ts';
import { defaultVtepMac, type NodeConfig } from './config.ts';
import { describeChanges, type Effect } from './effects.ts';
import { type KernelChange, planKernel } from './kernel-changes.ts';
import { type ResolvedConfig, type ResolvedUplink, withUplink } from './resolved.ts';
import { parseCidr } from './validated.ts';

export interface Refusal {
  /** Where in the new configuration. */
  path: (string | number)[];
  message: string;
}

export interface Plan {
  /** The new configuration, with the uplink that the node runs with. */
  config: ResolvedConfig;
  program: Program;
  changes: Change[];
  kernel: KernelChange;
  effects: Effect[];
}

/** What follows from these is decided when the node starts. */
const FIXED = ['uplink', 'offload', 'loop'] as const;
const FIXED_OF_CONNTRACK = ['size', 'perSource'] as const;

/**
 * @param running the program that the loop has
 * @returns what is to be done, or why it cannot be done; then nothing of it is
 */
export function planChange(from: ResolvedConfig, running: Program, written: NodeConfig): Plan | Refusal[] {
  const to = withUplink(written, from.spec.uplink);
  const refusals = findRefusals(from, written, to);
  if (refusals.length > 0) return refusals;
  const program = compile(to);
  const faults = findFaults(program);
  if (faults.length > 0) return faults.map(message => ({ path: ['spec'], message }));
  const changes = diff(running, program);
  return { config: to, program, changes, kernel: planKernel(from, to), effects: describeChanges(from, to, changes) };
}

/**
 * The same configuration over an uplink that has become another one: other address, MAC, MTU, or the host port without the
 * node's address.
 */
export function planUplink(from: ResolvedConfig, running: Program, uplink: ResolvedUplink): Plan {
  // A VTEP's MAC that followed from the old address follows from the new one: peers reckon with it.
  const reckoned = defaultVtepMac(parseCidr(from.spec.uplink.address).address);
  const tunnels = from.spec.tunnels.map(tunnel =>
    tunnel.port !== undefined && tunnel.mac === reckoned ? { ...tunnel, mac: undefined } : tunnel,
  );
  const to = withUplink({ ...from, spec: { ...from.spec, tunnels, uplink: uplink.written } }, uplink);
  const program = compile(to);
  const changes = diff(running, program);
  return { config: to, program, changes, kernel: planKernel(from, to), effects: describeChanges(from, to, changes) };
}

function findRefusals(from: ResolvedConfig, written: NodeConfig, to: ResolvedConfig): Refusal[] {
  const refusals: Refusal[] = [];
  const refuse = (path: (string | number)[], message: string) => refusals.push({ path, message });
  const { name } = from.metadata;
  if (to.metadata.name !== name)
    refuse(['metadata', 'name'], `got ${to.metadata.name}, expected ${name}, the running node`);
  const unchanged = { ...from.spec, uplink: from.spec.uplink.written };
  for (const part of FIXED) {
    const path = firstDifference(unchanged[part], written.spec[part], ['spec', part]);
    if (path !== null) refuse(path, 'cannot change while the node runs: restart it');
  }
  for (const part of FIXED_OF_CONNTRACK) {
    if (from.spec.conntrack[part] === written.spec.conntrack[part]) continue;
    refuse(['spec', 'conntrack', part], 'cannot change while the node runs: restart it');
  }
  const mapping = (config: ResolvedConfig) => PROFILES[config.spec.profile].natMapping;
  const tracks = from.spec.services.length > 0 || from.spec.masquerade.length > 0;
  if (tracks && mapping(from) !== mapping(to)) {
    const why = `profiles ${from.spec.profile} and ${to.spec.profile} map flows in different ways`;
    refuse(['spec', 'profile'], `cannot change while the node runs and translates: ${why}; restart it`);
  }
  return refusals;
}

/** The place of the first difference, as deep as both sides have the same shape; null if there is none. */
function firstDifference(a: unknown, b: unknown, path: (string | number)[]): (string | number)[] | null {
  if (isDeepStrictEqual(a, b)) return null;
  if (!isObject(a) || !isObject(b) || Array.isArray(a) !== Array.isArray(b)) return path;
  for (const key of new Set([...Object.keys(a), ...Object.keys(b)])) {
    if (isDeepStrictEqual(a[key], b[key])) continue;
    // What is only in the old one has no place in the new one.
    if (!(key in b)) return path;
    return firstDifference(a[key], b[key], [...path, Array.isArray(b) ? Number(key) : key]);
  }
  return path;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}
