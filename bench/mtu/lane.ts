/** Two nodes with a pod each, for one tunnel and one of the four ways, and what is asked of them. */
import { setTimeout as sleep } from 'node:timers/promises';
import { callNode, RUN_DIR } from '../../datapath/control/client.ts';
import { parseTcp, parseUdp, TrialError } from '../e2e/parse.ts';
import { Sandbox } from '../e2e/sandbox.ts';
import type { Mode } from '../overhead/theory.ts';
import { processWork } from '../process-work.ts';
import { uplinkMtu, type Way } from './theory.ts';

export interface TcpTrial {
  gigabitsPerSecond: number;
  /** CPU seconds of both nodes for 10^9 bytes delivered. */
  cpu: number;
}

export interface UdpTrial {
  /** Of what was sent. */
  deliveredPercent: number;
  /** As of TCP, for what was delivered. */
  cpu: number;
}

const UDP_HEADERS = 28;
/** What an MSS leaves out: headers without options (RFC 6691). */
const TCP_HEADERS = 40;
/** Well below what any way carries, so that what is lost is lost to the MTU. */
const UDP_RATE = 40e6;
const SPARE_MS = 15_000;
const SETTLE_MS = 200;

const REACH_TIMEOUT_MS = 5000;

export class Lane {
  readonly mode: Mode;
  readonly way: Way;
  private readonly sandbox: Sandbox;
  private readonly signal: AbortSignal;

  constructor(mode: Mode, way: Way, signal: AbortSignal) {
    this.mode = mode;
    this.way = way;
    this.signal = signal;
    this.sandbox = new Sandbox(`${mode}-${way}-`);
  }

  async build(): Promise<void> {
    const { sandbox } = this;
    await sandbox.addNamespaces('a', 'b', 'sw', 'p1', 'p2');
    await sandbox.ip('sw', ['link add br0 type bridge mcast_snooping 0', 'link set br0 up']);
    for (const side of [1, 2]) {
      const node = nodeName(side);
      await sandbox.startNode(node, this.specOf(side));
      await sandbox.ip(node, [`link set ul0 netns ${sandbox.full('sw')} name up${side}`]);
      await sandbox.ip('sw', [`link set up${side} mtu ${uplinkMtu(this.mode, this.way)} master br0 up`]);
    }
    await sandbox.start('p2', ['iperf3', '-s', '--forceflush'], 'Server listening');
    // A node hears a little later that its TAP is up on the switch.
    const deadline = performance.now() + REACH_TIMEOUT_MS;
    while (!(await this.passesWithDf(100))) {
      if (performance.now() < deadline) continue;
      throw new TrialError(`${this.mode}, ${this.way}: pods do not reach each other`);
    }
  }

  private specOf(side: number): object {
    const { mode, way } = this;
    const peer = underlay(3 - side);
    return {
      uplink: {
        kind: 'tap',
        device: 'ul0',
        mac: `02:00:00:00:79:0${side}`,
        address: `${underlay(side)}/24`,
        mtu: uplinkMtu(mode, way),
      },
      pods: [{ name: 'default/p', netns: this.sandbox.full(`p${side}`), device: 'eth0', address: pod(side) }],
      tunnel: { protocol: mode, peers: [{ address: peer }] },
      routes: [{ to: `${pod(3 - side)}/32`, via: peer, encap: true }],
      mtu: { tooBig: way },
    };
  }

  /** Does one packet of `length` bytes with DF get there and back? */
  async passesWithDf(length: number): Promise<boolean> {
    return (await this.ping('do', length)) === 0;
  }

  /**
   * Packets that the first node puts on the underlay for one datagram without DF.
   * @throws TrialError when it does not get there and back
   */
  async packetsOnWire(length: number): Promise<number> {
    const before = await this.uplinkPackets();
    const lost = await this.ping('dont', length);
    const packets = (await this.uplinkPackets()) - before;
    if (lost !== 0) throw new TrialError(`${this.mode}, ${this.way}: a datagram of ${length} bytes was lost`);
    return packets;
  }

  private async ping(discover: string, length: number): Promise<number | null> {
    const size = ['-M', discover, '-s', `${length - UDP_HEADERS}`];
    const { code } = await this.sandbox.run('p1', ['ping', '-n', '-c1', '-W1', ...size, pod(2)], SPARE_MS, this.signal);
    return code;
  }

  /** Without what a node says of itself on the link, at times of its own: ARP. */
  private async uplinkPackets(): Promise<number> {
    for (let before = await this.arpSent(); ; ) {
      const rows = (await this.ask('ports')) as { kind: string; txPackets: number }[];
      const arp = await this.arpSent();
      if (arp === before) return rows.find(row => row.kind === 'uplink')!.txPackets - arp;
      before = arp;
    }
  }

  private async arpSent(): Promise<number> {
    const rows = (await this.ask('counters')) as { name: string; packets: number }[];
    return rows.filter(({ name }) => /^arp-.*-sent$/.test(name)).reduce((sum, { packets }) => sum + packets, 0);
  }

  private ask(kind: string): Promise<unknown> {
    return callNode(`${RUN_DIR}/${this.sandbox.full(nodeName(1))}.sock`, 'get', { kind });
  }

  /** One TCP flow whose segments are packets of `length` bytes, for whole seconds. */
  async tcp(length: number, seconds: number): Promise<TcpTrial> {
    const { text, cpu } = await this.iperf('-M', `${length - TCP_HEADERS}`, '-t', `${seconds}`);
    const { gigabitsPerSecond, gigabytes } = parseTcp(text);
    return { gigabitsPerSecond, cpu: cpu / gigabytes };
  }

  /** Datagrams of `length` bytes at a moderate rate, for whole seconds. */
  async udp(length: number, seconds: number): Promise<UdpTrial> {
    const payload = length - UDP_HEADERS;
    const { text, cpu } = await this.iperf('-u', '-b', `${UDP_RATE}`, '-l', `${payload}`, '-t', `${seconds}`);
    const { delivered, lostPercent } = parseUdp(text, payload);
    return { deliveredPercent: 100 - lostPercent, cpu: cpu / ((delivered * seconds * payload) / 1e9) };
  }

  private async iperf(...options: string[]): Promise<{ text: string; cpu: number }> {
    // The server takes the next client once it has seen the last one off.
    await sleep(SETTLE_MS);
    const nodes = [1, 2].map(side => this.sandbox.pidOf(nodeName(side)));
    const spent = () => nodes.map(processWork).reduce((sum, { user, system }) => sum + user + system, 0);
    const before = spent();
    const argv = ['iperf3', '-c', pod(2), '-J', ...options];
    const { stdout, stderr, late } = await this.sandbox.run('p1', argv, SPARE_MS, this.signal);
    if (late || stdout.trim() === '') throw new TrialError(`iperf3: ${late ? 'did not end' : stderr.trim()}`);
    return { text: stdout, cpu: spent() - before };
  }

  remove(): Promise<void> {
    return this.sandbox.remove();
  }
}

const nodeName = (side: number) => (side === 1 ? 'a' : 'b');
const underlay = (side: number) => `192.168.10.${side}`;
const pod = (side: number) => `10.244.${side}.10`;
