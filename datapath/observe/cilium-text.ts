/**
 * Tables of a node as `cilium-dbg bpf lb|ct|nat|ipcache list` and `cilium-dbg endpoint list` print them. What those count and
 * this node does not (packets of a flow) is left out.
 */
import { contains } from '../control/address.ts';
import type { ResolvedConfig } from '../control/resolved.ts';
import { addressesOf } from '../control/service-config.ts';
import { parseAddress, parseCidr } from '../control/validated.ts';
import { matches, namespaceOf, typesOf } from '../program/compile-policy.ts';
import { endpointIdOf } from './monitor-text.ts';

/** As the control socket gives a flow. */
export interface CiliumFlow {
  protocol: string;
  timeout: number;
  state: string | null;
  original: CiliumTuple;
  reply: CiliumTuple;
  dnat: boolean;
  snat: boolean;
  age: number;
}

export interface CiliumTuple {
  src: string;
  dst: string;
  sport?: number;
  dport?: number;
  id?: number;
}

/** As the control socket gives a backend of a service. */
export interface CiliumBackend {
  service: string;
  address: string;
  port: number;
  protocol: string;
  ready: boolean;
}

const GAP = '   ';

/** Columns of text; the last one is not filled up. */
export function columns(rows: readonly (readonly string[])[]): string {
  const widths = rows[0].map((_, i) => Math.max(...rows.map(row => row[i].length)));
  return rows
    .map(
      row =>
        `${row
          .map((cell, i) => (i < row.length - 1 ? cell.padEnd(widths[i]) : cell))
          .join(GAP)
          .trimEnd()}\n`,
    )
    .join('');
}

const TYPE_FLAGS = {
  cluster: 'ClusterIP, non-routable',
  loadBalancer: 'LoadBalancer',
  external: 'ExternalIPs',
} as const;

/** Services by the number (RevNAT) that their ports have here: their place in the configuration, from 1. */
function frontends({ spec }: ResolvedConfig) {
  let revNat = 0;
  return spec.services.flatMap(service => {
    const addresses = addressesOf<string>(service);
    return service.ports.flatMap(port => {
      revNat++;
      const at = (list: readonly string[], flags: string) =>
        list.map(address => ({ address, port: port.port, service: service.name, servicePort: port, flags, revNat }));
      return [
        ...at(addresses.cluster, TYPE_FLAGS.cluster),
        ...at(addresses.loadBalancer, TYPE_FLAGS.loadBalancer),
        ...at(addresses.external, TYPE_FLAGS.external),
        ...(port.nodePort === undefined
          ? []
          : at(['0.0.0.0', spec.uplink.address.split('/')[0]], 'NodePort').map(one => ({
              ...one,
              port: port.nodePort!,
            }))),
      ];
    });
  });
}

/** `cilium-dbg bpf lb list`: slot 0 is the service, the others are its backends. */
export function lbText(config: ResolvedConfig, backends: readonly CiliumBackend[]): string {
  const rows = [['SERVICE ADDRESS', 'BACKEND ADDRESS (REVNAT_ID) (SLOT)']];
  for (const { address, port, service, servicePort, flags, revNat } of frontends(config)) {
    const protocol = servicePort.protocol;
    const key = (slot: number) => `${address}:${port}/${protocol} (${slot})`;
    rows.push([key(0), `0.0.0.0:0 (${revNat}) (0) [${flags}]`]);
    const of = backends.filter(
      one => one.service === service && one.ready && one.protocol.toUpperCase() === protocol && isOf(one, servicePort),
    );
    of.forEach((backend, i) => {
      rows.push([key(i + 1), `${backend.address}:${backend.port}/${protocol} (${revNat}) (${i + 1})`]);
    });
  }
  return columns(rows);
}

/** `cilium-dbg service list`: each address of a service, and who answers. */
export function serviceText(config: ResolvedConfig, backends: readonly CiliumBackend[]): string {
  const rows = [['ID', 'Frontend', 'Service Type', 'Backend']];
  let id = 0;
  for (const { address, port, service, servicePort, flags } of frontends(config)) {
    const { protocol } = servicePort;
    const of = backends.filter(
      one => one.service === service && one.protocol.toUpperCase() === protocol && isOf(one, servicePort),
    );
    const ends = of.map(
      (one, i) => `${i + 1} => ${one.address}:${one.port}/${protocol} (${one.ready ? 'active' : 'terminating'})`,
    );
    rows.push([String(++id), `${address}:${port}/${protocol}`, flags.split(',')[0]!, ends[0] ?? '']);
    for (const end of ends.slice(1)) rows.push(['', '', '', end]);
  }
  return columns(rows);
}

/** `cilium-dbg map get cilium_lb4_services_v2`: as lbText, with numbers for backends. */
export function serviceMapText(config: ResolvedConfig, backends: readonly CiliumBackend[]): string {
  const rows = [['Key', 'Value', 'State', 'Error']];
  for (const { address, port, service, servicePort, revNat } of frontends(config)) {
    const { protocol } = servicePort;
    const of = backends
      .map((backend, i) => ({ backend, id: i + 1 }))
      .filter(({ backend }) => backend.service === service && backend.ready && isOf(backend, servicePort))
      .filter(({ backend }) => backend.protocol.toUpperCase() === protocol);
    const key = (slot: number) => `${address}:${port}/${protocol} (${slot})`;
    rows.push([key(0), `0 ${of.length}[0] (${revNat}) [0x0 0x0]`, '', '']);
    of.forEach(({ id }, i) => {
      rows.push([key(i + 1), `${id} 0[0] (${revNat}) [0x0 0x0]`, '', '']);
    });
  }
  return columns(rows);
}

/** `cilium-dbg map get cilium_lb4_backends_v3` */
export function backendMapText(backends: readonly CiliumBackend[]): string {
  const rows = backends.map(({ protocol, address, port }, i) => [
    String(i + 1),
    `${protocol.toUpperCase()}://${address}:${port}`,
    '',
    '',
  ]);
  return columns([['Key', 'Value', 'State', 'Error'], ...rows]);
}

/** `cilium-dbg map get cilium_lb4_reverse_nat` */
export function reverseNatMapText(config: ResolvedConfig): string {
  const rows = new Map<number, string>();
  for (const { address, port, revNat } of frontends(config))
    if (!rows.has(revNat)) rows.set(revNat, `${address}:${port}`);
  return columns([['Key', 'Value', 'State', 'Error'], ...[...rows].map(([id, end]) => [String(id), end, '', ''])]);
}

/** Is it a backend of this port? A service with several ports of one protocol has them apart by the target. */
function isOf({ port }: CiliumBackend, servicePort: { port: number; targetPort?: unknown }): boolean {
  return typeof servicePort.targetPort !== 'number' || servicePort.targetPort === port;
}

const SEEN_NON_SYN = 0x10;
const CLOSING = 0x3;
const OPEN_STATES = ['SYN_SENT', 'SYN_RECV', 'ESTABLISHED'];

/** `cilium-dbg bpf ct list global`: of a flow to a service one entry for it, and one for each local end. */
export function ctText(config: ResolvedConfig, flows: readonly CiliumFlow[]): string {
  const pods = new Map(config.spec.pods.map(pod => [pod.address.split('/')[0], pod]));
  const services = frontends(config);
  const lines: string[] = [];
  for (const flow of flows) {
    const { original, reply, protocol, timeout } = flow;
    const service = flow.dnat
      ? services.find(({ address, port }) => address === original.dst && port === original.dport)
      : undefined;
    const revNat = service?.revNat ?? 0;
    const isClosing = flow.state !== null && !OPEN_STATES.includes(flow.state);
    const flags = (flow.state === null || flow.state === 'SYN_SENT' ? 0 : SEEN_NON_SYN) | (isClosing ? CLOSING : 0);
    const rest = (identity: number) =>
      `expires=${timeout} Flags=0x${flags.toString(16).padStart(4, '0')}${flagNames(flags)} RevNAT=${revNat} SourceSecurityID=${identity}`;
    const name = protocol.toUpperCase();
    const source = pods.get(original.src);
    const client = endOf(original.src, original.sport ?? original.id);
    const server = endOf(reply.src, reply.sport ?? original.id);
    const identity = source?.identity ?? WORLD;
    if (service !== undefined) {
      const asked = endOf(original.dst, original.dport);
      lines.push(`${name} OUT ${client} -> ${asked} service ${rest(identity)}`);
    }
    if (source !== undefined || !pods.has(reply.src))
      lines.push(`${name} OUT ${client} -> ${server} ${rest(identity)}`);
    if (pods.has(reply.src)) lines.push(`${name} IN ${client} -> ${server} ${rest(identity)}`);
  }
  return lines.map(line => `${line}\n`).join('');
}

function flagNames(flags: number): string {
  const names = [
    ...((flags & 1) === 0 ? [] : ['RxClosing']),
    ...((flags & 2) === 0 ? [] : ['TxClosing']),
    ...((flags & SEEN_NON_SYN) === 0 ? [] : ['SeenNonSyn']),
  ];
  return names.length === 0 ? '' : ` [ ${names.join(' ')} ]`;
}

/** `cilium-dbg bpf nat list`: both directions of every flow whose source is translated. */
export function natText(flows: readonly CiliumFlow[]): string {
  return flows
    .filter(({ snat }) => snat)
    .map(({ protocol, original, reply, age }) => {
      const name = protocol.toUpperCase();
      const inside = endOf(original.src, original.sport ?? original.id);
      const outside = endOf(reply.dst, reply.dport ?? reply.id);
      const far = endOf(reply.src, reply.sport ?? 0);
      const created = `Created=${age}sec ago NeedsCT=1`;
      return [
        `${name} OUT ${inside} -> ${far} XLATE_SRC ${outside} ${created}\n`,
        `${name} IN ${far} -> ${outside} XLATE_DST ${inside} ${created}\n`,
      ].join('');
    })
    .join('');
}

function endOf(address: string, port: number | undefined): string {
  return `${address}:${port ?? 0}`;
}

const HOST = 1;
const WORLD = 2;
const REMOTE_NODE = 6;

/** `cilium-dbg bpf ipcache list`: who has which address, and behind which tunnel endpoint. */
export function ipcacheText({ spec }: ResolvedConfig): string {
  const peerOf = (address: string): string => {
    const routes = spec.routes.filter(
      ({ to, encap }) => encap !== null && contains(parseCidr(to), parseAddress(address)),
    );
    const [best] = routes.sort((a, b) => parseCidr(b.to).length - parseCidr(a.to).length);
    return best?.via ?? NOBODY;
  };
  const entries = new Map<string, string>();
  const add = (address: string, identity: number, tunnel: string) => {
    if (!entries.has(address)) {
      const flags = tunnel === NOBODY ? '<none>' : 'hastunnel';
      entries.set(address, `identity=${identity} encryptkey=0 tunnelendpoint=${tunnel} flags=${flags}`);
    }
  };
  for (const pod of spec.pods) add(`${pod.address.split('/')[0]}/32`, pod.identity ?? 0, NOBODY);
  for (const address of [spec.uplink.address, spec.host?.address]) {
    if (address !== undefined) add(`${address.split('/')[0]}/32`, HOST, NOBODY);
  }
  for (const { address } of spec.tunnels.flatMap(({ peers }) => peers as { address: string }[])) {
    add(`${address}/32`, REMOTE_NODE, NOBODY);
  }
  for (const { address } of spec.remotePods) add(`${address}/32`, 0, peerOf(address));
  for (const { to, via, encap } of spec.routes) if (encap !== null) add(to, WORLD, via);
  add('0.0.0.0/0', WORLD, NOBODY);
  return columns([['IP PREFIX/ADDRESS', 'IDENTITY'], ...entries]);
}

const NOBODY = '0.0.0.0';

/** `cilium-dbg endpoint list`. @param ports number and state by the pod's name */
export function endpointText(
  { spec }: ResolvedConfig,
  ports: ReadonlyMap<string, { number: number; state: string }>,
): string {
  const rows = [
    [
      'ENDPOINT',
      'POLICY (ingress)',
      'POLICY (egress)',
      'IDENTITY',
      'LABELS (source:key[=value])',
      'IPv6',
      'IPv4',
      'STATUS',
    ],
    ['', 'ENFORCEMENT', 'ENFORCEMENT', '', '', '', '', ''],
  ];
  for (const pod of spec.pods) {
    const port = ports.get(pod.name);
    const selecting = spec.policies.filter(
      policy => policy.namespace === namespaceOf(pod.name) && matches(policy.podSelector, pod.labels),
    );
    const enforced = (type: 'Ingress' | 'Egress') =>
      selecting.some(policy => typesOf(policy).has(type)) ? 'Enabled' : 'Disabled';
    const labels = Object.entries(pod.labels).map(([key, value]) => `k8s:${key}=${value}`);
    const id = port === undefined ? '' : String(endpointIdOf(port.number));
    const status = port?.state === 'up' ? 'ready' : 'not-ready';
    const first = [id, enforced('Ingress'), enforced('Egress'), String(pod.identity ?? 0)];
    rows.push([...first, labels[0] ?? '', '', pod.address.split('/')[0], status]);
    for (const label of labels.slice(1)) rows.push(['', '', '', '', label, '', '', '']);
  }
  return columns(rows);
}
