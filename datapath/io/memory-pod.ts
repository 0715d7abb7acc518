/**
 * A pod that is no process: a device whose other side answers by itself, without state, packet by packet.
 *
 *   ICMP echo      is answered
 *   UDP            echo: comes back to who sent it; else it is counted
 *   TCP            every port accepts; echo: the bytes come back; http: one answer to each request, and the connection ends;
 *                  sink: bytes are acknowledged and counted
 *
 * What is answered is rewritten where it lies. An answer to what the pod itself has sent is told to whoever wants to know.
 */
import { HEADROOM, type Packet } from '../packet/packet.ts';
import type { Pool } from '../packet/pool.ts';
import { foldSum, pseudoSum, sumWords } from '../wire/checksum.ts';
import * as icmp from '../wire/icmp.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as tcp from '../wire/tcp.ts';
import * as udp from '../wire/udp.ts';
import { type Device, writeCopy } from './device.ts';
import { EAGAIN, EIO, ENODEV } from './errors.ts';

export const POD_APPS = ['echo', 'http', 'sink'] as const;
export type PodApp = (typeof POD_APPS)[number];

/** Packets that wait to be read. A power of two. */
const QUEUE = 256;
const TTL = 64;
const WINDOW = 0xffff;
const MSS_OPTION_LEN = 4;

/** What has come back: the protocol, from where, and the identifier of the echo or the port of ours that it is for. */
export type OnAnswer = (protocol: number, from: number, id: number) => void;

export interface MemoryPodOptions {
  name: string;
  /** int32. */
  address: number;
  app: PodApp;
  mtu: number;
  /** What `http` answers with, without its headers. */
  page?: string;
}

export class MemoryPod implements Device {
  readonly name: string;
  readonly layer = 3;
  readonly mtu: number;
  readonly offloads = 0;
  readonly fd = -1;
  readonly address: number;
  onAnswer: OnAnswer | null = null;
  /** Packets of UDP and TCP, and bytes in them, that were for it. */
  packets = 0;
  bytes = 0;
  private readonly app: PodApp;
  private readonly pool: Pool;
  private readonly response: Uint8Array;
  private readonly queue: Packet[] = [];
  private head = 0;
  private count = 0;
  private isOpen = true;

  constructor(pool: Pool, { name, address, app, mtu, page = `${name}\n` }: MemoryPodOptions) {
    this.pool = pool;
    this.name = name;
    this.address = address;
    this.app = app;
    this.mtu = mtu;
    const type = 'Content-Type: text/plain';
    const body = new TextEncoder().encode(page).length;
    const head = `HTTP/1.1 200 OK\r\n${type}\r\nContent-Length: ${body}\r\nConnection: close\r\n\r\n`;
    this.response = new TextEncoder().encode(head + page);
    if (ipv4.HEADER_LEN + tcp.HEADER_LEN + this.response.length > mtu) {
      throw new RangeError(`pod ${name}: its page does not fit into a packet of ${mtu} bytes`);
    }
    for (let i = 0; i < QUEUE; i++) this.queue.push(pool.packets[0]);
  }

  get pending(): number {
    return this.count;
  }

  /** Sends an ICMP echo request. @returns whether there was room for it */
  ping(to: number, id: number): boolean {
    const p = this.begin(to, ipv4.PROTO_ICMP, icmp.HEADER_LEN);
    if (p === null) return false;
    const { view } = this.pool;
    const l4 = p.off + ipv4.HEADER_LEN;
    view.setUint16(l4 + icmp.TYPE, icmp.ECHO << 8);
    view.setUint16(l4 + icmp.ID, id);
    view.setUint16(l4 + icmp.SEQUENCE, 1);
    setChecksum(view, l4, icmp.CHECKSUM, icmp.HEADER_LEN, 0);
    this.enqueue(p);
    return true;
  }

  /** Sends a TCP SYN. @returns whether there was room for it */
  connect(to: number, port: number, from: number): boolean {
    const p = this.begin(to, ipv4.PROTO_TCP, tcp.HEADER_LEN + MSS_OPTION_LEN);
    if (p === null) return false;
    const { view } = this.pool;
    const l4 = p.off + ipv4.HEADER_LEN;
    view.setUint16(l4 + tcp.SRC_PORT, from);
    view.setUint16(l4 + tcp.DST_PORT, port);
    this.finishTcp(p, l4, initialNumber(to, from), 0, tcp.SYN);
    this.enqueue(p);
    return true;
  }

  readBurst(slots: Packet[], max: number): number {
    if (!this.isOpen) return -ENODEV;
    const n = Math.min(max, this.count);
    for (let i = 0; i < n; i++) {
      this.pool.release(slots[i]);
      slots[i] = this.queue[this.head];
      slots[i].forget();
      this.head = (this.head + 1) & (QUEUE - 1);
    }
    this.count -= n;
    return n;
  }

  handOver(p: Packet): number {
    if (!this.isOpen) return EIO;
    if (this.count === QUEUE) return EAGAIN;
    if (this.answer(p)) this.enqueue(p);
    else this.pool.release(p);
    return 0;
  }

  write(p: Packet): number {
    return writeCopy(this, this.pool, p);
  }

  /** What waits is lost. */
  close(): void {
    this.isOpen = false;
    for (; this.count > 0; this.count--) {
      this.pool.release(this.queue[this.head]);
      this.head = (this.head + 1) & (QUEUE - 1);
    }
  }

  private enqueue(p: Packet): void {
    this.queue[(this.head + this.count++) & (QUEUE - 1)] = p;
  }

  /** An IP packet of its own, all but what is behind the IP header. */
  private begin(to: number, protocol: number, length: number): Packet | null {
    if (this.count === QUEUE) return null;
    const p = this.pool.take();
    if (p === null) return null;
    const { view } = this.pool;
    p.reset(HEADROOM);
    p.len = ipv4.HEADER_LEN + length;
    const { off } = p;
    view.setUint16(off + ipv4.VERSION_IHL, 0x4500);
    view.setUint16(off + ipv4.TOTAL_LEN, p.len);
    view.setUint16(off + ipv4.ID, 0);
    view.setUint16(off + ipv4.FLAGS_FRAGMENT, ipv4.FLAG_DF);
    view.setUint8(off + ipv4.TTL, TTL);
    view.setUint8(off + ipv4.PROTOCOL, protocol);
    view.setInt32(off + ipv4.SRC, this.address);
    view.setInt32(off + ipv4.DST, to);
    ipv4.setHeaderChecksum(view, off);
    return p;
  }

  /** Makes of a packet the answer to it. @returns whether there is one */
  private answer(p: Packet): boolean {
    const { view } = this.pool;
    const { off } = p;
    const l4 = off + ipv4.headerLen(view, off);
    const length = off + view.getUint16(off + ipv4.TOTAL_LEN) - l4;
    // The path has checked the header; a fragment nobody puts together here.
    if (ipv4.isFragment(view.getUint16(off + ipv4.FLAGS_FRAGMENT)) || l4 + length > off + p.len) return false;
    switch (view.getUint8(off + ipv4.PROTOCOL)) {
      case ipv4.PROTO_ICMP:
        return length >= icmp.HEADER_LEN && this.answerIcmp(p, l4, length);
      case ipv4.PROTO_UDP:
        return length >= udp.HEADER_LEN && this.answerUdp(p, l4, length);
      case ipv4.PROTO_TCP:
        return length >= tcp.HEADER_LEN && this.answerTcp(p, l4, length);
      default:
        return false;
    }
  }

  private answerIcmp(p: Packet, l4: number, length: number): boolean {
    const { view } = this.pool;
    const type = view.getUint8(l4 + icmp.TYPE);
    if (type === icmp.ECHO_REPLY) {
      this.onAnswer?.(ipv4.PROTO_ICMP, view.getInt32(p.off + ipv4.SRC), view.getUint16(l4 + icmp.ID));
      return false;
    }
    if (type !== icmp.ECHO) return false;
    view.setUint8(l4 + icmp.TYPE, icmp.ECHO_REPLY);
    setChecksum(view, l4, icmp.CHECKSUM, length, 0);
    this.turn(p);
    return true;
  }

  private answerUdp(p: Packet, l4: number, length: number): boolean {
    this.countPayload(length - udp.HEADER_LEN);
    if (this.app !== 'echo') return false;
    // The checksum adds the same words up.
    swapPorts(this.pool.view, l4);
    this.turn(p);
    return true;
  }

  private answerTcp(p: Packet, l4: number, length: number): boolean {
    const { view } = this.pool;
    const flags = view.getUint8(l4 + tcp.FLAGS);
    const header = tcp.headerLen(view, l4);
    if (header < tcp.HEADER_LEN || header > length || (flags & tcp.RST) !== 0) return false;
    const from = view.getInt32(p.off + ipv4.SRC);
    const port = view.getUint16(l4 + tcp.SRC_PORT);
    if ((flags & tcp.SYN) !== 0) {
      if ((flags & tcp.ACK_FLAG) !== 0) {
        this.onAnswer?.(ipv4.PROTO_TCP, from, view.getUint16(l4 + tcp.DST_PORT));
        return false;
      }
      const next = (view.getInt32(l4 + tcp.SEQ) + 1) | 0;
      this.turn(p);
      this.resize(p, l4, tcp.HEADER_LEN + MSS_OPTION_LEN);
      swapPorts(view, l4);
      this.finishTcp(p, l4, initialNumber(from, port), next, tcp.SYN | tcp.ACK_FLAG);
      return true;
    }
    const bytes = length - header;
    const fin = (flags & tcp.FIN) === 0 ? 0 : 1;
    if (bytes + fin === 0) return false;
    this.countPayload(bytes);
    const next = (view.getInt32(l4 + tcp.SEQ) + bytes + fin) | 0;
    const sequence = view.getInt32(l4 + tcp.ACK);
    const { response } = this;
    const isPage = this.app === 'http' && bytes > 0;
    const back = this.app === 'echo' ? bytes : isPage ? response.length : 0;
    if (isPage) this.pool.bytes.set(response, l4 + tcp.HEADER_LEN);
    else if (back > 0) this.pool.bytes.copyWithin(l4 + tcp.HEADER_LEN, l4 + header, l4 + length);
    this.turn(p);
    this.resize(p, l4, tcp.HEADER_LEN + back);
    swapPorts(view, l4);
    const ends = isPage || fin === 1 ? tcp.FIN : 0;
    this.finishTcp(p, l4, sequence, next, tcp.ACK_FLAG | ends | (back > 0 ? tcp.PSH : 0));
    return true;
  }

  private countPayload(bytes: number): void {
    this.packets++;
    this.bytes += bytes;
  }

  /** Back to where it came from. */
  private turn(p: Packet): void {
    const { view } = this.pool;
    const { off } = p;
    const from = view.getInt32(off + ipv4.SRC);
    view.setInt32(off + ipv4.SRC, view.getInt32(off + ipv4.DST));
    view.setInt32(off + ipv4.DST, from);
    view.setUint8(off + ipv4.TTL, TTL);
    ipv4.setHeaderChecksum(view, off);
    p.vnetFlags = 0;
    p.gsoType = 0;
    p.len = view.getUint16(off + ipv4.TOTAL_LEN);
  }

  private resize(p: Packet, l4: number, length: number): void {
    const { view } = this.pool;
    p.len = l4 - p.off + length;
    view.setUint16(p.off + ipv4.TOTAL_LEN, p.len);
    ipv4.setHeaderChecksum(view, p.off);
  }

  /** Everything of the TCP header but the ports; a SYN has the option MSS. */
  private finishTcp(p: Packet, l4: number, sequence: number, acknowledged: number, flags: number): void {
    const { view } = this.pool;
    const hasMss = (flags & tcp.SYN) !== 0;
    const header = tcp.HEADER_LEN + (hasMss ? MSS_OPTION_LEN : 0);
    view.setInt32(l4 + tcp.SEQ, sequence);
    view.setInt32(l4 + tcp.ACK, acknowledged);
    view.setUint8(l4 + tcp.DATA_OFFSET, header << 2);
    view.setUint8(l4 + tcp.FLAGS, flags);
    view.setUint16(l4 + tcp.WINDOW, WINDOW);
    view.setUint16(l4 + tcp.URGENT, 0);
    if (hasMss) {
      view.setUint16(l4 + tcp.HEADER_LEN, (tcp.OPT_MSS << 8) | MSS_OPTION_LEN);
      view.setUint16(l4 + tcp.HEADER_LEN + 2, this.mtu - ipv4.HEADER_LEN - tcp.HEADER_LEN);
    }
    const length = p.off + p.len - l4;
    const src = view.getInt32(p.off + ipv4.SRC);
    const dst = view.getInt32(p.off + ipv4.DST);
    setChecksum(view, l4, tcp.CHECKSUM, length, pseudoSum(src, dst, ipv4.PROTO_TCP, length));
  }
}

function setChecksum(view: DataView, at: number, field: number, length: number, sum: number): void {
  view.setUint16(at + field, 0);
  view.setUint16(at + field, ~foldSum(sumWords(view, at, length, sum)));
}

function swapPorts(view: DataView, l4: number): void {
  const from = view.getUint16(l4);
  view.setUint16(l4, view.getUint16(l4 + 2));
  view.setUint16(l4 + 2, from);
}

/** The same for each SYN of a connection: nothing is remembered of the first. */
function initialNumber(address: number, port: number): number {
  return Math.imul(address ^ (port << 16), 0x9e3779b1);
}
