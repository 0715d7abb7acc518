import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import puppeteer, { type Browser, type Page } from 'puppeteer-core';
import { environment } from '../../bench/environment.ts';
import { renderPage } from '../../bench/html/page.ts';
import { theoryOf } from '../../bench/overhead/theory.ts';
import type { ComparedRow, Report, Row } from '../../bench/result.ts';
import { judge, summarize, summarizeRatios } from '../../bench/stats.ts';

const MODES = ['native', 'ipip', 'vxlan', 'geneve'] as const;
const HOSTILE = '</script><img src="https://example.com/x.png" onerror="console.error(1)">';

/** Samples around `median`, one of them far off. */
function samples(median: number): number[] {
  return [0.99, 1.01, 1, 1.02, 0.98, 1.6].map(factor => factor * median);
}

function row(suite: string, name: string, unit: string, params: Record<string, unknown>, median: number): Row {
  return { suite, name, unit, params, ours: summarize(samples(median)) };
}

function compared(name: string, unit: string, mode: string, ratio: number, more: Partial<ComparedRow> = {}): Row {
  const better = unit === 'us' ? 'lower' : 'higher';
  const theirs = samples(10);
  const ours = theirs.map((value, i) => value * ratio * (1 + 0.02 * (i % 3)));
  const ratios = summarizeRatios(ours, theirs);
  const sides = { ours: summarize(ours), kernel: summarize(theirs), ratio: ratios, verdict: judge(ratios, better) };
  const params = { mode, nat: 'none', kernel: 'vxlan', ...more.params };
  return { suite: 'e2e', name, unit, better, details: {}, ...sides, ...more, params } as ComparedRow;
}

/** Every chart has something to draw. */
function everySuite(): Report {
  const steps = ['read and write (the bench itself)', 'source check, drop', 'parse', 'conntrack hit'];
  const results: Row[] = [
    ...MODES.flatMap(mode =>
      [1400, 1500].flatMap(mtu => {
        const theory = theoryOf(mode, mtu);
        return [
          row('overhead', 'header', 'bytes', { mode, mtu }, theory.headerBytes),
          row('overhead', 'goodput share', '%', { mode, mtu }, 100 * theory.goodputShare),
          row('overhead', 'goodput share, fragmented', '%', { mode, mtu }, 100 * theory.fragmentedShare),
        ];
      }),
    ),
    ...MODES.flatMap(mode => [
      { ...row('overhead', 'tcp1', 'Gb/s', { mode, mtu: 1500 }, 10), predicted: 11 },
      ...['nodes: path', 'nodes: rest'].map(part => row('overhead', 'cpu', 's/GB', { mode, mtu: 1500, part }, 0.3)),
    ]),
    ...MODES.flatMap(mode =>
      [64, 1500, 'IMIX'].map(size =>
        row('pipeline', 'pod to uplink', 'packets/s', { mode, size, flows: 10_000, nat: 'tracked' }, 5e6),
      ),
    ),
    row('pipeline', 'pod to uplink', 'packets/s', { mode: 'vxlan', size: 64, flows: 1e6, nat: 'tracked' }, 3e6),
    ...[1, 64].map(burst =>
      row(
        'pipeline',
        'pod to uplink',
        'packets/s',
        { mode: 'vxlan', size: 64, flows: 1e4, nat: 'tracked', burst },
        4e6,
      ),
    ),
    ...steps.map(step => row('pipeline', 'step', 'ns/packet', { size: 64, flows: 1e4, step }, 20)),
    row('pipeline', 'step', 'ns/packet', { size: 64, flows: 1e4, step: 'encapsulate', mode: 'vxlan' }, 20),
    ...MODES.map(mode => compared('tcp1', 'Gb/s', mode, mode === 'ipip' ? 0.5 : 1)),
    ...[0, 0.001].map(loss => compared('ndr64', 'packets/s', 'vxlan', 0.8, { params: { size: 64, loss } })),
    compared('latency-p50', 'us', 'vxlan', 1.5, { curves: { ours: curve(50), kernel: curve(20) } }),
    ...['rr-p50', 'rr-p99'].map(name => compared(name, 'us', 'vxlan', 1.5)),
    ...[1000, 1 << 20].map(prefixes => row('lpm', 'lookup, random', 'lookups/s', { prefixes }, 4e7)),
    ...[1, 1000, 1e6].map(flows => row('micro', 'conntrack hit', 'ns/packet', { flows }, 30)),
    row('micro', 'parse', 'ns/packet', { protocol: 'udp', size: 64 }, 5),
    ...MODES.flatMap(mode => [1400, 1450, 1500].map(size => row('mtu', 'delivered', '%', { mode, size }, 99))),
    row('new', HOSTILE, 'things', { mode: HOSTILE }, 1),
  ];
  return { environment: environment(new Date(0)), results };
}

function curve(us: number): [number, number][] {
  return [0, 50, 90, 99, 99.9, 100].map(percentile => [percentile, us * (1 + percentile / 50)]);
}

const CHROMIUM = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync);

describe('bench/html', function () {
  this.timeout(120_000);
  let directory = '';
  let browser: Browser;
  /** What the page said and asked for. */
  let complaints: string[] = [];

  before(async () => {
    assert.ok(CHROMIUM !== undefined, 'there is no Chromium: scripts/setup --test');
    directory = mkdtempSync(path.join(os.tmpdir(), 'tunpath-html-'));
    browser = await puppeteer.launch({
      executablePath: CHROMIUM,
      args: ['--no-sandbox', `--user-data-dir=${directory}/profile`],
      timeout: 60_000,
    });
  });
  after(async () => {
    await browser?.close();
    rmSync(directory, { recursive: true, force: true });
  });

  async function open(report: Report, width: number): Promise<Page> {
    const file = path.join(directory, 'report.html');
    writeFileSync(file, renderPage(report));
    const page = await browser.newPage();
    complaints = [];
    page.on('console', message => complaints.push(`console: ${message.text()}`));
    page.on('pageerror', error => complaints.push(`error: ${error}`));
    page.on('request', request => {
      if (!request.url().startsWith('file:')) complaints.push(`request: ${request.url()}`);
    });
    await page.setViewport({ width, height: 900 });
    await page.goto(`file://${file}`);
    return page;
  }

  /** Title of each chart, and how many of its marks take up room on the page. */
  const chartsOf = (page: Page) =>
    page.evaluate(`[...document.querySelectorAll('figure')].map(figure => {
      const marks = [...figure.querySelectorAll('svg g[aria-label]:not([aria-label*=axis]):not([aria-label*=grid]) > *')];
      const seen = marks.map(mark => mark.getBoundingClientRect()).filter(box => box.width > 0 || box.height > 0);
      const svg = figure.querySelector('svg').getBoundingClientRect();
      const inside = seen.filter(box => box.left >= svg.left - 2 && box.right <= svg.right + 2);
      return { title: figure.querySelector('h3').textContent, seen: seen.length, inside: inside.length };
    })`) as Promise<{ title: string; seen: number; inside: number }[]>;

  for (const width of [1200, 380]) {
    it(`every chart draws something, ${width} wide, and nothing is asked for or complained about`, async () => {
      const page = await open(everySuite(), width);
      const charts = await chartsOf(page);
      assert.deepEqual(
        charts.map(chart => chart.title),
        [
          'Ours and the kernel, pair by pair',
          'TCP, one flow',
          'Datagrams of 64 bytes',
          'Datagrams of 64 bytes, by what may be lost',
          'Latency, idle',
          'Round trips, one at a time',
          'What a frame is made of',
          'What is left for the payload',
          'Throughput, measured and predicted',
          'Where the CPU time goes',
          'MTU: delivered',
          'Packets per second by size',
          'Time per packet by size',
          'Throughput by size',
          'Packets per second by flows',
          'Cost by step',
          'Packets per second by burst',
          'Route lookups',
          'Tables, from empty to a million',
          'Operations alone',
        ],
      );
      for (const { title, seen, inside } of charts)
        assert.ok(seen > 0 && inside === seen, `${title}: ${inside}/${seen}`);
      const overflow = await page.evaluate(
        'document.documentElement.scrollWidth - document.documentElement.clientWidth',
      );
      assert.equal(overflow, 0, 'the page is wider than its window');
      assert.deepEqual(complaints, []);
      await page.close();
    });
  }

  it('as many scenes as a full run has: each with a panel and a row of its own, and no name in another', async () => {
    const scenes = MODES.flatMap(mode =>
      ['none', 'service', 'masquerade'].flatMap(nat => ({ mode, nat: nat, uplink: 'tap' })),
    );
    scenes.push(...['raw', 'macvtap', 'routed'].map(uplink => ({ mode: 'vxlan' as const, nat: 'none', uplink })));
    const results = scenes.flatMap(params => [
      compared('tcp1', 'Gb/s', params.mode, 1, { params }),
      ...[0, 0.001, 0.01].map(loss =>
        compared('ndr64', 'packets/s', params.mode, 1, { params: { ...params, size: 64, loss } }),
      ),
    ]);
    const page = await open({ environment: environment(new Date(0)), results }, 1200);
    const names = await page.evaluate(`[...document.querySelectorAll('figure')].map(figure => {
      const [title, labels] = ['h3', 'g[aria-label$="tick label"] text'].map(s => [...figure.querySelectorAll(s)]);
      const boxes = labels.map(label => ({ text: label.textContent, ...label.getBoundingClientRect().toJSON() }));
      const over = (a, b) => a !== b && Math.min(a.right, b.right) - Math.max(a.left, b.left) > 4 &&
        Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 4;
      return {
        title: title[0].textContent,
        texts: boxes.map(box => box.text),
        covered: boxes.filter(a => boxes.some(b => over(a, b))).map(box => box.text),
      };
    })`);
    const figures = names as { title: string; texts: string[]; covered: string[] }[];
    assert.deepEqual(
      figures.map(({ title, covered }) => ({ title, covered })),
      [
        'Ours and the kernel, pair by pair',
        'TCP, one flow',
        'Datagrams of 64 bytes',
        'Datagrams of 64 bytes, by what may be lost',
      ].map(title => ({ title, covered: [] })),
    );
    for (const name of ['vxlan', 'vxlan raw', 'vxlan macvtap', 'vxlan routed']) {
      assert.ok(figures[0].texts.includes(`tcp1, ${name}`), name);
      const panel = name.replace(' ', '');
      assert.equal(figures[1].texts.filter(text => text.replace(/\s/g, '') === panel).length, 1, name);
    }
    await page.close();
  });

  it('holds the report, whatever is written in it', async () => {
    const report = everySuite();
    const page = await open(report, 1200);
    const held = await page.evaluate("JSON.parse(document.getElementById('report').textContent)");
    assert.deepEqual(held, JSON.parse(JSON.stringify(report)));
    assert.equal(await page.evaluate("document.querySelectorAll('img').length"), 0);
    assert.deepEqual(complaints, []);
    await page.close();
  });

  it('says where the noise leaves no winner, and shows outliers', () => {
    const html = renderPage(everySuite());
    assert.match(html, /1\.02 \[[^<]*no difference/);
    assert.match(html, /0\.51 \[[^<]*worse/);
    assert.match(html, /outlier of vxlan/);
  });

  it('says when a run is incomplete or the machine was noisy', () => {
    const report = everySuite();
    Object.assign(report.environment, { complete: false, warnings: ['noisy machine: 40 % busy'] });
    const html = renderPage(report);
    assert.match(html, /ended early/);
    assert.match(html, /noisy machine: 40 % busy/);
  });

  it('takes a report of nothing', () => {
    assert.match(renderPage({ environment: environment(new Date(0)), results: [] }), /<h2>Environment<\/h2>/);
  });
});
