/** Cluster addresses and node ports: who has which, and the next free one. */
import { formatAddress, parseAddress, parseCidr } from '../../control/address.ts';
import type { Cause } from '../errors.ts';
import type { Json, KubeObject } from '../object.ts';
import type { Store, StoreEvent } from '../store/store.ts';

export const NODE_PORTS = { low: 30000, high: 32767 } as const; // --service-node-port-range of kube-apiserver

/** Chooses among `count` things: an index. */
export type Choose = (count: number) => number;

export class ServiceAllocator {
  private readonly prefix: number;
  private readonly size: number;
  private readonly cidr: string;
  private readonly choose: Choose;
  /** Owners' places, by address and by `PROTOCOL PORT`. */
  private readonly addresses = new Map<string, string>();
  private readonly ports = new Map<string, string>();

  /** @param cidr where cluster addresses come from, such as 10.96.0.0/12 */
  constructor(store: Store, cidr: string, choose: Choose) {
    const { prefix, length } = parseCidr(cidr)!;
    this.prefix = prefix;
    this.size = 2 ** (32 - length);
    this.cidr = cidr;
    this.choose = choose;
    for (const service of store.values('services')) this.note(service);
    store.listen(event => this.follow(event));
  }

  /**
   * Gives a service the addresses and ports that it should have and has not, in place.
   * @param place of the service
   * @returns what it asks for and cannot get; then nothing was given
   */
  allocate(service: KubeObject, place: string): Cause[] {
    const { spec } = service;
    const causes: Cause[] = [];
    if (spec.type === 'ExternalName') {
      for (const field of ['clusterIP', 'clusterIPs']) delete spec[field];
      return causes;
    }
    spec.clusterIP ||= spec.clusterIPs?.[0];
    if (spec.clusterIP !== undefined && spec.clusterIP !== 'None') this.checkAddress(spec.clusterIP, place, causes);
    const wantsPorts =
      spec.type === 'NodePort' || (spec.type === 'LoadBalancer' && spec.allocateLoadBalancerNodePorts !== false);
    const list = (spec.ports ?? []) as Json[];
    for (const [index, port] of list.entries()) {
      if (port.nodePort !== undefined) this.checkPort(port, `spec.ports[${index}].nodePort`, place, causes);
    }
    if (causes.length > 0) return causes;
    spec.clusterIP ??= this.freeAddress();
    spec.clusterIPs = [spec.clusterIP];
    const taken = new Set<string>();
    for (const port of list) {
      if (spec.type === 'ClusterIP') delete port.nodePort;
      else if (wantsPorts) port.nodePort ??= this.freePort(port, list, taken);
      if (port.nodePort !== undefined) taken.add(`${port.protocol} ${port.nodePort}`);
    }
    return causes;
  }

  private checkAddress(text: string, place: string, causes: Cause[]): void {
    const address = parseAddress(text);
    const owner = this.addresses.get(text);
    let fault: string | undefined;
    if (address === undefined) fault = 'must be a valid IP address, such as 10.96.0.10, or None';
    else if ((address - this.prefix) >>> 0 >= this.size) {
      fault = `failed to allocate IP ${text}: the provided IP (${text}) is not in the valid range. The range of valid IPs is ${this.cidr}`;
    } else if (owner !== undefined && owner !== place) {
      fault = `failed to allocate IP ${text}: provided IP is already allocated`;
    }
    if (fault === undefined) return;
    const message = `Invalid value: [${JSON.stringify(text)}]: ${fault}`;
    causes.push({ reason: 'FieldValueInvalid', message, field: 'spec.clusterIPs' });
  }

  private checkPort(port: Json, field: string, place: string, causes: Cause[]): void {
    const { nodePort } = port;
    const { low, high } = NODE_PORTS;
    const owner = this.ports.get(`${port.protocol} ${nodePort}`);
    let fault: string | undefined;
    if (!(nodePort >= low && nodePort <= high)) {
      fault = `provided port is not in the valid range. The range of valid ports is ${low}-${high}`;
    } else if (owner !== undefined && owner !== place) fault = 'provided port is already allocated';
    if (fault === undefined) return;
    causes.push({ reason: 'FieldValueInvalid', message: `Invalid value: ${nodePort}: ${fault}`, field });
  }

  private freeAddress(): string {
    // Neither the network's own address nor its last, nor the first, which is the API's.
    const usable = this.size - 3;
    const start = this.choose(usable);
    for (let step = 0; step < usable; step++) {
      const text = formatAddress((this.prefix + 2 + ((start + step) % usable)) | 0);
      if (!this.addresses.has(text)) return text;
    }
    throw new Error(`no address is left in ${this.cidr}`);
  }

  /** Two ports of a service that differ in protocol alone get one number. */
  private freePort(port: Json, siblings: Json[], taken: ReadonlySet<string>): number {
    const isFree = (number: number): boolean =>
      !this.ports.has(`${port.protocol} ${number}`) && !taken.has(`${port.protocol} ${number}`);
    const twin = siblings.find(other => other !== port && other.port === port.port && other.nodePort !== undefined);
    if (twin !== undefined && isFree(twin.nodePort)) return twin.nodePort;
    const count = NODE_PORTS.high - NODE_PORTS.low + 1;
    const start = this.choose(count);
    for (let step = 0; step < count; step++) {
      const number = NODE_PORTS.low + ((start + step) % count);
      if (isFree(number)) return number;
    }
    throw new Error('no node port is left');
  }

  private follow({ storage, place, object, previous, type }: StoreEvent): void {
    if (storage !== 'services') return;
    if (previous !== undefined) this.forget(previous, place);
    if (type !== 'DELETED') this.note(object);
  }

  private note({ spec, metadata }: KubeObject): void {
    const place = `${metadata.namespace}/${metadata.name}`;
    if (spec.clusterIP !== undefined && spec.clusterIP !== 'None') this.addresses.set(spec.clusterIP, place);
    for (const port of spec.ports ?? []) {
      if (port.nodePort !== undefined) this.ports.set(`${port.protocol} ${port.nodePort}`, place);
    }
  }

  private forget({ spec }: KubeObject, place: string): void {
    if (this.addresses.get(spec.clusterIP) === place) this.addresses.delete(spec.clusterIP);
    for (const port of spec.ports ?? []) {
      const key = `${port.protocol} ${port.nodePort}`;
      if (this.ports.get(key) === place) this.ports.delete(key);
    }
  }
}
