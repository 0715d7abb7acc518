/** Charts of the overhead suite: what a frame is made of, what is left for the payload, what throughput and CPU came to. */
import * as Plot from '@observablehq/plot';
import { ETHERNET_HEADER, ETHERNET_REST, TCP_HEADERS } from '../overhead/theory.ts';
import type { Row } from '../result.ts';
import { describeSummary, formatValue } from './format.ts';
import { draw, type Figure, intervalMarks, type Series, seriesOf } from './plot.ts';

const FRAME_MTU = 1500;
/** Where its axis begins, so that headers are to be seen. */
const FROM = 80;

export function overheadFigures(rows: readonly Row[]): Figure[] {
  const own = rows.filter(row => row.suite === 'overhead');
  return [frames(own), shares(own), throughput(own), cpu(own)].filter(figure => figure !== null);
}

function rowsNamed(rows: readonly Row[], name: string): Row[] {
  return rows.filter(row => row.name === name);
}

const modeOf = (row: Row): string => String(row.params.mode);

/** A full frame, header by header. */
function frames(rows: readonly Row[]): Figure | null {
  const headers = rowsNamed(rows, 'header').filter(row => row.params.mtu === FRAME_MTU);
  if (headers.length === 0) return null;
  const legend: Series[] = [
    { label: 'TCP payload', color: 'var(--green)' },
    { label: 'inner IP and TCP', color: 'var(--yellow)' },
    { label: 'tunnel', color: 'var(--red)' },
    { label: 'Ethernet', color: 'var(--gray)' },
  ];
  const parts = headers.flatMap(row => {
    const mode = modeOf(row);
    const tunnel = row.ours.median;
    const ethernet = ETHERNET_HEADER + ETHERNET_REST;
    const bytes = [FRAME_MTU - tunnel - TCP_HEADERS, TCP_HEADERS, tunnel, ethernet];
    const whole = FRAME_MTU + ethernet;
    let end = 0;
    return legend.map(({ label }, i) => {
      const start = end;
      end += (100 * bytes[i]) / whole;
      const title = `${mode}: ${label} ${bytes[i]} of ${whole} bytes`;
      return { mode, part: label, start: Math.max(FROM, start), end, title };
    });
  });
  const svg = draw(legend, {
    height: 74 + 40 * headers.length,
    marginLeft: 70,
    x: { domain: [FROM, 100], label: `% of the bytes on the wire (from ${FROM}) →`, grid: true },
    y: { label: null, domain: headers.map(modeOf) },
    marks: [
      Plot.barX(parts, { x1: 'start', x2: 'end', y: 'mode', fill: 'part', title: 'title', inset: 1 }),
      Plot.text(headers, {
        x: FROM,
        y: modeOf,
        text: (row: Row) => `${row.ours.median} bytes of tunnel`,
        textAnchor: 'start',
        dx: 8,
        fill: 'var(--paper)',
      }),
    ],
  });
  const caption = `A full frame at MTU ${FRAME_MTU}, as the node over memory put it out; timestamps on, preamble and gap counted.`;
  return { title: 'What a frame is made of', caption, legend, svg };
}

function shares(rows: readonly Row[]): Figure | null {
  const whole = rowsNamed(rows, 'goodput share');
  if (whole.length === 0) return null;
  const legend = seriesOf(whole.map(modeOf));
  const cut = rowsNamed(rows, 'goodput share, fragmented').filter(row => row.params.mode !== 'native');
  const x = (row: Row) => String(row.params.mtu);
  const title = (row: Row) => `${modeOf(row)}, MTU ${row.params.mtu}: ${row.ours.median.toFixed(2)} %`;
  const value = (row: Row) => row.ours.median;
  const svg = draw(legend, {
    x: { type: 'point', domain: [...new Set(whole.map(x))], label: 'MTU of the underlay →', padding: 0.3 },
    y: { label: '↑ goodput, % of the bytes on the wire', grid: true, nice: true },
    marks: [
      Plot.line(whole, { x, y: value, z: modeOf, stroke: modeOf, strokeWidth: 2 }),
      Plot.dot(whole, { x, y: value, fill: modeOf, r: 4, title }),
      Plot.line(cut, { x, y: value, z: modeOf, stroke: modeOf, strokeDasharray: '4 3' }),
      Plot.dot(cut, { x, y: value, stroke: modeOf, r: 3, title: (row: Row) => `${title(row)}, fragmented` }),
    ],
  });
  const caption =
    'Solid: TCP with full segments. Dashed: datagrams of the full underlay MTU from a pod that does not know of the tunnel, each cut in two. VXLAN and GENEVE lie on one another.';
  return { title: 'What is left for the payload', caption, legend, svg };
}

function throughput(rows: readonly Row[]): Figure | null {
  const live = rowsNamed(rows, 'tcp1');
  if (live.length === 0) return null;
  const legend = seriesOf(live.map(modeOf));
  const svg = draw(legend, {
    x: { type: 'band', domain: live.map(modeOf), label: null, padding: 0.2 },
    y: { label: '↑ Gb/s', grid: true, zero: true },
    marks: [
      Plot.tickY(live, {
        x: modeOf,
        y: 'predicted',
        stroke: 'currentColor',
        strokeWidth: 2,
        strokeDasharray: '3 3',
        title: (row: Row) => `${modeOf(row)}: predicted ${formatValue(row.predicted)} Gb/s`,
      }),
      ...intervalMarks(
        live.map(row => ({
          x: modeOf(row),
          series: modeOf(row),
          summary: row.ours,
          title: `${modeOf(row)}: ${describeSummary(row.ours, row.unit)}`,
        })),
      ),
      Plot.ruleY([0]),
    ],
  });
  const caption =
    'One TCP flow, modes in turn. Dashed: what the header bytes alone would leave of native. Where a mode is far below, look at its calls and its CPU time.';
  return { title: 'Throughput, measured and predicted', caption, legend, svg };
}

function cpu(rows: readonly Row[]): Figure | null {
  const live = rowsNamed(rows, 'cpu').filter(row => row.params.part !== 'all');
  if (live.length === 0) return null;
  const part = (row: Row) => String(row.params.part);
  const legend = [...new Set(live.map(part))].map((label, i) => ({
    label,
    color: ['var(--blue)', 'var(--cyan)', 'var(--orange)', 'var(--gray)'][i % 4],
  }));
  const modes = [...new Set(live.map(modeOf))];
  const svg = draw(legend, {
    height: 74 + 44 * modes.length,
    marginLeft: 70,
    x: { label: 'CPU seconds per 10⁹ bytes →', grid: true },
    y: { label: null, domain: modes },
    marks: [
      Plot.barX(live, {
        x: (row: Row) => row.ours.median,
        y: modeOf,
        fill: part,
        inset: 1,
        title: (row: Row) => `${modeOf(row)}, ${part(row)}: ${describeSummary(row.ours, row.unit)}`,
      }),
      Plot.ruleX([0]),
    ],
  });
  const caption = `All cores together. The path's share is what ${'`bench pipeline`'} says its steps cost, times the packets that the nodes read.`;
  return { title: 'Where the CPU time goes', caption: caption.replaceAll('`', ''), legend, svg };
}
