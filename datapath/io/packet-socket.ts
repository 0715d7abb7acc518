/**
 * The host's end of a veth as a device: a packet socket (man 7 packet) with a virtio-net header in front of every frame
 * (PACKET_VNET_HDR), so that superpackets and owed checksums cross it as they cross a TAP. The kernel gives the socket a
 * copy of every frame that the other end sends, before its own stack sees it; what it does with that is veth.ts's business.
 */
import type { Mac } from '../wire/ethernet.ts';
import * as vnet from '../wire/virtio-net.ts';
import { OFFLOAD_CSUM, OFFLOAD_TSO, OFFLOAD_TSO_ECN, OFFLOAD_USO } from './device.ts';
import { EBADFD } from './errors.ts';
import * as libc from './libc.ts';
import { TunTap, type TunTapHandle } from './tuntap.ts';

const AF_PACKET = 17;
const SOCK_RAW = 3;
const ETH_P_ALL = 3;
const SOL_SOCKET = 1;
const SO_SNDBUFFORCE = 32;
const SO_RCVBUFFORCE = 33;
const SOL_PACKET = 263;
const PACKET_VNET_HDR = 15;
const PACKET_IGNORE_OUTGOING = 23;
const PACKET_QDISC_BYPASS = 20;

/** The kernel charges a superpacket of 64 KiB with all of its pages. */
const RECEIVE_BUFFER = 8 << 20;
const SEND_BUFFER = 4 << 20;

const ENXIO = 6;
const ENODEV = 19;
const ENETDOWN = 100;

/**
 * Opens the socket, in the calling thread's network namespace.
 * @param options.index of the device
 * @param options.allowed OFFLOAD_* bits that may be used
 * @throws Error naming the device and the system's reason, with nothing left open
 */
export function openPacketSocket(options: {
  name: string;
  index: number;
  mtu: number;
  allowed: number;
  peerMac: Mac;
}): TunTapHandle {
  const { name, index, mtu, allowed, peerMac } = options;
  const fail = (what: string): never => {
    const reason = libc.errnoName(libc.errno());
    if (fd >= 0) libc.close(fd);
    throw new Error(`packet socket on ${name}: ${what}: ${reason}${reason === 'EPERM' ? ' (needs CAP_NET_RAW)' : ''}`);
  };
  // Protocol 0: nothing comes in before it is bound to its device.
  const fd = libc.socket(AF_PACKET, SOCK_RAW | libc.SOCK_NONBLOCK | libc.SOCK_CLOEXEC, 0);
  if (fd < 0) fail('cannot be opened');
  const set = (level: number, option: number, value: number, what: string) => {
    const bytes = Int32Array.of(value);
    if (libc.setsockopt(fd, level, option, libc.addressOf(bytes), bytes.byteLength) < 0) fail(what);
  };
  set(SOL_PACKET, PACKET_VNET_HDR, 1, 'virtio-net header');
  set(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1, 'without what it sends itself (Linux 4.20)');
  set(SOL_PACKET, PACKET_QDISC_BYPASS, 1, 'past the queueing discipline');
  set(SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER, 'receive buffer');
  set(SOL_SOCKET, SO_SNDBUFFORCE, SEND_BUFFER, 'send buffer');
  const address = new Uint8Array(20); // struct sockaddr_ll
  const view = new DataView(address.buffer);
  view.setUint16(0, AF_PACKET, true);
  view.setUint16(2, ETH_P_ALL);
  view.setInt32(4, index, true);
  if (libc.bind(fd, libc.addressOf(address), address.length) < 0) fail('cannot be bound');
  // The kernel segments what a device cannot; there is nothing to agree on with it.
  const able = OFFLOAD_CSUM | OFFLOAD_TSO | OFFLOAD_TSO_ECN | OFFLOAD_USO;
  const refused = ['tunnel: not on a packet socket'];
  return {
    kind: 'veth',
    fd,
    name,
    mtu,
    vnetBytes: vnet.LEGACY_HEADER_LEN,
    offloads: allowed & OFFLOAD_CSUM ? allowed & able : 0,
    refused,
    peerMac,
  };
}

/** The socket as the loop sees it: frames as a TAP's. */
export class PacketSocket extends TunTap {
  override write(...args: Parameters<TunTap['write']>): number {
    const error = super.write(...args);
    return error === ENETDOWN || error === ENXIO || error === ENODEV ? EBADFD : error;
  }
}
