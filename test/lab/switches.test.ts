/** The objects that a lab's cluster has say the network that the lab's mode is. */
import assert from 'node:assert/strict';
import { stringify } from 'yaml';
import { atRest } from '../../datapath/api/agent/node-network.ts';
import type { Json, KubeObject } from '../../datapath/api/object.ts';
import { loadConfig } from '../../datapath/control/load-config.ts';
import { nodeObject } from '../../datapath/lab/api-objects.ts';
import { MODES, nodeConfig } from '../../datapath/lab/modes.ts';
import { networkOfLab, networkSpec, switchObjects } from '../../datapath/lab/switches.ts';
import type { Topology } from '../../datapath/lab/topology.ts';
import { TOPOLOGIES } from '../../datapath/lab/topology-file.ts';

const nodesOf = ({ nodes }: Topology): KubeObject[] =>
  nodes.map(node =>
    nodeObject(node, '2026-01-01T00:00:00Z', { kernel: '6.18', cpus: 2, memoryKi: 4096 }),
  ) as KubeObject[];

describe("a lab's switches", () => {
  for (const topology of Object.values(TOPOLOGIES)) {
    for (const mode of MODES) {
      const objects = switchObjects(topology, { mode });
      if (objects.length === 0) continue;
      it(`${topology.name}, ${mode}: leave every node as the mode has it`, () => {
        const network = networkOfLab(topology, { mode });
        assert.ok(network !== undefined);
        for (const node of topology.nodes) {
          const written = nodeConfig('t', topology, node, { mode });
          const spec: Json = {
            ...written.spec,
            ...networkSpec(topology, node.name, nodesOf(topology), atRest(network)),
          };
          // Of a system whose topology is another's, the rules of masquerade are its own.
          if (topology.masquerade !== network.system) delete spec.masquerade;
          else assert.deepEqual(spec.masquerade, written.spec.masquerade);
          const loaded = loadConfig(
            stringify({ ...written, spec: { ...spec, masquerade: written.spec.masquerade } }),
            'a',
          );
          assert.equal(loaded.problems, undefined);
          assert.deepEqual(loaded.config, loadConfig(stringify(written), 'b').config);
        }
      });
    }
  }

  it('are those of the system, and none where it has no such mode', () => {
    const names = (topology: string, mode: (typeof MODES)[number]) =>
      switchObjects(TOPOLOGIES[topology]!, { mode }).map(({ object }) => object.metadata.name);
    assert.deepEqual(names('cilium', 'geneve'), ['cilium-config']);
    assert.deepEqual(names('cilium', 'ipip'), ['default-ipv4-ippool']);
    assert.deepEqual(names('calico', 'geneve'), []);
    assert.deepEqual(names('flannel', 'vxlan'), ['kube-flannel', 'kube-flannel-cfg']);
    assert.deepEqual(names('aws', 'native'), []);
  });
});
