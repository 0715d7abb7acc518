/** The seed of a node's random choices: backends, ports, timers. */
import { randomInt } from 'node:crypto';

/** Environment variable with the seed, for runs that are to be had again. Default: another one each time. */
export const SEED_VARIABLE = 'TUNPATH_SEED';

const MAX_SEED = 2 ** 31 - 1;

/** @returns undefined where the environment asks for what is no seed, which `expectedSeed` names */
export function chooseSeed(wanted = process.env[SEED_VARIABLE]): number | undefined {
  if (wanted === undefined) return randomInt(1, MAX_SEED);
  return /^\d{1,10}$/.test(wanted) && Number(wanted) >= 1 && Number(wanted) <= MAX_SEED ? Number(wanted) : undefined;
}

export const expectedSeed = `${SEED_VARIABLE}: expected a whole number from 1 to ${MAX_SEED}`;
