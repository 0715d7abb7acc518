/**
 * The suites of `tunpath bench`, as `bench all` runs them. A new one is an entry here and a file beside this one; what it
 * imports is loaded when it runs.
 */
import type { PrintProgress } from './e2e/progress.ts';
import type { Report, Row } from './result.ts';

export interface SuiteOptions {
  /** A first look: seconds instead of minutes, not figures to quote. */
  quick: boolean;
  /** What the suites before it have measured in the same run. */
  earlier: readonly Row[];
}

export interface Suite {
  name: string;
  description: string;
  /** It makes network namespaces and devices. */
  needsRoot: boolean;
  /** About how long it takes on two cores. */
  seconds: { quick: number; full: number };
  /** Ends with what is measured once `signal` is aborted; leaves nothing behind either way. */
  run(options: SuiteOptions, onProgress: PrintProgress, signal: AbortSignal): Promise<Report>;
}

/** Of micro and pipeline, which make 5 by themselves: all suites together stay under three quarters of an hour. */
const VISITS = 2;

/** In the order in which `bench all` runs them: one may use what those before it have found. */
export const SUITES: readonly Suite[] = [
  {
    name: 'micro',
    description: 'each operation of the path alone',
    needsRoot: false,
    seconds: { quick: 35, full: 200 },
    run: async ({ quick }, print, signal) =>
      (await import('./micro.ts')).runMicro({ quick, ...(quick ? {} : { visits: VISITS }), print, signal }),
  },
  {
    name: 'lpm',
    description: 'route lookups, loads and edits',
    needsRoot: false,
    seconds: { quick: 10, full: 15 },
    run: async ({ quick }, print, signal) => (await import('./lpm.ts')).runLpm({ quick, print, signal }),
  },
  {
    name: 'pipeline',
    description: 'the whole path over memory, and what each step costs',
    needsRoot: false,
    seconds: { quick: 50, full: 350 },
    run: async ({ quick }, print, signal) =>
      (await import('./pipeline.ts')).runPipeline({ quick, visits: quick ? 1 : VISITS, print, signal }),
  },
  {
    name: 'overhead',
    description: 'what a tunnel should cost, and what it does',
    needsRoot: true,
    seconds: { quick: 30, full: 110 },
    run: async (options, print, signal) =>
      (await import('./overhead.ts')).runOverhead({ quick: options.quick, earlier: options.earlier, print, signal }),
  },
  {
    name: 'mtu',
    description: 'lengths around the MTU, through each tunnel and each of the four ways of RFC 4459',
    needsRoot: true,
    seconds: { quick: 35, full: 350 },
    run: async ({ quick }, print, signal) => (await import('./mtu.ts')).runMtu({ quick, print, signal }),
  },
  {
    name: 'e2e',
    description: "pod to pod, in turn with the kernel's own",
    needsRoot: true,
    seconds: { quick: 95, full: 1400 },
    // By itself it makes 8 pairs, in 35 minutes.
    run: async ({ quick }, print, signal) =>
      (await import('./e2e.ts')).runE2e({ quick, ...(quick ? { ceiling: false } : { pairs: 5 }), print, signal }),
  },
];
