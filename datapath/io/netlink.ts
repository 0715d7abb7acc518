/**
 * What the kernel says of network devices (man 7 rtnetlink): read on demand, and a word whenever something has changed. For
 * the control plane; the loop does not come by here.
 *
 * A change is only a hint. Whoever gets it reads anew what he cares about, so that a message that was lost, repeated or
 * overtaken does no harm.
 *
 * One socket hears of all network namespaces that have an id in its own (NETLINK_LISTEN_ALL_NSID): a socket inside the
 * namespace of a pod would keep that alive after `ip netns del`. Node's own event loop does not take a netlink socket, so
 * one thread of libuv's pool waits in poll() for all monitors of the process.
 */
import { fstatSync, statSync } from 'node:fs';
import koffi from 'koffi';
import { EAGAIN, EINTR, ENOBUFS } from './errors.ts';
import * as libc from './libc.ts';
import type { DefaultRoute, Link, LinkAddress, Message } from './netlink-message.ts';
import * as message from './netlink-message.ts';

export type { DefaultRoute, Link, LinkAddress } from './netlink-message.ts';

const AF_NETLINK = 16;
const SOCK_RAW = 3;
const NETLINK_ROUTE = 0;
const SOL_NETLINK = 270;
const NETLINK_LISTEN_ALL_NSID = 8;
const NETLINK_GET_STRICT_CHK = 12;
const SOL_SOCKET = 1;
const SO_RCVBUF = 8;
// Bits of nl_groups: RTNLGRP_LINK, IPV4_IFADDR, IPV4_ROUTE, NSID.
const GROUPS = (1 << 0) | (1 << 4) | (1 << 6) | (1 << 27);

/** In the namespace of a TUN or TAP device (Linux 4.21): the descriptor of that namespace. */
const TUNGETDEVNETNS = 0x54e3;
const TUNGETIFF = 0x800454d2;
const IFREQ_BYTES = 40;
const IFNAMSIZ = 16;

const POLLIN = 1;
const POLLFD_BYTES = 8;
const ENODEV = 19;

/** The kernel's dumps come in pieces of 32 KiB at most. */
const BUFFER_BYTES = 1 << 16;
/** Of the monitor's socket: a machine where a thousand containers start at once. */
const MONITOR_BUFFER = 1 << 20;

function openSocket(groups: number): number {
  const fd = libc.socket(AF_NETLINK, SOCK_RAW | libc.SOCK_NONBLOCK | libc.SOCK_CLOEXEC, NETLINK_ROUTE);
  if (fd < 0) throw new Error(`netlink: ${libc.errnoName(libc.errno())}`);
  const address = new Uint8Array(12); // struct sockaddr_nl
  const view = new DataView(address.buffer);
  view.setUint16(0, AF_NETLINK, true);
  view.setUint32(8, groups, true);
  if (libc.bind(fd, libc.addressOf(address), address.length) >= 0) return fd;
  const reason = libc.errnoName(libc.errno());
  libc.close(fd);
  throw new Error(`netlink: bind: ${reason}`);
}

function setOption(fd: number, level: number, option: number, value: number): boolean {
  const bytes = Int32Array.of(value);
  return libc.setsockopt(fd, level, option, libc.addressOf(bytes), bytes.byteLength) >= 0;
}

/** Asks the kernel, in the network namespace in which it was made. Every method throws Error with the system's reason. */
export class Netlink {
  private readonly fd: number;
  private readonly buffer = new Uint8Array(BUFFER_BYTES);
  private readonly view = new DataView(this.buffer.buffer);
  private sequence = 0;

  constructor() {
    this.fd = openSocket(0);
    // Without it the kernel ignores the table and the namespace that a dump asks for (Linux 4.20).
    setOption(this.fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1);
  }

  /** @param nsid of the namespace to look in; null: the own one. @returns undefined if there is no such device */
  link(name: string, nsid: number | null = null): Link | undefined {
    return this.ask(sequence => message.linkRequest(sequence, name, nsid), message.RTM_NEWLINK, message.parseLink)?.[0];
  }

  links(): Link[] {
    return this.ask(message.allLinksRequest, message.RTM_NEWLINK, message.parseLink) ?? [];
  }

  /** Changes a device of the own namespace. */
  setLink(index: number, change: message.LinkChange): void {
    const request = (sequence: number) => message.setLinkRequest(sequence, index, change);
    if (this.ask(request, message.RTM_NEWLINK, message.parseLink) === undefined) throw new Error('netlink: ENODEV');
  }

  /** IPv4 addresses of all devices, each device's in the kernel's order: the first is the one that it sends from. */
  addresses(nsid: number | null = null): LinkAddress[] {
    const request = (sequence: number) => message.addressesRequest(sequence, nsid);
    return this.ask(request, message.RTM_NEWADDR, message.parseLinkAddress) ?? [];
  }

  defaultRoutes(): DefaultRoute[] {
    return this.ask(sequence => message.routesRequest(sequence), message.RTM_NEWROUTE, message.parseDefaultRoute) ?? [];
  }

  /** How many IPv4 routes of the main table lead to a device of the own namespace. */
  countRoutes(index: number): number {
    const request = (sequence: number) => message.routesRequest(sequence, index);
    const devices = this.ask(request, message.RTM_NEWROUTE, message.parseRouteDevice) ?? [];
    return devices.filter(device => device === index).length;
  }

  /** The id of a namespace in ours, given if it has none. @param fd of the namespace */
  nsidOf(fd: number): number {
    const get = () =>
      this.ask(sequence => message.nsidRequest(sequence, fd), message.RTM_NEWNSID, message.parseNsid)?.[0];
    const id = get() ?? -1;
    if (id >= 0) return id;
    this.ask(sequence => message.newNsidRequest(sequence, fd), message.RTM_NEWNSID, message.parseNsid);
    return get() ?? -1;
  }

  close(): void {
    libc.close(this.fd);
  }

  /** Sends one request and reads all of its answer; the kernel has it ready when the call returns. */
  private ask<T>(
    build: (sequence: number) => Uint8Array,
    type: number,
    parse: (view: DataView, message: Message) => T | undefined,
  ): T[] | undefined {
    const sequence = ++this.sequence;
    const bytes = build(sequence);
    if (libc.sendto(this.fd, libc.addressOf(bytes), bytes.length, 0, 0, 0) < 0) {
      throw new Error(`netlink: ${libc.errnoName(libc.errno())}`);
    }
    const rows: T[] = [];
    for (;;) {
      const n = libc.read(this.fd, libc.addressOf(this.buffer), BUFFER_BYTES);
      if (n <= 0) {
        const error = n === 0 ? 0 : libc.errno();
        if (error === EINTR) continue;
        // A single answer has no end of its own.
        if (error === EAGAIN && rows.length > 0) return rows;
        throw new Error(`netlink: ${error === 0 ? 'the socket is closed' : libc.errnoName(error)}`);
      }
      for (const part of message.messagesIn(this.view, n)) {
        if (part.sequence !== sequence) continue;
        if (part.type === message.NLMSG_DONE) return rows;
        if (part.type === message.NLMSG_ERROR) {
          const error = message.errorOf(this.view, part);
          if (error === 0) return rows;
          if (error === ENODEV) return undefined;
          throw new Error(`netlink: ${error === undefined ? 'an answer that is cut short' : libc.errnoName(error)}`);
        }
        const row = part.type === type ? parse(this.view, part) : undefined;
        if (row !== undefined) rows.push(row);
      }
    }
  }
}

/** Where the device behind a descriptor of /dev/net/tun is; undefined if the kernel has taken it away. */
export interface TunPlace {
  name: string;
  /** Of its namespace, in the caller's; null: the caller's own. */
  nsid: number | null;
}

/**
 * Finds a TUN or TAP, however it may have been moved and renamed since it was made.
 * @param fd its descriptor
 */
export function placeOfTun(netlink: Netlink, fd: number): TunPlace | undefined {
  const ifreq = new Uint8Array(IFREQ_BYTES);
  if (libc.ioctl(fd, TUNGETIFF, libc.addressOf(ifreq)) < 0) return undefined;
  const end = ifreq.indexOf(0);
  const name = new TextDecoder().decode(ifreq.subarray(0, end < 0 || end > IFNAMSIZ ? IFNAMSIZ : end));
  const namespace = libc.ioctl(fd, TUNGETDEVNETNS, 0);
  if (namespace < 0) return undefined;
  try {
    const isOwn = fstatSync(namespace).ino === statSync('/proc/thread-self/ns/net').ino;
    return { name, nsid: isOwn ? null : netlink.nsidOf(namespace) };
  } finally {
    libc.close(namespace);
  }
}

/** Hears of every change of a device, an IPv4 address or a route. */
export class NetlinkMonitor {
  /** Why it hears of its own namespace alone; undefined if it hears of all that have an id. */
  readonly refused: string | undefined;
  private readonly fd: number;
  private readonly buffer = new Uint8Array(BUFFER_BYTES);
  private readonly onChange: () => void;
  private readonly onError: (error: Error) => void;
  private closed = false;

  /**
   * In the calling thread's network namespace.
   * @param onChange something may have changed; once for all that came together
   * @param onError what onChange has thrown, or why the monitor hears no more
   * @throws Error where there is no netlink
   */
  constructor(onChange: () => void, onError: (error: Error) => void) {
    this.onChange = onChange;
    this.onError = onError;
    this.fd = openSocket(GROUPS);
    setOption(this.fd, SOL_SOCKET, SO_RCVBUF, MONITOR_BUFFER);
    // Takes CAP_NET_BROADCAST.
    this.refused = setOption(this.fd, SOL_NETLINK, NETLINK_LISTEN_ALL_NSID, 1)
      ? undefined
      : libc.errnoName(libc.errno());
    waiter.add(this.fd, () => this.drain());
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    waiter.remove(this.fd, () => libc.close(this.fd));
  }

  /** Takes what waits off the socket. Which device it is about, the reader finds out; so no word of it needs to be understood. */
  private drain(): void {
    if (this.closed) return;
    for (;;) {
      const n = libc.read(this.fd, libc.addressOf(this.buffer), BUFFER_BYTES);
      if (n > 0) continue;
      const error = n === 0 ? 0 : libc.errno();
      if (error === EINTR || error === ENOBUFS) continue; // ENOBUFS: some were lost, which changes nothing
      if (error !== EAGAIN) {
        this.close();
        this.onError(new Error(`netlink: ${libc.errnoName(error)}`));
        return;
      }
      try {
        this.onChange();
      } catch (error) {
        this.onError(error as Error);
      }
      return;
    }
  }
}

/** poll() in a thread of libuv's pool: one call at a time for the whole process, interrupted by an eventfd. */
class Waiter {
  private readonly waiting = new Map<number, () => void>();
  /** To be done when no call is under way: a descriptor that is closed under poll() may be somebody else's by then. */
  private readonly afterwards: (() => void)[] = [];
  private wakeFd = -1;
  private running = false;
  private readonly one = new Int32Array([1, 0]);
  private readonly stop = () => this.wake();

  add(fd: number, onReadable: () => void): void {
    this.waiting.set(fd, onReadable);
    this.start();
  }

  remove(fd: number, then: () => void): void {
    this.waiting.delete(fd);
    this.afterwards.push(then);
    this.start();
  }

  private start(): void {
    if (this.running) this.wake();
    else void this.run();
  }

  private wake(): void {
    if (this.wakeFd >= 0) libc.write(this.wakeFd, libc.addressOf(this.one), 8);
  }

  private async run(): Promise<void> {
    this.running = true;
    this.wakeFd = libc.eventfd(0, libc.O_NONBLOCK | libc.O_CLOEXEC);
    // A process that exits waits for the threads of the pool.
    process.on('exit', this.stop);
    for (;;) {
      for (const work of this.afterwards.splice(0)) work();
      if (this.waiting.size === 0) break;
      const fds = [this.wakeFd, ...this.waiting.keys()];
      const polled = new Uint8Array(fds.length * POLLFD_BYTES);
      const view = new DataView(polled.buffer);
      fds.forEach((fd, i) => {
        view.setInt32(i * POLLFD_BYTES, fd, true);
        view.setInt16(i * POLLFD_BYTES + 4, POLLIN, true);
      });
      await pollInPool(libc.addressOf(polled), fds.length);
      if (view.getInt16(6, true) !== 0) libc.read(this.wakeFd, libc.addressOf(new Uint8Array(8)), 8);
      fds.forEach((fd, i) => {
        if (i > 0 && view.getInt16(i * POLLFD_BYTES + 6, true) !== 0) this.waiting.get(fd)?.();
      });
    }
    process.removeListener('exit', this.stop);
    libc.close(this.wakeFd);
    this.wakeFd = -1;
    this.running = false;
  }
}

const waiter = new Waiter();

const poll = koffi.load('libc.so.6').func('int poll(intptr_t fds, intptr_t n, int timeout)');

function pollInPool(fds: number, count: number): Promise<void> {
  return new Promise(resolve => poll.async(fds, count, -1, () => resolve()));
}
