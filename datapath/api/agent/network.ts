/**
 * What a cluster's own switches say of its pod network: Calico's IPPools, the ConfigMaps `cilium-config` and
 * `kube-flannel-cfg`. Pure. A switch that cannot be carried out is a fault, and all stays as it was; what of it is without
 * effect here is a remark.
 */
import { contains, parseCidr } from '../../control/address.ts';
import type { Json, KubeObject } from '../object.ts';

export type Protocol = 'ipip' | 'vxlan' | 'geneve';

/** A tunnel, as far as the network says it: peers and MACs follow from the nodes. */
export interface Encap {
  /** By which routes name it; while two are there, both have one of their own. */
  name: string;
  protocol: Protocol;
  port?: number;
  vni?: number | 'identity';
}

/** How packets for pods of a network go between nodes. */
export interface Pool {
  cidr: string;
  /** null: as they are. */
  encap: Encap | null;
  /** To nodes of the own subnet without a tunnel. */
  direct: boolean;
}

/** Plain data: it is written into the status of a switch, and read again. */
export interface Network {
  system: 'cilium' | 'calico' | 'flannel' | null;
  pools: Pool[];
  /** Who has a route to a node's pods where no tunnel leads there: nodes of its subnet, all (by the gateway), nobody. */
  plain: 'near' | 'all' | 'none';
  /** Whose packets leave under their node's address; undefined: nothing is said of it. */
  masquerade?: { from: string[]; inside: string[] };
  /** Networks of which no pod gets an address any more. */
  closed: string[];
}

/** What says how the network is. */
export interface Source {
  kind: 'ConfigMap' | 'IPPool';
  namespace?: string;
  name: string;
}

export interface Verdict {
  /** null: no object says anything. */
  source: Source | null;
  /** null where there is a fault. */
  network: Network | null;
  faults: Told[];
  remarks: Told[];
}

/** Something to be said of an object. */
export interface Told {
  source: Source;
  message: string;
}

export interface SwitchObjects {
  /** Of the namespaces kube-system and kube-flannel. */
  configMaps: readonly KubeObject[];
  /** Calico's. */
  pools: readonly KubeObject[];
  nodes: readonly KubeObject[];
}

export type System = 'flannel' | 'cilium' | 'calico';

const FLANNEL_PORT = 8472;
const CILIUM_PORTS = { vxlan: 8472, geneve: 6081 } as const;
const CALICO_VXLAN = { port: 4789, vni: 4096 };
const MAX_VNI = 0xff_ff_ff;

/** A whole address space, where a system has one network for all pods. */
export const ANYWHERE = '0.0.0.0/0';

/** @param only the system that the cluster runs; switches of others are without effect. Default: of whom there is one */
export function networkOf(objects: SwitchObjects, only?: System): Verdict {
  const flannel = objects.configMaps.find(({ metadata }) => metadata.name === 'kube-flannel-cfg');
  const cilium = objects.configMaps.find(({ metadata }) => metadata.name === 'cilium-config');
  const present: System[] = [
    ...(flannel === undefined ? [] : ['flannel' as const]),
    ...(cilium === undefined ? [] : ['cilium' as const]),
    ...(objects.pools.length === 0 ? [] : ['calico' as const]),
  ];
  const system = only === undefined ? present[0] : present.find(one => one === only);
  const remarks = present
    .filter(one => one !== system)
    .map(one => ({
      source: sourceOf(one === 'calico' ? objects.pools[0]! : one === 'cilium' ? cilium! : flannel!, one),
      message: `without effect: the network of this cluster is ${system ?? only}'s`,
    }));
  const verdict =
    system === 'flannel'
      ? ofFlannel(flannel!)
      : system === 'cilium'
        ? ofCilium(cilium!)
        : system === 'calico'
          ? ofCalico(objects.pools, objects.nodes)
          : { source: null, network: null, faults: [], remarks: [] };
  if (verdict.network !== null) verdict.faults.push(...outside(verdict.network, verdict.source!, objects.nodes));
  return {
    ...verdict,
    network: verdict.faults.length > 0 ? null : verdict.network,
    remarks: [...verdict.remarks, ...remarks],
  };
}

function sourceOf({ metadata }: KubeObject, system: System): Source {
  if (system === 'calico') return { kind: 'IPPool', name: metadata.name };
  return { kind: 'ConfigMap', namespace: metadata.namespace, name: metadata.name };
}

/** Collects what is wrong with one object. */
class Reading {
  readonly source: Source;
  readonly faults: Told[] = [];
  readonly remarks: Told[] = [];

  constructor(object: KubeObject, system: System) {
    this.source = sourceOf(object, system);
  }

  fault(message: string): void {
    this.faults.push({ source: this.source, message });
  }

  remark(message: string): void {
    this.remarks.push({ source: this.source, message });
  }

  /** @returns undefined where it is none, which is a fault */
  cidr(field: string, value: unknown): string | undefined {
    if (typeof value === 'string' && parseCidr(value) !== undefined) return value;
    this.fault(`${field}: got ${JSON.stringify(value)}, expected a network of IPv4, such as 10.244.0.0/16`);
    return undefined;
  }

  oneOf<T extends string>(field: string, value: unknown, known: readonly T[]): T | undefined {
    const found = known.find(one => one === value);
    if (found === undefined) this.fault(`${field}: got ${JSON.stringify(value)}, expected ${known.join(', ')}`);
    return found;
  }

  whole(field: string, value: unknown, least: number, most: number): number | undefined {
    const number = typeof value === 'string' && /^\d+$/.test(value) ? Number(value) : value;
    if (typeof number === 'number' && Number.isInteger(number) && number >= least && number <= most) return number;
    this.fault(`${field}: got ${JSON.stringify(value)}, expected ${least} to ${most}`);
    return undefined;
  }

  finish(network: Network): Verdict {
    const { source, faults, remarks } = this;
    return { source, network, faults, remarks };
  }
}

// ---------------------------------------------------------------- flannel

const BACKENDS = ['vxlan', 'host-gw', 'ipip'] as const;

function ofFlannel(object: KubeObject): Verdict {
  const reading = new Reading(object, 'flannel');
  const data = (object as Json).data ?? {};
  const network: Network = { system: 'flannel', pools: [], plain: 'near', closed: [] };
  let written: Json;
  try {
    written = JSON.parse(data['net-conf.json'] ?? '');
  } catch {
    reading.fault('net-conf.json: expected JSON');
    return reading.finish(network);
  }
  const cidr = reading.cidr('Network', written?.Network);
  const { Type: type = 'udp', ...backend } = written?.Backend ?? {};
  if (type === 'udp') {
    reading.fault(
      `Backend.Type: udp is an encapsulation of flanneld's own, which no node here has; expected ${BACKENDS.join(', ')}`,
    );
  }
  const known = type === 'udp' ? undefined : reading.oneOf('Backend.Type', type, BACKENDS);
  const direct = backend.DirectRouting === true;
  if (direct && known === 'host-gw')
    reading.remark('Backend.DirectRouting: host-gw has no tunnel, and is direct anyway');
  if (backend.GBP === true) reading.remark('Backend.GBP: group policy is not carried out');
  if (written?.EnableIPv6 === true) reading.remark('EnableIPv6: pods have IPv4 alone');
  let encap: Encap | null = null;
  if (known === 'ipip') encap = { name: 'ipip', protocol: 'ipip' };
  if (known === 'vxlan') {
    // 0 is what flannel takes for "the default".
    const port = reading.whole('Backend.Port', backend.Port || FLANNEL_PORT, 1, 65_535);
    const vni = reading.whole('Backend.VNI', backend.VNI ?? 1, 1, MAX_VNI);
    if (port !== undefined && vni !== undefined) encap = { name: 'vxlan', protocol: 'vxlan', port, vni };
  }
  if (cidr !== undefined) {
    network.pools.push({ cidr, encap, direct });
    network.masquerade = { from: [cidr], inside: [cidr] };
  }
  return reading.finish(network);
}

// ---------------------------------------------------------------- Cilium

const REPLACEMENTS = ['true', 'false', 'strict', 'probe', 'partial', 'disabled'] as const;

function ofCilium(object: KubeObject): Verdict {
  const reading = new Reading(object, 'cilium');
  const data: Record<string, string> = (object as Json).data ?? {};
  // Before 1.14 one key said both.
  const old = data.tunnel;
  const mode = reading.oneOf('routing-mode', data['routing-mode'] ?? (old === 'disabled' ? 'native' : 'tunnel'), [
    'native',
    'tunnel',
  ]);
  const isTunnelled = mode !== 'native';
  const direct = data['auto-direct-node-routes'] === 'true';
  if (isTunnelled && direct) {
    reading.fault('auto-direct-node-routes: true goes with routing-mode native alone, as in Cilium; set it to false');
  }
  let encap: Encap | null = null;
  if (isTunnelled) {
    const protocol = reading.oneOf(
      'tunnel-protocol',
      data['tunnel-protocol'] ?? (old === undefined || old === 'disabled' ? 'vxlan' : old),
      ['vxlan', 'geneve'],
    );
    // 0 is what Cilium takes for "the default".
    const given = data['tunnel-port'];
    const port =
      protocol === undefined || given === undefined || given === '0'
        ? CILIUM_PORTS[protocol ?? 'vxlan']
        : reading.whole('tunnel-port', given, 1, 65_535);
    if (protocol !== undefined && port !== undefined) encap = { name: protocol, protocol, port, vni: 'identity' };
  }
  const network: Network = {
    system: 'cilium',
    pools: [{ cidr: ANYWHERE, encap, direct: false }],
    plain: direct ? 'near' : 'none',
    closed: [],
  };
  const inside = data['ipv4-native-routing-cidr'] ?? data['cluster-pool-ipv4-cidr'];
  const masquerades = data['enable-ipv4-masquerade'] !== 'false';
  if (inside === undefined) {
    if (masquerades && !isTunnelled) {
      reading.fault(
        'ipv4-native-routing-cidr: expected with routing-mode native and enable-ipv4-masquerade, as in Cilium',
      );
    }
  } else if (reading.cidr('ipv4-native-routing-cidr', inside) !== undefined) {
    network.masquerade = { from: masquerades ? [inside] : [], inside: [inside] };
  }
  const replacement = data['kube-proxy-replacement'];
  if (replacement !== undefined && reading.oneOf('kube-proxy-replacement', replacement, REPLACEMENTS) === 'false') {
    reading.remark(
      "kube-proxy-replacement: false: the node's own service table stands for kube-proxy's, and goes on as it was",
    );
  }
  if (data['enable-ipv6'] === 'true') reading.remark('enable-ipv6: pods have IPv4 alone');
  return reading.finish(network);
}

// ---------------------------------------------------------------- Calico

const MODES = ['Never', 'Always', 'CrossSubnet'] as const;

function ofCalico(pools: readonly KubeObject[], nodes: readonly KubeObject[]): Verdict {
  const network: Network = { system: 'calico', pools: [], plain: 'all', closed: [] };
  const readings = pools.map(pool => new Reading(pool, 'calico'));
  const masqueraded: string[] = [];
  pools.forEach((pool, i) => {
    const reading = readings[i]!;
    const spec: Json = pool.spec ?? {};
    const cidr = reading.cidr('spec.cidr', spec.cidr);
    const ipip = reading.oneOf('spec.ipipMode', spec.ipipMode ?? 'Never', MODES);
    const vxlan = reading.oneOf('spec.vxlanMode', spec.vxlanMode ?? 'Never', MODES);
    if (ipip === undefined || vxlan === undefined || cidr === undefined) return;
    if (ipip !== 'Never' && vxlan !== 'Never') {
      reading.fault(`spec.ipipMode ${ipip} and spec.vxlanMode ${vxlan}: one of them must be Never, as in Calico`);
      return;
    }
    const other = network.pools.find(one => overlap(one.cidr, cidr));
    if (other !== undefined) reading.fault(`spec.cidr: ${cidr} overlaps ${other.cidr}, which another IPPool has`);
    const encap: Encap | null =
      ipip !== 'Never'
        ? { name: 'ipip', protocol: 'ipip' }
        : vxlan !== 'Never'
          ? { name: 'vxlan', protocol: 'vxlan', ...CALICO_VXLAN }
          : null;
    network.pools.push({ cidr, encap, direct: ipip === 'CrossSubnet' || vxlan === 'CrossSubnet' });
    if (spec.disabled === true) network.closed.push(cidr);
    if (spec.natOutgoing ?? spec['nat-outgoing'] ?? false) masqueraded.push(cidr);
    remarkOnBlocks(reading, cidr, spec.blockSize, nodes);
    if (spec.nodeSelector !== undefined && spec.nodeSelector !== 'all()') {
      reading.remark(`spec.nodeSelector: ${spec.nodeSelector} is not looked at; the pool is every node's`);
    }
  });
  network.masquerade = { from: masqueraded, inside: network.pools.map(({ cidr }) => cidr) };
  return {
    source: readings[0]!.source,
    network,
    faults: readings.flatMap(({ faults }) => faults),
    remarks: readings.flatMap(({ remarks }) => remarks),
  };
}

function remarkOnBlocks(reading: Reading, cidr: string, blockSize: unknown, nodes: readonly KubeObject[]): void {
  if (blockSize === undefined) return;
  const pool = parseCidr(cidr)!;
  for (const node of nodes) {
    const block = podCidrsOf(node).find(text => contains(pool, parseCidr(text)!.prefix));
    if (block === undefined || parseCidr(block)!.length === blockSize) continue;
    reading.remark(
      `spec.blockSize: ${blockSize}: Node ${node.metadata.name} has the block ${block}, and keeps it; a block never changes its size`,
    );
    return;
  }
}

function overlap(a: string, b: string): boolean {
  const [one, other] = [parseCidr(a)!, parseCidr(b)!];
  return contains(one, other.prefix) || contains(other, one.prefix);
}

// ---------------------------------------------------------------- nodes

/** A node whose pods are in no network that there is: flannel refuses to start there. */
function outside({ system, pools }: Network, source: Source, nodes: readonly KubeObject[]): Told[] {
  if (system !== 'flannel' || pools.length === 0) return [];
  return nodes.flatMap(node =>
    podCidrsOf(node)
      .filter(cidr => poolOf(pools, cidr) === undefined)
      .map(cidr => ({
        source,
        message: `Network: ${pools[0]!.cidr} does not hold ${cidr}, the podCIDR of Node ${node.metadata.name}`,
      })),
  );
}

export function podCidrsOf({ spec }: KubeObject): string[] {
  const cidrs: string[] = spec?.podCIDRs ?? (spec?.podCIDR === undefined ? [] : [spec.podCIDR]);
  return cidrs.filter(cidr => parseCidr(cidr) !== undefined);
}

/** The pool that a node's pods belong to. */
export function poolOf(pools: readonly Pool[], podCidr: string): Pool | undefined {
  const { prefix, length } = parseCidr(podCidr)!;
  return pools.find(({ cidr }) => {
    const pool = parseCidr(cidr)!;
    return pool.length <= length && contains(pool, prefix);
  });
}

/** Each tunnel of a network once. */
export function encapsOf({ pools }: Network): Encap[] {
  const found = new Map<string, Encap>();
  for (const { encap } of pools) if (encap !== null) found.set(encap.name, encap);
  return [...found.values()];
}
