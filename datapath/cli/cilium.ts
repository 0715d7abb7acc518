/** `tunpath get KIND -o cilium`: tables of a running node as cilium-dbg prints them. */
import { callNode, streamFromNode } from '../control/client.ts';
import type { ResolvedConfig } from '../control/resolved.ts';
import {
  type CiliumBackend,
  type CiliumFlow,
  ctText,
  endpointText,
  ipcacheText,
  lbText,
  natText,
} from '../observe/cilium-text.ts';
import { listNodes, pickNode, socketPathOf } from './client.ts';
import { DONE, UsageError } from './exit.ts';
import { print } from './output.ts';

/** By the names that cilium-dbg has for them, and ours. */
const TABLES: Readonly<Record<string, 'lb' | 'ct' | 'nat' | 'ipcache' | 'endpoints'>> = {
  lb: 'lb',
  services: 'lb',
  service: 'lb',
  svc: 'lb',
  ct: 'ct',
  conntrack: 'ct',
  nat: 'nat',
  ipcache: 'ipcache',
  endpoints: 'endpoints',
  endpoint: 'endpoints',
  ep: 'endpoints',
};

export async function getCilium(kind: string, node: string | undefined): Promise<number> {
  const word = kind.toLowerCase();
  if (!Object.hasOwn(TABLES, word))
    throw new UsageError(`get ${kind} -o cilium: expected one of lb, ct, nat, ipcache, endpoints`);
  const socket = socketPathOf(pickNode(node, listNodes()));
  const config = (await callNode(socket, 'config')) as ResolvedConfig;
  await print(await ciliumTable(TABLES[word], socket, config));
  return DONE;
}

export async function ciliumTable(
  table: (typeof TABLES)[string],
  socket: string,
  config: ResolvedConfig,
): Promise<string> {
  switch (table) {
    case 'lb':
      return lbText(config, await rowsOf<CiliumBackend>(socket, 'endpoints'));
    case 'ct':
      return ctText(config, await rowsOf<CiliumFlow>(socket, 'conntrack'));
    case 'nat':
      return natText(await rowsOf<CiliumFlow>(socket, 'conntrack'));
    case 'ipcache':
      return ipcacheText(config);
    default: {
      const ports = await rowsOf<{ name: string; kind: string; number: number; state: string }>(socket, 'ports');
      return endpointText(config, new Map(ports.filter(({ kind }) => kind === 'pod').map(port => [port.name, port])));
    }
  }
}

export async function rowsOf<Row>(socket: string, kind: string): Promise<Row[]> {
  const rows: Row[] = [];
  for await (const piece of streamFromNode<Row>(socket, 'get', { kind })) rows.push(...piece);
  return rows;
}
