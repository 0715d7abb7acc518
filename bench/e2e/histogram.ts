/** HDR histograms of latencies in nanoseconds: recorded in one process, added up and drawn in another. */
import * as hdr from 'hdr-histogram-js';

/** Which share of the values, in percent, is at or below how many microseconds. */
export type CurvePoint = [percentile: number, us: number];

/** Three significant digits, up to a minute. */
const RANGE = { lowestDiscernibleValue: 1, highestTrackableValue: 60e9, numberOfSignificantValueDigits: 3 } as const;

/** Points of a curve for each halving of what is left to 100 %. */
const TICKS_PER_HALF = 5;

export function newHistogram(): hdr.Histogram {
  return hdr.build({ ...RANGE, autoResize: true });
}

/** @param ms  a difference of performance.now() */
export function recordMs(histogram: hdr.Histogram, ms: number): void {
  histogram.recordValue(Math.max(1, Math.round(ms * 1e6)));
}

/** In microseconds. */
export function percentileOf(histogram: hdr.Histogram, percentile: number): number {
  return histogram.getValueAtPercentile(percentile) / 1000;
}

/** The format of every HdrHistogram library (V2, compressed, base64). */
export function encodeHistogram(histogram: hdr.Histogram): string {
  return hdr.encodeIntoCompressedBase64(histogram);
}

export function mergeHistograms(encoded: readonly string[]): hdr.Histogram {
  const sum = newHistogram();
  for (const text of encoded) sum.add(hdr.decodeFromCompressedBase64(text));
  return sum;
}

/** Denser towards 100 %, as percentile plots are drawn; ends with 100 and the greatest value. */
export function percentileCurve(histogram: hdr.Histogram): CurvePoint[] {
  const points: CurvePoint[] = [];
  const most = 100 - 100 / Math.max(1, histogram.totalCount);
  for (let half = 0; 100 - 100 * 0.5 ** half < most; half++) {
    for (let tick = 0; tick < TICKS_PER_HALF; tick++) {
      const percentile = 100 - 100 * 0.5 ** half * (1 - tick / (2 * TICKS_PER_HALF));
      if (percentile <= most) points.push([percentile, percentileOf(histogram, percentile)]);
    }
  }
  return [...points, [100, percentileOf(histogram, 100)]];
}
