/** `calicoctl` of a lab's terminal: IPPools by the API, and who a node's neighbours are. */
import { parse, stringify } from 'yaml';
import type { Json } from '../../api/object.ts';
import { readText } from '../../control/read-text.ts';
import { columns } from '../../observe/cilium-text.ts';
import { type Desk, ToolError } from './desk.ts';

const POOLS = '/apis/projectcalico.org/v3/ippools';
const KINDS = ['ippool', 'ippools', 'ipp', 'pool'];

export async function calicoctl(desk: Desk, argv: readonly string[]): Promise<string> {
  const [verb, kind = '', ...rest] = argv;
  if (verb === 'node' && kind === 'status') return nodeStatus(desk);
  if (verb === 'apply' || verb === 'replace' || verb === 'create')
    return applyPools(desk, verb, flagOf(argv, '-f', '--filename'));
  if (!KINDS.includes(kind.toLowerCase())) {
    throw new ToolError(`calicoctl ${argv.join(' ')}: expected get, patch or apply of ippool, or node status`);
  }
  const name = rest[0]?.startsWith('-') ? undefined : rest[0];
  if (verb === 'get') return getPools(desk, name, flagOf(argv, '-o', '--output'));
  if (verb === 'patch' && name !== undefined) {
    const body = JSON.parse(flagOf(argv, '-p', '--patch') ?? '{}') as object;
    await desk.api.get(`${POOLS}/${name}`, {
      method: 'PATCH',
      headers: { 'content-type': 'application/merge-patch+json' },
      body,
    });
    return "Successfully patched 1 'IPPool' resource\n";
  }
  throw new ToolError(`calicoctl ${argv.join(' ')}: expected get, patch or apply of ippool, or node status`);
}

function flagOf(argv: readonly string[], ...flags: string[]): string | undefined {
  for (const [i, word] of argv.entries()) {
    if (flags.includes(word)) return argv[i + 1];
    for (const flag of flags) if (word.startsWith(`${flag}=`)) return word.slice(flag.length + 1);
  }
  return undefined;
}

async function getPools(desk: Desk, name: string | undefined, output: string | undefined): Promise<string> {
  const pools = name === undefined ? await desk.list(POOLS) : [await desk.get(`${POOLS}/${name}`)];
  const whole = pools.map(pool => ({
    apiVersion: 'projectcalico.org/v3',
    kind: 'IPPool',
    metadata: pool.metadata,
    spec: completed(pool.spec),
  }));
  const document =
    name === undefined ? { apiVersion: 'projectcalico.org/v3', items: whole, kind: 'IPPoolList' } : whole[0];
  if (output === 'yaml') return stringify(document);
  if (output === 'json') return `${JSON.stringify(document, null, 2)}\n`;
  if (output === 'wide') {
    const rows = whole.map(({ metadata, spec }) =>
      [
        metadata.name,
        spec.cidr,
        spec.natOutgoing,
        spec.ipipMode,
        spec.vxlanMode,
        spec.disabled,
        spec.disableBGPExport,
        spec.nodeSelector,
      ].map(String),
    );
    return columns([
      ['NAME', 'CIDR', 'NAT', 'IPIPMODE', 'VXLANMODE', 'DISABLED', 'DISABLEBGPEXPORT', 'SELECTOR'],
      ...rows,
    ]);
  }
  return columns([
    ['NAME', 'CIDR', 'SELECTOR'],
    ...whole.map(({ metadata, spec }) => [metadata.name, spec.cidr, spec.nodeSelector]),
  ]);
}

/** What a pool does not say, as calicoctl prints it. */
function completed(spec: Json): Json {
  return {
    natOutgoing: false,
    ipipMode: 'Never',
    vxlanMode: 'Never',
    disabled: false,
    disableBGPExport: false,
    nodeSelector: 'all()',
    ...spec,
  };
}

async function applyPools(desk: Desk, verb: string, file: string | undefined): Promise<string> {
  if (file === undefined) throw new ToolError(`calicoctl ${verb}: expected -f FILE, or - for standard input`);
  const document = parse(readText(file)) as Json;
  const items: Json[] = document?.kind?.endsWith('List') ? document.items : [document];
  for (const { kind, metadata, spec } of items) {
    if (kind !== 'IPPool') throw new ToolError(`calicoctl ${verb}: got ${kind}, expected IPPool`);
    await desk.api.get(`${POOLS}/${metadata.name}`, {
      method: 'PATCH',
      query: { fieldManager: 'calicoctl', force: 'true' },
      headers: { 'content-type': 'application/apply-patch+yaml' },
      body: { apiVersion: 'projectcalico.org/v3', kind: 'IPPool', metadata: { name: metadata.name }, spec },
    });
  }
  const done = { apply: 'applied', replace: 'replaced', create: 'created' }[verb];
  return `Successfully ${done} ${items.length} 'IPPool' resource(s)\n`;
}

/** Neighbours are known from the API: no BGP is spoken here. */
function nodeStatus({ topology, node }: Desk): string {
  const others = topology.nodes.filter(({ name }) => name !== node);
  const rows = others.map(({ address }) => [address.split('/')[0]!, 'node-to-node mesh', 'up', '-', 'Established']);
  const head = ['PEER ADDRESS', 'PEER TYPE', 'STATE', 'SINCE', 'INFO'];
  const widths = head.map((title, i) => Math.max(title.length, ...rows.map(row => row[i]!.length)));
  const line = `+${widths.map(width => '-'.repeat(width + 2)).join('+')}+`;
  const cells = (row: string[]): string => `|${row.map((cell, i) => ` ${cell.padEnd(widths[i]!)} `).join('|')}|`;
  return [
    'Calico process is running.',
    '',
    'IPv4 BGP status',
    line,
    cells(head),
    line,
    ...rows.map(cells),
    line,
    '',
    'IPv6 BGP status',
    'No IPv6 peers found.',
    '',
  ].join('\n');
}
