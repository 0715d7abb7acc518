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

/** How long a node that is not there, or says nothing, is waited for, before the switch is taken back. */
const APPLY_PATIENCE_MS = 10_000;
const APPLY_AGAIN_MS = 200;
/** How long a node that is there may take to say what it has counted. */
const ACCOUNT_PATIENCE_MS = 2000;
const PROBE_SECONDS = '2';

export class LabSwitchHost implements SwitchHost {
  private readonly lab: string;
  private readonly topology: Topology;
  private readonly cluster: Cluster;
  private readonly agents: ReadonlyMap<string, NodeAgent>;
  private readonly since = new Map<string, string>();
  private readonly patienceMs: number;
  readonly save: (state: SwitchState) => Promise<void>;

  constructor(
    lab: string,
    topology: Topology,
    cluster: Cluster,
    agents: ReadonlyMap<string, NodeAgent>,
    save: (state: SwitchState) => Promise<void>,
    patienceMs = APPLY_PATIENCE_MS,
  ) {
    this.patienceMs = patienceMs;
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
    for (const deadline = performance.now() + this.patienceMs; ; await sleep(APPLY_AGAIN_MS)) {
      try {
        return await within(agent.flush(), deadline - performance.now());
      } catch (error) {
        if (performance.now() >= deadline) throw error;
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
      const answer = await this.askLedger(node);
      if (this.since.get(node) === answer.since) return answer;
      // One that was started again does not know of it, and counts only from here on.
      await this.agents.get(node)!.keepLedger(ACCOUNT_PATIENCE_MS);
      this.since.set(node, answer.since);
      return await this.askLedger(node);
    } catch {
      return undefined;
    }
  }

  private async askLedger(node: string): Promise<LedgerAnswer> {
    return (await callNode(socketOf(this.lab, node), 'ledger', {}, ACCOUNT_PATIENCE_MS)) as LedgerAnswer;
  }

  async wait(ms: number): Promise<void> {
    await sleep(ms);
  }

  now(): number {
    return performance.now();
  }
}

/** What comes of it afterwards is nobody's any more. @throws Error of the promise, or when the time is over */
async function within(done: Promise<void>, ms: number): Promise<void> {
  const late = new AbortController();
  const timeout = sleep(Math.max(0, ms), undefined, { signal: late.signal }).then(() => {
    throw new Error('the node says nothing');
  });
  try {
    await Promise.race([done, timeout]);
  } finally {
    late.abort();
    done.catch(() => {});
    timeout.catch(() => {});
  }
}
