import assert from 'node:assert/strict';
import { formatProblems, loadConfig } from '../../../datapath/control/load-config.ts';
import { type ResolvedConfig, type ResolvedUplink, withUplink } from '../../../datapath/control/resolved.ts';
import { OwnPorts, ownPorts, ownPortsTable, withOwnPorts } from '../../../datapath/control/uplink/own-ports.ts';

const UPLINKS = {
  tap: { written: { kind: 'tap', device: 'ul0', mac: '02:00:00:00:00:01', address: '192.168.10.1/24' } },
  macvtap: { written: { kind: 'macvtap', interface: 'eth0', address: '192.168.10.1/24' } },
  routed: { written: { kind: 'routed', interface: 'eth0', device: 'ul0' } },
} as const;

function config(kind: keyof typeof UPLINKS, services: object[], more: object = {}): ResolvedConfig {
  const { written } = UPLINKS[kind];
  const spec = { uplink: written, host: { device: 'tp0', address: '10.244.1.1' }, services, ...more };
  const text = JSON.stringify({ apiVersion: 'tunpath.dev/v1', kind: 'NodeConfig', metadata: { name: 'a' }, spec });
  const loaded = loadConfig(text, 'a.yaml');
  assert.ok(loaded.config !== undefined, formatProblems(loaded.problems ?? []));
  const uplink = {
    kind,
    device: 'ul0',
    address: '192.168.10.1/24',
    mac: '02:00:00:00:00:01',
    mtu: 1500,
    onHostPort: kind === 'tap',
    ofKernel: kind === 'routed',
    written,
  } as ResolvedUplink;
  return withUplink(loaded.config, uplink);
}

const web = (more: object = {}) => ({
  name: 'default/web',
  clusterIP: '10.96.0.10',
  ports: [{ port: 80, nodePort: 30080 }],
  endpoints: [{ address: '10.244.1.10' }],
  ...more,
});

describe('control/uplink/own-ports', () => {
  for (const kind of ['tap', 'macvtap', 'routed'] as const) {
    it(`${kind}: node ports, and ports of services at the node’s address`, () => {
      assert.deepEqual(ownPorts(config(kind, [web()])), ['192.168.10.1 . tcp . 30080']);
      const external = { externalIPs: ['192.168.10.1', '203.0.113.1'] };
      assert.deepEqual(ownPorts(config(kind, [web(external)])), [
        '192.168.10.1 . tcp . 80',
        '192.168.10.1 . tcp . 30080',
      ]);
      const everywhere = { nodePortAddresses: ['0.0.0.0/0'] };
      assert.deepEqual(ownPorts(config(kind, [web()], everywhere)), [
        '192.168.10.1 . tcp . 30080',
        '10.244.1.1 . tcp . 30080',
      ]);
      assert.deepEqual(ownPorts(config(kind, [web()], { host: undefined })), []);
    });
  }

  it('another source than the datapath leads back gets the host port’s', () => {
    const table = (sources: string[]) => ownPortsTable('a', ['192.168.10.1 . tcp . 30080'], sources);
    const rule = 'ip daddr 169.254.42.2 ip saddr != { 10.244.1.1 } snat to 10.244.1.1';
    assert.ok(table(['10.244.1.1']).includes(rule));
    assert.ok(table(['10.244.1.1', '192.168.10.1']).includes('{ 10.244.1.1, 192.168.10.1 } snat to 10.244.1.1'));
    assert.ok(!table([]).includes('postrouting'), 'nothing without a host port');
  });

  it('is beside whatever the uplink does, and says nothing where there is no port', async () => {
    const calls: string[] = [];
    const uplink = {
      handle: {} as never,
      status: () => [{ what: 'device', how: 'ul0' }],
      serve: async () => void calls.push('serve'),
      close: async () => void calls.push('close'),
    };
    const without = config('routed', []);
    const both = withOwnPorts(without, uplink);
    assert.deepEqual(await both.status(), [{ what: 'device', how: 'ul0' }]);
    await both.serve!(without);
    await both.close();
    assert.deepEqual(calls, ['serve', 'close']);
    assert.deepEqual(new OwnPorts('a', undefined).status(), []);
  });
});
