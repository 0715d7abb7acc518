/**
 * A start in two halves. The first has CAP_SYS_ADMIN, without which nobody enters the network namespace of a pod
 * (setns(2)): it takes the lock and sets up the pods. Then the process executes itself with CAP_NET_ADMIN and CAP_NET_RAW
 * alone, and the second half, which finds lock and pods in open descriptors, does the rest.
 */
import type { PodHandle } from '../io/handle.ts';
import { capabilitySets, executeWith, maskOf, RUNNING, takeOver } from './capabilities.ts';
import type { Lock } from './lock.ts';

/** Where the second half finds what the first has left. Not for users. */
const VARIABLE = 'TUNPATH_HANDED_OVER';

export interface HandedOver {
  /** Of the configuration that the pods have been made from. */
  configSha256: string;
  lock: Lock;
  pods: PodHandle[];
}

/** What the first half has left; null in the first half. Once. */
export function takeHandedOver(): HandedOver | null {
  const text = process.env[VARIABLE];
  if (text === undefined) return null;
  delete process.env[VARIABLE];
  const handed = JSON.parse(text) as HandedOver;
  takeOver(descriptors(handed));
  return handed;
}

/** Does this process have a capability that a running node does not need? */
export function hasMoreThanNeeded(): boolean {
  return (capabilitySets().permitted & ~maskOf(RUNNING)) !== 0n;
}

/** Ends the first half. @throws Error when the system refuses */
export function handOver(handed: HandedOver): never {
  executeWith(RUNNING, descriptors(handed), { [VARIABLE]: JSON.stringify(handed) });
}

function descriptors({ lock, pods }: HandedOver): number[] {
  return [lock.fd, ...pods.flatMap(pod => ('fd' in pod ? [pod.fd] : []))];
}
