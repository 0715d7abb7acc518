/**
 * Two nodes under traffic and random faults, for as long as one likes:
 *
 *   fault-run [--seconds N] [--seed N]
 *
 *   pa, pg -- node a ---- bridge sw ---- node b -- pb        a service of pb's; streams of UDP, TCP and ping from pa
 *
 * Between faults no packet is lost that no counter has; a fault that takes nothing away (a control client, an apply) may cost
 * none either; after every other all streams come back by themselves, and what has gone is in the node's log. No process
 * ends that was not told to. What it does is written down with the time; the same seed does the same.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { createInterface, type Interface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { callNode } from '../../datapath/control/client.ts';
import type { ApplyResult } from '../../datapath/control/node.ts';
import { socketPath } from '../../datapath/control/server.ts';
import { Random } from '../../datapath/random.ts';
import { Rig, type RunningNode, until } from './rig.ts';

type End = 'a' | 'b';
type Spec = Record<string, unknown>;

const UNDERLAY: Record<End, string> = { a: '192.168.10.1', b: '192.168.10.2' };
const PODS: Record<End, string> = { a: '10.244.1.10', b: '10.244.2.10' };
const NETWORKS: Record<End, string> = { a: '10.244.1.0/24', b: '10.244.2.0/24' };
const SERVICE = '10.96.0.10';
const ECHO_PORT = 5353;
const PER_SECOND = 100;
/** On a machine with much to do an answer is late, and not lost. */
const PATIENCE_MS = 2000;
const QUIET_MS = 1500;
const RECOVERY_MS = 30_000;
const CLIENTS = 40;
/** What a node may grow by, however long it runs. */
const GROWTH_BYTES = 300e6;

interface Phase {
  sent: number;
  lost: number;
}

/** One of the streams, by the program stream.ts. */
class Stream {
  private readonly child: ChildProcess;
  private readonly lines: Interface;
  private readonly answers: AsyncIterator<string>;

  constructor(namespace: string, address: string) {
    const program = fileURLToPath(new URL('stream.js', import.meta.url));
    const args = [program, address, `${ECHO_PORT}`, `${PER_SECOND}`, `${PATIENCE_MS}`];
    this.child = spawn('ip', ['netns', 'exec', namespace, process.execPath, ...args], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    this.lines = createInterface({ input: this.child.stdout! });
    this.answers = this.lines[Symbol.asyncIterator]();
  }

  async begin(): Promise<void> {
    assert.equal((await this.answers.next()).value, 'running');
  }

  /** Ends a phase. @returns what became of it */
  async phase(): Promise<Phase> {
    this.child.stdin!.write('\n');
    const { value, done } = await this.answers.next();
    assert.ok(done !== true, 'a stream has ended');
    return JSON.parse(value) as Phase;
  }

  stop(): void {
    this.child.kill('SIGKILL');
  }
}

interface Fault {
  what: string;
  /** Nothing is lost of what it does not touch. */
  isHarmless: boolean;
  /** What the log of node a says of it. */
  said?: RegExp;
  run(): Promise<void>;
}

class FaultRun {
  private readonly rig = new Rig('fr');
  private readonly random: Random;
  private readonly say: (line: string) => void;
  private node!: RunningNode;
  private other!: RunningNode;
  private readonly streams: Stream[] = [];
  private guests = 0;
  private started = 0;

  constructor(seed: number, say: (line: string) => void) {
    this.random = new Random(seed);
    this.say = say;
  }

  /** @returns how many faults there were */
  async run(seconds: number): Promise<number> {
    try {
      await this.begin();
      const end = Date.now() + seconds * 1000;
      let faults = 0;
      const size = this.residentBytes();
      while (Date.now() < end) {
        await this.quiet();
        const fault = this.nextFault();
        this.note(`fault ${++faults}: ${fault.what}`);
        await this.endure(fault);
      }
      await this.quiet();
      const growth = this.residentBytes() - size;
      this.note(`${faults} faults; node b has grown by ${Math.round(growth / 1e6)} MB`);
      assert.ok(growth < GROWTH_BYTES, `node b has grown by ${growth} bytes`);
      return faults;
    } catch (error) {
      this.note(`does not hold: ${(error as Error).message}`);
      throw error;
    } finally {
      for (const stream of this.streams) stream.stop();
      await this.rig.close();
    }
  }

  private async begin(): Promise<void> {
    const { rig } = this;
    await rig.namespace('a', 'b', 'pa', 'pb', 'pg');
    await rig.bridge('sw', '192.168.10.254/24');
    this.other = await rig.node('b', this.spec('b'));
    await rig.plug('b', 'ul0', 'sw', 'up-b');
    await this.startNode();
    await rig.program('pb', 'traffic', 'udp-serve', `${ECHO_PORT}`).until('listening');
    await rig.spawn('pb', 'iperf3', '-s', '--forceflush').until('Server listening');
    this.keepUp('ping -n -i 0.05 -w 5 10.244.2.10');
    this.keepUp('iperf3 -c 10.244.2.10 -t 10 -b 50M');
    this.keepUp('iperf3 -c 10.96.0.10 -p 5201 -u -t 5 -b 5M');
    for (const address of [PODS.b, SERVICE]) {
      const stream = new Stream(rig.full('pa'), address);
      this.streams.push(stream);
      await stream.begin();
    }
    await this.recover();
  }

  /** Traffic that begins again when a fault has ended it. */
  private keepUp(command: string): void {
    // It holds no pipe of ours, and ends with the shell: an iperf3 whose server is gone runs on for ever.
    const once = `setpriv --pdeathsig KILL ${command}`;
    this.rig.spawn('pa', 'bash', '-c', `exec >/dev/null 2>&1; while :; do ${once}; sleep 0.2; done`);
  }

  private spec(end: End, guests = 0): Spec {
    const { rig } = this;
    const far: End = end === 'a' ? 'b' : 'a';
    const pods = [{ name: `p${end}`, netns: rig.full(`p${end}`), device: 'eth0', address: PODS[end] }];
    if (end === 'a') pods.push({ name: 'pg', netns: rig.full('pg'), device: 'eth0', address: '10.244.1.11' });
    const extra = Array.from({ length: guests }, (_, i) => ({
      name: `guest${i}`,
      addresses: [`10.96.1.${i + 1}`],
      ports: [{ port: 80 }],
      endpoints: [{ address: PODS.b }],
    }));
    const ports = [
      { name: 'echo', protocol: 'UDP', port: ECHO_PORT },
      { name: 'bulk', protocol: 'TCP', port: 5201 },
      { name: 'bulk-udp', protocol: 'UDP', port: 5201 },
    ];
    return {
      uplink: {
        kind: 'tap',
        device: 'ul0',
        mac: `02:00:00:00:00:0${end === 'a' ? 1 : 2}`,
        address: `${UNDERLAY[end]}/24`,
      },
      host: { device: 'tp0', address: `${NETWORKS[end].replace('0/24', '1')}/32` },
      pods,
      tunnel: { protocol: 'vxlan', peers: [{ address: UNDERLAY[far] }] },
      routes: [{ to: NETWORKS[far], via: UNDERLAY[far], encap: true }],
      services: [{ name: 'echo', addresses: [SERVICE], ports, endpoints: [{ address: PODS.b }] }, ...extra],
      masquerade: [{ from: '10.244.0.0/16', notTo: ['10.244.0.0/16'] }],
    };
  }

  private async startNode(): Promise<void> {
    this.node = await this.rig.node('a', this.spec('a', this.guests));
    await this.rig.plug('a', 'ul0', 'sw', 'up-a');
  }

  // ---- What must hold

  /** A time without faults: what is lost has a counter. */
  private async quiet(): Promise<void> {
    await this.account('between faults', () => sleep(QUIET_MS));
  }

  private async account(what: string, work: () => Promise<void>): Promise<void> {
    await this.phases();
    const before = await this.drops();
    await work();
    const { sent, lost } = await this.phases();
    const counted = (await this.drops()) - before;
    assert.ok(sent > 0, 'the streams flow');
    if (lost > 0) this.note(`${what}: ${lost} of ${sent} lost, ${counted} counted`);
    assert.ok(lost <= counted, `${what}: ${lost} of ${sent} packets lost, ${counted} counted`);
  }

  private async endure(fault: Fault): Promise<void> {
    if (fault.isHarmless) {
      await this.account(fault.what, () => fault.run());
      return;
    }
    const log = this.node.output.length;
    const { node } = this;
    await fault.run();
    if (fault.said !== undefined) {
      const { said } = fault;
      await until(`the log to say ${said}`, () => said.test(node.output.slice(log)), RECOVERY_MS);
    }
    await this.recover();
  }

  /** Until every stream gets all its answers again. */
  private async recover(): Promise<void> {
    const from = Date.now();
    await this.phases();
    for (;;) {
      await sleep(300);
      const { sent, lost } = await this.phases();
      if (lost === 0 && sent > 0) break;
      const log = () => `\nnode a:\n${this.node.output.slice(-4000)}\nnode b:\n${this.other.output.slice(-2000)}`;
      assert.ok(Date.now() - from < RECOVERY_MS, `streams do not come back: ${lost} of ${sent} lost${log()}`);
    }
  }

  private async phases(): Promise<Phase> {
    for (const node of [this.node, this.other]) assert.ok(!node.ended, `a node has died:\n${node.output.slice(-4000)}`);
    const all = await Promise.all(this.streams.map(stream => stream.phase()));
    return { sent: all.reduce((n, { sent }) => n + sent, 0), lost: all.reduce((n, { lost }) => n + lost, 0) };
  }

  private async drops(): Promise<number> {
    let sum = 0;
    for (const end of ['a', 'b']) {
      for (const [name, packets] of await this.rig.counters(end)) if (name.startsWith('drop-')) sum += packets;
    }
    return sum;
  }

  private residentBytes(): number {
    // Behind `ip netns exec`, which has become the node.
    const [, resident] = readFileSync(`/proc/${this.other.pid}/statm`, 'utf8').split(' ');
    return Number(resident) * 4096;
  }

  // ---- Faults

  private nextFault(): Fault {
    const faults = this.faults();
    return faults[this.random.below(faults.length)];
  }

  private faults(): Fault[] {
    const { rig, random } = this;
    const pause = () => sleep(100 + random.below(1500));
    return [
      {
        what: "the pod's device is deleted",
        isHarmless: false,
        said: /port pod pa is gone/,
        run: () => rig.ip('pa', ['link del eth0']),
      },
      {
        what: "the pod's device goes down for a while",
        isHarmless: false,
        run: async () => {
          await rig.ip('pa', ['link set eth0 down']);
          await pause();
          await rig.ip('pa', ['link set eth0 up', 'route replace default dev eth0']);
        },
      },
      {
        what: 'the TAP is deleted',
        isHarmless: false,
        said: /port uplink .*is gone/,
        run: async () => {
          await rig.ip('sw', ['link del up-a']);
          // Not only there: one that is moved while the node still sets it up is lost to it.
          await until(
            'the TAP to be made again and attached',
            async () => {
              const isThere = (await rig.exec('a', 'ip', 'link', 'show', 'ul0')).code === 0;
              const rows = (await rig.get<{ kind: string; state: string }>('a', 'ports')).filter(
                ({ kind }) => kind === 'uplink',
              );
              return isThere && rows[0].state === 'up';
            },
            RECOVERY_MS,
          );
          await rig.plug('a', 'ul0', 'sw', 'up-a');
        },
      },
      {
        what: 'the host port is deleted',
        isHarmless: false,
        said: /port host .*is gone/,
        run: () => rig.ip('a', ['link del tp0']),
      },
      {
        what: 'the wire is pulled for a while',
        isHarmless: false,
        run: async () => {
          await rig.ip('sw', ['link set up-b down']);
          await pause();
          await rig.ip('sw', ['link set up-b up']);
        },
      },
      {
        what: "a guest's namespace is deleted and made again",
        isHarmless: true,
        run: async () => {
          await rig.run('a', 'ip', 'netns', 'del', rig.full('pg'));
          await pause();
          await rig.namespace('pg');
        },
      },
      {
        what: 'SIGSTOP',
        isHarmless: false,
        run: async () => {
          this.node.child.kill('SIGSTOP');
          await pause();
          this.node.child.kill('SIGCONT');
        },
      },
      { what: 'apply', isHarmless: true, run: () => this.apply() },
      { what: 'apply of what is wrong', isHarmless: true, run: () => this.applyWrong() },
      {
        what: 'kill -9, and start',
        isHarmless: false,
        run: async () => {
          this.node.child.kill('SIGKILL');
          await this.node.exited;
          await this.startNode();
        },
      },
      { what: 'control clients that hang up', isHarmless: true, run: () => this.hangUp() },
    ];
  }

  private async apply(): Promise<void> {
    this.guests = this.random.below(20);
    const text = readFileSync(this.rig.writeConfig('a', this.spec('a', this.guests)), 'utf8');
    const answer = await callNode(socketPath(this.rig.full('a')), 'apply', { text, file: 'fault-run' }, 30_000);
    assert.ok((answer as ApplyResult).applied !== undefined, JSON.stringify(answer));
  }

  private async applyWrong(): Promise<void> {
    const text = JSON.stringify({ ...this.spec('a'), mtu: 'no' });
    await callNode(socketPath(this.rig.full('a')), 'apply', { text, file: 'fault-run' }, 30_000).catch(() => null);
  }

  /** Each at its own time, and in the middle of its own word. */
  private async hangUp(): Promise<void> {
    const { random } = this;
    const questions = ['status', 'get', 'config'].map(
      method => `${JSON.stringify({ id: 1, method, params: { kind: 'ports' } })}\n`,
    );
    await Promise.all(
      Array.from({ length: CLIENTS }, async () => {
        const question = questions[random.below(questions.length)];
        const [length, wait] = [random.below(question.length + 1), random.below(300)];
        const socket = connect(socketPath(this.rig.full('a')));
        socket.on('error', () => {});
        socket.write(question.slice(0, length));
        await sleep(wait);
        socket.destroy();
      }),
    );
  }

  private note(line: string): void {
    if (this.started === 0) this.started = Date.now();
    this.say(`${((Date.now() - this.started) / 1000).toFixed(1)} s ${line}`);
  }
}

/** @returns how many faults there were. @throws where something does not hold */
export function faultRun(options: { seconds: number; seed: number; say?: (line: string) => void }): Promise<number> {
  return new FaultRun(options.seed, options.say ?? (() => {})).run(options.seconds);
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const { values } = parseArgs({ options: { seconds: { type: 'string' }, seed: { type: 'string' } } });
  const seed = Number(values.seed ?? Date.now() % 2 ** 31);
  const say = (line: string) => process.stdout.write(`${line}\n`);
  say(`seed ${seed}`);
  await faultRun({ seconds: Number(values.seconds ?? 1800), seed, say });
}
