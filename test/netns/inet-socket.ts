/** Connected IPv4 sockets for tests, of kinds and with options that Node does not offer. Calls block. */
import koffi from 'koffi';

const AF_INET = 2;
export const SOCK_STREAM = 1;
export const SOCK_DGRAM = 2;
export const SOCK_RAW = 3;
export const SOL_SOCKET = 1;
const SHUT_WR = 1;

const libc = koffi.load('libc.so.6');
const socket = libc.func('int socket(int domain, int type, int protocol)');
const setsockopt = libc.func('int setsockopt(int fd, int level, int name, const void *value, uint32_t len)');
const connect = libc.func('int connect(int fd, const void *address, uint32_t len)');
const send = libc.func('intptr_t send(int fd, const void *data, size_t len, int flags)');
const recv = libc.func('intptr_t recv(int fd, _Out_ void *data, size_t len, int flags)');
const shutdown = libc.func('int shutdown(int fd, int how)');
const close = libc.func('int close(int fd)');

export class InetSocket {
  private readonly fd: number;

  /** @param protocol for SOCK_RAW; 0 is the usual one of the type */
  constructor(type: number, protocol = 0) {
    this.fd = check('socket', socket(AF_INET, type, protocol));
  }

  /** @param values the 32-bit words of the option */
  set(level: number, option: number, ...values: number[]): void {
    const bytes = new Uint8Array(Int32Array.from(values).buffer);
    check(`option ${option}`, setsockopt(this.fd, level, option, bytes, bytes.length));
  }

  connect(address: string, port = 0): void {
    const name = new Uint8Array(16);
    const view = new DataView(name.buffer);
    view.setUint16(0, AF_INET, true);
    view.setUint16(2, port);
    name.set(address.split('.').map(Number), 4);
    check('connect', connect(this.fd, name, name.length));
  }

  /** @returns bytes sent, or a negative errno */
  send(data: Uint8Array): number {
    const n = send(this.fd, data, data.length, 0);
    return n < 0 ? -koffi.errno() : n;
  }

  /** @returns bytes received, or a negative errno */
  receive(buffer: Uint8Array): number {
    const n = recv(this.fd, buffer, buffer.length, 0);
    return n < 0 ? -koffi.errno() : n;
  }

  /** Tells the other side that no more will come. */
  end(): void {
    check('shutdown', shutdown(this.fd, SHUT_WR));
  }

  close(): void {
    close(this.fd);
  }
}

function check(what: string, result: number): number {
  if (result < 0) throw new Error(`${what}: errno ${koffi.errno()}`);
  return result;
}
