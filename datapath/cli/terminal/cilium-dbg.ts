/** `cilium-dbg` of a lab's terminal: what the node's own tables hold, in its words. */
import type { Json } from '../../api/object.ts';
import { callNode } from '../../control/client.ts';
import {
  backendMapText,
  type CiliumBackend,
  columns,
  reverseNatMapText,
  serviceMapText,
  serviceText,
} from '../../observe/cilium-text.ts';
import { ciliumTable, rowsOf } from '../cilium.ts';
import { type Desk, ToolError } from './desk.ts';
import { runTunpath } from './run.ts';

/** Ends in a code where it prints by itself. */
export async function ciliumDbg(desk: Desk, argv: readonly string[]): Promise<string | number> {
  const words = argv.filter(word => !word.startsWith('-'));
  const line = words.join(' ');
  const backends = (): Promise<CiliumBackend[]> => rowsOf<CiliumBackend>(desk.socket, 'endpoints');
  const table = async (which: Parameters<typeof ciliumTable>[0]): Promise<string> =>
    ciliumTable(which, desk.socket, await desk.config());
  if (words[0] === 'monitor') return runTunpath(['monitor', '--node', desk.nodeName, ...monitorFlags(argv.slice(1))]);
  if (words[0] === 'status') return statusText(desk, argv);
  switch (line) {
    case 'bpf lb list':
      return table('lb');
    case 'bpf ct list':
    case 'bpf ct list global':
      return table('ct');
    case 'bpf nat list':
      return table('nat');
    case 'bpf ipcache list':
    case 'map get cilium_ipcache_v2':
      return table('ipcache');
    case 'bpf socknat list':
      // Services are translated packet by packet: no socket is.
      return 'Socket Cookie      Backend -> Frontend\n';
    case 'endpoint list':
      return table('endpoints');
    case 'service list':
      return serviceText(await desk.config(), await backends());
    case 'ip list':
      return ipListText(await table('ipcache'));
    case 'node list':
      return nodeListText(desk);
    case 'map list':
      return mapListText(desk);
    case 'map get cilium_lb4_services_v2':
      return serviceMapText(await desk.config(), await backends());
    case 'map get cilium_lb4_backends_v3':
      return backendMapText(await backends());
    case 'map get cilium_lb4_reverse_nat':
      return reverseNatMapText(await desk.config());
    case 'metrics list':
      return metricsText(desk);
    case 'config':
      return configText(await desk.ciliumConfig());
    default:
      throw new ToolError(`cilium-dbg ${line}: not among what a node here has; see docs/terminal.md`);
  }
}

/** Ours have one `-v`. */
function monitorFlags(argv: readonly string[]): string[] {
  const kept: string[] = [];
  for (const word of argv) if (word !== '-v' || !kept.includes('-v')) kept.push(word);
  return kept;
}

/** `cilium-dbg status`: the lines that a node here has anything to say to. */
async function statusText(desk: Desk, argv: readonly string[]): Promise<string> {
  const { spec } = await desk.config();
  const config = await desk.ciliumConfig();
  const [tunnel] = spec.tunnels;
  const network =
    tunnel === undefined ? 'Native' : `Tunnel [${spec.tunnels.map(({ protocol }) => protocol).join(', ')}]`;
  const address = spec.uplink.address.split('/')[0];
  const { topology, node } = desk;
  const { podCidr, hostAddress } = topology.nodes.find(({ name }) => name === node)!;
  const replaces = config['kube-proxy-replacement'] !== 'false';
  const masquerades = spec.masquerade.length > 0;
  const rows = [
    ['KVStore:', 'Disabled'],
    ['Kubernetes:', 'Ok'],
    ['KubeProxyReplacement:', replaces ? `True   [${address} (Direct Routing)]` : 'False'],
    ['Host firewall:', 'Disabled'],
    ['Cilium:', 'Ok   (this is tunpath)'],
    ['Cilium health daemon:', 'Disabled'],
    ['IPAM:', `IPv4: ${spec.pods.length + 1}/254 allocated from ${podCidr},`],
    ['IPv4 BIG TCP:', 'Disabled'],
    ['BandwidthManager:', 'Disabled'],
    ['Routing:', `Network: ${network}   Host: BPF`],
    [
      'Masquerading:',
      masquerades ? `BPF   ${config['ipv4-native-routing-cidr'] ?? ''} [IPv4: Enabled, IPv6: Disabled]` : 'Disabled',
    ],
    ['Hubble:', 'Ok'],
    ['Encryption:', 'Disabled'],
  ];
  let text = columns(rows);
  if (argv.includes('--all-addresses') || argv.includes('--verbose')) {
    text += 'Allocated addresses:\n';
    text += `  ${hostAddress} (router)\n`;
    for (const pod of spec.pods) text += `  ${pod.address.split('/')[0]} (${pod.name})\n`;
  }
  if (argv.includes('--verbose')) {
    text += 'BPF Maps:   dynamic sizing: off\n  Name                          Size\n';
    text += `  TCP connection tracking       ${spec.conntrack.size}\n`;
  }
  return text;
}

function ipListText(ipcache: string): string {
  const rows = ipcache
    .trim()
    .split('\n')
    .slice(1)
    .map(line => {
      const [address, identity = ''] = line.split(/\s+/);
      return [address!, identity.replace('identity=', ''), 'custom-resource'];
    });
  return columns([['IP', 'IDENTITY', 'SOURCE'], ...rows]);
}

function nodeListText({ topology }: Desk): string {
  const rows = topology.nodes.map(({ name, address, podCidr }) => [
    `default/${name}`,
    address.split('/')[0]!,
    podCidr,
    'custom-resource',
  ]);
  return columns([['Name', 'IPv4 Address', 'Endpoint CIDR', 'Source'], ...rows]);
}

/** Under the names of Cilium's maps, those that stand for one of the node's tables. */
async function mapListText(desk: Desk): Promise<string> {
  const config = await desk.config();
  const lines = async (name: Parameters<typeof ciliumTable>[0]): Promise<number> =>
    (await ciliumTable(name, desk.socket, config)).trim().split('\n').length - 1;
  const backends = (await rowsOf<CiliumBackend>(desk.socket, 'endpoints')).length;
  const reverse = reverseNatMapText(config).trim().split('\n').length - 1;
  const rows = [
    ['cilium_lb4_services_v2', await lines('lb')],
    ['cilium_lb4_backends_v3', backends],
    ['cilium_lb4_reverse_nat', reverse],
    ['cilium_lxc', config.spec.pods.length + 1],
    ['cilium_ipcache_v2', await lines('ipcache')],
    ['cilium_runtime_config', 256],
  ].map(([name, count]) => [String(name), String(count), '0', 'true']);
  return columns([['Name', 'Num entries', 'Num errors', 'Cache enabled'], ...rows]);
}

async function metricsText(desk: Desk): Promise<string> {
  const counters = (await callNode(desk.socket, 'get', { kind: 'counters' })) as Json[];
  const rows = counters
    .filter(({ packets, count }) => (packets ?? count ?? 0) > 0)
    .map(({ name, packets, count }) =>
      String(name).startsWith('drop-')
        ? ['cilium_drop_count_total', `reason="${name}"`, Number(packets).toFixed(6)]
        : ['cilium_forward_count_total', `event="${name}"`, Number(count ?? packets).toFixed(6)],
    );
  return columns([['Metric', 'Labels', 'Value'], ...rows]);
}

/** `tunnel-protocol` is `TunnelProtocol`. */
function configText(config: Record<string, string>): string {
  const name = (key: string): string =>
    key
      .split('-')
      .map(word =>
        /^(ipv[46]|bpf|l2|l7|ip)$/.test(word) && word !== 'l2'
          ? word.toUpperCase()
          : word[0]!.toUpperCase() + word.slice(1),
      )
      .join('')
      .replace('IPV', 'IPv');
  return Object.entries(config)
    .map(([key, value]) => `${name(key).padEnd(34)}: ${value}\n`)
    .sort()
    .join('');
}
