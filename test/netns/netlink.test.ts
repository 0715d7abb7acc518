/** What netlink says of real devices, beside what `ip` says; and that a change is heard of, in other namespaces, too. */
import { strict as assert } from 'node:assert';
import { closeSync, openSync } from 'node:fs';
import { parseAddress } from '../../datapath/control/address.ts';
import { inNamespace } from '../../datapath/control/netns.ts';
import * as libc from '../../datapath/io/libc.ts';
import { Netlink, NetlinkMonitor, placeOfTun } from '../../datapath/io/netlink.ts';
import { openTunTap } from '../../datapath/io/tuntap.ts';
import { Rig, until } from './rig.ts';

describe('netlink', function () {
  this.timeout(60_000);
  let rig: Rig;
  let netlink: Netlink;

  before(async () => {
    rig = new Rig('nl');
    await rig.namespace('own', 'pod');
    netlink = inNamespace(rig.full('own'), () => new Netlink());
  });
  after(async () => {
    netlink.close();
    await rig.close();
  });

  it('reads devices, addresses and default routes as ip does', async () => {
    await rig.ip('own', [
      'link add br0 mtu 1400 type bridge',
      'link add v0 type veth peer name v1',
      'link set v0 master br0 up',
      'link set br0 up',
      'addr add 10.1.0.1/24 dev br0',
      'addr add 10.1.0.2/24 dev br0',
      'route add default via 10.1.0.254 dev br0 metric 7',
    ]);
    const said = JSON.parse(await rig.run('own', 'ip', '-json', '-details', 'link', 'show')) as {
      ifindex: number;
      ifname: string;
      mtu: number;
      flags: string[];
      address?: string;
      master?: string;
      linkinfo?: { info_kind?: string };
    }[];
    const links = netlink.links();
    const nameOf = (index: number) => links.find(link => link.index === index)?.name;
    assert.deepEqual(
      links.map(link => [
        link.index,
        link.name,
        link.mtu,
        link.up,
        link.running,
        link.mac,
        nameOf(link.master),
        link.kind,
      ]),
      said.map(row => [
        row.ifindex,
        row.ifname,
        row.mtu,
        row.flags.includes('UP'),
        row.flags.includes('UP') && row.flags.includes('LOWER_UP'),
        row.address,
        row.master,
        row.linkinfo?.info_kind ?? '',
      ]),
    );
    const bridge = netlink.link('br0')!;
    assert.deepEqual(
      netlink.addresses().filter(({ index }) => index === bridge.index),
      ['10.1.0.1', '10.1.0.2'].map(text => ({ index: bridge.index, address: parseAddress(text), length: 24 })),
    );
    assert.deepEqual(netlink.defaultRoutes(), [
      { index: bridge.index, gateway: parseAddress('10.1.0.254'), metric: 7 },
    ]);
    assert.equal(netlink.link('nobody'), undefined);
  });

  it('follows a TUN that is moved, renamed, and taken away with its namespace', async () => {
    const tun = inNamespace(rig.full('own'), () => openTunTap({ kind: 'tun', name: 'tun0', mtu: 1500, allowed: 0 }));
    // Where a device is seen from decides about its namespace's id: the thread must be there.
    const place = () => inNamespace(rig.full('own'), () => placeOfTun(netlink, tun.fd));
    try {
      assert.deepEqual(place(), { name: 'tun0', nsid: null });
      await rig.ip('own', [`link set tun0 netns ${rig.full('pod')} name eth0`]);
      await rig.ip('pod', ['link set eth0 mtu 1300 up', 'addr add 10.2.0.1/32 dev eth0']);
      const moved = place()!;
      assert.equal(moved.name, 'eth0');
      assert.ok(moved.nsid !== null && moved.nsid >= 0);
      const link = netlink.link('eth0', moved.nsid)!;
      assert.deepEqual([link.mtu, link.up], [1300, true]);
      assert.ok(netlink.addresses(moved.nsid).some(({ address }) => address === parseAddress('10.2.0.1')));
      await rig.run('own', 'ip', 'netns', 'del', rig.full('pod'));
      await until('the device to go', () => place() === undefined);
    } finally {
      libc.close(tun.fd);
    }
  });

  it('hears of changes here and in namespaces that have an id, and of nothing after close', async () => {
    let heard = 0;
    const errors: Error[] = [];
    const monitor = inNamespace(
      rig.full('own'),
      () =>
        new NetlinkMonitor(
          () => heard++,
          error => errors.push(error),
        ),
    );
    const changes = async (what: string, change: () => Promise<unknown>) => {
      const before = heard;
      await change();
      await until(`word of ${what}`, () => heard > before);
    };
    try {
      assert.equal(monitor.refused, undefined);
      await changes('a new device', () => rig.ip('own', ['link add br1 type bridge']));
      await changes('an MTU', () => rig.ip('own', ['link set br1 mtu 1280']));
      await changes('an address', () => rig.ip('own', ['addr add 10.3.0.1/24 dev br1']));
      await rig.namespace('pod2');
      const fd = openSync(`/run/netns/${rig.full('pod2')}`, 'r');
      netlink.nsidOf(fd);
      closeSync(fd);
      await changes('an MTU elsewhere', () => rig.ip('pod2', ['link set lo mtu 1400']));
      await changes('a namespace that goes', () => rig.run('own', 'ip', 'netns', 'del', rig.full('pod2')));
    } finally {
      monitor.close();
    }
    const before = heard;
    await rig.ip('own', ['link del br1']);
    await until('nothing', async () => (await rig.exec('own', 'true')).code === 0);
    assert.equal(heard, before);
    assert.deepEqual(errors, []);
  });

  it('survives a storm of messages', async () => {
    let heard = 0;
    const monitor = inNamespace(rig.full('own'), () => new NetlinkMonitor(() => heard++, assert.fail));
    try {
      const lines: string[] = [];
      for (let i = 0; i < 2000; i++) lines.push(`link set br0 mtu ${1300 + (i & 1)}`);
      await rig.ip('own', lines);
      await until('word', () => heard > 0);
      const before = heard;
      await rig.ip('own', ['link set br0 mtu 1400']);
      await until('word again', () => heard > before);
    } finally {
      monitor.close();
    }
  });
});
