/** Charts of the pipeline suite: the path over memory. */
import * as Plot from '@observablehq/plot';
import type { Row } from '../result.ts';
import { describeParams, describeSummary } from './format.ts';
import { draw, type Figure, intervalMarks, type Point, seriesOf } from './plot.ts';

/** Mean of IMIX, 7 of 64, 4 of 576, 1 of 1500, for the axis. */
const IMIX_BYTES = (7 * 64 + 4 * 576 + 1500) / 12;
const FLOWS = 10_000;
const OUT = 'pod to uplink';
const NS = 1e9;

interface Params {
  mode: string;
  size: number | 'IMIX';
  flows: number;
  nat: string;
  profile?: string;
  offload?: string;
  burst?: number;
}

const paramsOf = (row: Row): Params => row.params as unknown as Params;

export function pipelineFigures(rows: readonly Row[]): Figure[] {
  const own = rows.filter(row => row.suite === 'pipeline');
  const plain = own.filter(
    row => row.unit === 'packets/s' && row.params.profile === undefined && row.params.offload === undefined,
  );
  const rates = plain.filter(row => row.params.burst === undefined);
  return [
    bySize(rates, 'rate'),
    bySize(rates, 'time'),
    bySize(rates, 'bits'),
    byFlows(rates),
    steps(own),
    bursts(plain),
  ].filter(figure => figure !== null);
}

const sizeOf = (row: Row): number => (paramsOf(row).size === 'IMIX' ? IMIX_BYTES : Number(paramsOf(row).size));

const VIEWS = {
  rate: { title: 'Packets per second by size', label: '↑ M packets/s and core', unit: 'M packets/s' },
  time: { title: 'Time per packet by size', label: '↑ ns per packet', unit: 'ns' },
  bits: { title: 'Throughput by size', label: '↑ Gb/s and core, of IP packets', unit: 'Gb/s' },
} as const;

/** The summary of a rate as something else that grows or falls with it. */
function convert(row: Row, to: keyof typeof VIEWS): Point['summary'] {
  const of = (rate: number) =>
    to === 'rate' ? rate / 1e6 : to === 'time' ? NS / rate : (rate * sizeOf(row) * 8) / 1e9;
  const ends = row.ours.ci95.map(of).sort((a, b) => a - b);
  return { median: of(row.ours.median), ci95: [ends[0], ends[1]], samples: row.ours.samples.map(of) };
}

function bySize(rows: readonly Row[], view: keyof typeof VIEWS): Figure | null {
  const nats = ['tracked', ...new Set(rows.map(row => paramsOf(row).nat))];
  const chosen = nats
    .map(nat =>
      rows.filter(row => row.name === OUT && paramsOf(row).nat === nat && paramsOf(row).flows === flowsOf(rows)),
    )
    .find(some => new Set(some.map(sizeOf)).size > 1);
  if (chosen === undefined) return null;
  const sorted = [...chosen].sort((a, b) => sizeOf(a) - sizeOf(b));
  const mode = (row: Row) => paramsOf(row).mode;
  const legend = seriesOf(sorted.map(mode));
  const { title, label, unit } = VIEWS[view];
  const points = sorted.map(row => ({
    x: sizeOf(row),
    series: mode(row),
    summary: convert(row, view),
    title: `${describeParams(row.params)}: ${describeSummary(convert(row, view), unit)}`,
  }));
  const ticks = [...new Set(sorted.map(sizeOf))].filter(size => Number.isInteger(size));
  const svg = draw(legend, {
    x: {
      type: 'log',
      ticks: [...ticks, IMIX_BYTES],
      tickFormat: (d: number) => (d === IMIX_BYTES ? 'IMIX' : String(d)),
      label: 'bytes of the inner IP packet →',
      inset: 10,
    },
    y: { label, grid: true, zero: true },
    marks: [
      Plot.line(points, { x: 'x', y: (p: Point) => p.summary.median, z: 'series', stroke: 'series', strokeWidth: 1.5 }),
      ...intervalMarks(points),
      Plot.ruleY([0]),
    ],
  });
  const { flows, nat } = paramsOf(sorted[0]);
  return {
    title,
    caption: `Pod to uplink, ${flows} flows, ${nat}. One core's CPU time, no system calls.`,
    legend,
    svg,
  };
}

/** The usual number of flows, or the one that is there. */
function flowsOf(rows: readonly Row[]): number {
  const all = rows.map(row => paramsOf(row).flows);
  return all.includes(FLOWS) ? FLOWS : (all[0] ?? FLOWS);
}

function byFlows(rows: readonly Row[]): Figure | null {
  const out = rows.filter(row => row.name === OUT && paramsOf(row).mode === 'vxlan' && paramsOf(row).size === 64);
  if (new Set(out.map(row => paramsOf(row).flows)).size < 2) return null;
  const nat = (row: Row) => paramsOf(row).nat;
  const sorted = [...out].sort((a, b) => paramsOf(a).flows - paramsOf(b).flows);
  const legend = seriesOf(sorted.map(nat));
  const points = sorted.map(row => ({
    x: paramsOf(row).flows,
    series: nat(row),
    summary: convert(row, 'rate'),
    title: `${describeParams(row.params)}: ${describeSummary(convert(row, 'rate'), 'M packets/s')}`,
  }));
  const svg = draw(legend, {
    x: { type: 'log', label: 'flows, in random order →', tickFormat: countText, ticks: 6, inset: 10 },
    y: { label: '↑ M packets/s and core', grid: true, zero: true },
    marks: [
      Plot.line(points, { x: 'x', y: (p: Point) => p.summary.median, z: 'series', stroke: 'series', strokeWidth: 1.5 }),
      ...intervalMarks(points),
      Plot.ruleY([0]),
    ],
  });
  const caption =
    'VXLAN, 64 bytes, pod to uplink. Every packet belongs to a flow that is known and answered; none: flows are not tracked.';
  return { title: 'Packets per second by flows', caption, legend, svg };
}

function countText(n: number): string {
  if (Math.log10(n) % 1 !== 0) return '';
  return n >= 1e6 ? `${n / 1e6} M` : n >= 1000 ? `${n / 1000} k` : String(n);
}

const COMMON = [
  'read and write (the bench itself)',
  'source check, drop',
  'parse',
  'route, TTL, neighbour, queue (less a drop)',
  'conntrack hit',
];
const SHORT: Record<string, string> = {
  'read and write (the bench itself)': 'the bench itself',
  'source check, drop': 'source check',
  'route, TTL, neighbour, queue (less a drop)': 'route, TTL, next hop',
  'rewrite to a service backend': 'rewrite',
  'of it the outer UDP checksum': 'outer checksum',
};

/** Stacked: what a packet of each mode goes through, and a service's besides. */
function steps(rows: readonly Row[]): Figure | null {
  const all = rows.filter(row => row.name === 'step');
  if (all.length === 0) return null;
  const find = (step: string, mode?: string) => all.find(row => row.params.step === step && row.params.mode === mode);
  const shortOf = (step: string) => SHORT[step] ?? step;
  const bars: { bar: string; part: string; ns: number; title: string }[] = [];
  const add = (bar: string, part: string, row: Row | undefined, ns = row?.ours.median) => {
    if (row === undefined || ns === undefined) return;
    bars.push({ bar, part, ns: Math.max(0, ns), title: `${bar}, ${part}: ${describeSummary(row.ours, row.unit)}` });
  };
  for (const mode of ['native', 'ipip', 'geneve', 'vxlan']) {
    for (const step of COMMON) add(mode, shortOf(step), find(step));
    const encap = find('encapsulate', mode);
    const checksum = find('of it the outer UDP checksum', mode);
    add(mode, 'encapsulate', encap, encap && encap.ours.median - Math.max(0, checksum?.ours.median ?? 0));
    add(mode, 'outer checksum', checksum);
  }
  for (const [bar, step] of [
    ['+ service', 'rewrite to a service backend'],
    ['+ masquerade', 'rewrite to a masquerade address'],
  ]) {
    if (find(step) === undefined) continue;
    for (const common of COMMON) add(bar, shortOf(common), find(common));
    add(bar, 'rewrite', find(step));
  }
  const labels = [...COMMON.map(shortOf), 'rewrite', 'encapsulate', 'outer checksum'];
  const colors = ['--gray', '--cyan', '--blue', '--green', '--purple', '--yellow', '--orange', '--red'];
  const legend = labels
    .map((label, i) => ({ label, color: `var(${colors[i]})` }))
    .filter(({ label }) => bars.some(bar => bar.part === label));
  const domain = [...new Set(bars.map(bar => bar.bar))];
  const svg = draw(legend, {
    height: 74 + 34 * domain.length,
    marginLeft: 100,
    x: { label: 'ns per packet →', grid: true },
    y: { label: null, domain },
    marks: [
      Plot.barX(bars, { x: 'ns', y: 'bar', fill: 'part', title: 'title', inset: 1, order: labels }),
      Plot.ruleX([0]),
    ],
  });
  const caption =
    'Pod to uplink, 64 bytes, 10 000 flows. A step is what a path with it takes longer than one without, measured in turn; below 0 is drawn as 0.';
  return { title: 'Cost by step', caption, legend, svg };
}

function bursts(rows: readonly Row[]): Figure | null {
  const sweep = rows.filter(row => row.params.burst !== undefined);
  if (sweep.length < 2) return null;
  const legend = seriesOf(sweep.map(row => paramsOf(row).mode));
  const points = sweep.map(row => ({
    x: Number(row.params.burst),
    series: paramsOf(row).mode,
    summary: convert(row, 'rate'),
    title: `${row.params.burst} a burst: ${describeSummary(convert(row, 'rate'), 'M packets/s')}`,
  }));
  const svg = draw(legend, {
    x: {
      type: 'log',
      base: 2,
      ticks: points.map(p => p.x),
      tickFormat: String,
      label: 'packets per read →',
      inset: 10,
    },
    y: { label: '↑ M packets/s and core', grid: true, zero: true },
    marks: [
      Plot.line(points, { x: 'x', y: (p: Point) => p.summary.median, z: 'series', stroke: 'series', strokeWidth: 1.5 }),
      ...intervalMarks(points),
      Plot.ruleY([0]),
    ],
  });
  return {
    title: 'Packets per second by burst',
    caption: 'VXLAN, 64 bytes, 10 000 flows, pod to uplink.',
    legend,
    svg,
  };
}
