/**
 * Whatever a sender may send, by whatever way, through nodes of every make: every packet is accounted for and given back, and
 * what leaves is right to the last checksum and no longer than where it goes takes.
 */
import { strict as assert } from 'node:assert';
import { describe, it } from 'mocha';
import {
  OFFLOAD_CSUM,
  OFFLOAD_TSO,
  OFFLOAD_TSO_ECN,
  OFFLOAD_TUNNEL,
  OFFLOAD_TUNNEL_CSUM,
  OFFLOAD_USO,
} from '../datapath/io/device.ts';
import type { Frame } from '../datapath/io/memory.ts';
import { Random } from '../datapath/random.ts';
import { TOO_BIG_NAMES } from '../datapath/route/nexthop.ts';
import * as virtio from '../datapath/wire/virtio-net.ts';
import { fixHeader, icmpEcho, icmpError, mac, pattern, tcp4, udp4 } from './fixtures/packets.ts';
import {
  fromWire,
  GATEWAY,
  HOST,
  NODE,
  type NodeOptions,
  PEER,
  POD,
  POD2,
  REMOTE,
  TestNode,
  VTEP_MACS,
} from './forward-rig.ts';
import { slowHeaderOk, slowPseudoSum, slowSum, slowTransportOk } from './model/checksum.ts';
import { slowFragment, slowReassemble } from './model/fragment.ts';
import { type SlowRules, slowEncap } from './model/tunnel.ts';

const SEED = Number(process.env.SEED ?? 20261121);
const NODES = Number(process.env.NODES ?? 40);
const STEPS = 60;

const DF = 0x4000;
const OUTSIDE = '203.0.113.9';
const SERVICE = '10.96.0.10';
const DARK = '192.168.10.77'; // never answers ARP
const NODE_PORT = 30080;

const word = (packet: Uint8Array, at: number) => packet[at] * 256 + packet[at + 1];
const bytesOf = (address: string) => address.split('.').map(Number);
const textOf = (packet: Uint8Array) => Buffer.from(packet.subarray(0, 120)).toString('hex');

class Dice {
  private readonly random: Random;
  private id = 0;

  constructor(seed: number) {
    this.random = new Random(seed);
    for (let i = 0; i < 8; i++) this.random.next();
  }

  below(n: number): number {
    return this.random.below(n);
  }

  chance(percent: number): boolean {
    return this.random.below(100) < percent;
  }

  of<T>(list: readonly T[]): T {
    return list[this.random.below(list.length)];
  }

  /** Sizes at which something happens, and any others. */
  size(): number {
    const at = this.of([0, 1, 8, 100, 500, 536, 1000, 1380, 1400, 1422, 1452, 1472, 1500, 2000, 4000, 9000]);
    return Math.max(0, at + this.below(80) - 40);
  }

  nextId(): number {
    this.id = (this.id + 64) & 0xffff;
    return this.id;
  }
}

interface Make extends NodeOptions {
  rules: SlowRules | null;
  uplinkMtu: number;
}

function makeOf(dice: Dice): Make {
  const protocol = dice.of(['none', 'ipip', 'vxlan', 'geneve'] as const);
  const profile = dice.of(['linux', 'cilium', 'rfc', 'calico', 'flannel']);
  let offloads = dice.chance(25) ? 0 : OFFLOAD_CSUM;
  if (offloads !== 0 && dice.chance(75)) {
    offloads |= OFFLOAD_TSO | OFFLOAD_TSO_ECN;
    if (dice.chance(60)) offloads |= OFFLOAD_USO;
    if (dice.chance(60)) offloads |= OFFLOAD_TUNNEL;
    if (offloads & OFFLOAD_TUNNEL && dice.chance(60)) offloads |= OFFLOAD_TUNNEL_CSUM;
  }
  const withMac = protocol === 'vxlan' || protocol === 'geneve';
  const data = pattern(4 + 4 * dice.below(30)).reduce((text, byte) => text + byte.toString(16).padStart(2, '0'), '');
  const options = protocol === 'geneve' && dice.chance(50) ? [{ class: 0x0102, type: 0x80, data }] : [];
  const uplinkMtu = dice.of([1500, 1500, 1400, 900, 9000]);
  const tooBig = dice.of(TOO_BIG_NAMES.filter(name => name !== 'larger-underlay' || uplinkMtu >= 9000));
  const vni = dice.chance(30) ? ('identity' as const) : 7;
  const udpChecksum = dice.chance(50);
  const outer = {
    ...(dice.chance(50) ? { df: dice.of(['set', 'clear', 'inherit']) } : {}),
    ...(dice.chance(30) ? { dscp: dice.of(['inherit', 'uniform']) } : {}),
    ...(withMac ? { udpChecksum } : {}),
    ...(options.length > 0 ? { options } : {}),
  };
  const masquerade = dice.chance(60)
    ? [{ from: '10.244.0.0/16', notTo: ['10.244.0.0/16'], ...(dice.chance(30) ? { randomFully: true } : {}) }]
    : undefined;
  const services = dice.chance(60)
    ? [
        {
          name: 'default/web',
          type: 'NodePort',
          addresses: [SERVICE],
          ports: [
            { name: 't', protocol: 'TCP', port: 80, targetPort: 8080, nodePort: NODE_PORT },
            { name: 'u', protocol: 'UDP', port: 53, targetPort: 5353, nodePort: NODE_PORT + 1 },
          ],
          endpoints: dice.chance(85)
            ? [{ address: POD }, { address: POD2 }, { address: REMOTE }].slice(dice.below(3))
            : [],
        },
      ]
    : undefined;
  const raw = options.flatMap(() => [1, 2, 0x80, data.length / 8, ...Buffer.from(data, 'hex')]);
  return {
    protocol,
    profile,
    offloads,
    vni,
    mtu: { ...(protocol === 'none' ? {} : { tooBig }), clampMss: dice.chance(50) },
    tunnel: protocol === 'none' ? {} : outer,
    uplink: { mtu: uplinkMtu },
    ...(masquerade === undefined ? {} : { masquerade }),
    ...(services === undefined ? {} : { services }),
    routes: [{ to: '198.18.0.0/15', via: GATEWAY, encap: false }],
    withHost: dice.chance(85),
    uplinkMtu,
    rules:
      protocol === 'none'
        ? null
        : {
            protocol,
            port: protocol === 'vxlan' ? 8472 : 6081,
            vni: vni === 'identity' ? -1 : vni,
            local: bytesOf(PEER),
            localMac: [...mac(VTEP_MACS[1])],
            ttl: 64,
            dscp: 'inherit',
            df: 0,
            udpChecksum,
            copyCe: true,
            options: raw,
          },
  };
}

interface Made {
  bytes: Uint8Array;
  fields?: Partial<Frame>;
}

/** An IP packet, whole, that a sender could send; superpackets where `offloads` has them. */
function packetOf(dice: Dice, src: string, destinations: readonly string[], offloads: number): Made {
  const dst = dice.of(destinations);
  const tos = dice.of([0, 0, 1, 2, 3, 0xb8]);
  const base = {
    src,
    dst,
    tos,
    id: dice.nextId(),
    ttl: dice.of([64, 64, 64, 64, 2, 1]),
    fragment: dice.chance(50) ? DF : 0,
    ...(dice.chance(5) ? { options: Uint8Array.of(0x94, 4, 0, 0, 1, 1, 1, 1) } : {}),
  };
  const sport = 20_000 + dice.below(6);
  const toService = dst === SERVICE || (dst === NODE && dice.chance(50));
  const kind = dice.below(10);
  if (kind === 0) return { bytes: icmpEcho({ ...base, icmpId: sport, payload: pattern(dice.size()) }) };
  if (kind === 1) {
    const quoted = udp4({ src: dst, dst: src, sport: 53, dport: sport, payload: pattern(40) });
    return { bytes: icmpError(3, dice.of([1, 3, 4]), quoted, { ...base, mtu: 1300 }) };
  }
  const isTcp = kind < 7;
  const wantsSuper = dice.chance(30) && (offloads & (isTcp ? OFFLOAD_TSO : OFFLOAD_USO)) !== 0;
  const gsoSize = dice.of([1400, 1360, 1460, 1200, 500]);
  const len = wantsSuper ? gsoSize * (1 + dice.below(isTcp ? 30 : 20)) + dice.below(gsoSize) : dice.size();
  const payload = pattern(Math.min(len, 65000), dice.below(100));
  const isSyn = isTcp && !wantsSuper && dice.chance(40);
  const bytes = isTcp
    ? tcp4({
        ...base,
        sport,
        dport: toService ? (dst === NODE ? NODE_PORT : 80) : dice.of([80, 8080, sport]),
        seq: dice.below(1 << 16),
        flags: isSyn ? dice.of([2, 0x12]) : dice.of([0x10, 0x18, 0x11, 0x90, 4]),
        tcpOptions: isSyn ? Uint8Array.of(1, 2, 4, 5, 0xb4, 1, 1, 1) : new Uint8Array(dice.of([0, 12])).fill(1),
        payload: isSyn ? new Uint8Array(0) : payload,
      })
    : udp4({
        ...base,
        sport,
        dport: toService ? (dst === NODE ? NODE_PORT + 1 : 53) : dice.of([53, 5353, sport]),
        payload,
        noChecksum: !wantsSuper && dice.chance(5),
      });
  const l4 = (bytes[0] & 15) * 4;
  const csumOffset = isTcp ? 16 : 6;
  const hasChecksum = word(bytes, l4 + csumOffset) !== 0 || isTcp;
  const isPartial = hasChecksum && (wantsSuper || ((offloads & OFFLOAD_CSUM) !== 0 && dice.chance(30)));
  if (!isPartial) return { bytes };
  return {
    bytes: partial(bytes, l4, csumOffset),
    fields: superFields(bytes, l4, csumOffset, wantsSuper ? gsoSize : 0),
  };
}

function partial(packet: Uint8Array, l4: number, csumOffset: number): Uint8Array {
  const copy = packet.slice();
  new DataView(copy.buffer).setUint16(l4 + csumOffset, slowPseudoSum(copy));
  return copy;
}

function superFields(packet: Uint8Array, l4: number, csumOffset: number, gsoSize: number): Partial<Frame> {
  const fields = { vnetFlags: virtio.FLAG_NEEDS_CSUM, csumStart: l4, csumOffset };
  const headers = csumOffset === 16 ? (packet[l4 + 12] >> 4) * 4 : 8;
  if (gsoSize === 0 || packet.length - l4 - headers <= gsoSize) return fields;
  return { ...fields, gsoType: csumOffset === 16 ? virtio.GSO_TCPV4 : virtio.GSO_UDP_L4, gsoSize };
}

/** A whole packet, or its fragments in any order, sometimes not all of them. */
function pieces(dice: Dice, packet: Uint8Array): Uint8Array[] {
  const headerLen = (packet[0] & 15) * 4;
  if (packet.length - headerLen < 64 || !dice.chance(25)) return [packet];
  const cut = slowFragment(packet, headerLen + 8 * (3 + dice.below(Math.ceil(packet.length / 8))));
  if (cut.length < 2 || cut.length > 40) return [packet];
  if (dice.chance(30)) cut.reverse();
  if (dice.chance(15)) cut.splice(dice.below(cut.length), 1);
  return cut;
}

const shift = (fields: Partial<Frame>, by: number): Partial<Frame> => ({
  ...fields,
  ...(fields.csumStart === undefined ? {} : { csumStart: fields.csumStart + by }),
});

/** A tunnel that is not ours: another's by its port. */
const FOREIGN_PORT = 4999;
const FOREIGN: SlowRules = {
  protocol: 'vxlan',
  port: FOREIGN_PORT,
  vni: 99,
  local: bytesOf(OUTSIDE),
  localMac: [...mac(VTEP_MACS[1])],
  ttl: 64,
  dscp: 0,
  df: 0,
  udpChecksum: true,
  copyCe: true,
};

/** `inner`, which may be a superpacket, in a tunnel; `isChecked`: its outer UDP checksum is left to the device as well. */
function inTunnel(inner: Made, outer: Uint8Array, isChecked: boolean): Made {
  const by = outer.length - inner.bytes.length;
  outer.set([0, 0], 26);
  if (isChecked) new DataView(outer.buffer).setUint16(26, slowPseudoSum(outer));
  const fields = {
    ...shift(inner.fields ?? {}, 14 + by),
    vnetFlags: virtio.FLAG_NEEDS_CSUM | (isChecked ? virtio.FLAG_UDP_TUNNEL_CSUM : 0),
    gsoType: (inner.fields?.gsoType ?? 0) | virtio.GSO_UDP_TUNNEL_IPV4,
    outerTransport: 34,
    innerNetwork: 14 + by,
  };
  return { bytes: fromWire(outer), fields };
}

function foreignOf(dice: Dice, offloads: number): Made[] {
  const inner = packetOf(dice, '172.16.0.1', ['172.16.0.2'], offloads);
  const gso = inner.fields?.gsoType ?? 0;
  if ((inner.fields !== undefined && gso === 0) || inner.bytes.length > 65000) return [];
  if (gso !== 0 && (offloads & OFFLOAD_TUNNEL) === 0) return [];
  const to = { address: bytesOf(dice.of([NODE, POD, '198.18.0.5'])), mac: [...mac(VTEP_MACS[0])], identity: 0 };
  const outer = slowEncap(FOREIGN, inner.bytes, { ...to, id: dice.nextId(), source: 50_000 });
  if (gso === 0) return pieces(dice, outer).map(bytes => ({ bytes: fromWire(bytes) }));
  return [inTunnel(inner, outer, (offloads & OFFLOAD_TUNNEL_CSUM) !== 0 && dice.chance(50))];
}

/** What may come by the uplink, in its frame. */
function frameOf(dice: Dice, make: Make): Made[] {
  const { rules, offloads = 0 } = make;
  if (dice.chance(15)) return foreignOf(dice, offloads);
  if (rules === null || dice.chance(40)) {
    const made = packetOf(dice, dice.of([OUTSIDE, PEER, GATEWAY]), [NODE, NODE, POD, '198.18.0.5'], offloads);
    if (made.fields !== undefined) return [{ bytes: fromWire(made.bytes), fields: shift(made.fields, 14) }];
    return pieces(dice, made.bytes).map(bytes => ({ bytes: fromWire(bytes) }));
  }
  const to = { address: bytesOf(NODE), mac: [...mac(VTEP_MACS[0])], identity: 77, source: 50_000 };
  const inner = packetOf(dice, dice.of([REMOTE, '10.244.2.21']), [POD, POD2, HOST, SERVICE, OUTSIDE, REMOTE], offloads);
  const overhead = (bytes: Uint8Array) => slowEncap(rules, bytes, { ...to, id: dice.nextId() });
  const gso = inner.fields?.gsoType ?? 0;
  if (gso !== 0) {
    if ((offloads & OFFLOAD_TUNNEL) === 0 || rules.protocol === 'ipip' || inner.bytes.length > 65000) return [];
    return [inTunnel(inner, overhead(inner.bytes), false)];
  }
  if (inner.fields !== undefined) return [];
  const inside = pieces(dice, inner.bytes).map(overhead);
  if (rules.protocol !== 'ipip' && (offloads & OFFLOAD_USO) !== 0 && dice.chance(15)) return [trainOf(inside[0], dice)];
  return inside.flatMap(outer => pieces(dice, outer)).map(bytes => ({ bytes: fromWire(bytes) }));
}

/** The tunnel packet several times over, as somebody's GRO would join them. */
function trainOf(outer: Uint8Array, dice: Dice): Made {
  const payload = outer.subarray(28);
  const count = 1 + dice.below(Math.min(20, Math.floor(60_000 / payload.length)));
  const all = Buffer.concat(Array.from({ length: count }, () => payload));
  const train = udp4({ src: PEER, dst: NODE, sport: 50_000, dport: word(outer, 22), tos: outer[1], payload: all });
  const fields = superFields(train, 20, 6, payload.length);
  return { bytes: fromWire(partial(train, 20, 6)), fields: shift(fields, 14) };
}

class Judge {
  make: Make;
  private readonly node: TestNode;
  private readonly parts = new Map<string, Uint8Array[]>();
  private podMtu: number;

  constructor(make: Make, node: TestNode) {
    this.make = make;
    this.node = node;
    this.podMtu = node.device('p1').mtu;
  }

  /** The node is another from now on. */
  change(make: Make): void {
    this.make = make;
    this.podMtu = make.uplinkMtu;
  }

  /** Everything that has left. */
  look(): void {
    for (const port of this.node.datapath.ports) {
      const device = this.node.device(port.name);
      for (const frame of device.collectFrames()) {
        if (port.name !== 'ul0') this.frame(frame, 0, port.name === 'tp0' ? 65535 : this.podMtu, port.name);
        else if (word(frame.bytes, 12) === 0x800) this.frame(frame, 14, device.mtu, port.name);
      }
    }
  }

  private frame(frame: Frame, link: number, mtu: number, port: string): void {
    const { offloads = 0 } = this.make;
    const packet = frame.bytes.slice(link);
    const say = `${port}: ${textOf(packet)}`;
    const { gsoType } = frame;
    if ((frame.vnetFlags & virtio.FLAG_NEEDS_CSUM) !== 0) {
      assert.ok((offloads & OFFLOAD_CSUM) !== 0, `${say}: a checksum that the device does not complete`);
      const at = frame.csumStart - link;
      if (gsoType === 0) {
        const checksum = 0xffff - slowSum(packet.slice(at));
        new DataView(packet.buffer).setUint16(at + frame.csumOffset, checksum || 0xffff);
      } else {
        const innerAt = (gsoType & virtio.GSO_UDP_TUNNEL_IPV4) !== 0 ? frame.innerNetwork - link : 0;
        assert.equal(word(packet, at + frame.csumOffset), slowPseudoSum(packet.subarray(innerAt)), say);
      }
    }
    if (gsoType === 0) {
      assert.ok(packet.length <= mtu, `${say}: ${packet.length} bytes where ${mtu} go`);
      this.packet(packet, port);
      return;
    }
    const isUdp = (gsoType & 7) === virtio.GSO_UDP_L4;
    const inTunnel = (gsoType & virtio.GSO_UDP_TUNNEL_IPV4) !== 0;
    assert.ok(
      (offloads & (isUdp ? OFFLOAD_USO : OFFLOAD_TSO)) !== 0,
      `${say}: a superpacket that the device does not take`,
    );
    if (inTunnel)
      assert.ok((offloads & OFFLOAD_TUNNEL) !== 0, `${say}: a tunnel superpacket that the device does not take`);
    const at = frame.csumStart - link;
    const headers = at + (isUdp ? 8 : (packet[at + 12] >> 4) * 4);
    assert.ok(
      headers + Math.min(frame.gsoSize, packet.length - headers) <= mtu,
      `${say}: segments of ${frame.gsoSize}`,
    );
    assert.equal(word(packet, 2), packet.length, say);
    assert.ok(slowHeaderOk(packet), say);
    const innerAt = frame.innerNetwork - link;
    const isChecked = (frame.vnetFlags & virtio.FLAG_UDP_TUNNEL_CSUM) !== 0;
    const outerSum = inTunnel ? word(packet, frame.outerTransport - link + 6) : 0;
    assert.equal(outerSum, isChecked ? slowPseudoSum(packet) : 0, `${say}: outer checksum`);
    if (isChecked)
      assert.ok((offloads & OFFLOAD_TUNNEL_CSUM) !== 0, `${say}: and one that the device does not complete`);
    if (inTunnel)
      assert.ok(slowHeaderOk(packet.subarray(innerAt)) && word(packet, innerAt + 2) === packet.length - innerAt, say);
  }

  private packet(packet: Uint8Array, where: string): void {
    const say = `${where}: ${textOf(packet)}`;
    assert.equal(word(packet, 2), packet.length, say);
    assert.ok(slowHeaderOk(packet), `${say}: header checksum`);
    if ((word(packet, 6) & 0x3fff) !== 0) {
      this.part(packet, where);
      return;
    }
    const l4 = (packet[0] & 15) * 4;
    if (packet[9] === 6 || packet[9] === 17) assert.ok(slowTransportOk(packet), `${say}: transport checksum`);
    if (packet[9] === 1) assert.equal(slowSum(packet.slice(l4)), 0xffff, `${say}: ICMP checksum`);
    if (packet[9] === 17 && word(packet, l4 + 2) === FOREIGN_PORT)
      this.packet(packet.slice(l4 + 30), `${where} foreign`);
    const { rules } = this.make;
    if (where !== 'ul0' || rules === null || !bytesOf(PEER).every((byte, i) => packet[16 + i] === byte)) return;
    if (rules.protocol === 'ipip' ? packet[9] !== 4 : packet[9] !== 17 || word(packet, l4 + 2) !== rules.port) return;
    const overhead = rules.protocol === 'ipip' ? 20 : 50 + (rules.protocol === 'geneve' ? (packet[28] & 63) * 4 : 0);
    this.packet(packet.slice(overhead), `${where} inside`);
  }

  /** A fragment: with the rest of its datagram it is judged as a whole. */
  private part(packet: Uint8Array, where: string): void {
    const key = [where, ...packet.subarray(12, 20), packet[9], word(packet, 4)].join();
    const all = [...(this.parts.get(key) ?? []), packet];
    this.parts.set(key, all);
    if (all.length > 60) this.parts.delete(key);
    const bytes = all.reduce((sum, one) => sum + one.length - (one[0] & 15) * 4, 0);
    const last = all.find(one => (one[6] & 0x20) === 0);
    if (last === undefined || (word(last, 6) & 0x1fff) * 8 + last.length - (last[0] & 15) * 4 !== bytes) return;
    const whole = slowReassemble(all);
    if (whole === null) return;
    this.parts.delete(key);
    this.packet(fixHeader(whole), where);
  }
}

/** A node of some make, with some life: packets from all sides, some of them in bursts, neighbours that come and go. */
function live(seed: number): void {
  const dice = new Dice(seed);
  let make = makeOf(dice);
  const node = new TestNode(make);
  const judge = new Judge(make, node);
  if (dice.chance(70)) node.meetNeighbors();
  const inside = [POD, POD2, HOST, NODE, REMOTE, REMOTE, OUTSIDE, SERVICE, SERVICE, DARK, '127.0.0.1', '10.244.2.99'];
  const ports = node.datapath.ports.map(port => port.name);
  for (let step = 0; step < STEPS; step++) {
    const burst = 1 + dice.below(8);
    const port = dice.of(ports);
    for (let i = 0; i < burst; i++) {
      const src = port === 'p1' ? POD : port === 'tp0' ? HOST : POD2;
      if (port === 'ul0') {
        for (const { bytes, fields } of frameOf(dice, make)) node.device(port).inject(bytes, fields);
        continue;
      }
      const made = packetOf(
        dice,
        src,
        inside.filter(one => one !== src),
        make.offloads ?? 0,
      );
      if (made.fields !== undefined) node.device(port).inject(made.bytes, made.fields);
      else for (const bytes of pieces(dice, made.bytes)) node.device(port).inject(bytes);
    }
    node.work(port);
    judge.look();
    assert.equal(node.balance, 0, `step ${step}, after packets from ${port}`);
    if (dice.chance(20)) node.advance(dice.of([10, 1000, 4000]), 500);
    if (dice.chance(10)) node.meetNeighbors();
    if (make.rules !== null && dice.chance(5)) lowerPath(dice, node, make);
    judge.look();
    if (dice.chance(4)) {
      make = changed(make, makeOf(dice));
      node.reconfigure(make);
      judge.change(make);
    }
  }
  node.advance(130_000, 1000);
  judge.look();
  assert.equal(node.balance, 0, 'in the end');
  assert.equal(node.leaked, 0, 'every packet is given back');
}

/** `make` with the tunnel of another. */
function changed(make: Make, { protocol, vni, mtu, tunnel, rules }: Make): Make {
  const next = { ...make, protocol, vni, mtu, tunnel, rules };
  const wants = mtu as { tooBig?: string };
  return wants.tooBig === 'larger-underlay' && make.uplinkMtu < 9000 ? make : next;
}

/** A router of the underlay says that what went to the peer was too long. */
function lowerPath(dice: Dice, node: TestNode, make: Make): void {
  node.collectAll();
  node.send(
    'p1',
    udp4({ src: POD, dst: REMOTE, sport: 20_000, fragment: DF, payload: pattern(700), id: dice.nextId() }),
  );
  const frame = node.collect('ul0').find(one => one.length > 700 && (one[20] & 0x40) !== 0);
  if (frame === undefined) return;
  const mtu = dice.of([0, 68, 300, 576, 600, make.uplinkMtu - 100]);
  const quoted = frame.slice(14, 14 + dice.of([28, 128, 540]));
  node.send('ul0', fromWire(icmpError(3, 4, quoted, { src: GATEWAY, dst: NODE, mtu, id: dice.nextId() })));
}

describe(`${NODES} nodes under random traffic (SEED=${SEED})`, function () {
  this.timeout(600_000);
  it('account for every packet and send none that is wrong', () => {
    for (let i = 0; i < NODES; i++) {
      try {
        live(SEED + i);
      } catch (error) {
        const make = makeOf(new Dice(SEED + i));
        throw new Error(`SEED=${SEED + i} NODES=1, ${JSON.stringify(make)}: ${(error as Error).message}`, {
          cause: error,
        });
      }
    }
  });
});
