/** What else the machine did, before a run and during it: a figure from a noisy machine has to say so. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Environment } from './environment.ts';
import { type MachineTime, machineTime, timeBetween } from './machine.ts';

export interface Noise {
  /** Share of all cores that was busy just before, with nothing of ours running. */
  backgroundShare: number;
  /** Share of all cores that the hypervisor gave away during the run. */
  stealShare: number;
  /** Why these figures may be worth less than they look. */
  warnings: string[];
}

const BACKGROUND_MS = 500;
const NOISY_BACKGROUND = 0.05;
const NOISY_STEAL = 0.02;
/** Load average per core. */
const NOISY_LOAD = 0.5;

/** Looks at the machine for half a second, and warns where it is busy. */
export async function inspectBackground(env: Environment & Noise, warn: (text: string) => void): Promise<void> {
  const before = machineTime();
  await sleep(BACKGROUND_MS);
  const { busy, total } = timeBetween(before, machineTime());
  env.backgroundShare = total === 0 ? 0 : busy / total;
  if (env.backgroundShare > NOISY_BACKGROUND) {
    warn(`noisy machine: ${percent(env.backgroundShare)} busy before the run`);
  }
  if (env.loadAverage > NOISY_LOAD * env.cores) {
    warn(`noisy machine: load average ${env.loadAverage.toFixed(2)} on ${env.cores} cores before the run`);
  }
}

/** Enters how much was stolen since `before`, and warns where it was much. */
export function inspectSteal(env: Noise, before: MachineTime, warn: (text: string) => void): void {
  const during = timeBetween(before, machineTime());
  env.stealShare = during.total === 0 ? 0 : during.steal / during.total;
  if (env.stealShare > NOISY_STEAL) {
    warn(`noisy machine: ${percent(env.stealShare)} of its time was stolen by the hypervisor`);
  }
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}
