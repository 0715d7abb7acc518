/**
 * TUN and TAP devices (Linux drivers/net/tun.c, Documentation/networking/tuntap.rst), and macvtaps (drivers/net/tap.c),
 * which differ only in how they are made.
 *
 * Every device is opened with IFF_VNET_HDR: each read and write carries a virtio-net header in front of the packet, which
 * is what makes 64 KiB superpackets possible. The header is read from and written into the headroom of the packet's slot,
 * so one system call moves both without a copy of ours.
 */

import { MAX_FRAME, type Packet } from '../packet/packet.ts';
import type { Pool } from '../packet/pool.ts';
import { type Mac, macHi, macLo } from '../wire/ethernet.ts';
import * as vnet from '../wire/virtio-net.ts';
import {
  type Device,
  OFFLOAD_CSUM,
  OFFLOAD_TSO,
  OFFLOAD_TSO_ECN,
  OFFLOAD_TUNNEL,
  OFFLOAD_TUNNEL_CSUM,
  OFFLOAD_USO,
  OFFLOADS,
  type Offload,
} from './device.ts';
import { EAGAIN, EINTR } from './errors.ts';
import * as libc from './libc.ts';
import { OP_READ, OP_WRITE, RING_SIZE, type Uring } from './uring.ts';

const TUNSETIFF = 0x400454ca;
const TUNSETOFFLOAD = 0x400454d0;
const TUNSETVNETHDRSZ = 0x400454d8;
const SIOCGIFHWADDR = 0x8927;

const IFF_TUN = 0x0001;
const IFF_TAP = 0x0002;
const IFF_NO_PI = 0x1000;
const IFF_VNET_HDR = 0x4000;

// TUNSETOFFLOAD bits (include/uapi/linux/if_tun.h).
const TUN_F_CSUM = 0x01;
const TUN_F_TSO4 = 0x02;
const TUN_F_TSO6 = 0x04;
const TUN_F_TSO_ECN = 0x08;
const TUN_F_USO4 = 0x20;
const TUN_F_USO6 = 0x40;
const TUN_F_UDP_TUNNEL_GSO = 0x80;
const TUN_F_UDP_TUNNEL_GSO_CSUM = 0x100;

const POLLOUT = 0x004;

const IFNAMSIZ = 16;
const IFREQ_BYTES = 40;

/** One burst stops after this many bytes: what is read must still be in the L2 cache when it is written out again. */
const BURST_BYTES = 256 * 1024;

/** Fewer packets than this are read and written by a call each: a submission costs as much as two. */
const RING_PAYS = 4;

/** An opened device, in a form that can be sent to the loop's thread. */
export interface TunTapHandle {
  kind: 'tun' | 'tap' | 'macvtap' | 'veth';
  fd: number;
  name: string;
  mtu: number;
  /** Bytes of the virtio-net header in front of every packet: 12, 24 with tunnel offload, 10 on a packet socket. */
  vnetBytes: number;
  /** OFFLOAD_* bits in use. */
  offloads: number;
  /** Why not more: a line for each offload that is not in use. */
  refused: string[];
  /** Of a pod's device with a link layer: the MAC at its other side. */
  peerMac?: Mac;
}

/** Linux that first took it. The kernel is asked for all offloads; while it refuses, for all but the last. */
const SINCE: Record<Offload, string> = { csum: '2.6.27', tso: '2.6.27', uso: '6.2', tunnel: '6.17' };

/**
 * Opens /dev/net/tun and attaches a new, non-persistent device: it disappears with its last descriptor, so a killed
 * process leaves nothing behind.
 *
 * @param options.name at most 15 characters; made in the calling thread's network namespace
 * @param options.allowed OFFLOAD_* bits that may be used
 * @throws Error naming the device and the system's reason
 */
export function openTunTap(options: { kind: 'tun' | 'tap'; name: string; mtu: number; allowed: number }): TunTapHandle {
  const fd = libc.open('/dev/net/tun', libc.O_RDWR | libc.O_NONBLOCK | libc.O_CLOEXEC);
  if (fd < 0)
    throw new Error(`/dev/net/tun: ${libc.errnoName(libc.errno())} (is the tun module there, and are you root?)`);
  return attach(fd, options);
}

/**
 * Opens a macvtap, which must be there: making it is the business of whoever knows on which interface. Unlike a TAP it
 * stays when its descriptor is closed.
 * @param options.path its character device
 * @throws Error naming the device and the system's reason
 */
export function openMacvtap(options: { path: string; name: string; mtu: number; allowed: number }): TunTapHandle {
  const fd = libc.open(options.path, libc.O_RDWR | libc.O_NONBLOCK | libc.O_CLOEXEC);
  if (fd < 0) throw new Error(`${options.path}, the device of ${options.name}: ${libc.errnoName(libc.errno())}`);
  return attach(fd, { kind: 'macvtap', ...options });
}

/** The MAC of a TAP as its namespace sees it. @throws Error when the device is gone */
export function macOfTap(fd: number): Mac {
  const ifreq = new Uint8Array(IFREQ_BYTES);
  if (libc.ioctl(fd, SIOCGIFHWADDR, libc.addressOf(ifreq)) < 0) {
    throw new Error(`MAC of a tap device: ${libc.errnoName(libc.errno())}`);
  }
  // Behind the name a struct sockaddr: its family, then the address.
  const view = new DataView(ifreq.buffer);
  return { hi: macHi(view, IFNAMSIZ + 2), lo: macLo(view, IFNAMSIZ + 2) };
}

/** Makes the device behind an open descriptor, unless it is there, and agrees on offloads. Closes it if that fails. */
function attach(
  fd: number,
  { kind, name, mtu, allowed }: { kind: TunTapHandle['kind']; name: string; mtu: number; allowed: number },
): TunTapHandle {
  const fail = (what: string): never => {
    const reason = libc.errnoName(libc.errno());
    libc.close(fd);
    throw new Error(`${kind} device ${name}: ${what}: ${reason}${reason === 'EPERM' ? ' (needs CAP_NET_ADMIN)' : ''}`);
  };

  const ifreq = new Uint8Array(IFREQ_BYTES);
  ifreq.set(new TextEncoder().encode(name).subarray(0, IFNAMSIZ - 1));
  new DataView(ifreq.buffer).setUint16(IFNAMSIZ, (kind === 'tun' ? IFF_TUN : IFF_TAP) | IFF_NO_PI | IFF_VNET_HDR, true);
  if (libc.ioctl(fd, TUNSETIFF, libc.addressOf(ifreq)) < 0) fail('cannot be made');

  const { offloads, refused } = negotiate(fd, kind, allowed);
  const vnetBytes = offloads & OFFLOAD_TUNNEL ? vnet.TUNNEL_HEADER_LEN : vnet.HEADER_LEN;
  const size = new Int32Array([vnetBytes]);
  if (libc.ioctl(fd, TUNSETVNETHDRSZ, libc.addressOf(size)) < 0) fail('virtio-net header size');
  return { kind, fd, name, mtu, vnetBytes, offloads, refused };
}

/** Agrees with the kernel on as much of `allowed` as it takes. */
function negotiate(fd: number, kind: TunTapHandle['kind'], allowed: number): { offloads: number; refused: string[] } {
  const reasons = OFFLOADS.map(({ name, bits }): string => {
    if ((bits & allowed) === 0) return 'not allowed by the configuration';
    if ((allowed & OFFLOAD_CSUM) === 0) return 'needs csum, which is not allowed by the configuration';
    // On a TUN the kernel's check of such a packet assumes an Ethernet header; drivers/net/tap.c does not know it.
    return name === 'tunnel' && kind !== 'tap' ? `not on a ${kind}` : '';
  });
  let offloads = 0;
  for (let last = OFFLOADS.length - 1; last >= 0; last--) {
    if (reasons[last] !== '') continue;
    const bits = OFFLOADS.reduce((sum, offload, i) => (reasons[i] === '' ? sum | (offload.bits & allowed) : sum), 0);
    if (libc.ioctl(fd, TUNSETOFFLOAD, toTunFlags(bits)) >= 0) {
      offloads = bits;
      break;
    }
    reasons[last] =
      `refused by the kernel (${libc.errnoName(libc.errno())}); there since Linux ${SINCE[OFFLOADS[last].name]}`;
  }
  const refused = OFFLOADS.flatMap(({ name }, i) => (reasons[i] === '' ? [] : [`${name}: ${reasons[i]}`]));
  return { offloads, refused };
}

function toTunFlags(offloads: number): number {
  let flags = 0;
  if (offloads & OFFLOAD_CSUM) flags |= TUN_F_CSUM;
  if (offloads & OFFLOAD_TSO) flags |= TUN_F_TSO4 | TUN_F_TSO6;
  if (offloads & OFFLOAD_TSO && offloads & OFFLOAD_TSO_ECN) flags |= TUN_F_TSO_ECN;
  if (offloads & OFFLOAD_USO) flags |= TUN_F_USO4 | TUN_F_USO6;
  if (offloads & OFFLOAD_TUNNEL) flags |= TUN_F_UDP_TUNNEL_GSO;
  if (offloads & OFFLOAD_TUNNEL && offloads & OFFLOAD_TUNNEL_CSUM) flags |= TUN_F_UDP_TUNNEL_GSO_CSUM;
  return flags;
}

/** A TUN or TAP as the loop sees it. */
export class TunTap implements Device {
  readonly name: string;
  readonly layer: 2 | 3;
  readonly mtu: number;
  readonly offloads: number;
  readonly fd: number;
  readonly peerMac: Mac | undefined;
  private readonly view: DataView;
  private readonly base: number;
  private readonly vnetBytes: number;
  private readonly ring: Uring | null;
  /** struct pollfd, little-endian: int fd; short events; short revents. */
  private readonly pollfd: Int32Array;
  private readonly pollAddress: number;
  /** Packets that the next burst is likely to have, and their length as of the last ones. */
  private expected = 1;
  private averageBytes = 1500;

  /** @param ring of the thread that uses the device; null: one call for each packet */
  constructor(handle: TunTapHandle, pool: Pool, ring: Uring | null = null) {
    this.name = handle.name;
    this.layer = handle.kind === 'tun' ? 3 : 2;
    this.mtu = handle.mtu;
    this.offloads = handle.offloads;
    this.fd = handle.fd;
    this.peerMac = handle.peerMac;
    this.vnetBytes = handle.vnetBytes;
    this.ring = ring;
    this.view = pool.view;
    this.base = libc.addressOf(pool.bytes);
    this.pollfd = Int32Array.of(handle.fd, POLLOUT);
    this.pollAddress = libc.addressOf(this.pollfd);
  }

  readBurst(slots: Packet[], max: number): number {
    const { ring, expected } = this;
    const n =
      ring === null || expected < RING_PAYS ? this.readOneByOne(slots, max) : this.readTogether(slots, max, ring);
    // A burst as long as it could be may have left some behind: the next one asks for more.
    this.expected = n === expected ? 2 * n : n;
    return n;
  }

  private readOneByOne(slots: Packet[], max: number): number {
    const { base, vnetBytes } = this;
    const want = vnetBytes + MAX_FRAME;
    let total = 0;
    for (let i = 0; i < max; i++) {
      const p = slots[i];
      const n = libc.read(this.fd, base + p.off - vnetBytes, want);
      if (n < vnetBytes) {
        if (n >= 0) continue; // cannot happen: the driver always writes its header
        const error = libc.errno();
        if (error === EAGAIN || error === EINTR) return i;
        return i > 0 ? i : -error;
      }
      this.take(p, n);
      total += n;
      if (total >= BURST_BYTES) return i + 1;
    }
    return max;
  }

  /** As many as there were the last time, and one more: a read that finds nothing is cheap in company. */
  private readTogether(slots: Packet[], max: number, ring: Uring): number {
    const { base, vnetBytes, fd } = this;
    const want = vnetBytes + MAX_FRAME;
    const asked = Math.min(max, RING_SIZE, this.expected + 1, Math.ceil(BURST_BYTES / this.averageBytes));
    for (let i = 0; i < asked; i++) ring.prepare(i, OP_READ, fd, base + slots[i].off - vnetBytes, want);
    ring.run(asked);
    let n = 0;
    let total = 0;
    let error = 0;
    for (let i = 0; i < asked; i++) {
      const got = ring.results[i];
      if (got < vnetBytes) {
        if (got < 0 && got !== -EAGAIN && got !== -EINTR) error = got;
        continue;
      }
      const p = slots[i];
      this.take(p, got);
      total += got;
      // One that came while the others were read: behind a place where there was nothing yet.
      if (n < i) {
        slots[i] = slots[n];
        slots[n] = p;
      }
      n++;
    }
    if (n === 0) return error;
    this.averageBytes = total / n;
    return n;
  }

  /** A packet of `n` bytes, its virtio-net header in front, has been read into the slot of `p`. */
  private take(p: Packet, n: number): void {
    const at = p.off - this.vnetBytes;
    p.len = n - this.vnetBytes;
    if (this.view.getUint16(at, true) === 0) {
      p.vnetFlags = 0;
      p.gsoType = 0;
    } else this.readHeader(p, at);
  }

  private readHeader(p: Packet, at: number): void {
    const { view } = this;
    p.vnetFlags = view.getUint8(at + vnet.FLAGS);
    p.gsoType = view.getUint8(at + vnet.GSO_TYPE);
    p.gsoSize = view.getUint16(at + vnet.GSO_SIZE, true);
    p.csumStart = p.off + view.getUint16(at + vnet.CSUM_START, true);
    p.csumOffset = view.getUint16(at + vnet.CSUM_OFFSET, true);
    if (p.gsoType & (vnet.GSO_UDP_TUNNEL_IPV4 | vnet.GSO_UDP_TUNNEL_IPV6)) {
      p.outerTransport = p.off + view.getUint16(at + vnet.OUTER_TH_OFFSET, true);
      p.innerNetwork = p.off + view.getUint16(at + vnet.INNER_NH_OFFSET, true);
    }
  }

  write(p: Packet): number {
    const { vnetBytes } = this;
    this.prepare(p);
    if (libc.write(this.fd, this.base + p.off - vnetBytes, vnetBytes + p.len) >= 0) return 0;
    return libc.errno();
  }

  writeBurst(packets: Packet[], n: number, errors: Int32Array): void {
    const { ring, base, vnetBytes, fd } = this;
    if (ring === null || n < RING_PAYS) {
      for (let i = 0; i < n; i++) errors[i] = this.write(packets[i]);
      return;
    }
    for (let from = 0; from < n; from += RING_SIZE) {
      const count = Math.min(RING_SIZE, n - from);
      for (let i = 0; i < count; i++) {
        const p = packets[from + i];
        this.prepare(p);
        ring.prepare(i, OP_WRITE, fd, base + p.off - vnetBytes, vnetBytes + p.len);
      }
      ring.run(count);
      for (let i = 0; i < count; i++) errors[from + i] = ring.results[i] >= 0 ? 0 : -ring.results[i];
    }
  }

  /** The driver says writable only of an interface that is up (tun_chr_poll(), tun_sock_writeable()). */
  isUp(): boolean {
    libc.poll(this.pollAddress, 1, 0);
    return this.pollfd[1] >>> 16 === POLLOUT;
  }

  /** Puts the virtio-net header in front of the packet. */
  private prepare(p: Packet): void {
    const { view, vnetBytes } = this;
    const at = p.off - vnetBytes;
    view.setInt32(at, 0);
    view.setInt32(at + 4, 0);
    if (vnetBytes === vnet.LEGACY_HEADER_LEN) view.setInt16(at + 8, 0);
    else view.setInt32(at + 8, 0);
    if (vnetBytes === vnet.TUNNEL_HEADER_LEN) {
      view.setInt32(at + 12, 0);
      view.setInt32(at + 16, 0);
      view.setInt32(at + 20, 0);
    }
    if ((p.vnetFlags | p.gsoType) !== 0) this.writeHeader(p, at);
  }

  private writeHeader(p: Packet, at: number): void {
    const { view } = this;
    view.setUint8(at + vnet.FLAGS, p.vnetFlags);
    view.setUint8(at + vnet.GSO_TYPE, p.gsoType);
    if (p.gsoType !== 0) view.setUint16(at + vnet.GSO_SIZE, p.gsoSize, true);
    if (p.gsoType !== 0 && p.vnetFlags & vnet.FLAG_NEEDS_CSUM) {
      // How much the kernel should keep linear: all headers. TCP's own length is in its data offset byte.
      const transport = p.csumStart - p.off;
      const headers = (p.gsoType & 7) === vnet.GSO_UDP_L4 ? 8 : (view.getUint8(p.csumStart + 12) >> 4) << 2;
      view.setUint16(at + vnet.HDR_LEN, transport + headers, true);
    }
    if (p.vnetFlags & vnet.FLAG_NEEDS_CSUM) {
      view.setUint16(at + vnet.CSUM_START, p.csumStart - p.off, true);
      view.setUint16(at + vnet.CSUM_OFFSET, p.csumOffset, true);
    }
    if (p.gsoType & (vnet.GSO_UDP_TUNNEL_IPV4 | vnet.GSO_UDP_TUNNEL_IPV6)) {
      view.setUint16(at + vnet.OUTER_TH_OFFSET, p.outerTransport - p.off, true);
      view.setUint16(at + vnet.INNER_NH_OFFSET, p.innerNetwork - p.off, true);
    }
  }

  close(): void {
    libc.close(this.fd);
  }
}
