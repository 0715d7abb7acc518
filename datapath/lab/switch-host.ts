/** What a switch of tunnels is carried out on in a lab: its nodes, by their agents, and packets between their host ports. */
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { type Network, podCidrsOf, poolOf } from '../api/agent/network.ts';
import { internalIP, isNear, type NetworkPlan } from '../api/agent/node-network.ts';
import type { Account, SwitchHost, SwitchState } from '../api/agent/tunnel-switch.ts';
import type { Cluster } from '../api/controllers/cluster.ts';
import { callNode } from '../control/client.ts';
import type { LedgerAnswer } from '../control/ledger.ts';
import { memberEnvironment, namespaceOf, socketOf } from './names.ts';
import type { NodeAgent } from './pods/node-agent.ts';
import type { Topology } from './topology.ts';

/** How long a node that is not there is waited for, before the switch is taken back. */
const APPLY_PATIENCE_MS = 10_000;
const APPLY_AGAIN_MS = 200;
const PROBE_SECONDS = '2';

export class LabSwitchHost implements SwitchHost {
  private readonly lab: string;
  private readonly topology: Topology;
  private readonly cluster: Cluster;
  private readonly agents: ReadonlyMap<string, NodeAgent>;
  private readonly since = new Map<string, string>();
  readonly save: (state: SwitchState) => Promise<void>;

  constructor(
    lab: string,
    topology: Topology,
    cluster: Cluster,
    agents: ReadonlyMap<string, NodeAgent>,
    save: (state: SwitchState) => Promise<void>,
  ) {
    this.lab = lab;
    this.topology = topology;
    this.cluster = cluster;
    this.agents = agents;
    this.save = save;
  }

  nodes(): string[] {
    return [...this.agents.keys()];
  }

  wayOf({ pools, plain }: Network, sender: string, receiver: string): string | null {
    const from = this.topology.nodes.find(({ name }) => name === sender)!;
    const object = this.cluster.find('Node', undefined, receiver);
    const address = object === undefined ? undefined : internalIP(object);
    if (object === undefined || address === undefined) return null;
    const podCidrs = podCidrsOf(object);
    const near = isNear({ subnet: from.address, podCidrs: [] }, { name: receiver, address, podCidrs });
    const pool = podCidrs[0] === undefined ? undefined : poolOf(pools, podCidrs[0]);
    if (pool !== undefined && pool.encap !== null && !(pool.direct && near)) return pool.encap.name;
    return near && plain !== 'none' ? '' : null;
  }

  check(node: string, plan: NetworkPlan): Promise<string[]> {
    return this.agents.get(node)!.findFaults(plan);
  }

  async apply(node: string, plan: NetworkPlan): Promise<void> {
    const agent = this.agents.get(node)!;
    agent.follow(plan);
    for (const deadline = performance.now() + APPLY_PATIENCE_MS; ; await sleep(APPLY_AGAIN_MS)) {
      try {
        return await agent.flush();
      } catch (error) {
        if (performance.now() > deadline) throw error;
      }
    }
  }

  /** By an echo between the nodes' own addresses on the pod network, which go as pods' packets do. */
  async confirm(sender: string, receiver: string): Promise<boolean> {
    const addressOf = (node: string): string => this.topology.nodes.find(({ name }) => name === node)!.hostAddress;
    const ping = ['ping', '-q', '-c', '1', '-W', PROBE_SECONDS, '-I', addressOf(sender), addressOf(receiver)];
    const { exitCode } = await execa('ip', ['netns', 'exec', namespaceOf(this.lab, sender), ...ping], {
      env: memberEnvironment(this.lab),
      reject: false,
      stdin: 'ignore',
    });
    return exitCode === 0;
  }

  async account(node: string): Promise<Account | undefined> {
    try {
      const answer = (await callNode(socketOf(this.lab, node), 'ledger')) as LedgerAnswer;
      // One that was started again does not know of it.
      if (this.since.get(node) !== answer.since) await this.agents.get(node)!.keepLedger();
      this.since.set(node, answer.since);
      return answer;
    } catch {
      return undefined;
    }
  }

  async wait(ms: number): Promise<void> {
    await sleep(ms);
  }
}
