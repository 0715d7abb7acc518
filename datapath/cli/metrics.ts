/** `tunpath metrics`: the page that Prometheus reads, once to stdout or over HTTP. */
import { createServer } from 'node:http';
import { callNode } from '../control/client.ts';
import { CONTENT_TYPE, metricsText, type NodeSnapshot } from '../observe/metrics.ts';
import { listNodes, pickNode, socketPathOf } from './client.ts';
import { DONE, UsageError } from './exit.ts';
import { parseListen } from './listen.ts';

export interface MetricsFlags {
  node?: string;
  listen?: string;
}

export async function metrics({ node, listen }: MetricsFlags): Promise<number> {
  if (listen !== undefined) return serveMetrics(parseListen(listen, '127.0.0.1:9469'), node);
  const nodes = node === undefined ? listNodes() : [pickNode(node, listNodes())];
  if (nodes.length === 0) pickNode(undefined, nodes);
  process.stdout.write(await scrape(nodes));
  return DONE;
}

async function scrape(nodes: readonly string[]): Promise<string> {
  const unreachable: string[] = [];
  const snapshots: NodeSnapshot[] = [];
  await Promise.all(
    nodes.map(async name => {
      const socket = socketPathOf(name);
      const get = (kind: string) => callNode(socket, 'get', { kind });
      try {
        const [status, counters, ports, nat] = await Promise.all([
          callNode(socket, 'status'),
          get('counters'),
          get('ports'),
          get('nat'),
        ]);
        snapshots.push({ status, counters, ports, nat } as NodeSnapshot);
      } catch {
        unreachable.push(name);
      }
    }),
  );
  snapshots.sort((a, b) => (a.status.node < b.status.node ? -1 : 1));
  return metricsText(snapshots, unreachable.sort());
}

/** Serves /metrics until SIGINT or SIGTERM. Nodes that come and go meanwhile are found at each scrape. */
async function serveMetrics({ host, port }: { host: string; port: number }, node: string | undefined): Promise<number> {
  const server = createServer((request, response) => {
    if (request.url?.split('?')[0] !== '/metrics') {
      response.writeHead(404, { 'Content-Type': 'text/plain' }).end('expected /metrics\n');
      return;
    }
    const nodes = listNodes().filter(name => node === undefined || name === pickNode(node, listNodes()));
    scrape(nodes).then(
      text => response.writeHead(200, { 'Content-Type': CONTENT_TYPE }).end(text),
      error => response.writeHead(500, { 'Content-Type': 'text/plain' }).end(`${String(error)}\n`),
    );
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', error => reject(new UsageError(`--listen ${host}:${port}: ${error.message}`)));
    server.listen(port, host, resolve);
  });
  const address = server.address();
  const shown = typeof address === 'object' && address !== null ? address.port : port;
  process.stderr.write(`metrics on http://${host}:${shown}/metrics\n`);
  await new Promise<void>(resolve => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, resolve);
  });
  server.closeAllConnections();
  await new Promise(resolve => server.close(resolve));
  return DONE;
}
