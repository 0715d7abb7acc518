/**
 * Charts as SVG, drawn here and not in the browser: the page needs no script, prints, and can be mailed. Colours are CSS
 * variables of the page, so that they follow light and dark.
 */
import * as Plot from '@observablehq/plot';
import { parseHTML } from 'linkedom';
import { outliersOf, type Summary } from '../stats.ts';

const { document } = parseHTML('<!doctype html><html><body></body></html>') as unknown as {
  document: Plot.PlotOptions['document'];
};

export interface Series {
  label: string;
  /** CSS colour. */
  color: string;
}

export interface Figure {
  title: string;
  /** What one should know to read it. */
  caption: string;
  legend: readonly Series[];
  svg: string;
  /** Over the full width. */
  wide?: boolean;
}

export const WIDTH = 460;
export const WIDE = 940;

export const COLORS = {
  ours: 'var(--blue)',
  kernel: 'var(--orange)',
  veth: 'var(--gray)',
  native: 'var(--gray)',
  ipip: 'var(--orange)',
  vxlan: 'var(--blue)',
  geneve: 'var(--green)',
} as const;

const PALETTE = ['--blue', '--orange', '--green', '--purple', '--yellow', '--gray', '--red', '--cyan'];

/** Colours for labels: those that mean something elsewhere keep theirs. */
export function seriesOf(labels: Iterable<string>): Series[] {
  const unique = [...new Set(labels)];
  const known = (label: string): string | undefined => (COLORS as Record<string, string>)[label];
  const rest = PALETTE.map(name => `var(${name})`).filter(color => !unique.some(label => known(label) === color));
  let next = 0;
  return unique.map(label => ({ label, color: known(label) ?? rest[next++ % rest.length] }));
}

/** Draws; colours by `series`. */
export function draw(series: readonly Series[], options: Plot.PlotOptions): string {
  const chart = Plot.plot({
    document,
    width: WIDTH,
    height: 280,
    marginLeft: 56,
    marginTop: 28,
    marginBottom: 44,
    style: { fontSize: '12px', background: 'none', overflow: 'visible' },
    color: { domain: series.map(s => s.label), range: series.map(s => s.color), legend: false },
    ...options,
  }) as { outerHTML: string };
  return chart.outerHTML;
}

/** A figure with every sample: what a mark with an interval is drawn from. */
export interface Point {
  x: number | string;
  series: string;
  summary: Summary;
  /** Facet, where the chart has some. */
  fx?: string;
  /** By which the summary is multiplied. */
  scale?: number;
  title: string;
}

interface Sample {
  x: number | string;
  fx?: string;
  series: string;
  value: number;
  title: string;
}

/** A line through the medians of each series. @param facet  channels of a chart of several panels */
export function medianLine(points: readonly Point[], facet: { fx?: string } = {}): Plot.Line {
  return Plot.line(points, {
    x: 'x',
    y: (p: Point) => p.summary.median,
    z: 'series',
    stroke: 'series',
    strokeWidth: 1.5,
    sort: 'x',
    ...facet,
  });
}

/** The median as a dot, its interval as a line, samples as small dots, outliers among them as crosses. */
export function intervalMarks(points: readonly Point[]): Plot.Markish[] {
  const flat = points.map(p => {
    const scale = p.scale ?? 1;
    const [low, high] = p.summary.ci95;
    return { ...p, y: scale * p.summary.median, low: scale * low, high: scale * high };
  });
  const samples = points.flatMap(({ x, fx, series, summary, scale = 1, title }): (Sample & { out: boolean })[] => {
    const out = new Set(outliersOf(summary.samples));
    return summary.samples.map(v => ({ x, fx, series, value: scale * v, title, out: out.has(v) }));
  });
  const facet = points.some(p => p.fx !== undefined) ? { fx: 'fx' } : {};
  return [
    Plot.link(flat, {
      x1: 'x',
      x2: 'x',
      y1: 'low',
      y2: 'high',
      stroke: 'series',
      strokeWidth: 2,
      ...facet,
    }),
    Plot.dot(
      samples.filter(s => !s.out),
      { x: 'x', y: 'value', r: 2, fill: 'series', fillOpacity: 0.35, ...facet },
    ),
    Plot.dot(
      samples.filter(s => s.out),
      {
        x: 'x',
        y: 'value',
        r: 3.5,
        symbol: 'times',
        stroke: 'series',
        title: (s: Sample) => `outlier of ${s.title}`,
        ...facet,
      },
    ),
    Plot.dot(flat, { x: 'x', y: 'y', r: 4, fill: 'series', title: 'title', ...facet }),
  ];
}
