/** Probes of containers: by HTTP, by a TCP connection, or by a command. (kubelet: pkg/probe) */
import { request } from 'node:http';
import type { Duplex } from 'node:stream';
import { connect as connectTls } from 'node:tls';
import type { Json } from '../object.ts';

export interface Prober {
  /** A connection to a TCP port of the pod. */
  connect(port: number): Promise<Duplex>;
  /** Runs a command in the container. @returns its exit status */
  exec(command: readonly string[], timeoutMs: number): Promise<number>;
}

/** @returns undefined when all is well, else what is not, in kubelet's words */
export async function runProbe(probe: Json, container: Json, prober: Prober): Promise<string | undefined> {
  const timeoutMs = probe.timeoutSeconds * 1000;
  try {
    if (probe.httpGet !== undefined) return await probeHttp(probe.httpGet, container, prober, timeoutMs);
    if (probe.tcpSocket !== undefined) {
      (await within(timeoutMs, prober.connect(portOf(probe.tcpSocket.port, container)))).destroy();
      return undefined;
    }
    if (probe.exec !== undefined) {
      const code = await prober.exec(probe.exec.command ?? [], timeoutMs);
      return code === 0 ? undefined : `command exited with ${code}`;
    }
    return 'only probes by httpGet, tcpSocket and exec run here';
  } catch (error) {
    return (error as Error).message;
  }
}

/** @throws Error where a container has no port of that name */
export function portOf(port: number | string, container: Json): number {
  if (typeof port === 'number') return port;
  if (/^\d+$/.test(port)) return Number(port);
  const found = (container.ports ?? []).find(({ name }: Json) => name === port);
  if (found === undefined) throw new Error(`couldn't find port: "${port}"`);
  return found.containerPort;
}

async function probeHttp(get: Json, container: Json, prober: Prober, timeoutMs: number): Promise<string | undefined> {
  const plain = await within(timeoutMs, prober.connect(portOf(get.port, container)));
  const isTls = get.scheme === 'HTTPS';
  const socket = isTls ? connectTls({ socket: plain, rejectUnauthorized: false }) : plain;
  const headers = Object.fromEntries((get.httpHeaders ?? []).map(({ name, value }: Json) => [name, value]));
  try {
    const status = await within(
      timeoutMs,
      new Promise<number>((resolve, reject) => {
        socket.on('error', reject);
        request(
          {
            path: get.path,
            host: get.host ?? 'localhost',
            headers: { 'user-agent': 'kube-probe/1.35', connection: 'close', ...headers },
            createConnection: () => socket as never,
          },
          response => {
            response.resume();
            resolve(response.statusCode ?? 0);
          },
        )
          .on('error', reject)
          .end();
      }),
    );
    return status >= 200 && status < 400 ? undefined : `HTTP probe failed with statuscode: ${status}`;
  } finally {
    socket.destroy();
    plain.destroy();
  }
}

function within<T>(ms: number, result: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no answer within ${ms / 1000} s`)), ms);
    result.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}
