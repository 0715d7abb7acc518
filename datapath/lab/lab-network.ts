/**
 * Makes a lab's nodes follow the switches of its cluster's network: by a TunnelSwitch, whose object shows how far it is, where
 * packets between nodes go another way; and says of each switch what is not carried out.
 */
import {
  encapsOf,
  type Network,
  networkOf,
  poolOf,
  type Source,
  type System,
  type Told,
} from '../api/agent/network.ts';
import { atRest } from '../api/agent/node-network.ts';
import {
  beginSwitch,
  differs,
  outcomeOf,
  type SwitchState,
  TERMINAL,
  TunnelSwitch,
} from '../api/agent/tunnel-switch.ts';
import type { Cluster } from '../api/controllers/cluster.ts';
import type { Controller } from '../api/controllers/manager.ts';
import type { Json, KubeObject } from '../api/object.ts';
import type { ModeOptions } from './modes.ts';
import type { NodeAgent } from './pods/node-agent.ts';
import { LabSwitchHost } from './switch-host.ts';
import { networkOfLab, systemOf } from './switches.ts';
import type { Topology } from './topology.ts';

const KEY = 'network';
const FOLLOWED = new Set(['configmaps', 'ippools.projectcalico.org', 'nodes']);
/** Those before are forgotten. */
const KEPT_SWITCHES = 10;

export class LabNetwork {
  private readonly cluster: Cluster;
  private readonly topology: Topology;
  private readonly options: ModeOptions;
  /** Whose switches count; undefined: of whom there is one. */
  private readonly system: System | undefined;
  private readonly agents: ReadonlyMap<string, NodeAgent>;
  private readonly host: LabSwitchHost;
  private current: Network | undefined;
  private last: SwitchState | undefined;
  /** A network that has been refused or taken back: it is not tried again until something else has been asked for. */
  private failed = '';
  private told = new Set<string>();

  /** @param options with which the lab was started */
  constructor(
    cluster: Cluster,
    topology: Topology,
    options: ModeOptions,
    agents: ReadonlyMap<string, NodeAgent>,
    lab: string,
  ) {
    this.cluster = cluster;
    this.topology = topology;
    this.options = options;
    this.system = systemOf(topology, options);
    this.agents = agents;
    this.host = new LabSwitchHost(lab, topology, cluster, agents, state => this.save(state));
  }

  /** Whether pods of that network get no address any more. */
  isClosed(podCidr: string): boolean {
    const { closed = [] } = this.current ?? {};
    return (
      poolOf(
        closed.map(cidr => ({ cidr, encap: null, direct: false })),
        podCidr,
      ) !== undefined
    );
  }

  readonly controller: Controller = {
    name: 'network',
    *keys() {
      yield KEY;
    },
    *affected({ storage }) {
      if (FOLLOWED.has(storage)) yield KEY;
    },
    reconcile: async () => {
      if (this.current === undefined) await this.resume();
      // What could not be written down stopped it half-way; its steps may be done twice.
      else if (this.last !== undefined && !TERMINAL.has(this.last.phase)) await this.carryOut(this.last);
      const { network, source, faults, remarks } = this.look();
      await this.tell(faults, 'Warning', 'NetworkRefused');
      await this.tell(remarks, 'Normal', 'NotCarriedOut');
      this.told = new Set([...faults, ...remarks].map(keyOf));
      if (network !== null && source !== null) await this.follow(network, source);
      return undefined;
    },
  };

  private look(): ReturnType<typeof networkOf> {
    const configMaps = ['kube-flannel', 'kube-system'].flatMap(namespace => this.cluster.list('ConfigMap', namespace));
    const objects = { configMaps, pools: this.cluster.list('IPPool'), nodes: this.cluster.list('Node') };
    return networkOf(objects, this.system);
  }

  /** Goes on with a switch that another process was killed in, and knows again which network there is. */
  private async resume(): Promise<void> {
    // One that was only just begun has no state: nothing has come of it yet.
    const object = this.switches().findLast(({ status }) => status?.state !== undefined);
    const state = object?.status?.state as SwitchState | undefined;
    if (state === undefined) return this.begin();
    this.last = state;
    if (TERMINAL.has(state.phase)) this.rest(outcomeOf(state));
    else await this.carryOut(state);
    const done = this.last;
    if (done.phase !== 'Done') this.failed = wordsOf(done.to);
  }

  /**
   * No switch has been written down. The objects may say already what nobody has begun to carry out; then the nodes are where
   * the lab put them.
   */
  private begin(): void {
    const first = networkOfLab(this.topology, this.options);
    if (first === undefined) return;
    const { network } = this.look();
    const isCarriedOut = network !== null && [...this.agents.values()].every(agent => agent.isOn(atRest(network)));
    this.rest(isCarriedOut ? network : first);
  }

  private async follow(network: Network, source: Source): Promise<void> {
    const { current } = this;
    const words = wordsOf(network);
    if (current === undefined) {
      this.rest(network);
      return;
    }
    if (words === wordsOf(current)) {
      this.failed = '';
      return;
    }
    if (words === this.failed) return;
    this.failed = '';
    if (!differs(current, network)) {
      // Tunnels keep the names that they have.
      this.rest({ ...network, pools: network.pools.map((pool, i) => ({ ...pool, encap: current.pools[i]!.encap })) });
      return;
    }
    const before = this.last ?? { epoch: 1, base: {} };
    const state = beginSwitch(current, network, before);
    const name = `switch-${state.epoch}`;
    await this.cluster.create('TunnelSwitch', {
      metadata: { name },
      spec: { from: describe(current), to: describe(network), source: { ...source } },
    });
    this.last = state;
    await this.save(state);
    await this.carryOut(state);
    const { phase, message, loose } = this.last;
    if (phase !== 'Done') {
      this.failed = words;
      const what = phase === 'Refused' ? 'refused' : 'taken back';
      await this.say(source, 'Warning', 'NetworkRefused', `${name}: ${what}, all stays as it was: ${message}`);
    } else {
      await this.say(source, 'Normal', 'NetworkSwitched', `${name}: ${describe(current)} to ${describe(network)}`);
      if (loose.length > 0) {
        const text = `${name}: there is no way of the nodes' own, so routers decide: ${loose.join(', ')}`;
        await this.say(source, 'Warning', 'NoWay', text);
      }
    }
    await this.forgetOld();
  }

  private async carryOut(state: SwitchState): Promise<void> {
    this.last = await new TunnelSwitch(this.host, state).run();
    this.rest(outcomeOf(this.last));
  }

  private rest(network: Network): void {
    this.current = network;
    for (const agent of this.agents.values()) agent.follow(atRest(network));
  }

  private async save(state: SwitchState): Promise<void> {
    this.last = state;
    const object = this.cluster.find('TunnelSwitch', undefined, `switch-${state.epoch}`);
    if (object === undefined) return;
    const { phase, message, epoch, moved, loose, ledger } = state;
    const nodes = this.host.nodes().length;
    const lost = ledger.map(row => row.lost);
    await this.cluster.setStatus(object, {
      phase,
      message,
      epoch,
      moved: `${phase === 'Done' ? nodes * (nodes - 1) : moved.length}/${nodes * (nodes - 1)}`,
      loose,
      ledger,
      ...(lost.length === 0 || lost.includes(null)
        ? {}
        : { lost: lost.reduce<number>((sum, one) => sum + (one ?? 0), 0) }),
      state,
    });
  }

  private switches(): KubeObject[] {
    const epochOf = ({ metadata }: KubeObject): number => Number(metadata.name.slice('switch-'.length));
    return this.cluster.list('TunnelSwitch').sort((a, b) => epochOf(a) - epochOf(b));
  }

  private async forgetOld(): Promise<void> {
    for (const object of this.switches().slice(0, -KEPT_SWITCHES)) await this.cluster.delete(object);
  }

  private async tell(list: readonly Told[], type: 'Normal' | 'Warning', reason: string): Promise<void> {
    for (const one of list) {
      if (this.told.has(keyOf(one))) continue;
      await this.say(one.source, type, reason, `${one.message}${type === 'Warning' ? '; all stays as it was' : ''}`);
    }
  }

  private async say(source: Source, type: 'Normal' | 'Warning', reason: string, message: string): Promise<void> {
    const { kind, namespace, name } = source;
    const object = this.cluster.find(kind, namespace, name);
    if (object !== undefined) await this.cluster.event(object, type, reason, message);
  }
}

function keyOf({ source, message }: Told): string {
  return `${source.kind} ${source.namespace ?? ''}/${source.name} ${message}`;
}

/** All of a network but what its tunnels are called. */
function wordsOf(network: Network): string {
  const pools = network.pools.map(({ encap, ...pool }): Json => ({ ...pool, encap: encap && { ...encap, name: '' } }));
  return JSON.stringify({ ...network, pools });
}

/** `vxlan:8472`, `ipip, direct`, `native` */
function describe(network: Network): string {
  const encaps = encapsOf(network).map(({ protocol, port, vni }) =>
    [protocol, ...(port === undefined ? [] : [port]), ...(typeof vni === 'number' && vni > 1 ? [vni] : [])].join(':'),
  );
  const isDirect = network.pools.some(({ direct }) => direct);
  return encaps.length === 0 ? 'native' : `${encaps.join('+')}${isDirect ? '+direct' : ''}`;
}
