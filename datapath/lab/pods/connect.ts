/** TCP connections from inside of a namespace. */
import { Socket } from 'node:net';
import { inNamespace } from '../../control/netns.ts';
import * as libc from '../../io/libc.ts';

const AF_INET = 2;
const SOCK_STREAM = 1;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;

/** @throws Error when nobody answers there, or the namespace is gone */
export async function connectInside(namespace: string, host: string, port: number): Promise<Socket> {
  // A socket belongs to the namespace that it was made in.
  const fd = inNamespace(namespace, () => libc.socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (fd < 0) throw new Error(`socket: ${libc.errnoName(libc.errno())}`);
  const socket = new Socket({ fd, readable: true, writable: true, allowHalfOpen: true });
  await new Promise<void>((resolve, reject) => {
    socket.once('error', reject);
    socket.connect({ host, port }, resolve);
  });
  return socket;
}
