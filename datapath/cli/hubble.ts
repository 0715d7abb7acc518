import { createServer, type Socket } from 'node:net';
import type { ConnectionInjector } from '@grpc/grpc-js/build/src/server.ts';
import { callNode, GoneError } from '../control/client.ts';
import { hubbleSocketPath, keepListening } from '../control/server.ts';
import type { HubbleNode, HubbleSource } from '../observe/hubble-service.ts';
import { pastOf, watchNodes } from '../observe/watch-nodes.ts';
import { socketPathOf } from './client.ts';
import { DONE, UsageError } from './exit.ts';
import { versionOf } from './version.ts';

interface NodeStatus {
  node: string;
  uptimeSeconds: number;
  underlay: { address: string };
  flowHistory: { remembered: number; most: number; seen: number };
}

/** @param nodesOf the nodes that there are, at every request anew */
function hubbleSource(nodesOf: () => readonly string[]): HubbleSource {
  return {
    version: versionOf(),
    follow: signal => watchNodes(nodesOf(), { flows: true, drops: true }, signal),
    past: () => pastOf(nodesOf()),
    nodes: () => Promise.all(nodesOf().map(hubbleNode)),
  };
}

async function hubbleNode(name: string): Promise<HubbleNode> {
  try {
    const { node, uptimeSeconds, underlay, flowHistory } = (await callNode(socketPathOf(name), 'status')) as NodeStatus;
    return { name: node, isThere: true, address: underlay.address.split('/')[0], uptimeSeconds, ...flowHistory };
  } catch (error) {
    if (!(error instanceof GoneError)) throw error;
    return { name, isThere: false, address: '', uptimeSeconds: 0, remembered: 0, most: 0, seen: 0 };
  }
}

async function makeInjector(nodesOf: () => readonly string[]): Promise<ConnectionInjector> {
  // Loaded by the first client: most nodes never have one.
  const { ServerCredentials } = await import('@grpc/grpc-js');
  const { hubbleServer } = await import('../observe/hubble-service.ts');
  return hubbleServer(hubbleSource(nodesOf)).createConnectionInjector(ServerCredentials.createInsecure());
}

/** Connections of one listener, all of them served by one gRPC server that the first brings about. */
class Connections {
  readonly accept = (socket: Socket): void => {
    this.sockets.add(socket);
    socket.on('close', () => this.sockets.delete(socket));
    socket.on('error', () => socket.destroy());
    this.injector ??= makeInjector(this.nodesOf);
    this.injector.then(
      injector => injector.injectConnection(socket),
      () => socket.destroy(),
    );
  };
  private readonly nodesOf: () => readonly string[];
  private readonly sockets = new Set<Socket>();
  private injector: Promise<ConnectionInjector> | null = null;

  constructor(nodesOf: () => readonly string[]) {
    this.nodesOf = nodesOf;
  }

  async close(): Promise<void> {
    for (const socket of this.sockets) socket.destroy();
    const injector = await this.injector?.catch(() => null);
    injector?.destroy();
  }
}

/**
 * Listens on the node's Hubble socket, which only root may use, and again where it has been removed.
 * @param onError what goes wrong once it listens
 * @throws Error when it cannot
 */
export async function listenHubble(node: string, onError: (error: Error) => void): Promise<{ close(): Promise<void> }> {
  const path = hubbleSocketPath(node);
  const connections = new Connections(() => [node]);
  const listener = await keepListening(path, connections.accept, onError);
  return {
    close: async () => {
      const closed = listener.close();
      await connections.close();
      await closed;
    },
  };
}

/** Serves it by TCP until SIGINT or SIGTERM. @throws UsageError where it cannot listen */
export async function serveHubble(host: string, port: number, nodesOf: () => readonly string[]): Promise<number> {
  const connections = new Connections(nodesOf);
  const server = createServer(connections.accept);
  await new Promise<void>((resolve, reject) => {
    server.once('error', error => reject(new UsageError(`--listen ${host}:${port}: ${error.message}`)));
    server.listen(port, host, resolve);
  });
  const address = server.address();
  const shown = typeof address === 'object' && address !== null ? address.port : port;
  process.stderr.write(`Hubble's API on ${host}:${shown}\n`);
  await new Promise<void>(resolve => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, resolve);
  });
  const closed = new Promise(resolve => server.close(resolve));
  await connections.close();
  await closed;
  return DONE;
}
