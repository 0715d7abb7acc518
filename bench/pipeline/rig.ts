/**
 * A whole node over memory: one pod on one side, the uplink on the other, and packets of as many flows as wanted.
 *
 * The node has 250 peers with a pod each, so that routes, tunnel templates and neighbours are not always the same one.
 * Flows are made in order and met in random order. Every flow has been answered, so both directions are known.
 */
import { Counters, PORT_RX_DROPPED } from '../../datapath/counters.ts';
import { BURST, type Datapath } from '../../datapath/forward.ts';
import { monotonicClock } from '../../datapath/io/clock.ts';
import { OFFLOAD_CSUM, OFFLOAD_TSO, OFFLOAD_TSO_ECN, OFFLOAD_USO } from '../../datapath/io/device.ts';
import { hugeMemory } from '../../datapath/io/huge-memory.ts';
import { type Replay, ReplayDevice } from '../../datapath/io/memory.ts';
import type { NatProgram } from '../../datapath/nat/nat.ts';
import { SLOT_BYTES } from '../../datapath/packet/packet.ts';
import { Pool } from '../../datapath/packet/pool.ts';
import { PORT_POD, PORT_UPLINK } from '../../datapath/port.ts';
import type { ProfileName } from '../../datapath/profile.ts';
import { createDatapath } from '../../datapath/program/install.ts';
import { type HopProgram, hopProgram, type Program } from '../../datapath/program/program.ts';
import { Random } from '../../datapath/random.ts';
import type { Route } from '../../datapath/route/nexthop.ts';
import * as hops from '../../datapath/route/nexthop.ts';
import { TUNNEL_GENEVE, TUNNEL_IPIP, TUNNEL_VXLAN } from '../../datapath/tunnel/tunnel.ts';
import { foldSum, pseudoSum, sumWords } from '../../datapath/wire/checksum.ts';
import * as ethernet from '../../datapath/wire/ethernet.ts';
import * as ipv4 from '../../datapath/wire/ipv4.ts';
import * as udp from '../../datapath/wire/udp.ts';
import * as vnet from '../../datapath/wire/virtio-net.ts';

export const MODES = ['native', 'ipip', 'vxlan', 'geneve'] as const;
export type Mode = (typeof MODES)[number];
/** none: flows are not tracked. tracked: they are, and nothing is rewritten. */
export const NATS = ['none', 'tracked', 'service', 'masquerade'] as const;
export type NatKind = (typeof NATS)[number];
export type Size = number | 'IMIX';
/** Bytes of the IP packets of a pod. IMIX: 7 of 64, 4 of 576, 1 of 1500. */
export const SIZES: readonly Size[] = [64, 128, 256, 512, 1024, 1500, 'IMIX'];
const IMIX = [64, 576, 64, 64, 576, 64, 1500, 64, 576, 64, 64, 576];

export interface Case {
  /** out: pod to uplink. in: the answers, uplink to pod. */
  direction: 'out' | 'in';
  mode: Mode;
  size: Size;
  flows: number;
  nat: NatKind;
  profile: ProfileName;
  /** auto: devices take partial checksums and superpackets, as TUN and TAP do. none: nothing is left to them. */
  offload: 'none' | 'auto';
  /** Packets per read. */
  burst: number;
  /**
   * How far packets get, for what a part of the path costs. devices: read and written, no path between. source: refused
   * by the source check. parse: refused by the first step after parsing.
   */
  until?: 'devices' | 'source' | 'parse';
}

const PEERS = 250;
const SERVICES = 250;
const BACKENDS = 4;
const UNDERLAY = 0xc0a80001 | 0; // 192.168.0.1
const HOST = 0x0af40001; // 10.244.0.1
const POD = 0x0af4000a; // 10.244.0.10
const SERVICE = 0x0a600001; // 10.96.0.1
const IDENTITY = 21500;
const TUNNEL_PORT = 8472;
const FIRST_PORT = 1024;
const SERVER_PORT = 5201;
/** The uplink carries a packet of 1500 bytes in any tunnel, so that a size means the same in every mode. */
const MTU = 1600;
const OFFLOADS = OFFLOAD_CSUM | OFFLOAD_TSO | OFFLOAD_TSO_ECN | OFFLOAD_USO;
/** TEST-NET-3: nobody's. */
const STRANGER = 0xcb007101 | 0;
const GROUP = 0xe0000001 | 0;
const MIN_TRACE = 1 << 16;
const PROTOCOLS = { ipip: TUNNEL_IPIP, vxlan: TUNNEL_VXLAN, geneve: TUNNEL_GENEVE };

/** Underlay address of peer `k`, from 0: 192.168.0.2 on. */
const peerAddress = (k: number) => UNDERLAY + 1 + k;
/** Its pod: 10.244.(k + 1).20. */
const remotePod = (k: number) => 0x0af40000 + ((k + 1) << 8) + 20;
const macLoOf = (address: number) => address ^ 0x5a000000;

export class Rig {
  readonly datapath: Datapath;
  readonly counters = new Counters();
  /** What is read, and what it comes out of. */
  readonly source: ReplayDevice;
  readonly sink: ReplayDevice;
  private readonly inPort: number;
  private readonly c: Case;

  constructor(c: Case) {
    this.c = c;
    const pool = new Pool(4 * BURST, hugeMemory(4 * BURST * SLOT_BYTES));
    const offloads = c.offload === 'auto' ? OFFLOADS : 0;
    const pod = new ReplayDevice(pool, undefined, { name: 'pod', mtu: MTU, offloads });
    const uplink = new ReplayDevice(pool, undefined, { name: 'uplink', layer: 2, mtu: MTU, offloads });
    const environment = {
      pool,
      counters: this.counters,
      clock: monotonicClock,
      random: new Random(7),
      memory: hugeMemory,
    };
    this.datapath = createDatapath(programOf(c), [pod, uplink], environment);
    for (let k = 0; k < PEERS; k++) {
      this.datapath.neighbors.addPermanent(peerAddress(k), 0x0242, macLoOf(peerAddress(k)));
    }
    this.inPort = c.direction === 'out' ? 0 : 1;
    this.source = this.inPort === 0 ? pod : uplink;
    this.sink = this.inPort === 0 ? uplink : pod;

    const made = packetsOf(c);
    let answers = made;
    if (c.until === undefined) {
      answers = { ...this.exchange(made, pod, uplink, 0), ...vnetFields(c, 1) };
      this.exchange(answers, uplink, pod, 1);
    }
    this.source.play(shuffle(this.inPort === 0 ? made : answers, c.flows));
    this.source.burst = c.burst;
  }

  /** Takes `packets` through the path, and the timers, as the loop does. */
  run(packets: number): void {
    if (this.c.until === 'devices') {
      this.copy(packets);
      return;
    }
    const { datapath, inPort } = this;
    const port = datapath.ports[inPort];
    for (let done = 0; done < packets; ) {
      done += datapath.receive(port);
      datapath.tick();
    }
  }

  /** Reads and writes, and nothing between. */
  private copy(packets: number): void {
    const { source, sink } = this;
    const slots = this.datapath.pool.packets;
    for (let done = 0; done < packets; ) {
      const n = source.readBurst(slots, BURST);
      for (let i = 0; i < n; i++) sink.write(slots[i]);
      done += n;
    }
  }

  /** Sends every packet through once. @returns the answers to what came out */
  private exchange(replay: Replay, from: ReplayDevice, to: ReplayDevice, port: number): Replay {
    const { datapath } = this;
    const count = replay.lengths.length;
    const overhead = port === 1 ? 0 : ethernet.HEADER_LEN + (datapath.tunnels.list[0]?.overhead ?? 0);
    const headerWords = (overhead + ipv4.HEADER_LEN + udp.HEADER_LEN + 3) >> 2;
    const headers = new Int32Array(port === 1 ? 0 : count * headerWords);
    const lengths = replay.lengths.map(length => length + overhead);
    from.play(replay);
    for (let done = 0; done < count; ) {
      from.burst = Math.min(BURST, count - done);
      const before = to.packets;
      const n = datapath.receive(datapath.ports[port]);
      if (to.packets !== before + n) throw new Error(this.complaint());
      for (let i = 0; i < n && port === 0; i++) {
        const off = to.offsets[(before + i) & (to.offsets.length - 1)];
        copyAnswer(datapath.pool.view, off, overhead, headers, (done + i) * headerWords, headerWords);
      }
      done += n;
    }
    from.play({ headers, headerWords, lengths: new Uint16Array(0) });
    return { headers, headerWords, lengths };
  }

  /** Throws unless everything that was read has come out. */
  check(): void {
    const lost = this.datapath.ports.some((_, port) => this.counters.ofPort(port, PORT_RX_DROPPED) > 0);
    if (lost && this.c.until === undefined) throw new Error(this.complaint());
  }

  private complaint(): string {
    return `packets were lost: ${JSON.stringify(this.counters.snapshot())}`;
  }
}

const BY_UPLINK = 'uplink uplink';

function programOf(c: Case): Program {
  const tunnel = c.mode !== 'native';
  const nextHops: HopProgram[] = [
    hopProgram(hops.HOP_REFUSE),
    hopProgram(hops.HOP_POD, { port: 'pod pod', mtu: MTU }),
    hopProgram(hops.HOP_ONLINK, { port: BY_UPLINK, mtu: MTU }),
    hopProgram(hops.HOP_HOST, { mtu: MTU }),
  ];
  const routes: Route[] = [
    { prefix: POD, length: 32, hop: 1 },
    { prefix: UNDERLAY & ~0xffff, length: 16, hop: 2 },
    { prefix: UNDERLAY, length: 32, hop: 3 },
    { prefix: HOST, length: 32, hop: 3 },
  ];
  for (let k = 0; k < PEERS; k++) {
    const gateway = peerAddress(k);
    const hop = tunnel
      ? hopProgram(hops.HOP_TUNNEL, {
          port: BY_UPLINK,
          gateway,
          tunnel: c.mode,
          peerAddress: gateway,
          mtu: MTU - 50,
          transit: 1,
        })
      : hopProgram(hops.HOP_GATEWAY, { port: BY_UPLINK, gateway, mtu: MTU, transit: 1 });
    routes.push({ prefix: remotePod(k) & ~0xff, length: 24, hop: nextHops.push(hop) - 1 });
  }
  return {
    profile: c.profile,
    underlay: { address: UNDERLAY, prefixLength: 16, macHi: 0x0242, macLo: macLoOf(UNDERLAY), mtu: MTU },
    hostAddress: HOST,
    ports: [
      { kind: PORT_POD, name: 'pod', addresses: [POD], identity: IDENTITY, place: '' },
      { kind: PORT_UPLINK, name: 'uplink', addresses: [], identity: 0, place: '' },
    ],
    routes,
    neighbors: [],
    policy: null,
    nextHops,
    tunnels:
      c.mode === 'native'
        ? []
        : [
            {
              name: c.mode,
              protocol: PROTOCOLS[c.mode],
              port: TUNNEL_PORT,
              vni: -1,
              localAddress: UNDERLAY,
              localMacHi: 0x0242,
              localMacLo: macLoOf(HOST),
              peers: Array.from({ length: PEERS }, (_, k) => ({
                address: peerAddress(k),
                macHi: 0x0242,
                macLo: macLoOf(remotePod(k)),
              })),
              acceptAny: false,
            },
          ],
    nat: c.nat === 'none' ? null : natOf(c),
  };
}

function natOf(c: Case): NatProgram {
  const backends = (first: number) =>
    Array.from({ length: BACKENDS }, (_, i) => ({
      address: remotePod((first + i) % PEERS),
      port: SERVER_PORT,
      ready: true,
      serving: true,
      terminating: false,
      local: false,
    }));
  return {
    capacity: Math.max(1024, c.flows),
    timeouts: { profile: 'linux', seconds: {} },
    ports: {},
    nodeAddresses: [UNDERLAY],
    services:
      c.nat !== 'service'
        ? []
        : Array.from({ length: SERVICES }, (_, i) => ({
            name: `bench/${i}`,
            clusterAddresses: [SERVICE + i],
            ports: [{ protocol: ipv4.PROTO_UDP, port: 80, endpoints: backends(i) }],
          })),
    rules: c.nat !== 'masquerade' ? [] : [{ from: [{ address: POD, length: 24 }], action: 'MASQUERADE' }],
  };
}

/** One packet of each flow, as the pod sends it. */
function packetsOf(c: Case): Replay {
  const headerWords = (ipv4.HEADER_LEN + udp.HEADER_LEN) >> 2;
  const headers = new Int32Array(c.flows * headerWords);
  const lengths = new Uint16Array(c.flows);
  const view = new DataView(new ArrayBuffer(1500));
  for (let i = 0; i < c.flows; i++) {
    const size = c.size === 'IMIX' ? IMIX[i % IMIX.length] : c.size;
    const k = i % PEERS;
    const src = c.until === 'source' ? STRANGER : POD;
    const dst = c.until === 'parse' ? GROUP : c.nat === 'service' ? SERVICE + k : remotePod(k);
    const sourcePort = FIRST_PORT + Math.floor(i / PEERS);
    view.setInt32(0, 0x45000000 | size);
    view.setInt32(ipv4.ID, ipv4.FLAG_DF);
    view.setInt32(ipv4.TTL, (64 << 24) | (ipv4.PROTO_UDP << 16));
    view.setInt32(ipv4.SRC, src);
    view.setInt32(ipv4.DST, dst);
    ipv4.setHeaderChecksum(view, 0);
    const l4Len = size - ipv4.HEADER_LEN;
    view.setInt32(ipv4.HEADER_LEN, (sourcePort << 16) | (c.nat === 'service' ? 80 : SERVER_PORT));
    view.setInt32(ipv4.HEADER_LEN + udp.LENGTH, l4Len << 16);
    const pseudo = pseudoSum(src, dst, ipv4.PROTO_UDP, l4Len);
    const sum = c.offload === 'auto' ? foldSum(pseudo) : ~foldSum(sumWords(view, ipv4.HEADER_LEN, 8, pseudo)) & 0xffff;
    view.setUint16(ipv4.HEADER_LEN + udp.CHECKSUM, sum);
    for (let word = 0; word < headerWords; word++) headers[i * headerWords + word] = view.getInt32(4 * word, true);
    lengths[i] = size;
  }
  return { headers, headerWords, lengths, ...vnetFields(c, 0) };
}

/**
 * A pod's kernel leaves the checksum to its device, and so to us; what comes in by the uplink has been verified by the
 * device there.
 */
function vnetFields(c: Case, port: number): Partial<Replay> {
  if (c.offload === 'none') return {};
  if (port === 1) return { vnetFlags: vnet.FLAG_DATA_VALID };
  return { vnetFlags: vnet.FLAG_NEEDS_CSUM, csumStart: ipv4.HEADER_LEN, csumOffset: udp.CHECKSUM };
}

const scratch = new DataView(new ArrayBuffer(256));

/**
 * The answer to the frame at `off`: sender and receiver change places in every header, which leaves all checksums right.
 * @param overhead bytes in front of the inner IPv4 header
 */
function copyAnswer(view: DataView, off: number, overhead: number, into: Int32Array, at: number, words: number): void {
  for (let byte = 0; byte < 4 * words; byte++) scratch.setUint8(byte, view.getUint8(off + byte));
  swap(ethernet.DST, ethernet.SRC, 6);
  if (overhead > ethernet.HEADER_LEN) swap(ethernet.HEADER_LEN + ipv4.SRC, ethernet.HEADER_LEN + ipv4.DST, 4);
  const inner = overhead;
  if (overhead > 2 * ethernet.HEADER_LEN + ipv4.HEADER_LEN) {
    const frame = inner - ethernet.HEADER_LEN;
    swap(frame + ethernet.DST, frame + ethernet.SRC, 6);
  }
  swap(inner + ipv4.SRC, inner + ipv4.DST, 4);
  swap(inner + ipv4.HEADER_LEN, inner + ipv4.HEADER_LEN + 2, 2);
  for (let word = 0; word < words; word++) into[at + word] = scratch.getInt32(4 * word, true);
}

function swap(a: number, b: number, bytes: number): void {
  for (let i = 0; i < bytes; i++) {
    const byte = scratch.getUint8(a + i);
    scratch.setUint8(a + i, scratch.getUint8(b + i));
    scratch.setUint8(b + i, byte);
  }
}

/** Many flows each once in random order; few flows at random, often enough that the order is none to be learnt. */
function shuffle(replay: Replay, flows: number): Replay {
  const { headers, headerWords, lengths } = replay;
  const random = new Random(3);
  const count = Math.max(flows, MIN_TRACE);
  const order = new Int32Array(count);
  for (let i = 0; i < count; i++) order[i] = i < flows ? i : random.below(flows);
  for (let i = count - 1; i > 0; i--) {
    const j = random.below(i + 1);
    const flow = order[i];
    order[i] = order[j];
    order[j] = flow;
  }
  const shuffled = new Int32Array(count * headerWords);
  for (let i = 0; i < count; i++) {
    for (let word = 0; word < headerWords; word++)
      shuffled[i * headerWords + word] = headers[order[i] * headerWords + word];
  }
  return { ...replay, headers: shuffled, lengths: Uint16Array.from(order, flow => lengths[flow]) };
}
