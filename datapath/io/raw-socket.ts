/**
 * Opens the sockets of the raw uplink. In the main thread, before the loop starts: the package raw-socket keeps its
 * sockets in libuv's default loop, which a worker thread does not have.
 *
 * The package makes the raw sockets and sets their options. Its own way of moving packets is a JavaScript callback and a
 * text address for each, in that thread; so its socket is closed again at once, and what stays is a duplicate of the
 * descriptor, on which raw.ts makes the system calls itself. The number of the descriptor it tells nobody: it is the one
 * that /proc/self/fd has more than before.
 */
import { readdirSync, readlinkSync } from 'node:fs';
import { createRequire } from 'node:module';
import type { Mac } from '../wire/ethernet.ts';
import * as icmp from '../wire/icmp.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as libc from './libc.ts';
import type { RawHandle } from './raw.ts';

const IPPROTO_RAW = 255;
const SOL_SOCKET = 1;
const SO_TYPE = 3;
const SO_BINDTODEVICE = 25;
const SO_SNDBUFFORCE = 32;
const SO_RCVBUFFORCE = 33;
const SO_PROTOCOL = 38;
const SO_MEMINFO = 55;
const SOCK_RAW = 3;
const IPPROTO_IP = 0;
const IP_HDRINCL = 3;
const IP_MTU_DISCOVER = 10;
const IP_PMTUDISC_PROBE = 3;
const IP_RECVTOS = 13;
const SOL_RAW = 255;
const ICMP_FILTER = 1;
const SOL_UDP = 17;
const UDP_GRO = 104;
/** SO_MEMINFO: nine u32 (include/uapi/linux/sock_diag.h); the last counts packets dropped for want of room. */
const MEMINFO_BYTES = 36;
const MEMINFO_RCVBUF = 4;
const MEMINFO_DROPS = 32;

/** The kernel doubles it and charges some 2 KiB for a packet of 1500 bytes: about 8000 packets while the loop is busy. */
const RECEIVE_BUFFER = 8 << 20;
const SEND_BUFFER = 4 << 20;

/** Errors that a router or the peer may send about a tunnel packet. */
const WANTED_ICMP = [icmp.UNREACHABLE, icmp.TIME_EXCEEDED, icmp.PARAMETER_PROBLEM];

/** As much of the package raw-socket as is used; it brings no types. */
export interface RawSocketPackage {
  /** Makes a non-blocking socket(AF_INET, SOCK_RAW, protocol). @throws Error with the system's text */
  createSocket(options: { protocol: number }): {
    setOption(level: number, option: number, value: number | Buffer, length?: number): void;
    close(): void;
  };
}

/** @throws Error of require() when the package is not there, or was not built for this Node */
export function loadRawSocket(): RawSocketPackage {
  return createRequire(import.meta.url)('raw-socket') as RawSocketPackage;
}

export interface RawOptions {
  interface: string;
  /** The interface's own: address int32. */
  address: number;
  mac: Mac;
  mtu: number;
  /** MAC of the made-up neighbour. */
  kernelMac: Mac;
  protocol: 'ipip' | 'vxlan' | 'geneve';
  /** 0 for IPIP. */
  udpPort: number;
  innerMtu: number;
}

/**
 * Opens all sockets, in the current network namespace.
 * @throws Error naming the socket and the system's reason, with nothing left open
 */
export function openRaw(library: RawSocketPackage, options: RawOptions): RawHandle {
  const fds: number[] = [];
  const keep = (fd: number) => {
    fds.push(fd);
    return fd;
  };
  try {
    const { interface: device, address, udpPort } = options;
    const sendFd = keep(openSender(library, device));
    const receiveFd = keep(udpPort === 0 ? openIpip(library, device, address) : openUdp(device, address, udpPort));
    const errorFd = keep(openErrors(library, device, address));
    const fd = keep(libc.epollCreate(libc.O_CLOEXEC));
    const event = new Uint8Array(16);
    event[0] = libc.EPOLLIN;
    for (const socket of [receiveFd, errorFd]) {
      check(libc.epollCtl(fd, libc.EPOLL_CTL_ADD, socket, libc.addressOf(event)), 'epoll');
    }
    const { mtu, mac, kernelMac, protocol, innerMtu } = options;
    const refused = ['all: a raw socket takes finished packets and says nothing of those it gives'];
    const sockets = { fd, sendFd, receiveFd, errorFd, protocol, udpPort, address, innerMtu, mac, kernelMac };
    return { kind: 'raw', name: device, mtu, offloads: 0, refused, ...sockets };
  } catch (error) {
    for (const fd of fds) libc.close(fd);
    throw error;
  }
}

/** What the kernel has in store for a socket, and what it had no room for. */
export function socketMemory(fd: number): { receiveBuffer: number; dropped: number } {
  const value = new DataView(new ArrayBuffer(MEMINFO_BYTES));
  const bytes = new Uint8Array(Int32Array.of(MEMINFO_BYTES).buffer);
  const at = libc.addressOf(new Uint8Array(value.buffer));
  check(libc.getsockopt(fd, SOL_SOCKET, SO_MEMINFO, at, libc.addressOf(bytes)), 'SO_MEMINFO');
  return { receiveBuffer: value.getUint32(MEMINFO_RCVBUF, true), dropped: value.getUint32(MEMINFO_DROPS, true) };
}

function openSender(library: RawSocketPackage, device: string): number {
  return openRawSocket(library, IPPROTO_RAW, device, socket => {
    socket.setOption(IPPROTO_IP, IP_HDRINCL, 1);
    // Packets with DF go out even where the kernel believes the path to be narrower: the datapath decides, and tells
    // the inner sender what a router says.
    socket.setOption(IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE);
    socket.setOption(SOL_SOCKET, SO_SNDBUFFORCE, SEND_BUFFER);
  });
}

function openIpip(library: RawSocketPackage, device: string, address: number): number {
  const fd = openRawSocket(library, ipv4.PROTO_IPIP, device, socket => {
    socket.setOption(SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER);
  });
  return bound(fd, address, 0, 'raw socket for IPIP');
}

function openErrors(library: RawSocketPackage, device: string, address: number): number {
  const fd = openRawSocket(library, ipv4.PROTO_ICMP, device, socket => {
    const unwanted = Buffer.alloc(4);
    unwanted.writeInt32LE(~WANTED_ICMP.reduce((bits, type) => bits | (1 << type), 0));
    socket.setOption(SOL_RAW, ICMP_FILTER, unwanted, unwanted.length);
  });
  return bound(fd, address, 0, 'raw socket for ICMP');
}

type RawSocket = ReturnType<RawSocketPackage['createSocket']>;

function openRawSocket(
  library: RawSocketPackage,
  protocol: number,
  device: string,
  setUp: (socket: RawSocket) => void,
): number {
  const what = `raw socket for protocol ${protocol} on ${device}`;
  const before = new Set(socketDescriptors());
  let socket: RawSocket;
  try {
    socket = library.createSocket({ protocol });
  } catch (error) {
    throw new Error(`${what}: ${(error as Error).message} (it takes root, or CAP_NET_RAW)`);
  }
  try {
    const own = socketDescriptors().find(
      fd => !before.has(fd) && intOption(fd, SO_TYPE) === SOCK_RAW && intOption(fd, SO_PROTOCOL) === protocol,
    );
    if (own === undefined) throw new Error('its descriptor was not found in /proc/self/fd');
    const name = Buffer.from(`${device}\0`);
    socket.setOption(SOL_SOCKET, SO_BINDTODEVICE, name, name.length);
    setUp(socket);
    return check(libc.fcntl(own, libc.F_DUPFD_CLOEXEC, 0), 'its descriptor');
  } catch (error) {
    throw new Error(`${what}: ${(error as Error).message}`);
  } finally {
    socket.close();
  }
}

function openUdp(device: string, address: number, port: number): number {
  const what = `UDP socket for port ${port} on ${device}`;
  const fd = check(libc.socket(libc.AF_INET, libc.SOCK_DGRAM | libc.SOCK_NONBLOCK | libc.SOCK_CLOEXEC, 0), what);
  try {
    const name = Buffer.from(`${device}\0`);
    check(libc.setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, libc.addressOf(name), name.length), what);
    setIntOption(fd, SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER, what);
    setIntOption(fd, IPPROTO_IP, IP_RECVTOS, 1, what);
    setIntOption(fd, SOL_UDP, UDP_GRO, 1, what);
  } catch (error) {
    libc.close(fd);
    throw error;
  }
  const holder = 'spec.tunnel.port: another node has it, or a device of the kernel (ip -d link show type vxlan)';
  return bound(fd, address, port, what, holder);
}

/** Binds to the host's own address: what comes for its others is none of ours. Closes `fd` if it cannot. */
function bound(fd: number, address: number, port: number, what: string, hint?: string): number {
  const name = new DataView(new ArrayBuffer(16));
  name.setUint16(0, libc.AF_INET, true);
  name.setUint16(2, port);
  name.setInt32(4, address);
  if (libc.bind(fd, libc.addressOf(new Uint8Array(name.buffer)), name.byteLength) >= 0) return fd;
  const reason = libc.errnoName(libc.errno());
  libc.close(fd);
  throw new Error(`${what}: ${reason}${reason === 'EADDRINUSE' && hint !== undefined ? ` (${hint})` : ''}`);
}

function setIntOption(fd: number, level: number, option: number, value: number, what: string): void {
  const bytes = Int32Array.of(value);
  check(libc.setsockopt(fd, level, option, libc.addressOf(bytes), bytes.byteLength), what);
}

/** -1 if the descriptor has no such option. */
function intOption(fd: number, option: number): number {
  const value = new Int32Array([-1, 4]);
  const at = libc.addressOf(value);
  return libc.getsockopt(fd, SOL_SOCKET, option, at, at + 4) < 0 ? -1 : value[0];
}

function socketDescriptors(): number[] {
  const directory = '/proc/self/fd';
  return readdirSync(directory)
    .filter(fd => {
      try {
        return readlinkSync(`${directory}/${fd}`).startsWith('socket:');
      } catch {
        return false; // that of readdir itself
      }
    })
    .map(Number);
}

function check(result: number, what: string): number {
  if (result < 0) throw new Error(`${what}: ${libc.errnoName(libc.errno())}`);
  return result;
}
