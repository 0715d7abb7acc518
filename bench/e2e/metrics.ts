/** Which figures each suite gives, and which of them are rows. */
import { ACCEPTABLE } from './search.ts';

export const SUITES = [
  'tcp1',
  'tcp4',
  'udp64',
  'udp1400',
  'rr',
  'ndr64',
  'ndr1400',
  'latency',
  'latency-loaded',
  'connections',
] as const;
export type Suite = (typeof SUITES)[number];

export interface Metric {
  name: string;
  unit: string;
  better: 'higher' | 'lower';
  /** Beside those that every row has. */
  params?: Record<string, unknown>;
  /** Figures of the same trials that are shown beside this one. */
  details: readonly string[];
  /** Comes with the curve of all percentiles. */
  curve?: boolean;
}

/** What one trial found. */
export interface Trial {
  /** Metrics and details by name. */
  figures: Record<string, number>;
  /** Of latencies (encodeHistogram). */
  histogram?: string;
}

/** Requests per second of the latency suites. */
export const LATENCY_RATE = 2000;

export const PERCENTILES: readonly [label: string, percentile: number][] = [
  ['p50', 50],
  ['p90', 90],
  ['p99', 99],
  ['p99.9', 99.9],
  ['max', 100],
];

/** A trial has a figure under each name here. The first row of a suite is the one that progress shows. */
export const METRICS: Record<Suite, readonly Metric[]> = {
  tcp1: tcp('tcp1'),
  tcp4: tcp('tcp4'),
  udp64: udp('udp64', 64),
  udp1400: udp('udp1400', 1400),
  rr: [
    { name: 'rr-p50', unit: 'us', better: 'lower', details: ['lost', 'transactionsPerSecond'] },
    { name: 'rr-p99', unit: 'us', better: 'lower', details: [] },
    { name: 'rr-p99.9', unit: 'us', better: 'lower', details: ['maxUs'] },
  ],
  ndr64: rates('ndr64', 64),
  ndr1400: rates('ndr1400', 1400),
  latency: latency('latency', 'none'),
  'latency-loaded': latency('latency-loaded', 'half of the TCP throughput'),
  connections: [
    { name: 'connections', unit: 'connections/s', better: 'higher', details: ['failed', 'p50Us', 'p99Us'] },
  ],
};

function tcp(name: string): Metric[] {
  return [
    { name, unit: 'Gb/s', better: 'higher', details: ['retransmits'] },
    { name: `${name}-cpu`, unit: 's/GB', better: 'lower', details: [] },
  ];
}

function udp(name: string, size: number): Metric[] {
  return [{ name, unit: 'packets/s', better: 'higher', params: { size }, details: ['offered', 'lostPercent'] }];
}

function rates(name: string, size: number): Metric[] {
  return [
    ...ACCEPTABLE.map((loss): Metric => {
      const details = [
        `${rateName(name, loss)}-limited`,
        ...(loss === 0 ? ['senderLimit', 'delivered', 'trials'] : []),
      ];
      return { name: rateName(name, loss), unit: 'packets/s', better: 'higher', params: { size, loss }, details };
    }),
    { name: `${name}-cpu`, unit: 's/Mpacket', better: 'lower', params: { size, loss: 0 }, details: [] },
  ];
}

/** `ndr64` without loss, `ndr64-0.1%` with no more than that. */
export function rateName(suite: string, loss: number): string {
  return loss === 0 ? suite : `${suite}-${100 * loss}%`;
}

function latency(suite: string, background: string): Metric[] {
  return PERCENTILES.map(([label], i) => ({
    name: `${suite}-${label}`,
    unit: 'us',
    better: 'lower',
    params: { rate: LATENCY_RATE, background },
    details: i === 0 ? ['lost', 'backgroundGbps'] : [],
    ...(i === 0 ? { curve: true } : {}),
  }));
}
