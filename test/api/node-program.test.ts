/** From the objects of a cluster to the configuration of one of its nodes. */
import assert from 'node:assert/strict';
import { stringify } from 'yaml';
import { withoutFaulty } from '../../datapath/api/agent/acceptable.ts';
import { type ClusterObjects, compileNode } from '../../datapath/api/agent/node-program.ts';
import type { Json, KubeObject } from '../../datapath/api/object.ts';
import { loadConfig } from '../../datapath/control/load-config.ts';

const node = (name: string, address: string, podCIDR: string, annotations: Json = {}): KubeObject =>
  ({
    metadata: { name, annotations },
    spec: { podCIDR, podCIDRs: [podCIDR, 'fd00::/64'] },
    status: {
      addresses: [
        { type: 'Hostname', address: name },
        { type: 'InternalIP', address: 'fd00::1' },
        { type: 'InternalIP', address },
      ],
    },
  }) as unknown as KubeObject;

const pod = (name: string, nodeName: string, podIP: string, more: Json = {}): KubeObject =>
  ({
    metadata: { name, namespace: 'default', labels: { app: name } },
    spec: { nodeName, containers: [{ ports: [{ name: 'http', containerPort: 80, protocol: 'TCP' }] }], ...more },
    status: { podIP, phase: 'Running' },
  }) as unknown as KubeObject;

const objects = (more: Partial<ClusterObjects> = {}): ClusterObjects => ({
  nodes: [
    node('a', '192.168.10.1', '10.244.0.0/24'),
    node('b', '192.168.10.2', '10.244.1.0/24'),
    node('c', '192.168.20.1', '10.244.2.0/24'),
  ],
  pods: [
    pod('p', 'a', '10.244.0.2'),
    pod('q', 'b', '10.244.1.2'),
    pod('h', 'a', '192.168.10.1', { hostNetwork: true }),
  ],
  services: [
    {
      metadata: { name: 'web', namespace: 'default' },
      spec: { type: 'ClusterIP', clusterIP: '10.96.0.7', ports: [{ port: 80, protocol: 'TCP' }] },
    } as unknown as KubeObject,
  ],
  slices: [
    {
      metadata: { name: 'web-1', namespace: 'default', labels: { 'kubernetes.io/service-name': 'web' } },
      addressType: 'IPv4',
      ports: [{ name: '', port: 80, protocol: 'TCP' }],
      endpoints: [
        { addresses: ['10.244.0.2'], nodeName: 'a', conditions: { ready: true } },
        { addresses: ['10.244.1.2'], nodeName: 'b', conditions: { ready: true } },
      ],
    } as unknown as KubeObject,
  ],
  policies: [],
  namespaces: [],
  configMaps: [],
  pools: [],
  endpoints: [],
  ...more,
});

const base = (spec: Json = {}): Json => ({
  apiVersion: 'tunpath.dev/v1',
  kind: 'NodeConfig',
  metadata: { name: 'one' },
  spec: {
    uplink: {
      kind: 'tap',
      device: 'ul0',
      mac: '02:00:00:00:00:01',
      address: '192.168.10.1/24',
      gateway: '192.168.10.254',
    },
    ...spec,
  },
});

const configMap = (name: string, data: Json): KubeObject => ({ metadata: { name }, data }) as unknown as KubeObject;

function compiled(spec: Json, more: Partial<ClusterObjects> = {}, exists = true) {
  const program = compileNode(base(spec), objects(more), 'a', () => exists);
  const loaded = loadConfig(stringify(program.config), 'test');
  assert.deepEqual(loaded.problems, undefined);
  return { ...program, spec: program.config.spec as Json };
}

describe('a node of a cluster', () => {
  it('has pods, services and routes as the objects say', () => {
    const { spec, missing } = compiled({});
    assert.deepEqual(missing, []);
    assert.deepEqual(
      spec.pods.map(({ name, netns, address }: Json) => [name, netns, address]),
      [['default/p', 'default.p', '10.244.0.2/32']],
    );
    assert.deepEqual(spec.routes, [
      { to: '10.244.1.0/24', via: '192.168.10.2' },
      { to: '10.244.2.0/24', via: '192.168.10.254' },
    ]);
    assert.deepEqual(
      spec.services[0].endpoints.map(({ nodeName }: Json) => nodeName),
      ['one', 'b'],
    );
  });

  it("flannel's ConfigMap says how packets go between nodes, and its annotations who has which MAC", () => {
    const net = { Network: '10.244.0.0/16', Backend: { Type: 'vxlan', DirectRouting: true } };
    const { spec } = compiled(
      {},
      {
        configMaps: [configMap('kube-flannel-cfg', { 'net-conf.json': JSON.stringify(net) })],
        nodes: [
          node('a', '192.168.10.1', '10.244.0.0/24', {
            'flannel.alpha.coreos.com/backend-data': '{"VNI":1,"VtepMAC":"02:00:00:00:0a:01"}',
          }),
          node('b', '192.168.10.2', '10.244.1.0/24'),
          node('c', '192.168.20.1', '10.244.2.0/24', {
            'flannel.alpha.coreos.com/backend-data': '{"VNI":1,"VtepMAC":"02:00:00:00:0a:02"}',
          }),
        ],
      },
    );
    assert.equal(spec.profile, 'flannel');
    assert.deepEqual(spec.tunnel, {
      protocol: 'vxlan',
      port: 8472,
      vni: 1,
      mac: '02:00:00:00:0a:01',
      peers: [{ address: '192.168.10.2' }, { address: '192.168.20.1', mac: '02:00:00:00:0a:02' }],
    });
    assert.deepEqual(
      spec.routes.map(({ encap }: Json) => encap),
      [undefined, true],
    );
  });

  it("Cilium's ConfigMap does, too", () => {
    const tunnelled = compiled(
      {},
      {
        configMaps: [configMap('cilium-config', { 'routing-mode': 'tunnel', 'tunnel-protocol': 'geneve' })],
        endpoints: [
          {
            metadata: { name: 'p', namespace: 'default' },
            status: { identity: { id: 4711 } },
          } as unknown as KubeObject,
        ],
      },
    );
    assert.equal(tunnelled.spec.tunnel.protocol, 'geneve');
    assert.equal(tunnelled.spec.pods[0].identity, 4711);
    assert.ok(tunnelled.spec.routes.every(({ encap }: Json) => encap === true));
    const native = compiled(
      {},
      {
        configMaps: [
          configMap('cilium-config', { 'routing-mode': 'native', 'ipv4-native-routing-cidr': '10.244.0.0/16' }),
        ],
      },
    );
    assert.equal(native.spec.tunnel.protocol, 'none');
    assert.deepEqual(native.spec.masquerade[0].notTo, [
      '10.244.0.0/16',
      '192.168.10.1/32',
      '192.168.10.2/32',
      '192.168.20.1/32',
    ]);
  });

  it('keeps what its own file says', () => {
    const { spec } = compiled({
      profile: 'linux',
      tunnel: { protocol: 'ipip', peers: [{ address: '192.168.10.2' }] },
      routes: [{ to: '10.244.1.0/24', via: '192.168.10.9' }],
    });
    assert.equal(spec.profile, 'linux');
    assert.deepEqual(spec.tunnel.peers, [{ address: '192.168.10.2' }, { address: '192.168.20.1' }]);
    assert.deepEqual(
      spec.routes.map(({ to, via }: Json) => [to, via]),
      [
        ['10.244.2.0/24', '192.168.20.1'],
        ['10.244.1.0/24', '192.168.10.9'],
      ],
    );
  });

  it('says what it does not carry out', () => {
    const tap = { kind: 'tap', device: 'ul0', mac: '02:00:00:00:00:01', address: '192.168.10.1/24' };
    assert.match(compiled({ uplink: tap }).missing.join(), /Node c has 192\.168\.20\.1, not in 192\.168\.10\.1\/24/);
    const overlay = { configMaps: [configMap('cilium-config', {})], pods: [] };
    const alone = compiled({ uplink: tap }, overlay);
    assert.deepEqual(
      alone.spec.tunnel.peers.map(({ address }: Json) => address),
      ['192.168.10.2'],
    );
    assert.match(alone.missing.join(), /Node c has 192\.168\.20\.1, not in/);
    const { spec, missing } = compiled({}, { nodes: [node('b', 'none', '10.244.1.0/24')] }, false);
    assert.deepEqual(spec.pods, []);
    assert.match(
      missing.join('\n'),
      /no Node a .*\n.*Node b has no InternalIP.*\n.*Pod default\/p: there is no network namespace default\.p/,
    );
  });

  it('one object that is wrong does not keep the others away', () => {
    const { config } = compileNode(base(), objects(), 'a', () => true);
    config.spec.services.push({ ...config.spec.services[0], name: 'default/bad', clusterIP: '10.96.0.999' });
    config.spec.policies = [
      { name: 'p', namespace: 'default', podSelector: { matchExpressions: [{ key: 'a', operator: 'Of' }] } },
    ];
    const { config: kept, refused, problems } = withoutFaulty(config, 'test');
    assert.deepEqual(problems, []);
    assert.deepEqual(
      refused.map(({ kind, place }) => [kind, place]),
      [
        ['Service', 'default/bad'],
        ['NetworkPolicy', 'default/p'],
      ],
    );
    assert.equal(kept.spec.services.length, 1);
  });
});
