/** `node dist/test/ui/picture.js docs/ui.png`: the picture of the page in the README. */
import { setTimeout as sleep } from 'node:timers/promises';
import puppeteer from 'puppeteer-core';
import { serveUi } from '../../datapath/ui/server.ts';
import { FakeNetwork } from './fake.ts';

const SIZE = { width: 1100, height: 640 };
/** Until dots are on their way. */
const MOVING_MS = 350;
const QUESTIONS: [from: string, to: string, sport: string, ttl?: string][] = [
  ['curl-pod', '10.96.129.95:80', '40001'],
  ['curl-pod', '172.20.1.217:80', '40002'],
  ['webpod-w1', '172.20.2.73:80', '40003'],
  ['webpod-w0', '172.20.0.89:53', '40004'],
  ['webpod-ctr', '172.20.1.217:80', '40005', '1'],
  ['curl-pod', '172.20.2.73:80', '40006'],
];

const network = new FakeNetwork(true);
const server = await serveUi(network, { host: '127.0.0.1', port: 0 });
const browser = await puppeteer.launch({ executablePath: '/usr/bin/chromium', args: ['--no-sandbox'] });
try {
  const page = await browser.newPage();
  await page.setViewport(SIZE);
  await page.goto(server.url);
  await page.waitForSelector('svg .node');
  // Found out once, and shown again at the moment of the picture.
  const flows: Parameters<FakeNetwork['flows']>[0] = [];
  network.join({
    picture: () => {},
    flows: found => flows.push(...found),
    packets: () => {},
    counters: () => {},
    lost: () => {},
    trouble: () => {},
  });
  for (const [from, to, sport, ttl = '64'] of QUESTIONS) {
    await network.explain({ from, to, sport, ttl, proto: 'tcp', both: true });
  }
  await sleep(3000);
  network.flows([...flows]);
  await page.evaluate(`new Promise(resolve => setTimeout(resolve, ${MOVING_MS}))`);
  await page.screenshot({ path: process.argv[2] as `${string}.png` });
} finally {
  await browser.close();
  await server.close();
}
