/**
 * A fixed piece of work, timed beside every sample: how fast the machine was at that moment. What is compared between two
 * runs is the ratio, so that a machine that was slower in one of them is no difference between two builds.
 *
 * It is of the kind that the path is: reads and writes of headers, arithmetic, and a table somewhat bigger than the L1
 * cache. It must not change, or reports before and after cannot be compared.
 */
const HEADERS = 64;
const STRIDE = 2112;
const view = new DataView(new ArrayBuffer(HEADERS * STRIDE));
const table = new Int32Array(1 << 15);
const ROUNDS = 4000;

/** @returns anything; to be kept, so that the work is not optimised away */
function work(rounds: number): number {
  let sum = 0;
  for (let round = 0; round < rounds; round++) {
    for (let i = 0; i < HEADERS; i++) {
      const off = i * STRIDE;
      let h = view.getInt32(off) + round;
      for (let word = 4; word < 32; word += 4) {
        h = Math.imul(h ^ view.getInt32(off + word), 0x9e3779b1);
        view.setInt32(off + word - 4, h ^ (h >>> 15));
      }
      table[h >>> 17] = (table[(h >>> 3) & 0x7fff] + h) | 0;
      sum = (sum + h) | 0;
    }
  }
  return sum;
}

let kept = 0;

/** Nanoseconds of CPU time per unit of the reference work, now; takes about 10 ms. */
export function referenceTime(): number {
  const start = process.cpuUsage();
  kept = (kept + work(ROUNDS)) | 0;
  const used = process.cpuUsage(start);
  return ((used.user + used.system) * 1000) / (ROUNDS * HEADERS);
}

/** Has it compiled. */
export function warmReference(): void {
  for (let i = 0; i < 5; i++) referenceTime();
}
