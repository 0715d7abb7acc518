/**
 * Packet sequences in a form that both nodes can be given: a packet of the far end is addressed to what that end has
 * seen, so each node gets answers to its own translation.
 */
import { Random } from '../../../datapath/random.ts';
import * as tcpWire from '../../../datapath/wire/tcp.ts';
import {
  dotted,
  fragment,
  type Ipv4Options,
  icmpEcho,
  icmpError,
  patch,
  pattern,
  tcp4,
  timestampOption,
  udp4,
} from '../../fixtures/packets.ts';
import { CLIENTS, INSIDE_BACKEND, PEER, SERVER, type Side, TO_INSIDE, TO_PEER, TO_SERVER } from './network.ts';

export interface Tuple {
  src: string;
  dst: string;
  sport: number;
  dport: number;
}

/** Clients' ports begin here; those of services and servers are below. */
export const FIRST_PORT = 10_000;

/** What one of the nodes has put out so far in a sequence. */
export class Seen {
  /** Tuple at the far end, by flow. */
  readonly far = new Map<string, Tuple>();
  /** The last packet of a flow and direction as it arrived. */
  readonly last = new Map<string, Uint8Array>();
}

export interface Step {
  what: string;
  side: Side;
  /** Where the packet should arrive, for Seen. */
  learn?: { flow: string; forward: boolean; side: Side };
  /** @returns the packet, or null if it cannot be made because nothing arrived that it could answer */
  build(seen: Seen, id: number): Uint8Array | null;
  /** Sends the packet as these pieces. What comes out of all of them is compared at once: when is each node's own affair. */
  pieces?(packet: Uint8Array): Uint8Array[];
}

export interface Sequence {
  name: string;
  steps: Step[];
}

/** Who talks to whom through the node. */
export interface Route {
  name: string;
  near: Side;
  far: Side;
  src(n: number): string;
  dst: string;
  /** Whether the far end sees another source. */
  snat: boolean;
  dnat: boolean;
}

const client = (n: number) => CLIENTS[n % CLIENTS.length];
export const ROUTES: readonly Route[] = [
  { name: 'not translated', near: 'in', far: 'out', src: client, dst: PEER, snat: false, dnat: false },
  { name: 'masqueraded', near: 'in', far: 'out', src: client, dst: SERVER, snat: true, dnat: false },
  { name: 'to a service', near: 'in', far: 'out', src: client, dst: TO_PEER.vip, snat: false, dnat: true },
  {
    name: 'to a service, masqueraded',
    near: 'in',
    far: 'out',
    src: client,
    dst: TO_SERVER.vip,
    snat: true,
    dnat: true,
  },
  { name: 'to a service inside', near: 'in', far: 'in', src: client, dst: TO_INSIDE.vip, snat: false, dnat: true },
  { name: 'hairpin', near: 'in', far: 'in', src: () => INSIDE_BACKEND, dst: TO_INSIDE.vip, snat: true, dnat: true },
  {
    name: 'from outside to a service',
    near: 'out',
    far: 'in',
    src: n => `192.0.2.${1 + (n % 200)}`,
    dst: TO_INSIDE.vip,
    snat: true,
    dnat: true,
  },
  {
    name: 'from outside to a pod',
    near: 'out',
    far: 'in',
    src: n => `192.0.2.${1 + (n % 200)}`,
    dst: CLIENTS[3],
    snat: false,
    dnat: false,
  },
];

export function tupleOf(packet: Uint8Array): Tuple {
  const view = new DataView(packet.buffer, packet.byteOffset);
  const l4 = (packet[0] & 15) * 4;
  const icmp = packet[9] === 1;
  return {
    src: dotted(view.getInt32(12)),
    dst: dotted(view.getInt32(16)),
    sport: view.getUint16(icmp ? l4 + 4 : l4),
    dport: icmp ? view.getUint16(l4 + 4) : view.getUint16(l4 + 2),
  };
}

type Make = (tuple: Tuple, id: number) => Uint8Array;

/** One flow through the node. */
export class Conversation {
  readonly name: string;
  readonly route: Route;
  readonly near: Tuple;

  /** @param n picks the client's address */
  constructor(route: Route, n: number, sport: number, dport: number, name = 'a') {
    this.name = name;
    this.route = route;
    this.near = { src: route.src(n), dst: route.dst, sport, dport };
  }

  forward(what: string, make: Make): Step {
    const { name, route, near } = this;
    return {
      what: `> ${what}`,
      side: route.near,
      learn: { flow: name, forward: true, side: route.far },
      build: (_, id) => make(near, id),
    };
  }

  reverse(what: string, make: Make): Step {
    const { name, route } = this;
    return {
      what: `< ${what}`,
      side: route.far,
      learn: { flow: name, forward: false, side: route.near },
      build(seen, id) {
        const far = seen.far.get(name);
        if (far === undefined) return null;
        return make({ src: far.dst, dst: far.src, sport: far.dport, dport: far.sport }, id);
      },
    };
  }

  /**
   * An ICMP error of a router about the last packet that arrived at an end.
   * @param about which direction that packet had
   * @param change to the finished error
   */
  error(
    about: 'forward' | 'reverse',
    type: number,
    code: number,
    o: {
      quoted?: number;
      mtu?: number;
      from?: string;
      to?: string;
      label?: string;
      spoil?: (quote: Uint8Array) => Uint8Array;
    } = {},
    change: (packet: Uint8Array) => Uint8Array = packet => packet,
  ): Step {
    const { name, route } = this;
    const side = about === 'forward' ? route.far : route.near;
    return {
      what: `${about === 'forward' ? '<' : '>'} icmp ${type}/${code} ${JSON.stringify(o)}`,
      side,
      build(seen, id) {
        const packet = seen.last.get(`${name} ${about}`);
        if (packet === undefined) return null;
        const quote = (o.spoil ?? (q => q))(packet.slice(0, o.quoted ?? packet.length));
        const from = o.from ?? (side === 'in' ? tupleOf(packet).dst : '198.51.100.77');
        return change(icmpError(type, code, quote, { src: from, dst: o.to ?? tupleOf(packet).src, mtu: o.mtu, id }));
      },
    };
  }
}

/** A step that belongs to no flow. */
export function single(what: string, side: Side, make: (id: number) => Uint8Array): Step {
  return { what, side, build: (_, id) => make(id) };
}

// ---------------------------------------------------------------- TCP, written down

interface End {
  next: number;
  scale: number;
}

const FLAGS: Record<string, number> = {
  S: tcpWire.SYN,
  A: tcpWire.ACK_FLAG,
  F: tcpWire.FIN,
  R: tcpWire.RST,
  P: tcpWire.PSH,
  U: tcpWire.URG,
};

/**
 * TCP segments in words. A line is a direction, flags and what is not as the ends' state has it:
 *
 *   > S ws=7 sack     the client's SYN, with window scale and SACK permitted
 *   < SA              the answer: sequence numbers follow from what was sent
 *   > PA len=100      data; what is sent in order advances the sender
 *   > PA seq-100 len=100   the same again
 *   < A ack+5000      acknowledges what was not sent yet
 *   > S new           a new connection on the same ports
 *   > A sackto+500    with a SACK block that ends 500 beyond the acknowledgement
 *   ... win=0, ts, bad (checksum), lost (is sent, but never arrives at the node), df, ttl=1
 */
export class TcpScript {
  private readonly ends: Record<'>' | '<', End>;
  private readonly conversation: Conversation;
  private readonly random: Random;

  constructor(conversation: Conversation, seed: number) {
    this.conversation = conversation;
    this.random = new Random(seed);
    this.ends = { '>': { next: this.random.next(), scale: 0 }, '<': { next: this.random.next(), scale: 0 } };
  }

  /** The step of a line; null for one that is lost. */
  step(line: string): Step | null {
    const [direction, letters, ...words] = line.split(' ');
    const mine = this.ends[direction as '>' | '<'];
    const other = this.ends[direction === '>' ? '<' : '>'];
    let flags = 0;
    for (const letter of letters) flags |= FLAGS[letter] ?? 0;
    if (words.includes('new')) mine.next = (mine.next + 0x1000000 + (this.random.next() & 0xffff)) | 0;
    const number = (name: string, otherwise: number) => {
      const word = words.find(w => new RegExp(`^${name}[=+-]`).test(w));
      if (word === undefined) return otherwise;
      const value = Number(word.slice(name.length).replace('=', ''));
      return word[name.length] === '=' ? value : (otherwise + value) | 0;
    };
    const seq = number('seq', mine.next);
    const ack = number('ack', (flags & tcpWire.ACK_FLAG) !== 0 ? other.next : 0);
    const len = number('len', 0);
    const window = number('win', 8192);
    const end = (seq + len + (flags & tcpWire.SYN ? 1 : 0) + (flags & tcpWire.FIN ? 1 : 0)) | 0;
    // A RST sends nothing that would be acknowledged; what leaves a gap is not what the peer will acknowledge.
    if (seq === mine.next && (flags & tcpWire.RST) === 0) mine.next = end;

    const options: number[] = [];
    if ((flags & tcpWire.SYN) !== 0) {
      options.push(2, 4, 5, 0xb4);
      const scale = number('ws', -1);
      if (scale >= 0) options.push(1, 3, 3, scale);
      if (words.includes('sack')) options.push(1, 1, 4, 2);
    }
    if (words.includes('ts')) options.push(...timestampOption(1000, 2000));
    if (words.some(w => w.startsWith('sackto'))) {
      const edge = number('sackto', ack);
      const block = new Uint8Array(8);
      new DataView(block.buffer).setInt32(0, (edge - 100) | 0);
      new DataView(block.buffer).setInt32(4, edge);
      options.push(1, 1, 5, 10, ...block);
    }
    if (words.includes('lost')) return null;

    const make: Make = (tuple, id) => {
      const packet = tcp4({
        ...tuple,
        id,
        seq,
        ack,
        flags,
        window,
        tcpOptions: Uint8Array.from(options),
        payload: pattern(len, id),
        fragment: words.includes('df') ? 0x4000 : 0,
        ttl: number('ttl', 64),
      });
      return words.includes('bad') ? patch(packet, 36, packet[36] ^ 0x55) : packet;
    };
    return direction === '>' ? this.conversation.forward(line, make) : this.conversation.reverse(line, make);
  }

  steps(lines: readonly string[]): Step[] {
    return lines.map(line => this.step(line)).filter(step => step !== null);
  }
}

// ---------------------------------------------------------------- UDP and ICMP

export function datagram(c: Conversation, forward: boolean, o: Ipv4Options & { len?: number; sum?: boolean } = {}) {
  const make: Make = (tuple, id) => {
    const payload = pattern(o.len ?? 20, id);
    return udp4({ ...o, ...tuple, id, payload, noChecksum: o.sum === false });
  };
  const what = `udp ${JSON.stringify(o)}`;
  return forward ? c.forward(what, make) : c.reverse(what, make);
}

/** An echo request, or its answer; other queries by their type. */
export function query(c: Conversation, forward: boolean, type: number, sequence: number, len = 32): Step {
  const make: Make = (t, id) =>
    icmpEcho({ src: t.src, dst: t.dst, type, icmpId: t.sport, sequence, id, payload: pattern(len, sequence) });
  const what = `icmp type ${type}, number ${sequence}`;
  return forward ? c.forward(what, make) : c.reverse(what, make);
}

/** The step with its packet in fragments, in the given order of their numbers; each carries `len` payload bytes. */
export function inFragments(step: Step, len: number, order: readonly number[]): Step {
  const pieces = (packet: Uint8Array) => order.map(n => fragment(packet, n * len, len));
  return { ...step, what: `${step.what}, fragments ${order} of ${len} bytes`, pieces };
}
