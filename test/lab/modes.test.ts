import assert from 'node:assert/strict';
import { stringify } from 'yaml';
import { formatProblems, loadConfig } from '../../datapath/control/load-config.ts';
import { LabError } from '../../datapath/lab/lab-error.ts';
import { type LabNodeConfig, MODES, type ModeOptions, nodeConfig, parseMode } from '../../datapath/lab/modes.ts';
import { routerOf, type Topology } from '../../datapath/lab/topology.ts';
import { TOPOLOGIES } from '../../datapath/lab/topology-file.ts';

function configOf(topology: Topology, node: string, options: ModeOptions): LabNodeConfig['spec'] {
  return nodeConfig('t', topology, topology.nodes.find(candidate => candidate.name === node)!, options).spec;
}

/** `TO via VIA`, with `encap` behind it where the route goes through the tunnel. */
function routesOf(spec: LabNodeConfig['spec']): string[] {
  return spec.routes.map(route => `${route.to} via ${route.via}${route.encap ? ' encap' : ''}`);
}

const { cilium, calico, flannel } = TOPOLOGIES as Record<'cilium' | 'calico' | 'flannel', Topology>;

describe('nodeConfig', () => {
  for (const topology of Object.values(TOPOLOGIES)) {
    for (const mode of MODES) {
      it(`${topology.name}, ${mode}: a node accepts it`, () => {
        for (const node of topology.nodes) {
          const loaded = loadConfig(stringify(nodeConfig('t', topology, node, { mode })), `${node.name}.yaml`);
          assert.equal(loaded.problems === undefined ? '' : formatProblems(loaded.problems), '');
        }
      });
    }
  }

  it('native: direct routes to the own subnet only, the rest through the router, as article 001 prints it', () => {
    assert.deepEqual(routesOf(configOf(cilium, 'k8s-ctr', { mode: 'native' })), [
      '172.20.1.0/24 via 192.168.10.101',
      '10.10.0.0/16 via 192.168.10.200',
      '172.20.0.0/16 via 192.168.10.200',
      '0.0.0.0/0 via 192.168.10.200',
    ]);
    assert.deepEqual(routesOf(configOf(cilium, 'k8s-w0', { mode: 'native' })), [
      '10.10.0.0/16 via 192.168.20.200',
      '172.20.0.0/16 via 192.168.20.200',
      '0.0.0.0/0 via 192.168.20.200',
    ]);
  });

  it('crosssubnet: direct inside the subnet, a tunnel across', () => {
    assert.deepEqual(routesOf(configOf(calico, 'k8s-w1', { mode: 'crosssubnet' })), [
      '172.16.184.0/26 via 192.168.10.102',
      '172.16.34.0/26 via 192.168.20.100 encap',
      '0.0.0.0/0 via 192.168.10.200',
    ]);
  });

  it('tunnels: every other node is a peer and encapsulated', () => {
    const spec = configOf(cilium, 'k8s-w1', { mode: 'vxlan' });
    assert.deepEqual(routesOf(spec).slice(0, 2), [
      '172.20.0.0/24 via 192.168.10.100 encap',
      '172.20.2.0/24 via 192.168.20.100 encap',
    ]);
    assert.deepEqual(spec.tunnel.peers, [
      { address: '192.168.10.100', mac: '42:59:64:e0:f6:38' },
      { address: '192.168.20.100', mac: 'ee:f6:72:2b:b9:b9' },
    ]);
  });

  const overlays: [Topology, ModeOptions, port: number, vni: number | 'identity', profile: string][] = [
    [cilium, { mode: 'vxlan' }, 8472, 'identity', 'cilium'],
    [cilium, { mode: 'geneve' }, 6081, 'identity', 'cilium'],
    [calico, { mode: 'vxlan' }, 4789, 4096, 'calico'],
    [flannel, { mode: 'vxlan' }, 8472, 1, 'flannel'],
    [cilium, { mode: 'vxlan', profile: 'linux' }, 4789, 1, 'linux'],
    [cilium, { mode: 'geneve', profile: 'rfc' }, 6081, 1, 'rfc'],
  ];
  for (const [topology, options, port, vni, profile] of overlays) {
    it(`${topology.name}, ${options.mode}, profile ${options.profile ?? 'by default'}: port ${port}, VNI ${vni}`, () => {
      const spec = configOf(topology, topology.nodes[0]!.name, options);
      assert.deepEqual([spec.tunnel.port, spec.tunnel.vni, spec.profile], [port, vni, profile]);
    });
  }

  it('gives each lab its own namespaces and node names', () => {
    const node = cilium.nodes[0]!;
    const names = ['one', 'two'].flatMap(lab => {
      const config = nodeConfig(lab, cilium, node, { mode: 'native' });
      return [config.metadata.name, ...config.spec.pods.map(pod => ('netns' in pod ? pod.netns : ''))];
    });
    assert.equal(new Set(names).size, names.length);
  });
});

describe('parseMode', () => {
  it('knows every mode', () => {
    for (const mode of MODES) assert.equal(parseMode(mode), mode);
  });

  it('refuses others as wrong usage', () => {
    assert.throws(
      () => parseMode('gre'),
      (error: unknown) => error instanceof LabError && error.exitCode === 2,
    );
  });
});

describe('TOPOLOGIES', () => {
  for (const topology of Object.values(TOPOLOGIES)) {
    it(`${topology.name}: names, addresses and MACs are unique, and every device name fits`, () => {
      const { nodes, pods } = topology;
      const router = routerOf(topology);
      const names = [...nodes, ...pods, router].map(host => host.name);
      assert.equal(new Set(names).size, names.length);
      for (const { name } of nodes) assert.ok(name.length <= 15, name);
      for (const leg of router.legs) assert.ok(`${router.name}-${leg.device}`.length <= 15);

      const addresses = [...nodes.flatMap(node => [node.address, node.hostAddress]), ...pods.map(pod => pod.address)];
      assert.equal(new Set(addresses).size, addresses.length);
      const macs = nodes.flatMap(node => [node.mac, node.vtepMac]);
      assert.equal(new Set(macs).size, macs.length);
      for (const pod of pods)
        assert.ok(
          nodes.some(node => node.name === pod.node),
          pod.name,
        );
    });
  }
});
