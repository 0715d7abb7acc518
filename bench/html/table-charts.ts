/** Charts of the suites that sweep one thing: operations alone by table size, route lookups by prefixes, packet size across an MTU. */
import * as Plot from '@observablehq/plot';
import type { Row } from '../result.ts';
import { describeParams, describeSummary } from './format.ts';
import { draw, type Figure, intervalMarks, medianLine, type Point, seriesOf, WIDE } from './plot.ts';

// ---- micro

export function microFigures(rows: readonly Row[]): Figure[] {
  const own = rows.filter(row => row.suite === 'micro' && row.unit.startsWith('ns/'));
  return [byTableSize(own), operations(own)].filter(figure => figure !== null);
}

const TABLES: Record<string, string> = {
  'lpm lookup': 'prefixes',
  'conntrack hit': 'flows',
  'conntrack miss': 'flows',
  'conntrack create and expire': 'flows',
  'service pick': 'services',
};

function byTableSize(rows: readonly Row[]): Figure | null {
  const some = rows.filter(
    row => row.name in TABLES && (row.params.selector === undefined || row.params.selector === 'random'),
  );
  if (some.length < 2) return null;
  const legend = seriesOf(some.map(row => row.name));
  const points = some.map((row): Point => {
    const size = Number(row.params[TABLES[row.name]]);
    return {
      x: Math.max(1, size),
      series: row.name,
      summary: row.ours,
      title: `${row.name}, ${describeParams(row.params)}: ${describeSummary(row.ours, row.unit)}`,
    };
  });
  const svg = draw(legend, {
    x: { type: 'log', label: 'entries in the table (the first: none or one) →', tickFormat: '~s', ticks: 6, inset: 10 },
    y: { type: 'log', label: '↑ ns', grid: true, tickFormat: '~r' },
    marks: [medianLine(points), ...intervalMarks(points)],
  });
  const caption = 'Each alone, entries in random order: with big tables this is the wait for memory.';
  return { title: 'Tables, from empty to a million', caption, legend, svg };
}

function operations(rows: readonly Row[]): Figure | null {
  const some = rows.filter(row => !(row.name in TABLES));
  if (some.length === 0) return null;
  const unitOf = (row: Row) => row.unit.replace('ns/', 'per ');
  const legend = seriesOf(some.map(unitOf));
  const named = some.map(row => ({
    label: `${row.name}: ${describeParams(row.params)}`,
    unit: unitOf(row),
    ns: row.ours.median,
    low: row.ours.ci95[0],
    high: row.ours.ci95[1],
    title: `${row.name}, ${describeParams(row.params)}: ${describeSummary(row.ours, row.unit)}`,
  }));
  const svg = draw(legend, {
    width: WIDE,
    height: 60 + 18 * named.length,
    marginLeft: 330,
    x: { type: 'log', label: 'ns →', grid: true, tickFormat: '~s' },
    y: { label: null, domain: named.map(row => row.label) },
    marks: [
      Plot.link(named, { x1: 'low', x2: 'high', y1: 'label', y2: 'label', stroke: 'unit', strokeWidth: 2 }),
      Plot.dot(named, { x: 'ns', y: 'label', fill: 'unit', r: 4, title: 'title' }),
    ],
  });
  return { title: 'Operations alone', caption: 'Median and interval, logarithmic.', legend, svg, wide: true };
}

// ---- lpm

export function lpmFigures(rows: readonly Row[]): Figure[] {
  const own = rows.filter(row => row.suite === 'lpm' && row.unit === 'lookups/s');
  if (own.length === 0) return [];
  const points = own.flatMap((row): Point[] => {
    const kind = row.name.replace('lookup, ', '').replace(/, beside.*/, '');
    const point = (series: string, summary: Row['ours']): Point => ({
      x: Number(row.params.prefixes),
      fx: kind,
      series,
      summary,
      scale: 1e-6,
      title: `${series}, ${kind}, ${row.params.prefixes} prefixes: ${describeSummary(summary, row.unit)}`,
    });
    const ours = row.name.includes('beside') ? [] : [point('ours', row.ours)];
    return row.theirs === undefined ? ours : [...ours, point(String(row.rival), row.theirs)];
  });
  const legend = seriesOf(points.map(p => p.series));
  const kinds = [...new Set(points.map(p => p.fx as string))];
  const sizes = [...new Set(points.map(p => p.x as number))];
  const svg = draw(legend, {
    width: WIDE,
    fx: { domain: kinds, label: null },
    x: {
      type: 'log',
      label: 'prefixes →',
      ticks: sizes,
      tickFormat: (n: number) => (n >= 1e6 ? `${Math.round(n / 1e6)} M` : n >= 1000 ? `${n / 1000} k` : String(n)),
      inset: 14,
    },
    y: { type: 'log', label: '↑ M lookups/s and core', grid: true, tickFormat: '~r' },
    marks: [
      Plot.line(points, {
        x: 'x',
        y: (p: Point) => p.summary.median / 1e6,
        fx: 'fx',
        z: 'series',
        stroke: 'series',
        strokeWidth: 1.5,
        sort: 'x',
      }),
      ...intervalMarks(points),
    ],
  });
  const caption =
    'random: hardly two lookups share a cache line. hot: 1024 destinations. latency: each lookup waits for the one before.';
  return [{ title: 'Route lookups', caption, legend, svg, wide: true }];
}

// ---- whatever sweeps a packet size across an MTU

const SWEPT = ['size', 'bytes', 'length', 'payload'];

/** One chart for each figure of the suite, lines by mode, cliffs where they are. */
export function mtuFigures(rows: readonly Row[]): Figure[] {
  const own = rows.filter(row => row.suite === 'mtu');
  const key = SWEPT.find(name => own.some(row => typeof row.params[name] === 'number'));
  if (key === undefined) return [];
  return [...new Set(own.map(row => row.name))].flatMap(name => {
    const some = own.filter(row => row.name === name && typeof row.params[key] === 'number');
    const others = ['way', 'handling', 'policy', 'strategy', 'df'].filter(
      param => new Set(some.map(row => row.params[param])).size > 1,
    );
    const facetOf = (row: Row) => others.map(param => `${row.params[param]}`).join(' ');
    const facets = [...new Set(some.map(facetOf))];
    const mode = (row: Row) => String(row.params.mode ?? 'all');
    const points = some.map(
      (row): Point => ({
        x: Number(row.params[key]),
        series: mode(row),
        summary: row.ours,
        ...(facets.length > 1 ? { fx: facetOf(row) } : {}),
        title: `${describeParams(row.params)}: ${describeSummary(row.ours, row.unit)}`,
      }),
    );
    if (new Set(points.map(p => p.x)).size < 2) return [];
    const legend = seriesOf(points.map(p => p.series));
    const wide = facets.length > 1;
    const facet = wide ? { fx: 'fx' } : {};
    const svg = draw(legend, {
      ...(wide ? { width: WIDE, height: 210, fx: { domain: facets, label: null } } : {}),
      x: { label: 'bytes of the packet →', nice: true, inset: 8, tickFormat: 'd', ticks: wide ? 3 : 6 },
      y: { label: `↑ ${some[0].unit}`, grid: true, zero: true, tickFormat: '~s' },
      marks: [medianLine(points, facet), ...intervalMarks(points), Plot.ruleY([0])],
    });
    return [
      {
        title: `MTU: ${name}`,
        caption:
          'By packet size, across the boundary; one panel for each way of dealing with what no longer fits (RFC 4459).',
        legend,
        svg,
        wide,
      },
    ];
  });
}
