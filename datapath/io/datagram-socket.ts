/**
 * A connected UDP socket that says what became of each datagram: refused by the kernel before it was sent, answered with an
 * ICMP error by somebody, or neither. What node:dgram has no words for (ip(7): IP_MTU_DISCOVER, IP_RECVERR).
 */
import koffi from 'koffi';
import { addressOf, close, errno, poll } from './libc.ts';

const libc = koffi.load('libc.so.6');
const socket = libc.func('int socket(int domain, int type, int protocol)');
const connect = libc.func('int connect(int fd, const void *address, uint32_t len)');
const setsockopt = libc.func('int setsockopt(int fd, int level, int name, const void *value, uint32_t len)');
const getsockopt = libc.func('int getsockopt(int fd, int level, int name, intptr_t value, intptr_t len)');
const send = libc.func('intptr_t send(int fd, const void *data, size_t len, int flags)');
const recv = libc.func('intptr_t recv(int fd, _Out_ uint8_t *data, size_t len, int flags)');
const recvmsg = libc.func('intptr_t recvmsg(int fd, intptr_t message, int flags)');

const AF_INET = 2;
const SOCK_DGRAM = 2;
const SOL_SOCKET = 1;
const SO_ERROR = 4;
const IPPROTO_IP = 0;
const IP_MTU_DISCOVER = 10;
const IP_RECVERR = 11;
const IP_MTU = 14;
const MSG_DONTWAIT = 0x40;
const MSG_ERRQUEUE = 0x2000;
const POLLIN = 1;

/** IP_PMTUDISC_DONT: without DF. */
export const DF_CLEAR = 0;
/** IP_PMTUDISC_DO: with DF, and nothing beyond the path MTU that the kernel knows. */
export const DF_SET = 2;
/** IP_PMTUDISC_PROBE: with DF, and anything that the device takes. */
export const DF_PROBE = 3;

/** struct sock_extended_err. */
export interface SocketError {
  errno: number;
  /** The kernel itself; else an ICMP error. */
  isLocal: boolean;
  type: number;
  code: number;
  /** The MTU, where it is about size. */
  info: number;
  /** Who sent the ICMP error, int32. */
  offender: number;
  /** What is left of the datagram in question, its first bytes. */
  payload: Uint8Array;
}

const PAYLOAD_BYTES = 64;
const CONTROL_BYTES = 256;
// struct msghdr and the struct iovec behind it, on 64-bit Linux.
const MSGHDR_BYTES = 56;
const CMSG_HEADER = 16;

export class DatagramSocket {
  private readonly fd: number;
  private readonly buffer = new Uint8Array(64);
  /** [msghdr | iovec | payload | control]: what recvmsg fills. */
  private readonly message = new Uint8Array(MSGHDR_BYTES + 16 + PAYLOAD_BYTES + CONTROL_BYTES);
  private readonly view = new DataView(this.message.buffer);

  /**
   * @param address int32
   * @param discover DF_*
   */
  constructor(address: number, port: number, discover: number) {
    this.fd = socket(AF_INET, SOCK_DGRAM, 0);
    const sockaddr = new DataView(new ArrayBuffer(16));
    sockaddr.setUint16(0, AF_INET, true);
    sockaddr.setUint16(2, port);
    sockaddr.setInt32(4, address);
    this.set(IP_MTU_DISCOVER, discover);
    this.set(IP_RECVERR, 1);
    if (connect(this.fd, new Uint8Array(sockaddr.buffer), 16) < 0) throw new Error(`connect: errno ${errno()}`);
  }

  /** The path MTU that the kernel knows: the route's, or what ICMP has taught it. */
  get pathMtu(): number {
    return this.get(IPPROTO_IP, IP_MTU);
  }

  /** @returns 0 or an errno */
  send(payload: Uint8Array): number {
    // An error that came for an earlier datagram would be reported for this one.
    this.get(SOL_SOCKET, SO_ERROR);
    return send(this.fd, payload, payload.length, 0) < 0 ? errno() : 0;
  }

  /** Waits for a datagram or an error. @returns false when there is none in time */
  wait(timeoutMs: number): boolean {
    const pollfd = new DataView(new ArrayBuffer(8));
    pollfd.setInt32(0, this.fd, true);
    pollfd.setInt16(4, POLLIN, true);
    return poll(addressOf(new Uint8Array(pollfd.buffer)), 1, timeoutMs) > 0;
  }

  /** The next datagram, of at most 64 bytes, or null. */
  receive(): Uint8Array | null {
    const n = recv(this.fd, this.buffer, this.buffer.length, MSG_DONTWAIT);
    return n < 0 ? null : this.buffer.slice(0, n);
  }

  /** The next error of the queue, or null. */
  receiveError(): SocketError | null {
    const { view, message } = this;
    const at = addressOf(message);
    const [payload, control] = [MSGHDR_BYTES + 16, MSGHDR_BYTES + 16 + PAYLOAD_BYTES];
    const word = (offset: number, value: number) => view.setBigUint64(offset, BigInt(value), true);
    message.fill(0);
    word(16, at + MSGHDR_BYTES);
    word(24, 1);
    word(32, at + control);
    word(40, CONTROL_BYTES);
    word(MSGHDR_BYTES, at + payload);
    word(MSGHDR_BYTES + 8, PAYLOAD_BYTES);
    const n = recvmsg(this.fd, at, MSG_ERRQUEUE | MSG_DONTWAIT);
    if (n < 0) return null;
    const end = control + Number(view.getBigUint64(40, true));
    for (let c = control; c + CMSG_HEADER <= end; ) {
      const length = Number(view.getBigUint64(c, true));
      if (view.getInt32(c + 8, true) === IPPROTO_IP && view.getInt32(c + 12, true) === IP_RECVERR) {
        const e = c + CMSG_HEADER;
        return {
          errno: view.getUint32(e, true),
          isLocal: view.getUint8(e + 4) === 1,
          type: view.getUint8(e + 5),
          code: view.getUint8(e + 6),
          info: view.getUint32(e + 8, true),
          offender: view.getInt32(e + 16 + 4), // struct sockaddr_in behind it
          payload: message.slice(payload, payload + n),
        };
      }
      c += Math.max(CMSG_HEADER, (length + 7) & ~7);
    }
    return null;
  }

  close(): void {
    close(this.fd);
  }

  private set(name: number, value: number): void {
    const bytes = new Uint8Array(Int32Array.of(value).buffer);
    if (setsockopt(this.fd, IPPROTO_IP, name, bytes, bytes.length) < 0) throw new Error(`setsockopt: errno ${errno()}`);
  }

  private get(level: number, name: number): number {
    const value = Int32Array.of(0, 4);
    if (getsockopt(this.fd, level, name, addressOf(value), addressOf(value) + 4) < 0) return -1;
    return value[0];
  }
}
