/** Charts of the end to end suite: ours beside the kernel's. */
import * as Plot from '@observablehq/plot';
import type { ComparedRow, Row } from '../result.ts';
import { outliersOf } from '../stats.ts';
import { describeSummary, formatRatio, formatValue } from './format.ts';
import { COLORS, draw, type Figure, intervalMarks, type Point, type Series, WIDE, WIDTH } from './plot.ts';

const ARMS: Series[] = [
  { label: 'ours', color: COLORS.ours },
  { label: 'kernel', color: COLORS.kernel },
  { label: 'veth', color: COLORS.veth },
];

export function e2eFigures(rows: readonly Row[]): Figure[] {
  const own = rows.filter(row => row.suite === 'e2e' && row.ratio !== undefined) as ComparedRow[];
  if (own.length === 0) return [];
  return [ratios(own), ...absolutes(own), ...rateSearches(own), ...percentiles(own)].filter(figure => figure !== null);
}

/** Mode, NAT where there is some, and the uplink where it is another than usual. */
function sceneOf(row: Row): string {
  const { mode, nat, uplink } = row.params;
  return [mode, nat === 'none' ? undefined : nat, uplink === 'tap' ? undefined : uplink]
    .filter(part => part !== undefined)
    .join(' ');
}

const EM = 12;
/** Room for a name of so many lines. */
const SCENE_LINES = 3;

/** Panels side by side, one for each scene; a long name takes several lines. */
function scenePanels(scenes: readonly string[], width: number, anchor: 'top' | 'bottom') {
  const lineWidth = Math.max(4, width / scenes.length / EM - 1);
  const options = { fx: { domain: scenes, label: null, axis: null, padding: 0.15 } } as const;
  const axis = Plot.axisFx({
    anchor,
    label: null,
    lineWidth,
    lineAnchor: 'top',
    tickFormat: (scene: string) => scene.replaceAll('-', ' '),
    ...(anchor === 'top' ? { dy: -EM * (SCENE_LINES - 1) } : {}),
  });
  return { options, axis };
}

/** Every row's ratio to the kernel, with its interval: what is better lies to the right. */
function ratios(rows: readonly ComparedRow[]): Figure {
  const legend: Series[] = [
    { label: 'better', color: 'var(--green)' },
    { label: 'no difference', color: 'var(--gray)' },
    { label: 'worse', color: 'var(--red)' },
  ];
  const goodness = (row: ComparedRow, ratio: number) => (row.better === 'higher' ? ratio : 1 / ratio);
  const named = rows.map(row => {
    const ends = row.ratio.ci95.map(end => goodness(row, end)).sort((a, b) => a - b);
    const outliers = new Set(outliersOf(row.ratio.samples));
    return {
      label: `${row.name}, ${sceneOf(row)}`,
      good: goodness(row, row.ratio.median),
      low: ends[0],
      high: ends[1],
      verdict: row.verdict === 'too few pairs' ? 'no difference' : row.verdict,
      samples: row.ratio.samples.map(value => ({ value: goodness(row, value), out: outliers.has(value) })),
      title: `${row.name}, ${sceneOf(row)}: ours/kernel ${formatRatio(row)}`,
    };
  });
  const samples = named.flatMap(({ label, verdict, samples: all }) => all.map(s => ({ label, verdict, ...s })));
  const y = { label: null, domain: named.map(row => row.label) };
  const svg = draw(legend, {
    width: WIDE,
    height: 60 + 20 * named.length,
    marginLeft: 230,
    x: { type: 'log', label: 'times as good as the kernel →', grid: true, tickFormat: (d: number) => `${d}` },
    y,
    marks: [
      Plot.ruleX([1], { stroke: 'currentColor', strokeDasharray: '3 3' }),
      Plot.link(named, { x1: 'low', x2: 'high', y1: 'label', y2: 'label', stroke: 'verdict', strokeWidth: 2.5 }),
      Plot.dot(samples, { filter: s => !s.out, x: 'value', y: 'label', r: 1.8, fill: 'verdict', fillOpacity: 0.35 }),
      Plot.dot(samples, { filter: s => s.out, x: 'value', y: 'label', r: 3.5, symbol: 'times', stroke: 'verdict' }),
      Plot.dot(named, { x: 'good', y: 'label', r: 4, fill: 'verdict', title: 'title' }),
    ],
  });
  const caption =
    'Median of the ratios of pairs, with its 95 % interval; small dots are pairs, crosses outliers. Grey: the interval leaves room for no difference. Where less is better (CPU, time), the ratio is turned round.';
  return { title: 'Ours and the kernel, pair by pair', caption, legend, svg, wide: true };
}

/** Figures as measured, for the names that have a unit of their own. */
function absolutes(rows: readonly ComparedRow[]): Figure[] {
  const wanted: [name: RegExp, title: string, caption: string][] = [
    [/^tcp1$/, 'TCP, one flow', 'Payload received.'],
    [/^tcp4$/, 'TCP, four flows', 'Payload received.'],
    [/^tcp1-cpu$/, 'CPU time of TCP', 'All cores, the kernel and iperf3 included; less is better.'],
    [
      /^(ndr64|udp64)$/,
      'Datagrams of 64 bytes',
      'ndr: the highest rate without loss. udp: what arrives of a sender without limit.',
    ],
    [
      /^(ndr1400|udp1400)$/,
      'Datagrams of 1400 bytes',
      'ndr: the highest rate without loss. udp: what arrives of a sender without limit.',
    ],
    [/^connections$/, 'New TCP connections', 'Opened, a byte each way, closed by the server; 16 at a time.'],
  ];
  return wanted.flatMap(([name, title, caption]) => {
    const some = rows.filter(row => name.test(row.name));
    if (some.length === 0) return [];
    const several = new Set(some.map(row => row.name)).size > 1;
    const points = some.flatMap((row): Point[] => {
      const fx = several ? `${row.name} ${sceneOf(row)}` : sceneOf(row);
      const point = (series: string, summary: Row['ours'] | undefined): Point[] =>
        summary === undefined
          ? []
          : [{ x: series, fx, series, summary, title: `${series}, ${fx}: ${describeSummary(summary, row.unit)}` }];
      return [...point('ours', row.ours), ...point('kernel', row.kernel), ...point('veth', row.ceiling)];
    });
    const series = ARMS.filter(({ label }) => points.some(p => p.series === label));
    const scenes = [...new Set(points.map(p => p.fx as string))];
    const wide = scenes.length > 4;
    const panels = scenePanels(scenes, wide ? WIDE : WIDTH, 'bottom');
    const svg = draw(series, {
      ...(wide ? { width: WIDE } : {}),
      marginBottom: 20 + SCENE_LINES * EM,
      ...panels.options,
      x: { axis: null, domain: series.map(s => s.label), padding: 0.6, type: 'point' },
      y: { label: `↑ ${some[0].unit}`, grid: true, zero: true, tickFormat: 's' },
      marks: [panels.axis, ...intervalMarks(points), Plot.ruleY([0])],
    });
    return [{ title, caption, legend: series, svg, ...(wide ? { wide } : {}) }];
  });
}

/** How the rate grows with the loss that one accepts. */
function rateSearches(rows: readonly ComparedRow[]): Figure[] {
  const searched = rows.filter(row => row.params.loss !== undefined && row.unit === 'packets/s');
  return [...new Set(searched.map(row => Number(row.params.size)))].flatMap(size => {
    const some = searched.filter(row => row.params.size === size);
    const losses = [...new Set(some.map(row => Number(row.params.loss)))].sort((a, b) => a - b);
    if (losses.length < 2) return [];
    const label = (loss: number) => `${+(100 * loss).toPrecision(3)}`;
    const points = some.flatMap((row): Point[] =>
      (['ours', 'kernel'] as const).map(series => ({
        x: label(Number(row.params.loss)),
        fx: sceneOf(row),
        series,
        summary: row[series],
        title: `${series}, ${sceneOf(row)}, ${label(Number(row.params.loss))} % lost: ${describeSummary(row[series], row.unit)}`,
      })),
    );
    const legend = ARMS.slice(0, 2);
    const scenes = [...new Set(points.map(p => p.fx as string))];
    const wide = scenes.length > 2;
    const panels = scenePanels(scenes, wide ? WIDE : WIDTH, 'top');
    const svg = draw(legend, {
      ...(wide ? { width: WIDE } : {}),
      marginTop: 20 + SCENE_LINES * EM,
      ...panels.options,
      x: { type: 'point', domain: losses.map(label), label: '% of datagrams that may be lost →' },
      y: { label: '↑ packets/s', grid: true, zero: true, tickFormat: 's' },
      marks: [
        panels.axis,
        Plot.line(points, {
          x: 'x',
          y: (p: Point) => p.summary.median,
          fx: 'fx',
          z: 'series',
          stroke: 'series',
          strokeWidth: 1.5,
        }),
        ...intervalMarks(points),
        Plot.ruleY([0]),
      ],
    });
    const title = `Datagrams of ${size} bytes, by what may be lost`;
    return [
      {
        title,
        caption: 'The highest rate with no more loss than that, by a binary search (RFC 2544).',
        legend,
        svg,
        wide,
      },
    ];
  });
}

const PERCENTILE = /^(.+)-(p[\d.]+|max)$/;

/** Latency curves: all percentiles where histograms were kept, else those that have rows. */
function percentiles(rows: readonly ComparedRow[]): Figure[] {
  const groups = new Map<string, ComparedRow[]>();
  for (const row of rows) {
    const group = PERCENTILE.exec(row.name)?.[1];
    if (group === undefined) continue;
    groups.set(group, [...(groups.get(group) ?? []), row]);
  }
  return [...groups].flatMap(([group, some]) => {
    const points = some.some(row => row.curves !== undefined)
      ? some.flatMap(curvePoints)
      : some.flatMap(row => rowPoints(row));
    if (points.length === 0) return [];
    const legend = ARMS.filter(({ label }) => points.some(p => p.series === label));
    const scenes = [...new Set(points.map(p => p.scene))];
    const wide = scenes.length > 2;
    const panels = scenePanels(scenes, wide ? WIDE : WIDTH, 'top');
    const svg = draw(legend, {
      ...(wide ? { width: WIDE } : {}),
      marginTop: 20 + SCENE_LINES * EM,
      ...panels.options,
      x: {
        type: 'log',
        domain: [1, Math.max(1e4, ...points.map(p => p.nines))],
        // In a narrow panel the outermost would stand in its neighbours.
        ticks: scenes.length > 3 ? [10, 100, 1000] : [1, 10, 100, 1000, 10_000, 100_000],
        tickFormat: (n: number) => (n === 1 ? '0' : `${+(100 - 100 / n).toPrecision(6)}`),
        label: 'percentile →',
      },
      y: { type: 'log', label: '↑ microseconds', grid: true, tickFormat: (d: number) => formatValue(d) },
      marks: [
        panels.axis,
        Plot.line(points, {
          x: 'nines',
          y: 'us',
          fx: 'scene',
          z: 'series',
          stroke: 'series',
          strokeWidth: 2,
          curve: 'step-after',
        }),
        Plot.dot(points, {
          filter: p => p.mark,
          x: 'nines',
          y: 'us',
          fx: 'scene',
          fill: 'series',
          r: 3.5,
          title: (p: CurveDot) => `${p.series}, ${p.scene}, ${p.label}: ${formatValue(p.us)} us`,
        }),
      ],
    });
    const background = some.map(row => row.params.background).find(what => what !== undefined && what !== 'none');
    const title =
      group === 'rr' ? 'Round trips, one at a time' : `Latency, ${background === undefined ? 'idle' : 'under load'}`;
    const caption =
      group === 'rr'
        ? 'Request to reply over UDP, 64 bytes, the next one only after the last was answered.'
        : `Requests at a fixed rate, timed from when each was due, so that a stall counts in full${background === undefined ? '' : `; beside them ${background}`}. All trials together.`;
    return [{ title, caption, legend, svg, wide }];
  });
}

interface CurveDot {
  series: string;
  scene: string;
  nines: number;
  us: number;
  label: string;
  /** Shown as a dot. */
  mark: boolean;
}

/** 90 is 10, 99 is 100: equal steps of a logarithmic axis for each further nine. */
function ninesOf(percentile: number, most = 1e6): number {
  return percentile >= 100 ? most : Math.min(most, 100 / (100 - percentile));
}

function curvePoints(row: ComparedRow): CurveDot[] {
  return Object.entries(row.curves ?? {}).flatMap(([series, curve]) => {
    const last = Math.max(1, ...(curve ?? []).filter(([p]) => p < 100).map(([p]) => ninesOf(p)));
    return (curve ?? []).map(([percentile, us]) => ({
      series,
      scene: sceneOf(row),
      nines: ninesOf(percentile, last * 1.5),
      us,
      label: percentile === 100 ? 'max' : `p${+percentile.toPrecision(6)}`,
      mark: percentile === 100 || [50, 90, 99, 99.9].some(p => Math.abs(p - percentile) < 0.01),
    }));
  });
}

function rowPoints(row: ComparedRow): CurveDot[] {
  const label = PERCENTILE.exec(row.name)?.[2] as string;
  if (label === 'max') return [];
  const dot = (series: string, us: number): CurveDot => ({
    series,
    scene: sceneOf(row),
    nines: ninesOf(Number(label.slice(1))),
    us,
    label,
    mark: true,
  });
  const veth = row.ceiling === undefined ? [] : [dot('veth', row.ceiling.median)];
  return [dot('ours', row.ours.median), dot('kernel', row.kernel.median), ...veth];
}
