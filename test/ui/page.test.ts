/** The page in a browser: every function of it, both themes, a phone, a hundred thousand flows, and the file that is on its own. */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import axe from 'axe-core';
import puppeteer, { type Browser, type Page } from 'puppeteer-core';
import { MemoryBytes } from '../../datapath/io/byte-source.ts';
import { CaptureReader } from '../../datapath/io/capture-file.ts';
import { LINK_RAW, PcapWriter } from '../../datapath/io/pcap.ts';
import { staticPage } from '../../datapath/ui/assets.ts';
import { serveUi, type UiServer } from '../../datapath/ui/server.ts';
import { icmpEcho, tcp4 } from '../fixtures/packets.ts';
import { FakeNetwork, flowAt, NODES, PODS_PER_NODE } from './fake.ts';

const CHROMIUM = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync);
const VIEWS = ['network', 'packets', 'explain', 'drops', 'counters', 'sizes', 'conformance', 'change'];
const FLOWS = 100_000;
/** For a machine that is busy, ms. */
const PATIENCE = Number(process.env.PATIENCE ?? 40_000);
const PHONE = { width: 390, height: 844 };
const DESKTOP = { width: 1280, height: 900 };

describe('ui/page', function () {
  this.timeout(120_000);
  let directory = '';
  let browser: Browser;
  let network: FakeNetwork;
  let server: UiServer;
  let page: Page;
  /** What the page said, and asked others for. */
  let complaints: string[] = [];

  before(async () => {
    assert.ok(CHROMIUM !== undefined, 'there is no Chromium: scripts/setup --test');
    directory = mkdtempSync(path.join(os.tmpdir(), 'tunpath-ui-'));
    network = new FakeNetwork();
    server = await serveUi(network, { host: '127.0.0.1', port: 0 });
    browser = await puppeteer.launch({
      executablePath: CHROMIUM,
      args: ['--no-sandbox', `--user-data-dir=${directory}/profile`],
      timeout: 60_000,
    });
    page = await open(server.url);
  });
  after(async () => {
    await browser?.close();
    await server?.close();
    rmSync(directory, { recursive: true, force: true });
  });
  afterEach(() => assert.deepEqual(complaints.splice(0), []));

  async function open(url: string): Promise<Page> {
    const opened = await browser.newPage();
    opened.on('console', message => complaints.push(`console: ${message.text()}`));
    opened.on('pageerror', error => complaints.push(`error: ${error}`));
    opened.on('request', request => {
      const { origin, protocol } = new URL(request.url());
      if (origin !== new URL(url).origin && protocol !== 'data:' && protocol !== 'blob:')
        complaints.push(`request: ${request.url()}`);
    });
    await opened.setViewport(DESKTOP);
    await opened.goto(url);
    await opened.waitForSelector('svg .node');
    return opened;
  }

  const go = async (view: string, on = page) => {
    await on.evaluate(`location.hash = ${JSON.stringify(view)}`);
    await on.waitForSelector(`nav a[href="#${view.split('/')[0]}"][aria-current]`);
  };
  const press = async (text: string, within = 'main', on = page) => {
    const button = `[...document.querySelectorAll('${within} button')].find(one => one.textContent.trim() === ${JSON.stringify(text)} && !one.disabled)`;
    await on.waitForFunction(button);
    await on.evaluate(`${button}.click()`);
  };
  const has = async (text: string, within = 'main', on = page) => {
    const element = `[...document.querySelectorAll('${within}')]`;
    await on
      .waitForFunction(`${element}.some(one => one.textContent.includes(${JSON.stringify(text)}))`, {
        timeout: PATIENCE,
      })
      .catch(async () => {
        const seen = await on.evaluate(`${element}.map(one => one.textContent).join('; ')`);
        throw new Error(`expected "${text}" in ${within}, seen "${String(seen).slice(0, 2000)}"`);
      });
  };
  const fill = async (selector: string, text: string, on = page) => {
    await on.waitForSelector(selector);
    await on.evaluate(`{
      const field = document.querySelector('${selector}');
      field.value = ${JSON.stringify(text)};
      field.dispatchEvent(new InputEvent('input', { bubbles: true }));
    }`);
  };

  it('shows the network, and explains the flow that is chosen', async () => {
    network.flows([0, 1, 9].map(flowAt));
    await has('3 flows');
    assert.equal(await page.evaluate(`document.querySelectorAll('svg .pod').length`), NODES * PODS_PER_NODE);
    await press('Dropped');
    await has('1 flows');
    await page.evaluate(
      `[...document.querySelectorAll('svg .pod')].find(pod => pod.textContent.startsWith('default/p1-0 ')).dispatchEvent(new MouseEvent('click', { bubbles: true }))`,
    );
    await has('pod default/p1-0');
    await press('Pause');
    network.flows([flowAt(2)]);
    await press('Go on');
    await press('Clear');
    await fill('input[name=flows]', 'dropped -tcp');
    network.flows([flowAt(9)]);
    await has('no-route', '.flows');
    await page.click('.rows-space .row');
    await has('refused: it came by default/p4-1 of n4');
    await has('No route leads to the destination');
  });

  it('steps through a packet by buttons and keys, and asks what would be if', async () => {
    await go('explain');
    await press('Another packet');
    await fill('input[name=from]', 'p1-1');
    await fill('input[name=to]', '10.244.3.10:80');
    await page.select('select[name=whatIf]', 'mode=geneve');
    await press('Explain', '.form');
    await has('delivered to default/p3-0 of n3; the answer is delivered');
    await has('ipv4 udp geneve', 'table');
    await press('Step');
    await has('2 of', '.moment');
    await page.focus('.steps');
    for (let i = 0; i < 8; i++) await page.keyboard.press('ArrowDown');
    await has('encapsulate', '.moment h3');
    await has('After', '.moment');
    assert.ok(
      Number(await page.evaluate(`document.querySelectorAll('.compared .changed').length`)) >= 50,
      'header bytes',
    );
    await fill('input[name=from]', 'nobody');
    await press('Explain', '.form');
    await has('expected a pod', '[role=alert]');
    // The browser's own words for a question that is refused.
    assert.match(complaints.splice(0).join(), /^console: Failed to load resource: [^,]* 400 \(Bad Request\)$/);
  });

  it('captures packets, decodes one, gives them as a file, explains one', async () => {
    await go('packets');
    await fill('input[name=filter]', '((');
    await press('Capture');
    await has('expected a filter', 'body');
    await press('Dismiss', '#page');
    await press('Stop');
    await fill('input[name=filter]', 'tcp and port 80');
    await press('Capture');
    await has('40 packets');
    await press('Stop');
    assert.deepEqual(
      network.captures.map(({ filter, drops }) => ({ filter, drops })),
      [{ filter: 'tcp and port 80', drops: false }],
    );
    const session = await page.createCDPSession();
    await session.send('Browser.setDownloadBehavior', { behavior: 'allow', downloadPath: directory });
    await press('Download pcapng');
    const file = path.join(directory, 'tunpath.pcapng');
    while (!existsSync(file)) await new Promise(resolve => setTimeout(resolve, 20));
    const reader = new CaptureReader(new MemoryBytes(readFileSync(file), file));
    const first = reader.next()!;
    assert.equal(first.interface, 'n1:default/p1-0');
    assert.equal(first.layer, 3);
    let count = 1;
    while (reader.next() !== null) count++;
    assert.equal(count, 40);
    await page.click('.rows-space .row');
    await has('10.244.1.10 > 10.244.2.10', '.layers');
    await page.click('.layers button');
    assert.equal(await page.evaluate(`document.querySelectorAll('.bytes .chosen').length`), 20);
    await press('Explain', '.detail');
    await has('delivered to default/p2-0 of n2');
  });

  it('shows drops, counters, sizes and clauses', async () => {
    await go('drops/drop-no-route');
    await has('17', 'table');
    await page.waitForSelector('.reasons .chosen');
    await go('counters');
    await has('12 of 65.5 k');
    await go('sizes');
    await press('Prove');
    await has('1450', 'table');
    await go('conformance');
    await page.select('select[name=profile]', 'linux');
    await page.select('select[name=rfc]', '7348');
    await press('Check');
    await has(' pass, ');
    await has(' 0 fail', '[role=status]');
  });

  it('changes mode, MTU and policies', async () => {
    await go('change');
    await press('Try');
    await has('mode=geneve, tried');
    await press('Apply');
    await has('mode=geneve, done');
    await go('network');
    await has('geneve', 'svg');
    await go('change');
    await fill('input[name=mtu]', '40');
    await press('Apply', 'fieldset:nth-of-type(2)');
    await has('expected a whole number', '[role=alert]');
    assert.match(complaints.splice(0).join(), / 400 \(Bad Request\)$/);
    await fill('input[name=mtu]', '1300');
    await press('Apply', 'fieldset:nth-of-type(2)');
    await has('mtu=1300, done');
    await press('Apply', 'fieldset:nth-of-type(3)');
    await has('policy, done');
    await go('explain');
    await press('Another packet');
    await fill('input[name=from]', 'p1-0');
    await fill('input[name=to]', '10.244.2.11:80');
    await press('Explain', '.form');
    await has('drop-policy-denied-ingress');
  });

  it('is in reach of everybody, in both themes', async () => {
    await page.evaluate(axe.source);
    for (const theme of ['light', 'dark']) {
      while ((await page.evaluate(`document.documentElement.dataset.theme`)) !== theme) await page.click('.theme');
      for (const view of VIEWS) {
        await go(view);
        const found = (await page.evaluate(
          `axe.run(document, { resultTypes: ['violations']${theme === 'light' ? '' : ", runOnly: ['color-contrast']"} }).then(({ violations }) => violations.filter(one => ['serious', 'critical'].includes(one.impact)).map(one => one.id + ': ' + one.nodes.slice(0, 3).map(node => node.html + ' ' + node.failureSummary).join('; ')))`,
        )) as string[];
        assert.deepEqual(found, [], `${view}, ${theme}`);
      }
    }
  });

  it('fits a phone', async () => {
    await page.setViewport(PHONE);
    for (const view of VIEWS) {
      await go(view);
      const width = await page.evaluate('document.documentElement.scrollWidth');
      assert.equal(width, PHONE.width, view);
    }
    await page.setViewport(DESKTOP);
  });

  it(`does not freeze with ${FLOWS} flows of ${NODES * PODS_PER_NODE} pods`, async () => {
    await go('network');
    await press('Clear');
    await fill('input[name=flows]', 'p');
    await page.evaluate(`{
      window.frames_ = [];
      let last = performance.now();
      const frame = now => { window.frames_.push(now - last); last = now; requestAnimationFrame(frame); };
      requestAnimationFrame(frame);
    }`);
    for (let i = 0; i < FLOWS; i += 1000) {
      network.flows(Array.from({ length: 1000 }, (_, at) => flowAt(i + at)));
      if (i % 4000 === 3000) await has(`${i + 1000} flows`, '.flows');
    }
    await page.evaluate(`document.querySelector('.rows').scrollTop = 1e6`);
    const times = ((await page.evaluate('window.frames_')) as number[]).sort((a, b) => a - b);
    const at = (share: number) => times[Math.floor(share * (times.length - 1))].toFixed(0);
    console.log(`      ${times.length} frames: p50 ${at(0.5)} ms, p99 ${at(0.99)} ms, longest ${at(1)} ms`);
    assert.ok(
      Number(await page.evaluate(`document.querySelectorAll('.rows .row').length`)) < 100,
      'rows in sight alone',
    );
  });

  it('says so when the server ends, and is there again with it', async () => {
    const { port } = new URL(server.url);
    await server.close();
    await has('tunpath ui has ended', '[role=alert]');
    // What the browser itself says of a server that is gone.
    await page.close();
    complaints = [];
    server = await serveUi(network, { host: '127.0.0.1', port: Number(port) });
  });

  it('is one file, too, which has the datapath in it and needs nobody', async () => {
    const html = staticPage();
    assert.doesNotMatch(html, /from\s*["']node:|import\s*["']node:|require\(/);
    const file = path.join(directory, 'tunpath.html');
    writeFileSync(file, html);
    const alone = await open(`file://${file}`);
    await alone.select('select[name=labMode]', 'ipip');
    await has('ipip', 'svg', alone);
    await alone.select('select[name=labMode]', 'vxlan');
    await has('vxlan', 'svg', alone);
    const capture = path.join(directory, 'in.pcap');
    const writer = new PcapWriter(capture, LINK_RAW);
    writer.write(1000, tcp4({ src: '172.20.0.89', dst: '172.20.2.73', dport: 80, flags: 2 }));
    writer.write(1001, icmpEcho({ src: '172.20.0.89', dst: '172.20.2.73', ttl: 1 }));
    writer.close();
    const input = (await alone.$('input[name=files]'))!;
    await input.uploadFile(capture);
    await has('2 packets', 'main', alone);
    await has('ttl-exceeded', 'main', alone);
    await alone.click('.rows-space .row');
    await press('Explain', '.detail', alone);
    await has('delivered to default/webpod-w0 of k8s-w0; the answer is delivered', 'main', alone);
    for (let i = 0; i < 9; i++) await press('Step', '.moment', alone);
    await has('vxlan (VNI', '.changed-fields', alone);
    const config = path.join(directory, 'broken.yaml');
    writeFileSync(config, 'apiVersion: tunpath.dev/v1\nkind: NodeConfig\nmetadata: { name: a }\nspec: { uplonk: 1 }\n');
    await input.uploadFile(config);
    await has('broken.yaml:4:', '[role=alert]', alone);
    await go('sizes', alone);
    await press('Prove', 'main', alone);
    await has('1450', 'table', alone);
    await go('conformance', alone);
    await alone.select('select[name=rfc]', '792');
    await press('Check', 'main', alone);
    await has('4 pass, ', '[role=status]', alone);
    await alone.close();
  });

  it('leaves nothing in the browser that it did not ask for', () => {
    assert.deepEqual(
      readdirSync(directory).filter(name => name.endsWith('.crdownload')),
      [],
    );
  });
});
