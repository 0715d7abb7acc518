/** What `ip` says on a lab's node, against what the articles print for the same cluster. */
import assert from 'node:assert/strict';
import { formatProblems, loadConfig } from '../../datapath/control/load-config.ts';
import { type ResolvedConfig, resolveSegment, withUplink } from '../../datapath/control/resolved.ts';
import { nodeConfig } from '../../datapath/lab/modes.ts';
import type { Mode } from '../../datapath/lab/topology.ts';
import { TOPOLOGIES } from '../../datapath/lab/topology-file.ts';
import { addressText, ifconfigText, routeGetText, routeText } from '../../datapath/observe/ip-text.ts';

function node(name: string, host: string, mode: Mode): { config: ResolvedConfig; podCidr: string } {
  const topology = TOPOLOGIES[name]!;
  const own = topology.nodes.find(one => one.name === host)!;
  const { config, problems } = loadConfig(JSON.stringify(nodeConfig('lab', topology, own, { mode })), host);
  assert.ok(config !== undefined, formatProblems(problems ?? []));
  assert.ok(config.spec.uplink.kind === 'segment');
  return { config: withUplink(config, resolveSegment(config.spec.uplink)), podCidr: own.podCidr };
}

function routes(name: string, host: string, mode: Mode): string[] {
  const { config, podCidr } = node(name, host, mode);
  return routeText(config, { podCidr })
    .trim()
    .split('\n')
    .map(line => line.trim().replace(/ (cali|eni|veth)[0-9a-f]{11} /, ' $1* '));
}

const has = (lines: readonly string[], ...wanted: string[]): void => {
  for (const line of wanted) assert.ok(lines.includes(line), `${line}\nin:\n${lines.join('\n')}`);
};

describe('ip on a node', () => {
  it("has Cilium's routes, with a tunnel and without", () => {
    const own = [
      '172.20.0.0/24 via 172.20.0.201 dev cilium_host proto kernel src 172.20.0.201',
      '172.20.0.201 dev cilium_host proto kernel scope link',
      '192.168.10.0/24 dev eth1 proto kernel scope link src 192.168.10.100',
      '172.20.0.0/16 via 192.168.10.200 dev eth1 proto static',
    ];
    const native = routes('cilium', 'k8s-ctr', 'native');
    has(native, ...own, '172.20.1.0/24 via 192.168.10.101 dev eth1 proto kernel');
    assert.ok(!native.some(line => line.startsWith('172.20.2.0/24')), 'another subnet is left to the router');
    for (const mode of ['vxlan', 'geneve'] as const) {
      has(
        routes('cilium', 'k8s-ctr', mode),
        ...own,
        '172.20.1.0/24 via 172.20.0.201 dev cilium_host proto kernel src 172.20.0.201 mtu 1450',
        '172.20.2.0/24 via 172.20.0.201 dev cilium_host proto kernel src 172.20.0.201 mtu 1450',
      );
    }
  });

  it("has flannel's, Calico's and the VPC's", () => {
    has(
      routes('flannel', 'master', 'vxlan'),
      '10.244.0.0/24 dev cni0 proto kernel scope link src 10.244.0.1',
      '10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink',
      '10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink',
    );
    has(
      routes('calico', 'k8s-w1', 'crosssubnet'),
      '172.16.34.0/26 via 192.168.20.100 dev tunl0 proto bird onlink',
      '172.16.184.0/26 via 192.168.10.102 dev eth1 proto bird',
      '172.16.158.3 dev cali* scope link',
    );
    has(routes('aws', 'node1', 'native'), '192.168.10.18 dev eni* scope link');
  });

  it('finds the route of an address as the kernel does', () => {
    const { config, podCidr } = node('cilium', 'k8s-ctr', 'vxlan');
    const get = (address: string) => routeGetText(config, { podCidr }, address)?.replace(/\s+/g, ' ').trim();
    assert.equal(get('172.20.2.10'), '172.20.2.10 dev cilium_host src 172.20.0.201 uid 0 cache mtu 1450');
    assert.equal(get('172.20.9.9'), '172.20.9.9 via 192.168.10.200 dev eth1 src 192.168.10.100 uid 0 cache');
    assert.equal(get('192.168.10.101'), '192.168.10.101 dev eth1 src 192.168.10.100 uid 0 cache');
    assert.equal(get('192.168.10.100'), 'local 192.168.10.100 dev lo src 192.168.10.100 uid 0 cache <local>');
    assert.equal(get('nonsense'), undefined);
  });

  it('shows the devices that the system has, and says of others that they are not there', () => {
    const { config: cilium, podCidr } = node('cilium', 'k8s-ctr', 'vxlan');
    assert.match(
      addressText(cilium, { podCidr }, { device: 'cilium_vxlan' })!,
      /: cilium_vxlan: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 .*\n {4}link\/ether 42:59:64:e0:f6:38 brd ff:ff:ff:ff:ff:ff\n$/,
    );
    assert.equal(addressText(cilium, { podCidr }, { device: 'flannel.1' }), null);
    assert.match(
      addressText(cilium, { podCidr }, { device: 'eth1', v4: true })!,
      /inet 192\.168\.10\.100\/24 brd 192\.168\.10\.255 scope global eth1/,
    );
    assert.doesNotMatch(addressText(cilium, { podCidr }, { v4: true })!, /link\/|lxc/);
    assert.match(
      ifconfigText(cilium, { podCidr }),
      /eth1: .* mtu 1500\n +inet 192\.168\.10\.100 {2}netmask 255\.255\.255\.0 {2}broadcast/,
    );
    const flannel = node('flannel', 'master', 'vxlan');
    const brief = addressText(flannel.config, flannel, { brief: true })!.split('\n');
    has(
      brief.map(line => line.replace(/ +/g, ' ')),
      'lo UNKNOWN 127.0.0.1/8',
      'eth1 UP 192.168.10.10/24',
      'cni0 UP 10.244.0.1/24',
      'flannel.1 UNKNOWN 10.244.0.0/32',
    );
    assert.match(
      addressText(flannel.config, flannel, { device: 'cni0' })!,
      /inet 10\.244\.0\.1\/24 brd 10\.244\.0\.255 scope global cni0\n/,
    );
  });

  it('has in ifconfig the flags of each device, and a broadcast address where it has one', () => {
    const flannel = node('flannel', 'master', 'vxlan');
    const lines = ifconfigText(flannel.config, flannel).split('\n');
    has(
      lines,
      'lo: flags=73<UP,LOOPBACK,RUNNING>  mtu 65536',
      '        inet 127.0.0.1  netmask 255.0.0.0',
      'cni0: flags=4163<UP,BROADCAST,RUNNING,MULTICAST>  mtu 1500',
      '        inet 10.244.0.1  netmask 255.255.255.0  broadcast 10.244.0.255',
      '        inet 10.244.0.0  netmask 255.255.255.255  broadcast 0.0.0.0',
    );
    const calico = node('calico', 'k8s-w1', 'crosssubnet');
    assert.match(
      ifconfigText(calico.config, calico),
      /tunl0: flags=193<UP,RUNNING,NOARP> {2}mtu 1480\n {8}inet \S+ {2}netmask 255\.255\.255\.255\n/,
    );
  });
});
