/** How a lab's API follows the switches of its network, when it begins and when nodes say nothing. No devices. */
import assert from 'node:assert/strict';
import { encapsOf } from '../../datapath/api/agent/network.ts';
import type { NetworkPlan } from '../../datapath/api/agent/node-network.ts';
import { Manager } from '../../datapath/api/controllers/manager.ts';
import { nodeObject } from '../../datapath/lab/api-objects.ts';
import { LabNetwork } from '../../datapath/lab/lab-network.ts';
import type { ModeOptions } from '../../datapath/lab/modes.ts';
import type { NodeAgent } from '../../datapath/lab/pods/node-agent.ts';
import { LabSwitchHost } from '../../datapath/lab/switch-host.ts';
import { switchObjects } from '../../datapath/lab/switches.ts';
import type { Topology } from '../../datapath/lab/topology.ts';
import { topologyNamed } from '../../datapath/lab/topology-file.ts';
import { ClusterRig } from '../api/cluster-rig.ts';

const OPTIONS: ModeOptions = { mode: 'vxlan' };

/** An agent that says no to every switch, and remembers what it was to follow. */
class FakeAgent {
  readonly plans: NetworkPlan[] = [];
  on: string;

  constructor(on: string) {
    this.on = on;
  }

  get asAgent(): NodeAgent {
    return this as unknown as NodeAgent;
  }

  isOn(plan: NetworkPlan): boolean {
    return namesOf(plan).join() === this.on;
  }

  follow(plan: NetworkPlan): void {
    this.plans.push(plan);
  }

  async findFaults(): Promise<string[]> {
    return ['no'];
  }

  /** As of a node that is stopped. */
  flush(): Promise<void> {
    return new Promise(() => {});
  }
}

function namesOf({ accepts }: NetworkPlan): string[] {
  return accepts.flatMap(network => encapsOf(network).map(({ name }) => name));
}

async function withNetwork(
  on: string,
  patched: boolean,
  run: (rig: ClusterRig, agents: FakeAgent[], topology: Topology) => void | Promise<void>,
): Promise<void> {
  const topology = topologyNamed('cilium');
  const rig = await ClusterRig.start([]);
  for (const node of topology.nodes)
    await rig.cluster.create('Node', nodeObject(node, rig.cluster.now, { kernel: 'test', cpus: 2, memoryKi: 4096 }));
  for (const { kind, object } of switchObjects(topology, OPTIONS)) await rig.cluster.create(kind, object);
  if (patched) {
    const config = rig.cluster.find('ConfigMap', 'kube-system', 'cilium-config')!;
    await rig.cluster.change(config, object => ({ ...object, data: { ...object.data, 'tunnel-protocol': 'geneve' } }));
  }
  const agents = new Map(topology.nodes.map(({ name }) => [name, new FakeAgent(on)]));
  const asAgents = new Map([...agents].map(([name, agent]) => [name, agent.asAgent]));
  const network = new LabNetwork(rig.cluster, topology, OPTIONS, asAgents, 'none');
  const manager = new Manager(rig.api.store, rig.cluster, [network.controller], text => rig.errors.push(text));
  await manager.settle();
  assert.deepEqual(rig.errors, []);
  await run(rig, [...agents.values()], topology);
  manager.stop();
  await rig.stop();
}

describe("a lab's network", () => {
  it('is that of its mode', () =>
    withNetwork('vxlan', false, (rig, agents) => {
      for (const { plans } of agents) assert.deepEqual(plans.map(namesOf), [['vxlan']]);
      assert.deepEqual(rig.cluster.list('TunnelSwitch'), []);
    }));

  it('goes over by a switch to what was asked for before the API was killed', () =>
    withNetwork('vxlan', true, (rig, agents) => {
      // At once: vxlan, as the nodes have it. Then a switch has been begun, which these refuse.
      for (const { plans } of agents) for (const plan of plans) assert.deepEqual(namesOf(plan), ['vxlan']);
      const [object] = rig.cluster.list('TunnelSwitch');
      assert.deepEqual([object?.spec.from, object?.spec.to], ['vxlan:8472', 'geneve:6081']);
      assert.equal(object?.status?.phase, 'Refused');
    }));

  it('stays as it is where it has been carried out, and what wrote that down is gone', () =>
    withNetwork('geneve', true, (rig, agents) => {
      for (const { plans } of agents) assert.deepEqual(plans.map(namesOf), [['geneve']]);
      assert.deepEqual(rig.cluster.list('TunnelSwitch'), []);
    }));

  it('does not wait long for a node that is stopped', () =>
    withNetwork('vxlan', false, async (rig, [agent], topology) => {
      const { name } = topology.nodes[0]!;
      const agents = new Map([[name, agent!.asAgent]]);
      const host = new LabSwitchHost('none', topology, rig.cluster, agents, async () => {}, 20);
      await assert.rejects(host.apply(name, agent!.plans[0]!), { message: 'the node says nothing' });
    }));
});
