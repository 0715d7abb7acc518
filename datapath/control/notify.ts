/** What a service tells systemd about itself: sd_notify(3), a datagram to the socket that it has named. */
import * as libc from '../io/libc.ts';

/** sun_path of struct sockaddr_un. */
const PATH_BYTES = 108;

/**
 * Sends the assignments in one datagram. Without a service manager it does nothing.
 * @returns whether somebody was told
 */
export function notify(
  assignments: Readonly<Record<string, string | number>>,
  socketPath = process.env.NOTIFY_SOCKET,
): boolean {
  if (socketPath === undefined || !/^[/@]/.test(socketPath)) return false;
  const path = new TextEncoder().encode(socketPath);
  if (path.length >= PATH_BYTES) return false;
  // struct sockaddr_un: family, path. A name in the abstract namespace begins with a 0 and has none at its end.
  const abstract = socketPath.startsWith('@');
  const address = new Uint8Array(2 + path.length + (abstract ? 0 : 1));
  address[0] = libc.AF_UNIX;
  address.set(path, 2);
  if (abstract) address[2] = 0;
  const text = Object.entries(assignments).map(([name, value]) => `${name}=${value}`);
  const message = new TextEncoder().encode(text.join('\n'));
  const fd = libc.socket(libc.AF_UNIX, libc.SOCK_DGRAM | libc.SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  try {
    const to = libc.addressOf(address);
    return libc.sendto(fd, libc.addressOf(message), message.length, 0, to, address.length) === message.length;
  } finally {
    libc.close(fd);
  }
}

export const ready = (status: string) => notify({ READY: 1, STATUS: status });

/** Both are needed by Type=notify-reload, and harmless without. */
export const reloading = () =>
  notify({ RELOADING: 1, MONOTONIC_USEC: `${process.hrtime.bigint() / 1000n}`, STATUS: 'reloading' });

export const stopping = () => notify({ STOPPING: 1, STATUS: 'stopping' });
