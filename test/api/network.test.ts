/** What Calico's pools and the ConfigMaps of Cilium and flannel say of a pod network. */
import assert from 'node:assert/strict';
import { encapsOf, networkOf, poolOf, type SwitchObjects, type Verdict } from '../../datapath/api/agent/network.ts';
import {
  atRest,
  masqueradeOf,
  type Own,
  type Peer,
  routesOf,
  tunnelsOf,
} from '../../datapath/api/agent/node-network.ts';
import type { Json, KubeObject } from '../../datapath/api/object.ts';

const configMap = (name: string, namespace: string, data: Json): KubeObject =>
  ({ metadata: { name, namespace }, data }) as unknown as KubeObject;
const cilium = (data: Json): KubeObject => configMap('cilium-config', 'kube-system', data);
const flannel = (net: Json): KubeObject =>
  configMap('kube-flannel-cfg', 'kube-flannel', { 'net-conf.json': JSON.stringify(net) });
const pool = (spec: Json, name = 'default-ipv4-ippool'): KubeObject =>
  ({ metadata: { name }, spec: { cidr: '172.16.0.0/16', ...spec } }) as unknown as KubeObject;
const node = (name: string, podCIDR: string): KubeObject =>
  ({ metadata: { name }, spec: { podCIDR, podCIDRs: [podCIDR, 'fd00::/64'] } }) as unknown as KubeObject;

const read = (objects: Partial<SwitchObjects>, only?: Parameters<typeof networkOf>[1]): Verdict =>
  networkOf({ configMaps: [], pools: [], nodes: [], ...objects }, only);
const told = ({ faults, remarks }: Verdict): string =>
  [...faults, ...remarks].map(({ source, message }) => `${source.kind} ${source.name} ${message}`).join('\n');

const own: Own = { subnet: '192.168.10.1/24', gateway: '192.168.10.254', podCidrs: ['172.16.1.0/26'] };
const peers: Peer[] = [
  { name: 'near', address: '192.168.10.2', podCidrs: ['172.16.2.0/26'], mac: '02:00:00:00:00:02' },
  { name: 'far', address: '192.168.20.3', podCidrs: ['172.16.3.0/26'] },
];

function nodeOf(verdict: Verdict): { tunnels: Json[]; routes: string[]; masquerade: Json[] | undefined } {
  assert.deepEqual(verdict.faults, []);
  const plan = atRest(verdict.network!);
  const { routes } = routesOf(plan, own, peers);
  return {
    tunnels: tunnelsOf(plan, own, peers),
    routes: routes.map(({ to, via, encap }) => [to, via, encap].filter(Boolean).join(' ')),
    masquerade: masqueradeOf(verdict.network!, own.podCidrs, ['192.168.20.3', '192.168.10.1']),
  };
}

describe('a pod network, as its switches say', () => {
  it('nothing says anything', () => {
    assert.deepEqual(read({}), { source: null, network: null, faults: [], remarks: [] });
  });

  describe('Calico', () => {
    const near = '172.16.2.0/26 192.168.10.2';
    const far = '172.16.3.0/26 192.168.20.3';
    const cases: [Json, string[]][] = [
      [{ ipipMode: 'Always' }, [`${near} ipip`, `${far} ipip`]],
      [{ ipipMode: 'CrossSubnet' }, [near, `${far} ipip`]],
      [{ vxlanMode: 'Always' }, [`${near} vxlan`, `${far} vxlan`]],
      [{ vxlanMode: 'CrossSubnet', ipipMode: 'Never' }, [near, `${far} vxlan`]],
      [{}, [near, '172.16.3.0/26 192.168.10.254']],
    ];
    for (const [spec, routes] of cases) {
      it(JSON.stringify(spec), () => assert.deepEqual(nodeOf(read({ pools: [pool(spec)] })).routes, routes));
    }

    it('VXLAN has port 4789 and VNI 4096, and the MACs that are known', () => {
      assert.deepEqual(nodeOf(read({ pools: [pool({ vxlanMode: 'Always' })] })).tunnels, [
        {
          name: 'vxlan',
          protocol: 'vxlan',
          port: 4789,
          vni: 4096,
          peers: [{ address: '192.168.10.2', mac: '02:00:00:00:00:02' }, { address: '192.168.20.3' }],
        },
      ]);
    });

    it('natOutgoing masquerades what leaves all pools', () => {
      const pools = [pool({ natOutgoing: true }), pool({ cidr: '10.9.0.0/16' }, 'other')];
      const inside = ['172.16.0.0/16', '10.9.0.0/16'];
      assert.deepEqual(nodeOf(read({ pools })).masquerade, [
        { from: ['172.16.0.0/16'], notTo: inside, randomFully: true },
      ]);
      assert.deepEqual(nodeOf(read({ pools: [pool({ natOutgoing: false })] })).masquerade, []);
    });

    it('each pool has its own mode, and a disabled one gives no addresses', () => {
      const { network } = read({
        pools: [
          pool({ ipipMode: 'Always' }),
          pool({ cidr: '10.9.0.0/16', vxlanMode: 'Always', disabled: true }, 'two'),
        ],
      });
      assert.deepEqual(
        encapsOf(network!).map(({ protocol }) => protocol),
        ['ipip', 'vxlan'],
      );
      assert.equal(poolOf(network!.pools, '10.9.3.0/26')?.encap?.protocol, 'vxlan');
      assert.deepEqual(network!.closed, ['10.9.0.0/16']);
    });

    it('what contradicts itself is refused by name', () => {
      const both = read({ pools: [pool({ ipipMode: 'Always', vxlanMode: 'CrossSubnet' })] });
      assert.equal(both.network, null);
      assert.match(told(both), /IPPool default-ipv4-ippool spec\.ipipMode Always and spec\.vxlanMode CrossSubnet/);
      const meet = read({ pools: [pool({}), pool({ cidr: '172.16.3.0/24' }, 'two')] });
      assert.match(told(meet), /IPPool two spec\.cidr: 172\.16\.3\.0\/24 overlaps/);
    });

    it('a block keeps its size, and a selector is said to be without effect', () => {
      const verdict = read({
        pools: [pool({ blockSize: 28, nodeSelector: "zone == 'west'" })],
        nodes: [node('w1', '172.16.158.0/26')],
      });
      assert.ok(verdict.network !== null);
      assert.match(told(verdict), /spec\.blockSize: 28: Node w1 has the block 172\.16\.158\.0\/26, and keeps it/);
      assert.match(told(verdict), /spec\.nodeSelector: zone == 'west' is not looked at/);
      assert.equal(told(read({ pools: [pool({ blockSize: 26 })], nodes: [node('w1', '172.16.158.0/26')] })), '');
    });
  });

  describe('Cilium', () => {
    const native = {
      'routing-mode': 'native',
      'ipv4-native-routing-cidr': '172.16.0.0/16',
      'auto-direct-node-routes': 'true',
    };
    it('tunnel, with the protocol and the port', () => {
      const of = (data: Json) => nodeOf(read({ configMaps: [cilium(data)] })).tunnels[0];
      assert.deepEqual([of({}).protocol, of({}).port, of({}).vni], ['vxlan', 8472, 'identity']);
      assert.deepEqual([of({ 'tunnel-protocol': 'geneve' }).port, of({ 'tunnel-port': '9999' }).port], [6081, 9999]);
      assert.equal(of({ tunnel: 'geneve' }).protocol, 'geneve');
    });

    it('native: routes to neighbours where asked for, else none', () => {
      assert.deepEqual(nodeOf(read({ configMaps: [cilium(native)] })).routes, ['172.16.2.0/26 192.168.10.2']);
      const none = { ...native, 'auto-direct-node-routes': 'false' };
      assert.deepEqual(nodeOf(read({ configMaps: [cilium(none)] })).routes, []);
    });

    it('masquerade: what leaves the native routing CIDR, but for nodes; or not at all', () => {
      assert.deepEqual(nodeOf(read({ configMaps: [cilium(native)] })).masquerade, [
        { from: own.podCidrs, notTo: ['172.16.0.0/16', '192.168.10.1/32', '192.168.20.3/32'] },
      ]);
      const off = { ...native, 'enable-ipv4-masquerade': 'false' };
      assert.deepEqual(nodeOf(read({ configMaps: [cilium(off)] })).masquerade, []);
    });

    it('what Cilium does not start with is refused by name', () => {
      const faulty: [Json, RegExp][] = [
        [{ 'auto-direct-node-routes': 'true' }, /auto-direct-node-routes: true goes with routing-mode native alone/],
        [{ 'routing-mode': 'bridged' }, /routing-mode: got "bridged", expected native, tunnel/],
        [{ 'tunnel-protocol': 'gre' }, /tunnel-protocol: got "gre", expected vxlan, geneve/],
        [{ 'tunnel-port': '70000' }, /tunnel-port: got "70000", expected 1 to 65535/],
        [{ 'routing-mode': 'native' }, /ipv4-native-routing-cidr: expected with/],
        [{ ...native, 'ipv4-native-routing-cidr': '172.16' }, /ipv4-native-routing-cidr: got "172\.16"/],
        [{ 'kube-proxy-replacement': 'yes' }, /kube-proxy-replacement: got "yes"/],
      ];
      for (const [data, expected] of faulty) {
        const verdict = read({ configMaps: [cilium(data)] });
        assert.equal(verdict.network, null);
        assert.match(told(verdict), expected);
      }
    });

    it('what is without effect is said', () => {
      const verdict = read({ configMaps: [cilium({ 'kube-proxy-replacement': 'false', 'enable-ipv6': 'true' })] });
      assert.ok(verdict.network !== null);
      assert.match(told(verdict), /kube-proxy-replacement: false: .*\n.*enable-ipv6/);
    });
  });

  describe('flannel', () => {
    const net = (backend: Json, more: Json = {}) => flannel({ Network: '172.16.0.0/16', Backend: backend, ...more });
    it('vxlan, ipip and host-gw, with VNI, port and DirectRouting', () => {
      const of = (backend: Json) => nodeOf(read({ configMaps: [net(backend)] }));
      const [tunnel] = of({ Type: 'vxlan' }).tunnels;
      assert.deepEqual([tunnel.port, tunnel.vni], [8472, 1]);
      const [other] = of({ Type: 'vxlan', Port: 4789, VNI: 7 }).tunnels;
      assert.deepEqual([other.port, other.vni], [4789, 7]);
      assert.deepEqual(of({ Type: 'ipip', DirectRouting: true }).routes, [
        '172.16.2.0/26 192.168.10.2',
        '172.16.3.0/26 192.168.20.3 ipip',
      ]);
      assert.deepEqual(of({ Type: 'host-gw' }).routes, ['172.16.2.0/26 192.168.10.2']);
    });

    it('masquerade: the chain FLANNEL-POSTRTG', () => {
      const rules = nodeOf(read({ configMaps: [net({ Type: 'vxlan' })] })).masquerade!;
      assert.equal(rules.length, 6);
      assert.deepEqual(rules[4], { from: ['172.16.0.0/16'], notTo: ['224.0.0.0/4'], randomFully: true });
    });

    it('what is not done is refused by name', () => {
      const faulty: [KubeObject, RegExp][] = [
        [net({ Type: 'udp' }), /Backend\.Type: udp is an encapsulation of flanneld's own/],
        [net({}), /Backend\.Type: udp/],
        [net({ Type: 'wireguard' }), /Backend\.Type: got "wireguard", expected vxlan, host-gw, ipip/],
        [net({ Type: 'vxlan', Port: -1 }), /Backend\.Port: got -1/],
        [net({ Type: 'vxlan', VNI: 0x100_0000 }), /Backend\.VNI: got 16777216/],
        [flannel({ Network: 'all', Backend: { Type: 'vxlan' } }), /Network: got "all"/],
        [configMap('kube-flannel-cfg', 'kube-flannel', { 'net-conf.json': '{' }), /net-conf\.json: expected JSON/],
      ];
      for (const [object, expected] of faulty) {
        const verdict = read({ configMaps: [object] });
        assert.equal(verdict.network, null);
        assert.match(told(verdict), expected);
      }
      const outside = read({ configMaps: [net({ Type: 'vxlan' })], nodes: [node('w1', '10.1.0.0/24')] });
      assert.match(told(outside), /Network: 172\.16\.0\.0\/16 does not hold 10\.1\.0\.0\/24, the podCIDR of Node w1/);
    });
  });

  it('one system has the network; switches of others are said to be without effect', () => {
    const objects = { configMaps: [cilium({}), flannel({ Network: '10.0.0.0/8', Backend: { Type: 'host-gw' } })] };
    assert.equal(read(objects).network?.system, 'flannel');
    const verdict = read(objects, 'cilium');
    assert.equal(verdict.network?.system, 'cilium');
    assert.match(told(verdict), /ConfigMap kube-flannel-cfg without effect: the network of this cluster is cilium's/);
    assert.match(told(read({ pools: [pool({})] }, 'cilium')), /IPPool default-ipv4-ippool without effect/);
  });
});
