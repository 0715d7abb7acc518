/** Keeps one node's datapath as the API has it: its network, services, policies, and pods that came after the lab. The rest stays. */
import { readFileSync } from 'node:fs';
import { isDeepStrictEqual } from 'node:util';
import { parse, stringify } from 'yaml';
import { type Refused, withoutFaulty } from '../../api/agent/acceptable.ts';
import { podCidrsOf } from '../../api/agent/network.ts';
import type { NetworkPlan } from '../../api/agent/node-network.ts';
import { compilePolicies } from '../../api/agent/policies.ts';
import { compileServices } from '../../api/agent/services.ts';
import type { Cluster } from '../../api/controllers/cluster.ts';
import type { Json } from '../../api/object.ts';
import { callNode } from '../../control/client.ts';
import type { Problem } from '../../control/load-config.ts';
import type { ApplyResult } from '../../control/node.ts';
import { replaceFile } from '../../io/replace-file.ts';
import { nodeNameOf, socketOf, stateDirOf } from '../names.ts';
import { networkSpec } from '../switches.ts';
import type { Topology } from '../topology.ts';

/** Changes of one moment go to the node together. */
const DEBOUNCE_MS = 20;
const RETRY_MS = 1000;
const APPLY_TIMEOUT_MS = 60_000;
/** To look whether a node would take a configuration. */
const CHECK_TIMEOUT_MS = 10_000;

/** Kinds of which the node's configuration speaks. */
const FOLLOWED = new Set([
  'services',
  'endpointslices.discovery.k8s.io',
  'networkpolicies.networking.k8s.io',
  'namespaces',
  'pods',
  'nodes',
]);

/** An item of a NodeConfig's `spec.pods`. */
export interface PodEntry {
  name: string;
  netns: string;
  device: string;
  address: string;
  labels: Record<string, string>;
  ports: Json[];
  identity: number;
}

export class NodeAgent {
  readonly name: string;
  /** How packets go between nodes; undefined: as the lab's mode says. */
  private plan: NetworkPlan | undefined;
  private readonly topology: Topology;
  private readonly lab: string;
  private readonly cluster: Cluster;
  private readonly ownPods: Json[];
  private readonly pods = new Map<string, PodEntry>();
  private readonly told = new Set<string>();
  private applied = '';
  private complaint = '';
  private readonly onError: (text: string) => void;
  private timer: NodeJS.Timeout | undefined;
  private running: Promise<void> = Promise.resolve();
  private waiting: { resolve: () => void; reject: (error: Error) => void }[] = [];

  /** @param ownPods names of the pods that the lab itself has on the node */
  constructor(
    lab: string,
    topology: Topology,
    name: string,
    cluster: Cluster,
    ownPods: ReadonlySet<string>,
    onError: (text: string) => void,
  ) {
    this.onError = onError;
    this.lab = lab;
    this.topology = topology;
    this.name = name;
    this.cluster = cluster;
    this.ownPods = this.read().spec.pods.filter(({ netns, kind }: Json) => kind === 'memory' || ownPods.has(netns));
  }

  static follows(storage: string): boolean {
    return FOLLOWED.has(storage);
  }

  /** A pod that is to be attached, from the next application on. */
  set(entry: PodEntry): void {
    this.pods.set(entry.name, entry);
    this.changed();
  }

  /** @param withLabPod its namespace, where it is one of the lab's own */
  remove(name: string, withLabPod?: string): void {
    this.pods.delete(name);
    const own = this.ownPods.findIndex(
      ({ netns, name: ownName }) => netns === withLabPod || (netns === undefined && ownName === name),
    );
    if (own >= 0) this.ownPods.splice(own, 1);
    this.changed();
  }

  /** What the node's network is to be, from the next application on. */
  follow(plan: NetworkPlan): void {
    this.plan = plan;
    this.changed();
  }

  /** Whether that is the network of the configuration that the node has now. */
  isOn(plan: NetworkPlan): boolean {
    const { spec } = this.read();
    const { tunnel, tunnels, routes } = networkSpec(this.topology, this.name, this.cluster.list('Node'), plan);
    // As it is read again once it has been written.
    const wanted = parse(stringify({ tunnel, tunnels, routes }));
    return isDeepStrictEqual({ tunnel: spec.tunnel, tunnels: spec.tunnels ?? [], routes: spec.routes }, wanted);
  }

  /** What the node would not take of such a network, a line each. Where it is not there, what no node would. */
  async findFaults(plan: NetworkPlan): Promise<string[]> {
    const { config, problems } = this.compile(plan);
    if (problems.length > 0) return problems.map(({ path, message }) => `${path}: ${message}`);
    const request = { text: stringify(config), file: this.path, dryRun: true };
    try {
      const result = (await this.call('apply', request, CHECK_TIMEOUT_MS)) as ApplyResult;
      const refused = (result.refused ?? []).map(({ path, message }) => `${path.join('.')}: ${message}`);
      return [...(result.problems ?? []).map(({ path, message }) => `${path}: ${message}`), ...refused];
    } catch {
      return [];
    }
  }

  /** Lets the node count what goes to and comes from each other one. @throws ControlError where it is not there */
  async keepLedger(patienceMs = APPLY_TIMEOUT_MS): Promise<void> {
    const nodes = this.cluster.list('Node');
    const own = nodes.filter(({ metadata }) => metadata.name === this.name).flatMap(podCidrsOf);
    const peers = nodes
      .filter(({ metadata }) => metadata.name !== this.name)
      .map(node => ({ name: node.metadata.name, networks: podCidrsOf(node) }));
    await this.call('keep-ledger', { own, peers }, patienceMs);
  }

  private call(method: string, params: Record<string, unknown>, patienceMs = APPLY_TIMEOUT_MS): Promise<unknown> {
    return callNode(socketOf(this.lab, this.name), method, params, patienceMs);
  }

  changed(): void {
    this.timer ??= setTimeout(() => this.run(), DEBOUNCE_MS);
  }

  /** Returns when the node has all that was set before. @throws Error where it does not take it */
  flush(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.waiting.push({ resolve, reject });
      this.changed();
    });
  }

  private run(): void {
    this.running = this.running.then(async () => {
      this.timer = undefined;
      const waiting = this.waiting.splice(0);
      try {
        await this.apply();
        for (const { resolve } of waiting) resolve();
      } catch (error) {
        this.complain((error as Error).message);
        for (const { reject } of waiting) reject(error as Error);
        setTimeout(() => this.changed(), RETRY_MS).unref();
      }
    });
  }

  /** The same again is no news. */
  private complain(message: string): void {
    if (message !== this.complaint) this.onError(`${this.name}: ${message}`);
    this.complaint = message;
  }

  private get path(): string {
    return `${stateDirOf(this.lab)}/${this.name}.yaml`;
  }

  private read(): Json {
    return parse(readFileSync(this.path, 'utf8'));
  }

  /** @throws Error where the node is not there, or refuses */
  private async apply(): Promise<void> {
    const { config, refused } = this.compile();
    const text = stringify(config);
    await this.tell(refused);
    if (text === this.applied) return;
    const request = { text, file: this.path };
    const result = (await this.call('apply', request)) as ApplyResult;
    if (result.applied === undefined) {
      const faults = (result.problems ?? result.refused ?? []).map(({ message }) => message).join('; ');
      const node = this.cluster.find('Node', undefined, this.name);
      if (node !== undefined)
        await this.cluster.event(node, 'Warning', 'FailedToApply', `all stays as it was: ${faults}`);
      throw new Error(`the node does not take its configuration: ${faults}`);
    }
    this.applied = text;
    this.complaint = '';
    // What the lab's other commands read, and a node that is started again, is what the node runs.
    replaceFile(this.path, text);
    await this.keepLedger();
  }

  /** The configuration that the node should have, without what no node would take. */
  private compile(plan = this.plan): { config: Json; refused: Refused[]; problems: Problem[] } {
    const nodeName = (name: string): string => nodeNameOf(this.lab, name);
    const { cluster } = this;
    const { services, refused: unable } = compileServices(
      // The API is no pod, and nobody is behind its cluster address.
      cluster
        .list('Service')
        .filter(({ metadata }) => metadata.name !== 'kubernetes' || metadata.namespace !== 'default'),
      cluster.list('EndpointSlice'),
      nodeName,
    );
    const { policies, namespaces, remotePods } = compilePolicies(
      cluster.list('NetworkPolicy'),
      cluster.list('Namespace'),
      cluster.list('Pod').filter(pod => pod.spec.nodeName !== this.name),
    );
    const refused: Refused[] = unable.map(one => ({ kind: 'Service', ...one }));
    const config = this.read();
    const { spec } = config;
    spec.pods = [...this.ownPods.map(pod => this.asLabelled(pod)), ...this.pods.values()];
    Object.assign(spec, { namespaces, remotePods });
    Object.assign(spec, { services, policies });
    if (plan !== undefined) Object.assign(spec, networkSpec(this.topology, this.name, cluster.list('Node'), plan));
    const taken = withoutFaulty(config, this.path);
    return { config: taken.config, refused: [...refused, ...taken.refused], problems: taken.problems };
  }

  /** A pod that came with the lab, with the labels that its object has by now. */
  private asLabelled(pod: Json): Json {
    const [namespace, name] = pod.name.split('/') as [string, string];
    const labels = this.cluster.find('Pod', namespace, name)?.metadata.labels;
    return labels === undefined ? pod : { ...pod, labels };
  }

  private async tell(refused: readonly Refused[]): Promise<void> {
    for (const { kind, place, message } of refused) {
      const key = `${kind} ${place} ${message}`;
      if (this.told.has(key)) continue;
      this.told.add(key);
      const [namespace, name] = place.split('/') as [string, string];
      const object = this.cluster.find(kind, namespace, name);
      if (object === undefined) continue;
      await this.cluster.event(object, 'Warning', kind === 'Service' ? 'NotForwarded' : 'NotEnforced', message);
    }
  }
}
