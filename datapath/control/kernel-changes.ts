/**
 * The kernel's side of a change to a running node: addresses, MTUs and routes at devices that stay. Devices that come are
 * set up as at a start (devices.ts), and one that goes takes with it what stands at it.
 */
import { type Mtus, mtusOf, podMtuOf } from '../program/mtus.ts';
import type { PodConfig } from './config.ts';
import { hostRoutes } from './host-routes.ts';
import { ipBatch } from './ip.ts';
import { defaultRoute } from './pod-devices.ts';
import type { ResolvedConfig } from './resolved.ts';

/** Lines for `ip` in one namespace, and those that take them back. */
interface Batch {
  /** Undefined: the node's own. */
  netns?: string;
  lines: string[];
  undo: string[];
}

export interface KernelChange {
  /** Before the loop changes: what is new, and what narrows. */
  before: Batch[];
  /** When it has changed: what widens. */
  after: Batch[];
  /** At the end, and nothing brings it back: what is not needed any more. */
  last: Batch[];
}

export function planKernel(from: ResolvedConfig, to: ResolvedConfig): KernelChange {
  const change: KernelChange = { before: [], after: [], last: [] };
  const old = new Map(from.spec.pods.map(pod => [pod.name, pod]));
  for (const pod of to.spec.pods) {
    const before = old.get(pod.name);
    if (before?.netns === pod.netns && before.device === pod.device && before.kind === pod.kind)
      planPod(before, from, pod, to, change);
  }
  planHost(from, to, change);
  return change;
}

function planPod(
  before: PodConfig,
  from: ResolvedConfig,
  pod: PodConfig,
  to: ResolvedConfig,
  change: KernelChange,
): void {
  const { netns, device, address } = pod;
  // Whoever made a veth sets it up, and a pod in memory is not the kernel's.
  if (pod.kind === 'veth' || pod.kind === 'memory') return;
  if (before.address !== address) {
    const added = `${address}/32 dev ${device}`;
    change.before.push({ netns, lines: [`addr add ${added}`], undo: [`addr del ${added}`] });
    change.last.push({ netns, lines: [`addr del ${before.address}/32 dev ${device}`], undo: [] });
  }
  const was = podMtuOf(before, mtusOf(from));
  const is = podMtuOf(pod, mtusOf(to));
  if (was.device === is.device && was.route === is.route) return;
  const narrows = is.device < was.device || (is.route !== 0 && is.route < (was.route || was.device));
  (narrows ? change.before : change.after).push({
    netns,
    lines: mtuLines(pod, mtusOf(to)),
    undo: mtuLines(before, mtusOf(from)),
  });
}

function mtuLines(pod: PodConfig, mtus: Mtus): string[] {
  return [`link set dev ${pod.device} mtu ${podMtuOf(pod, mtus).device}`, defaultRoute(pod, mtus)];
}

/** The node's address on the underlay, where the node's own processes are to have it. */
function planNodeAddress(
  from: ResolvedConfig,
  to: ResolvedConfig,
  device: string,
  netns: string | undefined,
  change: KernelChange,
): void {
  const at = ({ spec: { uplink } }: ResolvedConfig) =>
    uplink.onHostPort ? `${uplink.address.split('/')[0]}/32 dev ${device}` : undefined;
  const [was, is] = [at(from), at(to)];
  if (was === is) return;
  if (is !== undefined)
    change.before.push({ netns, lines: [`addr replace ${is} noprefixroute`], undo: [`addr del ${is}`] });
  if (was !== undefined) change.last.push({ netns, lines: [`addr del ${was}`], undo: [] });
}

/** Those that can be done without entering another namespace. */
export function inOwnNamespace({ before, after, last }: KernelChange): KernelChange {
  const own = (batches: Batch[]) => batches.filter(({ netns }) => netns === undefined);
  return { before: own(before), after: own(after), last: own(last) };
}

/** Routes to what is not there yet lead to the datapath's own answer, so they come first. */
function planHost(from: ResolvedConfig, to: ResolvedConfig, change: KernelChange): void {
  const { host } = to.spec;
  const before = from.spec.host;
  // Otherwise the device comes with all of it, or goes.
  if (host === undefined || before?.device !== host.device || before.netns !== host.netns) return;
  const { device, netns } = host;
  planNodeAddress(from, to, device, netns, change);
  if (from.spec.uplink.mtu !== to.spec.uplink.mtu) {
    const mtu = (config: ResolvedConfig) => [`link set dev ${device} mtu ${config.spec.uplink.mtu}`];
    change.before.push({ netns, lines: mtu(to), undo: mtu(from) });
  }
  const oldRoutes = new Set(hostRoutes(from));
  const newRoutes = new Set(hostRoutes(to));
  const added = [...newRoutes].filter(route => !oldRoutes.has(route));
  const removed = [...oldRoutes].filter(route => !newRoutes.has(route));
  if (before.address !== host.address) {
    const address = `addr add ${host.address} dev ${device} noprefixroute`;
    change.before.push({ netns, lines: [address], undo: [`addr del ${host.address} dev ${device}`] });
  }
  if (added.length > 0) {
    change.before.push({
      netns,
      lines: added.map(route => `route append ${route}`),
      undo: added.map(route => `route del ${route}`),
    });
  }
  if (removed.length > 0) change.last.push({ netns, lines: removed.map(route => `route del ${route}`), undo: [] });
  if (before.address !== host.address) {
    change.last.push({ netns, lines: [`addr del ${before.address} dev ${device}`], undo: [] });
  }
}

/**
 * Runs the lines, each batch all or nothing as far as `ip` lets it.
 * @param undo gets what takes back what has been done, to be run from its end
 * @throws Error with the command that failed
 */
export async function runBatches(batches: readonly Batch[], undo: (() => unknown)[]): Promise<void> {
  for (const { netns, lines, undo: back } of batches) {
    // Before: of a batch that fails in its middle the first lines have been done.
    undo.push(async () => {
      for (const line of [...back].reverse()) await ipBatch([line], { netns }).catch(() => {});
    });
    await ipBatch(lines, { netns });
  }
}

/** Runs lines whose failure changes nothing any more: what they take away is gone then. */
export async function runLast(batches: readonly Batch[]): Promise<void> {
  for (const { netns, lines } of batches) {
    try {
      await ipBatch(lines, { netns });
    } catch {
      for (const line of lines) await ipBatch([line], { netns }).catch(() => {});
    }
  }
}
