/** Chains of iptables that a node's tables amount to. */
import assert from 'node:assert/strict';
import { stringify } from 'yaml';
import { loadConfig } from '../../datapath/control/load-config.ts';
import { resolveSegment, withUplink } from '../../datapath/control/resolved.ts';
import { nodeConfig } from '../../datapath/lab/modes.ts';
import { subnetEnv } from '../../datapath/lab/subnet-env.ts';
import { TOPOLOGIES } from '../../datapath/lab/topology-file.ts';
import { iptablesNat, kubeChain } from '../../datapath/observe/iptables-text.ts';

function natOf(name: string, chain?: string): string | null {
  const topology = TOPOLOGIES[name]!;
  const written = stringify(nodeConfig('t', topology, topology.nodes[0]!, { mode: 'vxlan' }));
  const { config } = loadConfig(written, 'test');
  assert.ok(config?.spec.uplink.kind === 'segment');
  const backends = topology.pods.map(({ address }) => ({
    service: 'default/busybox',
    address,
    port: 80,
    protocol: 'tcp',
    ready: true,
  }));
  return iptablesNat(withUplink(config, resolveSegment(config.spec.uplink)), backends.slice(0, 2), chain);
}

describe('iptables -t nat -S', () => {
  it('FLANNEL-POSTRTG as the article prints it', () => {
    const comment = '-m comment --comment "flanneld masq"';
    assert.equal(
      natOf('flannel', 'FLANNEL-POSTRTG'),
      [
        '-N FLANNEL-POSTRTG',
        `-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 ${comment} -j RETURN`,
        `-A FLANNEL-POSTRTG -s 10.244.0.0/24 -d 10.244.0.0/16 ${comment} -j RETURN`,
        `-A FLANNEL-POSTRTG -s 10.244.0.0/16 -d 10.244.0.0/24 ${comment} -j RETURN`,
        `-A FLANNEL-POSTRTG ! -s 10.244.0.0/16 -d 10.244.0.0/24 ${comment} -j RETURN`,
        `-A FLANNEL-POSTRTG -s 10.244.0.0/16 ! -d 224.0.0.0/4 ${comment} -j MASQUERADE --random-fully`,
        `-A FLANNEL-POSTRTG ! -s 10.244.0.0/16 -d 10.244.0.0/16 ${comment} -j MASQUERADE --random-fully`,
        '',
      ].join('\n'),
    );
  });

  it("natOutgoing of Calico's, and nothing of Cilium's, whose maps do it", () => {
    assert.match(
      natOf('calico', 'cali-nat-outgoing')!,
      /^-A cali-nat-outgoing -s 172\.16\.0\.0\/16 ! -d 172\.16\.0\.0\/16 -j MASQUERADE --random-fully$/m,
    );
    assert.equal(natOf('cilium')!.trim().split('\n').length, 4);
    assert.equal(natOf('cilium', 'KUBE-SERVICES'), null);
  });

  it("services have kube-proxy's chains", () => {
    const text = natOf('flannel')!;
    const chain = kubeChain('KUBE-SVC-', 'default/busyboxtcp');
    assert.match(text, new RegExp(`^-A KUBE-SERVICES -d 10\\.96\\.100\\.10/32 -p tcp .* --dport 80 -j ${chain}$`, 'm'));
    assert.match(
      text,
      new RegExp(`^-A ${chain} .* -m statistic --mode random --probability 0\\.50000000000 -j KUBE-SEP-`, 'm'),
    );
    assert.match(text, /-j DNAT --to-destination 10\.244\.1\.2:80$/m);
  });

  it("names of chains are kube-proxy's (proxier_test.go)", () => {
    assert.equal(kubeChain('KUBE-SVC-', 'ns1/svc1:p80tcp'), 'KUBE-SVC-XPGD46QRK7WJZT7O');
    assert.equal(kubeChain('KUBE-SEP-', 'ns1/svc1:p80tcp10.180.0.1:80'), 'KUBE-SEP-SXIVWICOYRO3J4NJ');
  });
});

describe('/run/flannel/subnet.env', () => {
  it('has what flanneld writes', () => {
    const { flannel } = TOPOLOGIES;
    assert.equal(
      subnetEnv(flannel!, flannel!.nodes[1]!, 1450),
      'FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n',
    );
  });
});
