/** exec, logs and port-forward of a lab's pods: their processes are in their namespaces on this machine. */
import { existsSync } from 'node:fs';
import { Socket } from 'node:net';
import { ApiError, badRequest } from '../api/errors.ts';
import type { KubeObject } from '../api/object.ts';
import { readLog, startCommand } from '../api/pods/process.ts';
import type { PodRuntime } from '../api/streams/runtime.ts';
import { inNamespace } from '../control/netns.ts';
import * as libc from '../io/libc.ts';
import { LAB_POD } from './api-objects.ts';
import { memberEnvironment, namespaceOf, stateDirOf } from './names.ts';

const AF_INET = 2;
const SOCK_STREAM = 1;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;

export function labRuntime(lab: string): PodRuntime {
  /** @throws ApiError (400) for a pod that the lab does not run */
  const hostOf = (pod: KubeObject): string => {
    const host = pod.metadata.annotations?.[LAB_POD];
    if (host === undefined || pod.status?.phase !== 'Running') {
      throw badRequest(`pod ${pod.metadata.name} does not run (${pod.status?.phase ?? 'Unknown'})`);
    }
    return host;
  };
  return {
    async exec(pod, _container, command, options) {
      const namespace = namespaceOf(lab, hostOf(pod));
      const env = { ...memberEnvironment(lab), HOSTNAME: pod.metadata.name };
      return startCommand(['ip', 'netns', 'exec', namespace, ...command], { ...options, env });
    },
    async attach() {
      throw new ApiError(501, 'NotImplemented', 'attach is not possible in a lab: use exec, or logs -f');
    },
    async logs(pod, _container, options) {
      const path = `${stateDirOf(lab)}/${hostOf(pod)}.log`;
      if (options.previous) throw badRequest('previous terminated container not found');
      return readLog(existsSync(path) ? path : '/dev/null', options, () => !existsSync(path));
    },
    async connect(pod, port) {
      const namespace = namespaceOf(lab, hostOf(pod));
      // A socket belongs to the namespace that it was made in.
      const fd = inNamespace(namespace, () => libc.socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
      if (fd < 0) throw new Error(`socket: ${libc.errnoName(libc.errno())}`);
      const socket = new Socket({ fd, readable: true, writable: true, allowHalfOpen: true });
      await new Promise<void>((resolve, reject) => {
        socket.once('error', reject);
        socket.connect({ host: '127.0.0.1', port }, resolve);
      });
      return socket;
    },
  };
}
