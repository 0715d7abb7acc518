/**
 * A node under load that everybody looks at, for as long as one likes:
 *
 *   look-run [--seconds N] [--seed N] [--rate PACKETS]
 *
 * observe, monitor, capture, metrics, Hubble's API and the page, all at once, by clients that read, that stall and that
 * vanish. Round by round: what a capture has and what it was told to have lost are together what the port counted; the
 * node answers meanwhile, no watch is left behind, and no process grows.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { type ClientRequest, get, type IncomingMessage } from 'node:http';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { callNode } from '../../datapath/control/client.ts';
import { socketPath } from '../../datapath/control/server.ts';
import { Random } from '../../datapath/random.ts';
import { HubbleClient } from '../fixtures/hubble-client.ts';
import { MAIN } from '../fixtures/program.ts';
import { Rig, type Running, type RunningNode, until } from './rig.ts';

const [P1, P2, NOWHERE] = ['10.244.1.10', '10.244.1.11', '203.0.113.9'];
const ROUND_MS = 30_000;
const MIB = 1 << 20;
/** Rounds after which tables and heaps have the size that they will have. */
const WARM_UP = 4;
/** What the last rounds may have over the first, MiB: collections come when they come. */
const GROWTH_MIB = 40;
/** Of a question to the node, on a machine with much to do. */
const PATIENCE_MS = 300_000;

export interface LookOptions {
  seconds: number;
  seed: number;
  /** Packets a second. */
  rate?: number;
  roundMs?: number;
  say?: (line: string) => void;
}

export interface LookResult {
  rounds: number;
  captured: number;
  lost: number;
  /** Of each process, MiB after every round. */
  memory: Record<string, number[]>;
}

class LookRun {
  private readonly rig = new Rig('look');
  private readonly random: Random;
  private readonly options: Required<LookOptions>;
  private readonly memory: Record<string, number[]> = { node: [], page: [], metrics: [], hubble: [] };
  private captured = 0;
  private lost = 0;
  /** Of the node's answers to a question, ms. */
  private slowest = 0;
  private load!: Running;

  constructor(options: LookOptions) {
    this.options = { rate: 4000, roundMs: ROUND_MS, say: () => {}, ...options };
    this.random = new Random(options.seed);
  }

  async run(): Promise<LookResult> {
    const { rig, options } = this;
    try {
      const node = await this.startNode();
      const services = { node, page: this.tunpath('ui'), metrics: this.tunpath('metrics', '--listen', '127.0.0.1:0') };
      const hubble = this.tunpath('observe', '--listen', '127.0.0.1:0');
      const addresses = {
        page: new URL(await says(services.page, /^http:\S+/m)),
        metrics: await says(services.metrics, /http:\S+/),
        hubble: await says(hubble, /127\.0\.0\.1:\d+/),
      };
      this.load = rig.program('p1', 'look-load', String(options.rate), P2, NOWHERE);
      this.load.child.kill('SIGSTOP');
      const end = Date.now() + options.seconds * 1000;
      let rounds = 0;
      for (; Date.now() < end; rounds++) {
        await this.round(addresses);
        for (const [name, { pid }] of Object.entries({ ...services, hubble })) this.memory[name].push(residentMib(pid));
        const figures = Object.entries(this.memory).map(([name, all]) => `${name} ${all.at(-1)!.toFixed(0)} MiB`);
        options.say(
          `round ${rounds + 1}: ${this.captured} captured, ${this.lost} lost, slowest answer ${this.slowest} ms; ${figures.join(', ')}`,
        );
      }
      for (const [name, running] of Object.entries({ ...services, hubble })) {
        assert.equal(running.ended, false, `${name}: ${running.output}`);
      }
      return { rounds, captured: this.captured, lost: this.lost, memory: this.memory };
    } finally {
      await rig.close();
    }
  }

  private async startNode(): Promise<RunningNode> {
    const { rig } = this;
    await rig.namespace('node', 'p1', 'p2');
    return rig.node('node', {
      uplink: { kind: 'tap', device: 'ul0', mac: '02:00:00:00:00:01', address: '192.168.10.1/24' },
      pods: [
        { name: 'default/p1', netns: rig.full('p1'), device: 'eth0', address: P1 },
        { name: 'default/p2', netns: rig.full('p2'), device: 'eth0', address: P2 },
      ],
      flowHistory: 5000,
    });
  }

  private tunpath(...args: string[]): Running {
    return this.rig.command(process.execPath, MAIN, ...args, '--node', this.rig.full('node'));
  }

  /** Clients come, the load flows, some stall and some vanish; then all is counted. */
  private async round(addresses: { page: URL; metrics: string; hubble: string }): Promise<void> {
    const { rig, random, options } = this;
    const captures = [
      this.tunpath('capture', '--at', 'default/p1', '-w', join(rig.directory, 'p1.pcapng'), '-C', '50', '-W', '2'),
      this.tunpath('capture', '--at', 'default/p1', '-w', '/dev/null'),
    ];
    const others = [
      this.tunpath('observe', '-o', 'jsonpb'),
      this.tunpath('observe', '--verdict', 'DROPPED'),
      this.tunpath('monitor', '-v'),
      this.tunpath('capture', '-w', '/dev/null'),
    ];
    await Promise.all([...captures, ...others].map(client => client.until('SIGINT ends it')));
    const before = await this.portPackets();
    const pages = ['/api/events', '/api/packets', '/api/packets?drops=true'].flatMap(path => [
      new PageClient(addresses.page, path),
      new PageClient(addresses.page, path),
    ]);
    const hubble = [
      new HubbleClient(`unix:/run/tunpath/${rig.full('node')}.hubble.sock`),
      new HubbleClient(addresses.hubble),
    ];
    const streams = hubble.map(client =>
      client
        .getFlows({ 3: true })
        .on('error', () => {})
        .on('data', () => {}),
    );
    this.load.child.kill('SIGCONT');
    const end = Date.now() + options.roundMs;
    while (Date.now() < end) {
      const one = <T>(list: readonly T[]) => list[random.below(list.length)];
      const choice = random.below(6);
      if (choice === 0) await stall(captures[1], random.below(options.roundMs / 4));
      else if (choice === 1) one(others).child.kill('SIGKILL');
      else if (choice === 2) one(pages).isReading = random.below(2) === 0;
      else if (choice === 3) one(pages).vanish();
      else if (choice === 4) one(streams).pause();
      else await (await fetch(addresses.metrics)).text();
      const asked = Date.now();
      await callNode(socketPath(rig.full('node')), 'status', {}, PATIENCE_MS);
      this.slowest = Math.max(this.slowest, Date.now() - asked);
      // Asked for, and left before it comes.
      get(addresses.metrics)
        .on('error', () => {})
        .on('socket', socket => setTimeout(() => socket.destroy(), random.below(20)));
      await sleep(options.roundMs / 20);
    }
    this.load.child.kill('SIGSTOP');
    const after = await this.quietPackets();
    for (const client of captures) await this.count(client, after - before);
    for (const client of others) client.child.kill('SIGKILL');
    for (const page of pages) page.vanish();
    for (const stream of streams) stream.cancel();
    for (const client of hubble) client.close();
    await until('no watch', async () => (await rig.status<{ watches: number }>('node')).watches === 0, PATIENCE_MS);
    await rig.run('p1', 'ping', '-c', '1', '-W', '5', P2);
  }

  /** A capture at p1 has every packet that the port counted, or was told how many it has not. */
  private async count(capture: Running, packets: number): Promise<void> {
    // It may still have much to read: asked to end, it reads what was there.
    capture.child.kill('SIGINT');
    const code = await Promise.race([capture.exited, sleep(PATIENCE_MS, 'late', { ref: false })]);
    assert.equal(code, 0, capture.output);
    const [, captured, lost] = /(\d+) packets captured, (\d+) lost/.exec(capture.output)!.map(Number);
    assert.equal(
      captured + lost,
      packets,
      `of ${packets} packets ${captured} were captured, and ${lost} said to be lost`,
    );
    this.captured += captured;
    this.lost += lost;
  }

  private async portPackets(): Promise<number> {
    const port = (await this.rig.ports('node')).find(({ name }) => name === 'default/p1')!;
    return port.rxPackets + port.txPackets;
  }

  /** Once nothing moves any more. */
  private async quietPackets(): Promise<number> {
    let last = -1;
    await until(
      'silence',
      async () => {
        await sleep(200);
        const now = await this.portPackets();
        const isQuiet = now === last;
        last = now;
        return isQuiet;
      },
      PATIENCE_MS,
    );
    return last;
  }
}

/** A page as a browser has it open; one that does not read keeps its connection. */
class PageClient {
  private readonly request: ClientRequest;
  private response: IncomingMessage | null = null;

  constructor({ origin, searchParams }: URL, path: string) {
    const headers = { Authorization: `Bearer ${searchParams.get('token')}` };
    this.request = get(origin + path, { headers }, response => {
      this.response = response.on('error', () => {});
      response.resume();
    }).on('error', () => {});
  }

  set isReading(value: boolean) {
    if (value) this.response?.resume();
    else this.response?.pause();
  }

  vanish(): void {
    this.request.destroy();
  }
}

async function says(running: Running, what: RegExp): Promise<string> {
  await until(String(what), () => what.test(running.output), PATIENCE_MS);
  return what.exec(running.output)![0];
}

async function stall({ child }: Running, ms: number): Promise<void> {
  child.kill('SIGSTOP');
  await sleep(ms);
  child.kill('SIGCONT');
}

function residentMib(pid: number): number {
  return (Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) * 1024) / MIB;
}

/** @throws where something does not hold */
export async function lookRun(options: LookOptions): Promise<LookResult> {
  const result = await new LookRun(options).run();
  for (const [name, all] of Object.entries(result.memory)) {
    const settled = all.slice(WARM_UP);
    if (settled.length < 2 * WARM_UP) continue;
    const third = Math.floor(settled.length / 3);
    const [early, late] = [mean(settled.slice(0, third)), mean(settled.slice(-third))];
    assert.ok(late - early < GROWTH_MIB, `${name} grew from ${early.toFixed(0)} to ${late.toFixed(0)} MiB`);
  }
  return result;
}

function mean(numbers: readonly number[]): number {
  return numbers.reduce((sum, number) => sum + number, 0) / numbers.length;
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const { values } = parseArgs({
    options: { seconds: { type: 'string' }, seed: { type: 'string' }, rate: { type: 'string' } },
  });
  const seed = Number(values.seed ?? Date.now() % 2 ** 31);
  const say = (line: string) => process.stdout.write(`${line}\n`);
  say(`seed ${seed}`);
  await lookRun({ seconds: Number(values.seconds ?? 1800), seed, rate: Number(values.rate ?? 4000), say });
}
