/**
 * A report as one page: charts, tables, where it was measured, and the report itself as JSON. It asks nobody for anything:
 * no script, no font, no image from elsewhere, and its content security policy says so.
 */
import type { AllEnvironment } from '../all.ts';
import type { Environment } from '../environment.ts';
import type { Noise } from '../noise.ts';
import type { Report, Row } from '../result.ts';
import { outliersOf } from '../stats.ts';
import { e2eFigures } from './e2e-charts.ts';
import { describeParams, escapeHtml as e, escapeJson, formatInterval, formatRatio, formatValue } from './format.ts';
import { overheadFigures } from './overhead-charts.ts';
import { pipelineFigures } from './pipeline-charts.ts';
import type { Figure } from './plot.ts';
import { STYLE } from './style.ts';
import { lpmFigures, microFigures, mtuFigures } from './table-charts.ts';

interface Section {
  suite: string;
  title: string;
  text: string;
  figures: (rows: readonly Row[]) => Figure[];
}

const SECTIONS: Section[] = [
  {
    suite: 'e2e',
    title: 'Pod to pod, beside the kernel',
    text: 'Ours and the kernel’s counterpart stand side by side and take turns. Read the ratios: absolute figures belong to the machine and the minute they were taken in.',
    figures: e2eFigures,
  },
  {
    suite: 'overhead',
    title: 'What a tunnel costs',
    text: 'Theory from the lengths of headers, the same counted on packets, and what came of it with two nodes and TCP.',
    figures: overheadFigures,
  },
  {
    suite: 'mtu',
    title: 'Packet size across the MTU',
    text: 'What happens where a packet no longer fits, in every mode and each way of dealing with it.',
    figures: mtuFigures,
  },
  {
    suite: 'pipeline',
    title: 'The path without the kernel',
    text: 'Everything a node does with a packet, over ports in memory. What a node reaches over TUN and TAP is less: reads and writes cost more than the path.',
    figures: pipelineFigures,
  },
  {
    suite: 'lpm',
    title: 'Route lookups',
    text: 'Random tables with the prefix lengths of the Internet’s.',
    figures: lpmFigures,
  },
  {
    suite: 'micro',
    title: 'Operations alone',
    text: 'A lower bound of what each costs in the path, where it competes for caches and branch predictors.',
    figures: microFigures,
  },
];

type AnyEnvironment = Environment & Partial<Noise> & Partial<Pick<AllEnvironment, 'complete' | 'quick' | 'suites'>>;

/** @returns the whole document */
export function renderPage(report: Report): string {
  const env = report.environment as AnyEnvironment;
  const known = new Set(SECTIONS.map(section => section.suite));
  const others = [...new Set(report.results.map(row => row.suite))].filter(suite => !known.has(suite));
  const sections = [...SECTIONS, ...others.map(suite => ({ suite, title: suite, text: '', figures: () => [] }))].filter(
    section => report.results.some(row => row.suite === section.suite),
  );
  const title = `tunpath bench: ${sections.map(section => section.suite).join(', ')}`;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="generator" content="tunpath ${e(env.tunpath)}">
<title>${e(title)}</title>
<style>${STYLE}</style>
</head>
<body>
<header>
<h1>tunpath bench</h1>
<p class="faint">${e(env.cpu)}, ${e(env.cores)} cores, ${e(env.kernel)}, Node ${e(env.node)}, ${e(env.date)}</p>
${warnings(env)}
<nav>${sections.map(({ suite, title: text }) => `<a href="#${e(suite)}">${e(text)}</a>`).join('')}<a href="#environment">Environment</a></nav>
</header>
<main>
${tiles(report.results)}
${sections.map(section => renderSection(section, report.results)).join('\n')}
${renderEnvironment(env, report.results)}
</main>
<footer class="faint">
<p>Dots are medians, lines their 95 % intervals, small dots samples, crosses outliers (beyond 1.5 times the quartiles’ distance; none is left out of anything). A figure whose interval leaves room for no difference is not called one. The report itself is in this page: <code>script#report</code>.</p>
</footer>
<script type="application/json" id="report">${escapeJson(report)}</script>
</body>
</html>
`;
}

function warnings(env: AnyEnvironment): string {
  const lines = [
    ...(env.complete === false ? ['This run was ended early, or something could not be measured.'] : []),
    ...(env.quick === true ? ['A quick run: a first look, not figures to quote.'] : []),
    ...(env.warnings ?? []),
  ];
  return lines.map(line => `<p class="warning">${e(line)}</p>`).join('\n');
}

function renderSection({ suite, title, text, figures }: Section, all: readonly Row[]): string {
  const rows = all.filter(row => row.suite === suite);
  return `<section id="${e(suite)}">
<h2>${e(title)}</h2>
<p class="faint">${e(text)}</p>
<div class="figures">
${figures(rows).map(renderFigure).join('\n')}
</div>
<details><summary>All ${rows.length} figures of ${e(suite)}</summary>
<div class="scroll">${renderTable(rows)}</div></details>
</section>`;
}

function renderFigure({ title, caption, legend, svg, wide }: Figure): string {
  const items = legend.map(({ label, color }) => `<li style="color:${e(color)}"><i></i><span>${e(label)}</span></li>`);
  return `<figure${wide ? ' class="wide"' : ''}>
<h3>${e(title)}</h3>
${legend.length < 2 ? '' : `<ul class="legend">${items.join('')}</ul>`}
<div class="scroll">${svg.replace('<svg ', `<svg role="img" aria-label="${e(title)}" `)}</div>
<figcaption>${e(caption)}</figcaption>
</figure>`;
}

interface Cell {
  head: string;
  number?: boolean;
  text: (row: Row) => string;
}

const CELLS: Cell[] = [
  { head: 'what', text: row => row.name },
  { head: 'with', text: row => describeParams(row.params, ['pairs', 'seconds']) },
  { head: 'ours', number: true, text: row => formatValue(row.ours.median) },
  { head: 'unit', text: row => row.unit },
  { head: '95 % interval', text: row => formatInterval(row.ours) },
  { head: 'samples', number: true, text: row => (row.ours.samples.length > 0 ? String(row.ours.samples.length) : '') },
  { head: 'outliers', text: row => outliersOf(row.ours.samples).map(formatValue).join(' ') },
  { head: 'predicted', number: true, text: row => (row.predicted === undefined ? '' : formatValue(row.predicted)) },
  { head: 'kernel', number: true, text: row => medianOf(row, 'kernel') },
  { head: 'veth', number: true, text: row => medianOf(row, 'ceiling') },
  { head: 'other', text: row => (row.theirs === undefined ? '' : `${row.rival} ${formatValue(row.theirs.median)}`) },
  { head: 'ours / other', text: row => formatRatio(row) },
];

function medianOf(row: Row, side: 'kernel' | 'ceiling'): string {
  const summary = (row as unknown as Record<string, Row['ours'] | undefined>)[side];
  return summary === undefined ? '' : formatValue(summary.median);
}

/** Columns that say nothing in any row are left out. */
function renderTable(rows: readonly Row[]): string {
  const texts = CELLS.map(cell => rows.map(cell.text));
  const shown = CELLS.map((cell, i) => ({ cell, texts: texts[i] })).filter(column =>
    column.texts.some(text => text !== ''),
  );
  const kind = (cell: Cell) => (cell.number ? ' class="n"' : '');
  const head = shown.map(({ cell }) => `<th${kind(cell)}>${e(cell.head)}</th>`).join('');
  const body = rows.map(
    (_, i) => `<tr>${shown.map(column => `<td${kind(column.cell)}>${e(column.texts[i])}</td>`).join('')}</tr>`,
  );
  return `<table><thead><tr>${head}</tr></thead><tbody>${body.join('\n')}</tbody></table>`;
}

// ---- at a glance

interface Tile {
  value: string;
  label: string;
}

function tiles(rows: readonly Row[]): string {
  const find = (suite: string, name: string, params: Record<string, unknown>): Row | undefined =>
    rows.find(
      row =>
        row.suite === suite &&
        row.name === name &&
        Object.entries(params).every(
          ([key, value]) => row.params[key] === value || (key === 'nat' && row.params[key] === undefined),
        ),
    );
  const found: (Tile | undefined)[] = [
    tile(
      find('e2e', 'tcp1', { mode: 'vxlan', nat: 'none' }),
      formatRatioShort,
      'of the kernel’s TCP throughput through VXLAN',
    ),
    tile(
      find('e2e', 'ndr64', { mode: 'vxlan', nat: 'none' }),
      formatRatioShort,
      'of its rate of small datagrams without loss',
    ),
    tile(
      find('overhead', 'goodput share', { mode: 'vxlan', mtu: 1500 }),
      row => `${row.ours.median.toFixed(1)} %`,
      'of the wire is payload with VXLAN at MTU 1500',
    ),
    tile(
      find('pipeline', 'pod to uplink', {
        mode: 'vxlan',
        size: 64,
        flows: 10_000,
        nat: 'tracked',
        burst: undefined,
        offload: undefined,
        profile: undefined,
      }),
      row => `${(row.ours.median / 1e6).toFixed(1)} M/s`,
      'packets of 64 bytes through the path into VXLAN, one core, 10 000 flows',
    ),
    tile(
      [1 << 20, 1_000_000].map(prefixes => find('lpm', 'lookup, random', { prefixes })).find(row => row !== undefined),
      row => `${(row.ours.median / 1e6).toFixed(1)} M/s`,
      'route lookups, a million prefixes, random addresses, one core',
    ),
  ];
  const shown = found.filter(one => one !== undefined);
  if (shown.length === 0) return '';
  return `<div class="tiles">${shown.map(({ value, label }) => `<div class="tile"><b>${e(value)}</b><span>${e(label)}</span></div>`).join('')}</div>`;
}

/** Inside the noise there is no figure, and no winner. */
function tile(row: Row | undefined, value: (row: Row) => string, label: string): Tile | undefined {
  if (row === undefined) return undefined;
  if (row.verdict === 'no difference') return { value: row.verdict, label: `${label}: ${formatRatio(row)}` };
  return { value: value(row), label: row.verdict === 'too few pairs' ? `${label} (too few pairs to say)` : label };
}

function formatRatioShort({ ratio }: Row): string {
  return ratio === undefined ? '-' : `${(100 * ratio.median).toFixed(0)} %`;
}

// ---- where it was measured

function renderEnvironment(env: AnyEnvironment, rows: readonly Row[]): string {
  const share = (value: number | undefined) => (value === undefined ? undefined : `${(100 * value).toFixed(1)} %`);
  const facts: [string, unknown][] = [
    ['processor', env.cpu],
    ['cores', env.cores],
    ['governor', env.governor ?? 'none shown'],
    ['memory', env.memoryBytes && `${(env.memoryBytes / 2 ** 30).toFixed(1)} GiB`],
    ['kernel', env.kernel],
    ['TCP congestion control', env.tcpCongestionControl],
    ['Node', `${env.node}, V8 ${env.v8}`],
    ['tunpath', env.tunpath],
    ['date', env.date],
    ...offloads(rows),
    ['load before', env.loadAverage?.toFixed(2)],
    ['busy before', share(env.backgroundShare)],
    ['stolen during', share(env.stealShare)],
    ...(env.suites ?? []).map((suite): [string, unknown] => [
      suite.name,
      `${suite.results} figures in ${suite.seconds} s${suite.complete ? '' : ', not complete'}`,
    ]),
  ];
  const lines = facts.filter(([, value]) => value !== undefined && value !== null);
  return `<section id="environment">
<h2>Environment</h2>
<dl>${lines.map(([name, value]) => `<dt>${e(name)}</dt><dd>${e(value)}</dd>`).join('')}</dl>
</section>`;
}

/** Those that the nodes had in use, where two of them carried traffic. */
function offloads(rows: readonly Row[]): [string, unknown][] {
  const found = new Map<string, string[]>();
  for (const { params } of rows) {
    const of = params.offloads as { uplink?: unknown; pod?: unknown } | null | undefined;
    if (of === undefined || of === null) continue;
    const text = `uplink ${[of.uplink].flat().join(', ') || 'none'}; pods ${[of.pod].flat().join(', ') || 'none'}`;
    const mode = String(params.mode);
    if (!found.get(text)?.includes(mode)) found.set(text, [...(found.get(text) ?? []), mode]);
  }
  return [...found].map(([text, modes]) => [`offloads (${modes.join(', ')})`, text]);
}
