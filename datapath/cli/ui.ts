/** `tunpath ui`: a page about running nodes, for a browser on this machine; or one file that needs no node at all. */

import { writeFileSync } from 'node:fs';
import { describeFileError } from '../control/read-text.ts';
import { staticPage } from '../ui/assets.ts';
import { Live } from '../ui/live.ts';
import { serveUi, type UiServer } from '../ui/server.ts';
import { listNodes, pickNode } from './client.ts';
import { DONE, UsageError } from './exit.ts';
import { parseListen } from './listen.ts';
import { print } from './output.ts';
import { untilSignal } from './watched.ts';

export interface UiFlags {
  node?: string;
  listen: string;
  static?: string;
}

const LOOPBACK = ['127.0.0.1', '::1'];

export async function ui(flags: UiFlags): Promise<number> {
  if (flags.static !== undefined) return writeStatic(flags.static);
  const { node } = flags;
  const picked = node === undefined ? undefined : pickNode(node, listNodes());
  return serve(flags.listen, () => listNodes().filter(name => picked === undefined || name === picked));
}

/** Serves the page until SIGINT or SIGTERM. Nodes that come and go meanwhile are found. @param nodes their names now */
export async function serve(listen: string, nodes: () => string[]): Promise<number> {
  const { host, port } = parseListen(listen, '127.0.0.1:8080');
  if (!LOOPBACK.includes(host))
    throw new UsageError(`--listen ${listen}: expected ${LOOPBACK.join(' or ')}: who sees the page controls the nodes`);
  let server: UiServer;
  try {
    server = await serveUi(new Live(nodes), { host, port });
  } catch (error) {
    throw new UsageError(`--listen ${listen}: ${(error as Error).message}`);
  }
  await print(`${server.url}\n`);
  process.stderr.write('open this address in a browser of this machine; SIGINT ends it\n');
  const { signal } = untilSignal();
  await new Promise<void>(resolve => signal.addEventListener('abort', () => resolve(), { once: true }));
  await server.close();
  return DONE;
}

async function writeStatic(file: string): Promise<number> {
  const page = staticPage();
  if (file === '-') await print(page);
  else {
    try {
      writeFileSync(file, page);
    } catch (error) {
      throw new UsageError(`--static ${file}: ${describeFileError(error)}`);
    }
  }
  return DONE;
}
