/** Makes a running node what a plan says: kernel and loop, all of it or nothing. */
import { closeHandle, type DeviceHandle } from '../io/handle.ts';
import { PORT_HOST, PORT_POD } from '../port.ts';
import { type Change, diff, isLast } from '../program/diff.ts';
import type { Program } from '../program/program.ts';
import type { Plan, Refusal } from './apply.ts';
import { missingCapabilities } from './capabilities.ts';
import { openHostPort, openPods } from './devices.ts';
import { runBatches, runLast } from './kernel-changes.ts';
import type { LoopClient } from './loop-thread.ts';
import { namespaceExists } from './netns.ts';
import type { ResolvedConfig } from './resolved.ts';
import type { OpenUplink } from './uplink/uplink.ts';

type PortChange = Extract<Change, { kind: 'port' }>;

/** Why the devices of new pods cannot be opened, as far as it can be seen without trying. */
export function findMissing({ config, changes }: Plan): Refusal[] {
  const names = new Set(opening(changes).map(({ port }) => port?.name));
  const refused: Refusal[] = [];
  config.spec.pods.forEach(({ name, netns, kind }, i) => {
    if (!names.has(name) || kind === 'memory') return;
    const path = ['spec', 'pods', i, 'netns'];
    if (!namespaceExists(netns)) {
      refused.push({ path, message: `network namespace "${netns}" does not exist (ip netns add ${netns})` });
    } else if (missingCapabilities(['CAP_SYS_ADMIN']).length > 0) {
      const message = 'the node runs without CAP_SYS_ADMIN and cannot enter the namespace of another pod: restart it';
      refused.push({ path, message });
    }
  });
  return refused;
}

/** What a node is before the change. */
export interface Before {
  config: ResolvedConfig;
  program: Program;
  loop: LoopClient;
  uplink: OpenUplink;
}

/**
 * Packets flow on: the loop takes each piece between two bursts.
 * @returns the devices that have been opened and the number of every port, by portKey(); null: as they were
 * @throws Error when the kernel refuses something, and everything is as before
 */
export async function carryOut(
  { config, program, changes, kernel }: Plan,
  before: Before,
): Promise<{ opened: Map<string, DeviceHandle>; numbers: Map<string, number> | null }> {
  const { loop, uplink } = before;
  const opened = new Map<string, DeviceHandle>();
  const undo: (() => unknown)[] = [];
  try {
    // The kernel first: it may refuse. What leads to what is not there yet gets the datapath's own answer.
    await uplink.serve?.(before.config, config);
    undo.push(() => uplink.serve?.(before.config));
    undo.push(() => takeBack(before, program, opened));
    await openDevicesOf(config, changes, opened);
    await runBatches(kernel.before, undo);
    await loop.change(changes.filter(change => !isLast(change)));
    await runBatches(kernel.after, undo);
  } catch (error) {
    for (const step of undo.reverse()) await step();
    throw error;
  }
  await runLast(kernel.last);
  await loop.change(changes.filter(isLast));
  await uplink.serve?.(config);
  const numbers = changes.some(({ kind }) => kind === 'port') ? await loop.portNumbers() : null;
  return { opened, numbers };
}

function opening(changes: readonly Change[]): PortChange[] {
  return changes.filter(
    (change): change is PortChange => change.kind === 'port' && change.port !== null && change.device !== 'kept',
  );
}

async function openDevicesOf(
  config: ResolvedConfig,
  changes: readonly Change[],
  opened: Map<string, DeviceHandle>,
): Promise<void> {
  const found = opening(changes);
  const byName = new Map(config.spec.pods.map(pod => [pod.name, pod]));
  const pods = found.filter(({ port }) => port!.kind === PORT_POD);
  const handles = await openPods(
    config,
    pods.map(({ port }) => byName.get(port!.name)!),
  );
  pods.forEach((change, i) => {
    change.handle = handles[i];
    opened.set(change.key, handles[i]);
  });
  for (const change of found) {
    if (change.port!.kind !== PORT_HOST) continue;
    change.handle = await openHostPort(config);
    opened.set(change.key, change.handle);
  }
}

/** The loop goes back to what it was; devices that it has not taken are closed here, the others by it. */
async function takeBack(
  { program, loop }: Before,
  changed: Program,
  opened: ReadonlyMap<string, DeviceHandle>,
): Promise<void> {
  const had = new Set(diff(changed, program).flatMap(change => (isLast(change) ? [(change as PortChange).key] : [])));
  const taken = await loop.portNumbers();
  for (const [key, handle] of opened) if (!had.has(key) || !taken.has(key)) closeHandle(handle);
  await loop.change(diff(changed, program).filter(change => !isLast(change) || (change as PortChange).port === null));
}
