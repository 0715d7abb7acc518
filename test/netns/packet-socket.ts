/** AF_PACKET sockets for tests: whole frames into and out of a device, past the kernel's own checks. */
import koffi from 'koffi';

const AF_PACKET = 17;
const SOCK_RAW = 3;
const ETH_P_ALL = 3;
const SOL_PACKET = 263;
const PACKET_IGNORE_OUTGOING = 23;
const MSG_DONTWAIT = 0x40;

export const ENOBUFS = 105;

const libc = koffi.load('libc.so.6');
const socket = libc.func('int socket(int domain, int type, int protocol)');
const bind = libc.func('int bind(int fd, const void *address, uint32_t len)');
const setsockopt = libc.func('int setsockopt(int fd, int level, int name, const void *value, uint32_t len)');
const send = libc.func('intptr_t send(int fd, const void *data, size_t len, int flags)');
const recv = libc.func('intptr_t recv(int fd, _Out_ uint8_t *data, size_t len, int flags)');
const indexOf = libc.func('unsigned int if_nametoindex(const char *name)');
const close = libc.func('int close(int fd)');

/** A socket bound to a device of the current namespace. Close it. */
export class PacketSocket {
  private readonly fd: number;
  private readonly buffer = new Uint8Array(65536);

  /** @param receives false: only for sending */
  constructor(device: string, receives: boolean) {
    this.fd = socket(AF_PACKET, SOCK_RAW, 0);
    // struct sockaddr_ll: u16 family, u16 protocol (big-endian), int ifindex, 12 more.
    const address = new Uint8Array(20);
    const view = new DataView(address.buffer);
    view.setUint16(0, AF_PACKET, true);
    if (receives) view.setUint16(2, ETH_P_ALL);
    view.setInt32(4, indexOf(device), true);
    const one = new Uint8Array(Int32Array.of(1).buffer);
    if (
      this.fd < 0 ||
      setsockopt(this.fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, one, one.length) < 0 ||
      bind(this.fd, address, address.length) < 0
    ) {
      throw new Error(`${device}: errno ${koffi.errno()}`);
    }
  }

  /** @returns 0, or an errno */
  send(frame: Uint8Array): number {
    return send(this.fd, frame, frame.length, 0) < 0 ? koffi.errno() : 0;
  }

  /** The next frame that has arrived, or null. */
  receive(): Uint8Array | null {
    const n = recv(this.fd, this.buffer, this.buffer.length, MSG_DONTWAIT);
    return n < 0 ? null : this.buffer.slice(0, n);
  }

  close(): void {
    close(this.fd);
  }
}
