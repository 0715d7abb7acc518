/**
 * Services: which address and port leads to which backends, by the rules of kube-proxy.
 *
 * A new flow costs one lookup if its destination is no service's address, two or three if it is; the number of services
 * does not matter. Each service has its own small tables, so that a change to one touches no other.
 *
 * Backends have numbers, which flows remember. A backend that is removed is marked gone: a UDP flow or a half-open TCP
 * connection to it begins anew with its next packet and gets another backend; established TCP drains. Nothing has to be
 * searched for. Its number is used again when its last flow has ended.
 */
import { CountTable } from '../memory/count-table.ts';
import type { Packet } from '../packet/packet.ts';
import type { Random } from '../random.ts';
import {
  CONTINUE,
  DROP_CLUSTER_ADDRESS_FROM_OUTSIDE,
  DROP_NO_LOCAL_SERVICE_ENDPOINT,
  DROP_NO_SERVICE_ENDPOINT,
  DROP_SERVICE_SOURCE_RANGE,
  DROP_UNALLOCATED_SERVICE_ADDRESS,
  DROP_UNKNOWN_SERVICE_PORT,
} from '../verdict.ts';
import { hasPorts } from '../wire/ipv4.ts';
import type { Prefix } from './masquerade.ts';
import { flowHash, Selection, type SelectorKind } from './select.ts';
import type { BackendOwner } from './translation.ts';

export type TrafficPolicy = 'Cluster' | 'Local';

export interface ServiceEndpoint {
  /** int32 */
  address: number;
  port: number;
  /** EndpointSlice conditions. */
  ready: boolean;
  serving: boolean;
  terminating: boolean;
  /** On this node. */
  local: boolean;
  /** Where the service prefers near ones: one of them. */
  near?: boolean;
  /** For the weighted and maglev selectors; 1 if absent. */
  weight?: number;
}

export interface ServicePort {
  protocol: number;
  port: number;
  /** 0: none. Answered at every node address. */
  nodePort?: number;
  endpoints: readonly ServiceEndpoint[];
}

export interface Service {
  /** namespace/name */
  name: string;
  clusterAddresses: readonly number[];
  externalAddresses?: readonly number[];
  loadBalancerAddresses?: readonly number[];
  /** Who may use the load balancer addresses: (address, length) pairs. Absent or empty: all. */
  sourceRanges?: readonly Prefix[];
  ports: readonly ServicePort[];
  selector?: SelectorKind;
  maglevSize?: number;
  /** Session affinity by client address, seconds; 0: none. Kubernetes' default is 10800. */
  affinitySeconds?: number;
  internalTrafficPolicy?: TrafficPolicy;
  externalTrafficPolicy?: TrafficPolicy;
}

/**
 * The node as it sees itself through a service that leads back to it: its own address would be answered without us.
 * Cilium's default of the same (--ipv4-service-loopback-address), and the address behind it: where the node's kernel sends
 * what is for a port of a service at an address of its own (control/own-ports.ts).
 */
export const SERVICE_LOOPBACK = 0xa9fe2a01 | 0; // 169.254.42.1
export const SERVICE_OWN = 0xa9fe2a02 | 0; // 169.254.42.2

// Who begins a flow.
/** A pod of the cluster. */
export const FROM_POD = 0;
/** Somebody who came by the uplink, and no tunnel. */
export const FROM_OUTSIDE = 1;
/** The node itself. */
export const FROM_NODE = 2;

// How the flow came to the service.
export const VIA_CLUSTER = 0;
export const VIA_EXTERNAL = 1;
export const VIA_LOAD_BALANCER = 2;
export const VIA_NODE_PORT = 3;

/** What is kept of a service port. */
interface Port {
  service: Service;
  spec: ServicePort;
  /** Frontend keys that lead here and their VIA_*, for removal. */
  keys: [number, number, number][];
  /** "address:port" -> backend number. */
  backends: Map<string, number>;
  cluster: Selection;
  local: Selection;
  sourceRanges: Int32Array;
  affinityMs: number;
  internalLocal: boolean;
  externalLocal: boolean;
  usesHash: boolean;
}

export interface BackendRow {
  backend: number;
  service: string;
  address: number;
  port: number;
  protocol: number;
  flows: number;
  gone: boolean;
}

/** Frontends, addresses and endpoints that tables take without being copied; more than clusters have (150,000 pods). */
const ROOM = 1 << 18;
/** Clients remembered for affinity. */
const MAX_AFFINITY = 1 << 16;
// Bits in the address table: the low ones count what an address serves as.
const NODE_ADDRESS = 1 << 24;
/** Second word of its keys that count frontends by VIA_CLUSTER alone. */
const CLUSTER = 1;

export class Services implements BackendOwner {
  /** BackendOwner: 1 for backends that are gone. */
  gone = new Uint8Array(64);

  /** Flows whose client could not be remembered for affinity. */
  affinityFull = 0;
  /** (masked address, mask) pairs. */
  private networks: Int32Array = new Int32Array(0);

  private readonly random: Random;
  private readonly seed: number;
  private readonly byName = new Map<string, number[]>();
  /** By number; null: free. Number 0 is no port. */
  private readonly portList: (Port | null)[] = [null];
  private readonly freePorts: number[] = [];
  /** (address, port | protocol << 16, 0) -> service port number, VIA_*; node ports under address 0, third word 1. */
  private readonly frontends: CountTable;
  /** (address, 0, 0) -> NODE_ADDRESS | number of frontends; (address, CLUSTER, 0) -> number of those of cluster addresses */
  private readonly addresses: CountTable;
  /** (address, port | protocol << 16, 0) -> number of service ports that have this backend */
  private readonly endpoints: CountTable;
  /** (service port number, client, 0) -> backend, deadline */
  private readonly affinity: CountTable;
  private affinityCursor = 0;

  // Backends, by number.
  private backendAddress = new Int32Array(64);
  private backendPort = new Int32Array(64);
  private backendFlows = new Int32Array(64);
  private backendOwner = new Int32Array(64);
  private backendCount = 0;
  private readonly freeBackends: number[] = [];

  /**
   * Whether a pod's flow to a node port, a load balancer or an external address is masqueraded where the policy is Cluster:
   * kube-proxy does (KUBE-EXT), Cilium's socket layer keeps the pod's address.
   */
  masqueradePods: boolean;

  /** Whether cluster addresses answer whoever comes from outside. */
  servesOutside = true;

  /** @param seed of the maglev hash; the same on all nodes */
  constructor(random: Random, masqueradePods = true, seed = 0x5eed) {
    this.random = random;
    this.masqueradePods = masqueradePods;
    this.seed = seed;
    this.frontends = new CountTable(ROOM, random);
    this.addresses = new CountTable(ROOM, random);
    this.endpoints = new CountTable(ROOM, random);
    this.affinity = new CountTable(MAX_AFFINITY, random, MAX_AFFINITY);
  }

  /** Number of services. */
  get size(): number {
    return this.byName.size;
  }

  /** The node's own addresses, where node ports answer. */
  setNodeAddresses(addresses: readonly number[]): void {
    for (let i = 0; i < this.addresses.slotCount; i++) {
      const at = this.addresses.slotAt(i);
      if (at < 0) continue;
      this.addresses.setValue(at, this.addresses.value(at) & ~NODE_ADDRESS);
    }
    for (const address of addresses) {
      const at = this.addresses.make(address, 0, 0);
      this.addresses.setValue(at, this.addresses.value(at) | NODE_ADDRESS);
    }
  }

  /** The networks that service addresses are from; what is sent to one that no service has is refused there. */
  setNetworks(networks: readonly Prefix[]): void {
    this.networks = rangesOf(networks);
  }

  /** Adds a service, or replaces the one of that name: frontends, endpoints, policies. Existing flows stay or move. */
  set(service: Service): void {
    const old = this.byName.get(service.name) ?? [];
    const kept = new Map<string, number>();
    for (const number of old) {
      const port = this.portList[number]!;
      kept.set(`${port.spec.protocol}/${port.spec.port}`, number);
      this.removeFrontends(port);
    }
    const numbers: number[] = [];
    for (const spec of service.ports) {
      const key = `${spec.protocol}/${spec.port}`;
      const before = kept.get(key);
      kept.delete(key);
      const number = before ?? this.freePorts.pop() ?? this.portList.push(null) - 1;
      const backends = before === undefined ? new Map<string, number>() : this.portList[before]!.backends;
      this.build(number, service, spec, backends);
      numbers.push(number);
    }
    for (const number of kept.values()) this.removePort(number);
    this.byName.set(service.name, numbers);
  }

  /** @returns false if there is no such service */
  remove(name: string): boolean {
    const numbers = this.byName.get(name);
    if (numbers === undefined) return false;
    for (const number of numbers) {
      this.removeFrontends(this.portList[number]!);
      this.removePort(number);
    }
    this.byName.delete(name);
    return true;
  }

  /**
   * Picks a backend for a new flow.
   *
   * @param client FROM_*
   * @returns CONTINUE: to a service if `p.backend` is not 0 (then backendAddress, backendPort, servicePort, via and
   *   masquerade are set, too); to no service's address if it is 0. DROP_NO_SERVICE_ENDPOINT and
   *   DROP_UNKNOWN_SERVICE_PORT are answered as kube-proxy's REJECT (ICMP 3/3); DROP_NO_LOCAL_SERVICE_ENDPOINT,
   *   DROP_SERVICE_SOURCE_RANGE, DROP_CLUSTER_ADDRESS_FROM_OUTSIDE and DROP_UNALLOCATED_SERVICE_ADDRESS are silent.
   */
  select(p: Packet, client: number, now: number): number {
    p.backend = 0;
    const known = this.addresses.get(p.dst, 0, 0);
    if (known === 0 || !hasPorts(p.protocol)) return this.judgeOther(p.dst);

    const key = (p.protocol << 16) | p.dstPort;
    let at = this.frontends.find(p.dst, key, 0);
    let via: number;
    if (at >= 0) via = this.frontends.extra(at);
    else {
      via = VIA_NODE_PORT;
      if ((known & NODE_ADDRESS) !== 0) at = this.frontends.find(0, key, 1);
      // Behind a cluster address there is nothing else; others may be a machine's, which has ports of its own.
      if (at < 0) return this.isClusterAddress(p.dst) ? DROP_UNKNOWN_SERVICE_PORT : CONTINUE;
    }
    const number = this.frontends.value(at);
    const port = this.portList[number]!;
    const { sourceRanges } = port;
    if (via === VIA_LOAD_BALANCER && sourceRanges.length > 0 && !inRanges(sourceRanges, p.src)) {
      return DROP_SERVICE_SOURCE_RANGE;
    }

    // From inside the cluster, external addresses lead everywhere, whatever their policy (kube-proxy's short cut).
    const local = via === VIA_CLUSTER ? port.internalLocal : port.externalLocal && client === FROM_OUTSIDE;
    const candidates = local ? port.local : port.cluster;
    if (candidates.size === 0) {
      return port.cluster.size > 0 ? DROP_NO_LOCAL_SERVICE_ENDPOINT : DROP_NO_SERVICE_ENDPOINT;
    }
    if (via === VIA_CLUSTER && client === FROM_OUTSIDE && !this.servesOutside) return DROP_CLUSTER_ADDRESS_FROM_OUTSIDE;
    const backend =
      port.affinityMs > 0 ? this.pickSticky(number, port, candidates, p, now | 0) : this.pick(port, candidates, p);
    p.backend = backend;
    p.backendAddress = this.backendAddress[backend];
    p.backendPort = this.backendPort[backend];
    p.servicePort = number;
    p.via = via;
    p.masquerade = p.backendAddress === p.src || this.mustMasquerade(client, via, port, local) ? 1 : 0;
    return CONTINUE;
  }

  /** kube-proxy's writeServiceChains: what is in no pod network, and what is for an external address under policy Cluster. */
  private mustMasquerade(client: number, via: number, port: Port, local: boolean): boolean {
    if (client === FROM_POD) return via !== VIA_CLUSTER && !port.externalLocal && this.masqueradePods;
    return client === FROM_NODE || via === VIA_CLUSTER || !local;
  }

  /** As kube-proxy in its nftables mode, for all protocols; without a service network as in its iptables mode. */
  private judgeOther(address: number): number {
    const { networks } = this;
    if (networks.length === 0 || !inRanges(networks, address)) return CONTINUE;
    return this.isClusterAddress(address) ? DROP_UNKNOWN_SERVICE_PORT : DROP_UNALLOCATED_SERVICE_ADDRESS;
  }

  private isClusterAddress(address: number): boolean {
    return this.addresses.get(address, CLUSTER, 0) > 0;
  }

  /** BackendOwner. */
  isBackend(address: number, port: number, protocol: number): boolean {
    return this.endpoints.find(address, (protocol << 16) | port, 0) >= 0;
  }

  /** BackendOwner. */
  countFlow(backend: number, change: number): void {
    this.backendFlows[backend] += change;
    if (this.gone[backend] === 1 && this.backendFlows[backend] === 0) this.freeBackend(backend);
  }

  /** Forgets affinities that have run out, a bounded number per call. */
  tick(now: number): void {
    const { affinity } = this;
    if (affinity.size === 0) return;
    for (let n = Math.min(256, affinity.slotCount); n > 0; n--) {
      if (this.affinityCursor >= affinity.slotCount) this.affinityCursor = 0;
      const at = affinity.slotAt(this.affinityCursor);
      // After a removal the next key may lie here: look again.
      if (at >= 0 && ((affinity.extra(at) - now) | 0) <= 0) affinity.removeAt(at);
      else this.affinityCursor++;
    }
  }

  /** Name of the service of a service port number. */
  nameOf(servicePort: number): string {
    return this.portList[servicePort]?.service.name ?? '';
  }

  /** Address and port of a backend, while it has flows or belongs to a service. */
  backendRow(backend: number): BackendRow {
    const port = this.portList[this.backendOwner[backend]];
    return {
      backend,
      service: port?.service.name ?? '',
      address: this.backendAddress[backend],
      port: this.backendPort[backend],
      protocol: port?.spec.protocol ?? 0,
      flows: this.backendFlows[backend],
      gone: this.gone[backend] === 1,
    };
  }

  /** For `get services` and `get endpoints`: services as they were set, each with its backends. */
  *rows(): Generator<{ service: Service; port: ServicePort; backends: BackendRow[] }> {
    for (const numbers of this.byName.values()) {
      for (const number of numbers) {
        const { service, spec, backends } = this.portList[number]!;
        yield { service, port: spec, backends: [...backends.values()].map(b => this.backendRow(b)) };
      }
    }
  }

  private pick(port: Port, candidates: Selection, p: Packet): number {
    let hash = 0;
    if (port.usesHash) {
      // With affinity, maglev does not look at the source port, so that it would choose the same again.
      const srcPort = port.affinityMs > 0 ? 0 : p.srcPort;
      hash = flowHash(p.src, p.dst, srcPort, p.dstPort, p.protocol, this.seed);
    }
    return candidates.pick(hash, this.random);
  }

  /** The client's last backend if it still is a candidate, else a new one. Every new flow renews the time. */
  private pickSticky(number: number, port: Port, candidates: Selection, p: Packet, now: number): number {
    const at = this.affinity.find(number, p.src, 0);
    let backend = 0;
    if (at >= 0 && ((this.affinity.extra(at) - now) | 0) > 0) {
      const last = this.affinity.value(at);
      if (candidates.backends.includes(last)) backend = last;
    }
    if (backend === 0) backend = this.pick(port, candidates, p);
    if (p.probe !== 0) return backend;
    if (!this.affinity.set(number, p.src, 0, backend, (now + port.affinityMs) | 0)) this.affinityFull++;
    return backend;
  }

  private build(number: number, service: Service, spec: ServicePort, backends: Map<string, number>): void {
    const wanted = new Set(spec.endpoints.map(e => `${e.address}:${e.port}`));
    for (const [key, backend] of backends) {
      if (wanted.has(key)) continue;
      this.dropBackend(backend, spec.protocol);
      backends.delete(key);
    }
    for (const e of spec.endpoints) {
      const key = `${e.address}:${e.port}`;
      if (!backends.has(key)) backends.set(key, this.newBackend(number, e.address, e.port, spec.protocol));
    }
    const selector = service.selector ?? 'random';
    const select = (endpoints: readonly ServiceEndpoint[]) =>
      new Selection(
        selector,
        usable(endpoints).map(e => ({
          backend: backends.get(`${e.address}:${e.port}`)!,
          address: e.address,
          port: e.port,
          weight: e.weight ?? 1,
        })),
        this.seed,
        service.maglevSize,
      );
    // UDP and half-open flows leave an endpoint that no longer serves, although it is still listed.
    for (const e of spec.endpoints) {
      this.gone[backends.get(`${e.address}:${e.port}`)!] = e.ready || e.serving ? 0 : 1;
    }
    const internalLocal = service.internalTrafficPolicy === 'Local';
    const externalLocal = service.externalTrafficPolicy === 'Local';
    const cluster = select(nearOf(spec.endpoints));
    const port: Port = {
      service,
      spec,
      keys: [],
      backends,
      cluster,
      local: internalLocal || externalLocal ? select(spec.endpoints.filter(e => e.local)) : cluster,
      sourceRanges: rangesOf(service.sourceRanges ?? []),
      affinityMs: (service.affinitySeconds ?? 0) * 1000,
      internalLocal,
      externalLocal,
      usesHash: selector === 'maglev',
    };
    this.portList[number] = port;
    const key = (spec.protocol << 16) | spec.port;
    const add = (addresses: readonly number[], via: number) => {
      for (const address of addresses) {
        // An address and port belong to the service that came first; configuration reports the conflict.
        if (this.frontends.find(address, key, 0) >= 0) continue;
        this.frontends.set(address, key, 0, number, via);
        this.addresses.add(address, 0, 0, 1);
        if (via === VIA_CLUSTER) this.addresses.add(address, CLUSTER, 0, 1);
        port.keys.push([address, key, via]);
      }
    };
    add(service.clusterAddresses, VIA_CLUSTER);
    add(service.externalAddresses ?? [], VIA_EXTERNAL);
    add(service.loadBalancerAddresses ?? [], VIA_LOAD_BALANCER);
    const nodeKey = (spec.protocol << 16) | (spec.nodePort ?? 0);
    if ((spec.nodePort ?? 0) !== 0 && this.frontends.find(0, nodeKey, 1) < 0) {
      this.frontends.set(0, nodeKey, 1, number, VIA_NODE_PORT);
    }
  }

  private removeFrontends(port: Port): void {
    for (const [address, key, via] of port.keys) {
      this.frontends.remove(address, key, 0);
      this.addresses.add(address, 0, 0, -1);
      if (via === VIA_CLUSTER) this.addresses.add(address, CLUSTER, 0, -1);
    }
    port.keys.length = 0;
    const nodePort = port.spec.nodePort ?? 0;
    if (nodePort === 0) return;
    const at = this.frontends.find(0, (port.spec.protocol << 16) | nodePort, 1);
    if (at >= 0 && this.portList[this.frontends.value(at)] === port) this.frontends.removeAt(at);
  }

  private removePort(number: number): void {
    const port = this.portList[number]!;
    for (const backend of port.backends.values()) this.dropBackend(backend, port.spec.protocol);
    this.portList[number] = null;
    this.freePorts.push(number);
  }

  private newBackend(servicePort: number, address: number, port: number, protocol: number): number {
    let backend = this.freeBackends.pop();
    if (backend === undefined) {
      backend = ++this.backendCount;
      if (backend >= this.gone.length) this.growBackends();
    }
    this.gone[backend] = 0;
    this.backendAddress[backend] = address;
    this.backendPort[backend] = port;
    this.backendFlows[backend] = 0;
    this.backendOwner[backend] = servicePort;
    this.endpoints.add(address, (protocol << 16) | port, 0, 1);
    return backend;
  }

  private dropBackend(backend: number, protocol: number): void {
    const key = (protocol << 16) | this.backendPort[backend];
    this.endpoints.add(this.backendAddress[backend], key, 0, -1);
    this.gone[backend] = 1;
    this.backendOwner[backend] = 0;
    if (this.backendFlows[backend] === 0) this.freeBackend(backend);
  }

  private freeBackend(backend: number): void {
    // Still listed by its service (terminating and not serving): it keeps its number.
    if (this.backendOwner[backend] !== 0) return;
    this.freeBackends.push(backend);
  }

  private growBackends(): void {
    const size = this.gone.length * 2;
    const grow = <T extends Int32Array | Uint8Array>(to: T, from: T): T => {
      to.set(from);
      return to;
    };
    this.gone = grow(new Uint8Array(size), this.gone);
    this.backendAddress = grow(new Int32Array(size), this.backendAddress);
    this.backendPort = grow(new Int32Array(size), this.backendPort);
    this.backendFlows = grow(new Int32Array(size), this.backendFlows);
    this.backendOwner = grow(new Int32Array(size), this.backendOwner);
  }
}

/** kube-proxy's choice: the ready ones; if there are none, those that still serve while they terminate. */
export function usable(endpoints: readonly ServiceEndpoint[]): readonly ServiceEndpoint[] {
  const ready = endpoints.filter(e => e.ready);
  return ready.length > 0 ? ready : endpoints.filter(e => e.serving && e.terminating);
}

/** Those that the service prefers, if one of them is ready; else all. */
function nearOf(endpoints: readonly ServiceEndpoint[]): readonly ServiceEndpoint[] {
  const near = endpoints.filter(e => e.ready && e.near);
  return near.length > 0 ? near : endpoints;
}

/** Prefixes as (masked address, mask) pairs. */
function rangesOf(prefixes: readonly Prefix[]): Int32Array {
  return Int32Array.from(
    prefixes.flatMap(({ address, length }) => {
      const mask = length === 0 ? 0 : -1 << (32 - length);
      return [address & mask, mask];
    }),
  );
}

function inRanges(ranges: Int32Array, address: number): boolean {
  for (let i = 0; i < ranges.length; i += 2) if ((address & ranges[i + 1]) === ranges[i]) return true;
  return false;
}
