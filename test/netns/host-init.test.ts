/** `tunpath host init` on two hosts: what it writes starts as it is and connects them; what it touches is nothing. */
import { strict as assert } from 'node:assert';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { exchangeUdp, Hosts, pingEverySize, type Side } from './hosts.ts';
import { Rig, type Running } from './rig.ts';

const NODES: Record<Side, string> = { a: '192.168.10.21', b: '192.168.10.22' };

describe('tunpath host init', function () {
  this.timeout(60_000);
  let rig: Rig;
  let hosts: Hosts;

  before(async () => {
    rig = new Rig('hi');
    hosts = await Hosts.make(rig, { between: 'bridge' });
  });
  after(() => rig.close());

  const file = (side: Side) => join(rig.directory, `${side}.yaml`);
  const init = async (side: Side, ...args: string[]) => {
    const running = rig.tunpath(`host-${side}`, 'host', 'init', '--name', rig.full(side), ...args);
    return { code: await running.exited, said: running.output };
  };
  const macvtap = (side: Side, ...args: string[]) => {
    const peer = NODES[side === 'a' ? 'b' : 'a'];
    const own = ['--address', `${NODES[side]}/24`, '--peer', peer, '--pod', rig.full(`pod-${side}`)];
    return init(side, ...own, '--output', file(side), ...args);
  };

  for (const tunnel of ['vxlan', 'geneve', 'ipip']) {
    it(`two hosts with what it wrote for ${tunnel} reach each other, hosts and pods`, async () => {
      const untouched = await hosts.snapshot('a');
      for (const side of ['a', 'b'] as const) {
        const { code, said } = await macvtap(side, '--tunnel', tunnel, '--force');
        assert.equal(code, 0, said);
      }
      assert.equal(await hosts.snapshot('a'), untouched);
      const nodes: Running[] = [];
      for (const side of ['a', 'b'] as const) {
        const node = rig.tunpath(`host-${side}`, 'node', '--config', file(side));
        await node.until('ready\n');
        nodes.push(node);
      }
      const mtu = tunnel === 'ipip' ? 1480 : 1450;
      await pingEverySize(rig, { from: 'pod-a', to: 'pod-b', address: '10.244.22.10', mtu });
      await exchangeUdp(rig, { from: 'pod-b', to: 'pod-a', address: '10.244.21.10', mtu });
      await rig.run('host-a', 'ping', '-n', '-c3', '-i0.05', '-W2', '10.244.22.1');
      for (const node of nodes) assert.equal(await node.stop(), 0, node.output);
      assert.equal(await hosts.snapshot('a'), untouched);
    });
  }

  it('without an address of its own a node shares the host’s, and host check finds nothing wrong', async () => {
    const untouched = await hosts.snapshot('a');
    const nodes: Running[] = [];
    for (const side of ['a', 'b'] as const) {
      const peer = hosts.addresses[side === 'a' ? 'b' : 'a'];
      const { code, said } = await init(side, '--peer', peer, '--output', file(side), '--force');
      assert.equal(code, 0, said);
      assert.match(readFileSync(file(side), 'utf8'), /kind: routed/);
      const node = rig.tunpath(`host-${side}`, 'node', '--config', file(side));
      await node.until('ready\n');
      nodes.push(node);
    }
    const check = rig.tunpath('host-a', 'host', 'check', '--node', rig.full('a'));
    assert.equal(await check.exited, 0, check.output);
    assert.match(check.output, /^tunnel +192\.168\.10\.2 +ok +10\.244\.2\.1 answers 10\.244\.1\.1/m);
    for (const node of nodes) assert.equal(await node.stop(), 0, node.output);
    assert.equal(await hosts.snapshot('a'), untouched);
  });

  it('names the rule that would drop what sockets get, and only there', async () => {
    await rig.run(
      'host-a',
      'nft',
      'add table inet f; add chain inet f in { type filter hook input priority 0; policy drop; }',
    );
    await rig.run('host-a', 'nft', 'add rule inet f in udp dport 6081 accept');
    const dropped = await init('a', '--uplink', 'raw', '--peer', hosts.addresses.b);
    const accepted = await init('a', '--uplink', 'raw', '--peer', hosts.addresses.b, '--tunnel', 'geneve');
    await rig.run('host-a', 'nft', 'delete', 'table', 'inet', 'f');
    assert.equal(dropped.code, 1, dropped.said);
    assert.match(dropped.said, /the firewall drops UDP port 8472 from 192\.168\.10\.2 in inet f in/);
    assert.doesNotMatch(accepted.said, /firewall/);
  });

  it('replaces no file without --force', async () => {
    writeFileSync(file('a'), 'mine\n');
    const { code, said } = await macvtap('a');
    assert.equal(code, 2, said);
    assert.match(said, /--force/);
    assert.equal(readFileSync(file('a'), 'utf8'), 'mine\n');
  });

  it('writes nothing where something stands in the way, and says what', async () => {
    const { code, said } = await init(
      'a',
      '--address',
      '192.168.10.1/24',
      '--output',
      join(rig.directory, 'none.yaml'),
    );
    assert.equal(code, 1, said);
    assert.match(said, /spec\.uplink\.address: 192\.168\.10\.1 is the host's own/);
    assert.throws(() => readFileSync(join(rig.directory, 'none.yaml')));
  });

  it('a flag that is wrong ends with 2', async () => {
    for (const args of [
      ['--peer', 'b'],
      ['--pod-cidr', '10.244.1.1/24'],
      ['--uplink', 'tap'],
      ['--address', '192.168.10.21'],
      ['--port', '0'],
    ]) {
      assert.equal((await init('a', ...args)).code, 2, args.join(' '));
    }
  });
});
