/** `tunpath host check` on one of two hosts: a pair that works, and pairs that each have one thing wrong. */
import { strict as assert } from 'node:assert';
import type { Row } from '../../datapath/host/judge-pair.ts';
import { Hosts, OTHER, type Protocol, type Side } from './hosts.ts';
import { Rig, type RunningNode } from './rig.ts';

const NODES: Record<Side, string> = { a: '192.168.10.21', b: '192.168.10.22' };
const ROWS = ['underlay', 'underlay-mtu', 'firewall', 'tunnel', 'tunnel-sizes', 'above-mtu', 'fragments', 'checksums'];

describe('tunpath host check', function () {
  this.timeout(120_000);
  let rig: Rig;
  let hosts: Hosts;
  const running: RunningNode[] = [];

  before(async () => {
    rig = new Rig('hc');
    hosts = await Hosts.make(rig, { between: 'bridge' });
  });
  after(() => rig.close());
  afterEach(async () => {
    for (const node of running.splice(0)) assert.equal(await node.stop(), 0, node.output);
  });

  const start = async (side: Side, protocol: Protocol, more: object = {}) => {
    const uplink = { kind: 'macvtap', interface: 'eth0', address: `${NODES[side]}/24` };
    running.push(await rig.node(`host-${side}`, hosts.spec(side, uplink, protocol, NODES[OTHER[side]], more)));
  };
  const check = async (side: Side, ...args: string[]) => {
    const said = rig.tunpath(
      `host-${side}`,
      'host',
      'check',
      '--node',
      rig.full(`host-${side}`),
      '-o',
      'json',
      ...args,
    );
    const code = await said.exited;
    const rows = JSON.parse(said.output) as Row[];
    return { code, rows, of: (name: string) => rows.find(row => row.check === name)! };
  };
  /** Rules on a port of the wire, for as long as `work` takes. */
  const withRules = async (device: string, rule: string, work: () => Promise<void>) => {
    const chain = `add chain netdev bad c { type filter hook ingress device ${device} priority 0; }`;
    await rig.run('wire', 'nft', `add table netdev bad; ${chain}; add rule netdev bad c ${rule}`);
    try {
      await work();
    } finally {
      await rig.run('wire', 'nft', 'delete', 'table', 'netdev', 'bad');
    }
  };

  for (const protocol of ['vxlan', 'ipip'] as const) {
    it(`a pair that works, by ${protocol}`, async () => {
      await start('a', protocol);
      await start('b', protocol);
      const { code, rows } = await check('a');
      const results = rows.filter(row => row.check !== 'drops').map(row => `${row.check} ${row.result}`);
      assert.deepEqual(
        results,
        ROWS.map(name => `${name} ok`),
        JSON.stringify(rows, null, 1),
      );
      assert.equal(code, 0);
    });
  }

  it('a peer that is not there', async () => {
    await start('a', 'vxlan');
    const { code, of } = await check('a');
    assert.equal(code, 1);
    assert.deepEqual([of('underlay').result, of('tunnel').result], ['fail', 'fail']);
    assert.match(of('underlay').seen, /192\.168\.10\.22 does not answer ARP/);
  });

  it('a peer that does not know us', async () => {
    await start('a', 'vxlan');
    await start('b', 'vxlan', { tunnel: { protocol: 'vxlan', peers: [{ address: '192.168.10.99' }] }, routes: [] });
    const here = await check('a');
    assert.equal(here.code, 1);
    assert.equal(here.of('underlay').result, 'ok');
    assert.match(here.of('tunnel').seen, /nothing comes back by UDP port 8472, although ping works/);
    assert.match(here.of('tunnel').todo, /with 192\.168\.10\.21 among its peers/);
  });

  it('a filter on the way', async () => {
    await start('a', 'vxlan');
    await start('b', 'vxlan');
    await withRules('to-b', 'udp dport 8472 drop', async () => {
      const { code, of } = await check('a');
      assert.equal(code, 1);
      assert.deepEqual([of('underlay').result, of('underlay-mtu').result, of('tunnel').result], ['ok', 'ok', 'fail']);
      assert.match(of('tunnel').todo, /let UDP port 8472 pass/);
      assert.deepEqual([of('tunnel-sizes').result, of('fragments').result], ['unknown', 'unknown']);
    });
  });

  it('a link on the way that is too narrow and says nothing', async () => {
    await start('a', 'vxlan');
    await start('b', 'vxlan');
    await rig.ip('wire', ['link set to-b mtu 1400']);
    const { code, of } = await check('a');
    await rig.ip('wire', ['link set to-b mtu 1500']);
    assert.equal(code, 1);
    assert.deepEqual([of('underlay').result, of('tunnel').result], ['ok', 'ok']);
    assert.match(of('underlay-mtu').seen, /1500 bytes with DF get lost without a word/);
    assert.equal(of('tunnel-sizes').result, 'fail');
  });

  it('checksums that somebody breaks on the way', async () => {
    await start('a', 'vxlan', { offload: 'none' });
    await start('b', 'vxlan');
    await withRules('to-b', 'udp dport 8472 @th,48,16 set 0x1234', async () => {
      const { code, of } = await check('a');
      assert.equal(code, 1);
      assert.equal(of('checksums').result, 'fail', JSON.stringify(of('checksums')));
      assert.match(of('checksums').seen, /drop-tunnel-checksum/);
    });
  });

  it('a host where no node runs refuses the port, as seen from a routed uplink', async () => {
    const uplink = { kind: 'routed', interface: 'eth0', device: 'ul0' };
    running.push(await rig.node('host-a', hosts.spec('a', uplink, 'vxlan', hosts.addresses.b)));
    const { code, of } = await check('a');
    assert.equal(code, 1);
    assert.equal(of('underlay').result, 'ok');
    assert.match(of('tunnel').seen, /192\.168\.10\.2 refuses UDP port 8472: nobody listens/);
  });

  it('tries the address that it is told, and no other peer', async () => {
    await start('a', 'vxlan');
    await start('b', 'vxlan');
    const { code, rows, of } = await check('a', '--peer', `${NODES.b}=10.244.2.10`);
    assert.equal(code, 0, JSON.stringify(rows));
    assert.match(of('tunnel').seen, /^10\.244\.2\.10 answers 10\.244\.1\.1/);
  });

  it('does not judge a node of another namespace', async () => {
    await start('a', 'vxlan');
    const said = rig.tunpath('host-b', 'host', 'check', '--node', rig.full('host-a'));
    assert.equal(await said.exited, 1);
    assert.match(said.output, /runs in another network namespace/);
  });

  it('without a host port it says what it cannot try', async () => {
    const { host, ...spec } = hosts.spec(
      'a',
      { kind: 'macvtap', interface: 'eth0', address: `${NODES.a}/24` },
      'vxlan',
      NODES.b,
    ) as Record<string, unknown>;
    assert.ok(host !== undefined);
    running.push(await rig.node('host-a', spec));
    await start('b', 'vxlan');
    const { of } = await check('a');
    assert.equal(of('tunnel').result, 'unknown');
    assert.match(of('tunnel').seen, /no host port/);
  });
});
