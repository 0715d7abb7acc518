/**
 * The raw uplink: no device of our own, but sockets on the host's address (made in raw-socket.ts).
 *
 *   out  a raw socket with the IP header included: the outer source port and every other bit are the datapath's
 *   in   IPIP: a raw socket for protocol 4, whole packets; VXLAN and GENEVE: a UDP socket, payloads. The kernel has put
 *        fragments together and verified the UDP checksum. An open socket also keeps it from answering "unreachable"
 *   in   a raw ICMP socket: errors about our tunnel packets, for path MTU discovery
 *
 * To the datapath all this is an Ethernet link with one neighbour, the kernel, which knows the way to everybody: a header
 * is put in front of what is read, and taken off what is written. So the path needs no second way to its uplink.
 *
 * One system call moves one packet. sendmmsg() of 64 at a time saves a tenth (1180 ns and 1070 ns each, through a veth):
 * not worth packets that are written later than write() says.
 */
import { markOwedChecksum } from '../packet/owed-checksum.ts';
import type { Packet } from '../packet/packet.ts';
import type { Pool } from '../packet/pool.ts';
import * as ethernet from '../wire/ethernet.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as udp from '../wire/udp.ts';
import * as virtio from '../wire/virtio-net.ts';
import type { Device } from './device.ts';
import { EINVAL, EIO } from './errors.ts';
import * as libc from './libc.ts';
import {
  innerOfGeneve,
  innerOfVxlan,
  MAX_UDP_PAYLOAD,
  quotesTunnel,
  UDP_HEADERS_LEN,
  writeUdpHeaders,
} from './raw-frame.ts';

// errno values that mean an interface that is down or gone; others come from a firewall (EPERM) or a full queue.
const ENXIO = 6;
const ENODEV = 19;
const ENETDOWN = 100;
const ENETUNREACH = 101;

/** One burst stops after this many bytes, as for TUN and TAP. */
const BURST_BYTES = 256 * 1024;
/** Under load the sockets' errors are looked at once in so many bursts; else when there is nothing else to read. */
const ERRORS_EVERY = 16;
/** Messages of the ICMP socket read at once. Most may be the host's own affair. */
const ERRORS_AT_ONCE = 16;

// struct msghdr {void *name; u32 namelen; struct iovec {void *base; size_t len} *iov; size_t iovlen; void *control;
// size_t controllen; int flags} and struct cmsghdr {size_t len; int level; int type}, 64 bits.
const MSG_CONTROL_LEN = 40;
const IOVEC = 56;
const SENDER = IOVEC + 16;
const CMSG_LEVEL = 8;
const CMSG_TYPE = 12;
const CMSG_DATA = 16;
const CONTROL_BYTES = 64;
const SOCKADDR_BYTES = 16;
const CONTROL = SENDER + SOCKADDR_BYTES;

const IPPROTO_IP = 0;
const IP_TOS = 1;
const SOL_UDP = 17;
const UDP_GRO = 104;

/** The sockets, in a form that can be sent to the loop's thread. */
export interface RawHandle {
  kind: 'raw';
  /** The interface. */
  name: string;
  mtu: number;
  /** None: a raw socket takes finished packets. */
  offloads: 0;
  refused: string[];
  /** An epoll of those that are read: what the loop waits on. */
  fd: number;
  sendFd: number;
  receiveFd: number;
  errorFd: number;
  protocol: 'ipip' | 'vxlan' | 'geneve';
  /** Of the tunnel; 0 for IPIP. */
  udpPort: number;
  /** The host's address, int32. */
  address: number;
  /** What the tunnel's inner packets may have. */
  innerMtu: number;
  /** The two ends of the made-up link. */
  mac: ethernet.Mac;
  kernelMac: ethernet.Mac;
}

export class RawUplink implements Device {
  readonly name: string;
  readonly layer = 2;
  readonly mtu: number;
  readonly offloads = 0;
  readonly fd: number;
  private readonly handle: RawHandle;
  private readonly view: DataView;
  private readonly base: number;
  /** The Ethernet header of everything that is read: three words and the type. */
  private readonly frameWords = new Int32Array(3);
  private burstsSinceErrors = 0;

  /** For recvmsg(): msghdr, iovec, sockaddr_in, control messages in one piece, so that one address is enough. */
  private readonly message = new DataView(new ArrayBuffer(CONTROL + CONTROL_BYTES));
  private readonly messageAddress: number;
  private readonly destination = new DataView(new ArrayBuffer(SOCKADDR_BYTES));
  private readonly destinationAddress: number;
  /** What the last control messages said. */
  private tos = 0;
  private trainSegment = 0;

  constructor(handle: RawHandle, pool: Pool) {
    this.handle = handle;
    this.name = handle.name;
    this.mtu = handle.mtu;
    this.fd = handle.fd;
    this.view = pool.view;
    this.base = libc.addressOf(pool.bytes);

    const frame = new DataView(new ArrayBuffer(ethernet.HEADER_LEN));
    ethernet.setMac(frame, ethernet.DST, handle.mac.hi, handle.mac.lo);
    ethernet.setMac(frame, ethernet.SRC, handle.kernelMac.hi, handle.kernelMac.lo);
    for (let i = 0; i < 3; i++) this.frameWords[i] = frame.getInt32(4 * i);

    const { message } = this;
    const at = libc.addressOf(new Uint8Array(message.buffer));
    this.messageAddress = at;
    message.setBigUint64(0, BigInt(at + SENDER), true);
    message.setInt32(8, SOCKADDR_BYTES, true);
    message.setBigUint64(16, BigInt(at + IOVEC), true);
    message.setBigUint64(24, 1n, true);
    message.setBigUint64(32, BigInt(at + CONTROL), true);
    message.setInt32(IOVEC + 8, MAX_UDP_PAYLOAD, true);

    this.destination.setUint16(0, libc.AF_INET, true);
    this.destinationAddress = libc.addressOf(new Uint8Array(this.destination.buffer));
  }

  readBurst(slots: Packet[], max: number): number {
    let n = this.readTunnel(slots, max);
    // Level triggered: an error that waits wakes us again as soon as there are no tunnel packets.
    if (n === 0 || ++this.burstsSinceErrors >= ERRORS_EVERY) {
      this.burstsSinceErrors = 0;
      n = this.readErrors(slots, n, max);
    }
    return n;
  }

  private readTunnel(slots: Packet[], max: number): number {
    const isUdp = this.handle.udpPort !== 0;
    let bytes = 0;
    for (let i = 0; i < max; i++) {
      const p = slots[i];
      if (!(isUdp ? this.readDatagram(p) : this.readIpip(p))) return i;
      bytes += p.len;
      if (bytes >= BURST_BYTES) return i + 1;
    }
    return max;
  }

  /** Whole packets, header included. @returns false when there is none; an error of the socket passes, so it is one, too */
  private readIpip(p: Packet): boolean {
    const { view, handle } = this;
    const ip = p.off + ethernet.HEADER_LEN;
    const n = libc.read(handle.receiveFd, this.base + ip, ipv4.MAX_TOTAL_LEN);
    if (n < 0) return false;
    this.present(p, n);
    if (n < ipv4.HEADER_LEN) return true; // the path counts it as malformed
    const inner = ip + ipv4.headerLen(view, ip);
    markOwedChecksum(view, p, inner, ip + n, inner, handle.innerMtu, 0);
    return true;
  }

  private readDatagram(p: Packet): boolean {
    const { view, handle, message } = this;
    const ip = p.off + ethernet.HEADER_LEN;
    const payload = ip + UDP_HEADERS_LEN;
    const address = this.base + payload;
    message.setUint32(IOVEC, address >>> 0, true);
    message.setUint32(IOVEC + 4, Math.floor(address / 0x100000000), true);
    message.setInt32(MSG_CONTROL_LEN, CONTROL_BYTES, true);
    const n = libc.recvmsg(handle.receiveFd, this.messageAddress, libc.MSG_DONTWAIT);
    if (n < 0) return false;
    this.readControl();
    const sender = message.getInt32(SENDER + 4);
    const ports = (message.getUint16(SENDER + 2) << 16) | handle.udpPort;
    writeUdpHeaders(view, ip, n, this.tos, sender, handle.address, ports);
    this.present(p, UDP_HEADERS_LEN + n);

    const end = payload + n;
    const inner = handle.protocol === 'vxlan' ? innerOfVxlan(payload) : innerOfGeneve(view, payload, end);
    const transport = ip + ipv4.HEADER_LEN;
    const { trainSegment } = this;
    if (trainSegment > 0 && trainSegment < n && inner - payload + ipv4.HEADER_LEN <= trainSegment) {
      const innerEnd = inner + view.getUint16(inner + ipv4.TOTAL_LEN);
      if (innerEnd !== end) {
        this.presentTrain(p, transport);
        return true;
      }
    }
    markOwedChecksum(view, p, inner, end, transport, handle.innerMtu, trainSegment);
    return true;
  }

  /** Ethernet in front of the `len` bytes of IP that have been read. */
  private present(p: Packet, len: number): void {
    const { view, frameWords } = this;
    const { off } = p;
    view.setInt32(off, frameWords[0]);
    view.setInt32(off + 4, frameWords[1]);
    view.setInt32(off + 8, frameWords[2]);
    view.setUint16(off + ethernet.TYPE, ethernet.TYPE_IPV4);
    p.len = ethernet.HEADER_LEN + len;
    p.vnetFlags = 0;
    p.gsoType = 0;
  }

  /** Tunnel packets of equal length that the kernel has joined (UDP_GRO): the path cuts them apart. */
  private presentTrain(p: Packet, transport: number): void {
    p.vnetFlags = virtio.FLAG_NEEDS_CSUM;
    p.csumStart = transport;
    p.csumOffset = udp.CHECKSUM;
    p.gsoType = virtio.GSO_UDP_L4;
    p.gsoSize = this.trainSegment;
  }

  /** The header's TOS byte, for its ECN, and the length of each of several datagrams joined. */
  private readControl(): void {
    const { message } = this;
    this.tos = 0;
    this.trainSegment = 0;
    const end = CONTROL + Math.min(CONTROL_BYTES, message.getInt32(MSG_CONTROL_LEN, true));
    let at = CONTROL;
    while (at + CMSG_DATA + 4 <= end) {
      const level = message.getInt32(at + CMSG_LEVEL, true);
      const type = message.getInt32(at + CMSG_TYPE, true);
      if (level === IPPROTO_IP && type === IP_TOS) this.tos = message.getUint8(at + CMSG_DATA);
      else if (level === SOL_UDP && type === UDP_GRO) this.trainSegment = message.getInt32(at + CMSG_DATA, true);
      const length = message.getInt32(at, true);
      if (length < CMSG_DATA) return;
      at += (length + 7) & ~7;
    }
  }

  /** Fills the slots from `n` on. @returns how many are filled then */
  private readErrors(slots: Packet[], n: number, max: number): number {
    const { view, handle } = this;
    for (let i = 0; i < ERRORS_AT_ONCE && n < max; i++) {
      const p = slots[n];
      const ip = p.off + ethernet.HEADER_LEN;
      const len = libc.read(handle.errorFd, this.base + ip, ipv4.MAX_TOTAL_LEN);
      if (len < 0) return n;
      if (!quotesTunnel(view, ip, len, handle.address, handle.udpPort)) continue;
      this.present(p, len);
      n++;
    }
    return n;
  }

  write(p: Packet): number {
    const { view, destination } = this;
    if (view.getUint16(p.off + ethernet.TYPE) !== ethernet.TYPE_IPV4) return EINVAL;
    const ip = p.off + ethernet.HEADER_LEN;
    destination.setInt32(4, view.getInt32(ip + ipv4.DST));
    const { sendFd } = this.handle;
    const len = p.len - ethernet.HEADER_LEN;
    if (libc.sendto(sendFd, this.base + ip, len, libc.MSG_DONTWAIT, this.destinationAddress, SOCKADDR_BYTES) >= 0) {
      return 0;
    }
    const error = libc.errno();
    return error === ENXIO || error === ENODEV || error === ENETDOWN || error === ENETUNREACH ? EIO : error;
  }

  close(): void {
    closeRaw(this.handle);
  }
}

export function closeRaw({ fd, sendFd, receiveFd, errorFd }: RawHandle): void {
  for (const one of [fd, sendFd, receiveFd, errorFd]) libc.close(one);
}
