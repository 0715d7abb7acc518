import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import type { PortRange } from '../../../datapath/control/host-ports.ts';
import { loadConfig } from '../../../datapath/control/load-config.ts';
import { type ResolvedConfig, withUplink } from '../../../datapath/control/resolved.ts';
import { claimsOf, findConflicts, mergeClaims, RESERVED_PORTS } from '../../../datapath/control/uplink/claims.ts';
import { mergeRanges, steeringNodes, steeringTable } from '../../../datapath/control/uplink/steering.ts';

const WRITTEN = { kind: 'routed', interface: 'eth0', device: 'ul0' } as const;
const PEER = '192.168.10.2';

/** A node on 192.168.10.1 with one pod and a tunnel. */
function config(protocol: string, more: object = {}): ResolvedConfig {
  const spec = {
    uplink: WRITTEN,
    host: { device: 'tp0', address: '10.244.1.1' },
    pods: [{ name: 'default/p', netns: 'p', device: 'eth0', address: '10.244.1.10' }],
    tunnel: { protocol, peers: [{ address: PEER }] },
    routes: [
      { to: '10.244.2.0/24', via: PEER, encap: true },
      { to: '172.16.0.0/16', via: '192.168.10.254' },
    ],
    ...more,
  };
  const text = JSON.stringify({ apiVersion: 'tunpath.dev/v1', kind: 'NodeConfig', metadata: { name: 'a' }, spec });
  const loaded = loadConfig(text, 'a.yaml');
  assert.equal(loaded.problems, undefined);
  return withUplink(loaded.config!, {
    kind: 'routed',
    device: 'ul0',
    address: '192.168.10.1/24',
    mac: '02:00:00:00:00:01',
    mtu: 1500,
    onHostPort: false,
    ports: RESERVED_PORTS,
    written: WRITTEN,
  });
}

const service = (ports: object[], more: object = {}) => ({
  name: 'default/web',
  type: 'NodePort',
  addresses: ['10.96.0.10'],
  ports,
  endpoints: [{ address: '10.244.1.10' }],
  ...more,
});

const table = (node: ResolvedConfig) => steeringTable('a', 'ul0', 'eth0', claimsOf(node));

describe('control/uplink/steering', () => {
  it('claims the tunnel, and whatever only the datapath can deliver', () => {
    const claims = claimsOf(config('vxlan'));
    assert.deepEqual(claims.tunnelPorts, [
      { protocol: 'udp', low: 8472, high: 8472, path: ['spec', 'tunnel', 'port'] },
    ]);
    assert.deepEqual([claims.ipip, claims.peers, claims.reserved], [false, [PEER], []]);
    assert.deepEqual(
      claims.destinations,
      ['10.244.1.10', '10.244.1.1', '10.244.2.0/24'],
      'not the route without encap',
    );
  });

  it('claims node ports, and ports of services at the host’s own address', () => {
    const ports = [{ port: 80, nodePort: 30080 }];
    const claims = claimsOf(
      config('none', { tunnel: undefined, routes: [], services: [service(ports, { externalIPs: ['192.168.10.1'] })] }),
    );
    assert.deepEqual(
      claims.servicePorts.map(({ protocol, low }) => `${protocol} ${low}`),
      ['tcp 30080', 'tcp 80'],
    );
    assert.ok(claims.destinations.includes('10.96.0.10') && !claims.destinations.includes('192.168.10.1'));
  });

  it('takes IPIP from peers only: the host may have a tunnel of its own', () => {
    assert.match(table(config('ipip')), /ip protocol ipencap ip saddr \{ 192\.168\.10\.2 \} goto take/);
    const any = config('ipip', { tunnel: { protocol: 'ipip', acceptFrom: 'any', peers: [{ address: PEER }] } });
    assert.match(table(any), /ip protocol ipencap goto take/);
    assert.doesNotMatch(table(config('vxlan')), /ipencap/);
  });

  it('takes the ports of masquerade rules: each its own, or the node’s', () => {
    const masquerade = [
      { from: '10.244.0.0/16', to: '10.0.0.0/8', ports: '20000-20999', source: '192.168.10.9' },
      { from: '10.244.0.0/16', to: '172.16.0.0/12', action: 'RETURN' },
      { from: '10.244.0.0/16' },
    ];
    const node = config('vxlan', { masquerade });
    assert.deepEqual(
      node.spec.masquerade.map(({ ports }) => ports),
      [{ low: 20000, high: 20999 }, undefined, RESERVED_PORTS],
    );
    const text = table(node);
    assert.match(text, /th dport \{ 20000-20999, 61000-65535 \} goto take/);
    assert.match(text, /ip daddr \{ 192\.168\.10\.9 \} goto source_address/);
    assert.match(text, /@th,160,32 != \{ 0xc0a80a01, 0xc0a80a09 \} accept/);
  });

  it('leaves errors alone that quote nothing of ours', () => {
    const errors = /chain error \{([^}]*\{[^}]*\})*[^}]*\}/.exec(table(config('vxlan')))![0];
    assert.deepEqual(errors.split('\n').slice(1, -1), [
      '@th,160,32 != { 0xc0a80a01 } accept',
      '@th,136,8 17 @th,240,16 { 8472 } goto share',
    ]);
  });

  it('serves two configurations at once while one becomes the other', () => {
    const [a, b] = [claimsOf(config('vxlan')), claimsOf(config('geneve'))];
    const both = steeringTable('a', 'ul0', 'eth0', mergeClaims(a, b));
    assert.match(both, /udp dport \{ 6081, 8472 \} goto take/);
  });

  it('says which claim would take something from the host', () => {
    const host = {
      ephemeral: { low: 32768, high: 60999 },
      spared: [],
      sockets: [{ protocol: 'udp' as const, port: 8472 }],
    };
    const claims = claimsOf(config('vxlan', { masquerade: [{ from: '10.244.0.0/16', ports: '60000-61000' }] }));
    const conflicts = findConflicts(claims, host);
    assert.deepEqual(
      conflicts.map(({ path }) => path.join('.')),
      ['spec.tunnel.port', 'spec.masquerade.0.ports', 'spec.masquerade.0.ports'],
    );
    assert.match(conflicts[0].message, /^UDP port 8472 of 192\.168\.10\.1 cannot be the datapath's: the host has/);
    assert.deepEqual(findConflicts(claims, host, claims), [], 'not of what the running node has already');
  });

  it('knows the nodes that steer on an interface', () => {
    const chains = (table: string, device: string) =>
      `table netdev ${table} {\n\tchain from_interface {\n\t\ttype filter hook ingress ${device} priority 100; policy accept;\n\t}\n\tchain take {\n\t}\n}\n`;
    const listing = [
      chains('guard', 'device "eth0"'),
      chains('tunpath_a', 'device "eth0"'),
      chains('tunpath_b', 'devices = { "eth1", "eth0" }'),
      chains('tunpath_c', 'device "eth00"'),
    ].join('');
    assert.deepEqual(steeringNodes(listing, 'eth0'), ['a', 'b']);
    assert.deepEqual(steeringNodes('', 'eth0'), []);
  });

  it('joins ranges as a set of single ports would', () => {
    const range = fc.tuple(fc.integer({ min: 1, max: 60 }), fc.integer({ min: 0, max: 9 }));
    const portsOf = (ranges: readonly PortRange[]) =>
      ranges.flatMap(({ low, high }) => Array.from({ length: high - low + 1 }, (_, i) => low + i));
    fc.assert(
      fc.property(fc.array(range, { maxLength: 8 }), pairs => {
        const ranges = pairs.map(([low, more]) => ({ low, high: low + more }));
        const merged = mergeRanges(ranges);
        assert.deepEqual(
          portsOf(merged),
          [...new Set(portsOf(ranges))].sort((a, b) => a - b),
        );
        for (let i = 1; i < merged.length; i++) assert.ok(merged[i].low > merged[i - 1].high + 1);
      }),
    );
  });
});
