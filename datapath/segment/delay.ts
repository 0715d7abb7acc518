/** Random delays around a mean, distributed as netem's tables (iproute2 netem/normal.c, pareto.c). */
import type { Random } from '../random.ts';
import type { Distribution } from './impairments.ts';

/** The tables end where 16 bits do: 32767 / 8192 times the jitter. */
const FURTHEST = 4;

/** A number in (0, 1). */
function unit(random: Random): number {
  return (random.next() >>> 0) / 4294967296;
}

/** How far from the mean, in jitters: uniform from -1 to 1; normal with deviation 1; Pareto with exponent 3. */
export function sample(random: Random, distribution: Distribution): number {
  switch (distribution) {
    case 'uniform':
      return 2 * unit(random) - 1;
    case 'normal': {
      // Box and Muller.
      const x = Math.sqrt(-2 * Math.log(unit(random))) * Math.cos(2 * Math.PI * unit(random));
      return Math.max(-FURTHEST, Math.min(FURTHEST, x));
    }
    case 'pareto':
      return Math.min(FURTHEST, (unit(random) ** (-1 / 3) - 1.5) * (4 / 3));
  }
}
