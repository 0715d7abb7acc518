/**
 * A tunpath node and a node made of kernel parts, as flannel makes it: veth, bridge, a VXLAN device that learns nothing,
 * permanent neighbour and FDB entries. What one of them gets wrong the other one shows.
 */
import { strict as assert } from 'node:assert';
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { fileURLToPath } from 'node:url';
import { parseSnmp, Rig } from './rig.ts';

const WHOAMI = fileURLToPath(new URL('../../datapath/lab/whoami.js', import.meta.url));
const MTU = 1450;
/** MTU less IPv4 and ICMP headers. */
const MAX_PING = MTU - 28;
const BYTES = 100_000_000;
const HTTP_PORT = 8080;
const UDP_PORT = 9000;

const OUR_POD = '10.244.1.10';
const KERNEL_POD = '10.244.2.10';
const VTEP_MACS = ['02:42:0a:f4:01:00', '02:42:0a:f4:02:00'];

/** Any of these in a kernel's receive path means that the other side computed something wrong. */
const BAD = ['Ip.InHdrErrors', 'Ip.InAddrErrors', 'Icmp.InCsumErrors', 'Tcp.InCsumErrors', 'Udp.InCsumErrors'];
const HOSTS = ['ours', 'pod', 'kernel', 'kpod'];

function spec(rig: Rig, offload: string): object {
  return {
    uplink: { kind: 'tap', device: 'ul0', mac: '02:00:00:00:00:01', address: '192.168.10.1/24' },
    host: { device: 'tp0', address: '10.244.1.1/32' },
    pods: [{ name: 'default/p', netns: rig.full('pod'), device: 'eth0', address: OUR_POD }],
    tunnel: {
      protocol: 'vxlan',
      port: 8472,
      vni: 1,
      mac: VTEP_MACS[0],
      peers: [{ address: '192.168.10.2', mac: VTEP_MACS[1] }],
    },
    routes: [{ to: '10.244.2.0/24', via: '192.168.10.2', encap: true }],
    profile: 'flannel',
    offload,
  };
}

/** The kernel's node, with its pod, on the switch. */
async function setUpKernelNode(rig: Rig): Promise<void> {
  await rig.ip('sw', [
    'link add up-k type veth peer name eth0',
    `link set eth0 netns ${rig.full('kernel')}`,
    'link set up-k master br0 up',
  ]);
  await rig.ip(
    'kernel',
    [
      'link set eth0 up',
      'addr add 192.168.10.2/24 dev eth0',
      'link add cni0 type bridge',
      `link set cni0 up mtu ${MTU}`,
      'addr add 10.244.2.1/24 dev cni0',
      `link add veth0 mtu ${MTU} type veth peer name eth1`,
      `link set eth1 netns ${rig.full('kpod')} name eth0`,
      'link set veth0 master cni0 up',
      `link add flannel.1 address ${VTEP_MACS[1]} type vxlan id 1 local 192.168.10.2 dev eth0 dstport 8472 nolearning`,
      'addr add 10.244.2.0/32 dev flannel.1',
      'link set flannel.1 up',
      'route add 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink',
      `neigh add 10.244.1.0 lladdr ${VTEP_MACS[0]} dev flannel.1 nud permanent`,
    ],
    { 'net/ipv4/ip_forward': 1 },
  );
  await rig.run('kernel', 'bridge', 'fdb', 'add', VTEP_MACS[0], 'dev', 'flannel.1', 'dst', '192.168.10.1');
  await rig.ip('kpod', [
    `link set eth0 mtu ${MTU} up`,
    `addr add ${KERNEL_POD}/24 dev eth0`,
    'route add default via 10.244.2.1',
  ]);
}

async function fileDigest(file: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(file), hash);
  return hash.digest('hex');
}

for (const offload of ['none', 'auto']) {
  describe(`interoperation with the kernel's VXLAN, offload ${offload}`, function () {
    this.timeout(30_000);
    let rig: Rig;
    const directions = [
      { name: 'from our pod to the kernel node', from: 'pod', to: KERNEL_POD },
      { name: 'from the kernel node to our pod', from: 'kpod', to: OUR_POD },
    ];

    before(async () => {
      rig = new Rig(`ki${offload}`);
      await rig.namespace('ours', 'pod', 'kernel', 'kpod');
      await rig.bridge('sw');
      await setUpKernelNode(rig);
      await rig.node('ours', spec(rig, offload));
      await rig.plug('ours', 'ul0', 'sw', 'up-o');
      for (const [host, address] of [
        ['pod', OUR_POD],
        ['kpod', KERNEL_POD],
      ]) {
        await rig.spawn(host, process.execPath, WHOAMI, `${HTTP_PORT}`, host, address).until('listening');
        await rig.program(host, 'traffic', 'udp-serve', `${UDP_PORT}`).until('listening');
      }
    });
    after(() => rig.close());

    for (const { name, from, to } of directions) {
      it(`ping of every size with DF set, ${name}`, async () => {
        const said = await rig.runProgram(from, 'traffic', 'ping', to, `${MAX_PING}`);
        assert.equal(said, `${MAX_PING + 1} sizes answered`);
      });

      it(`fragmented ping, ${name}`, async () => {
        const said = await rig.run(
          from,
          'ping',
          '-n',
          '-c',
          '3',
          '-i',
          '0.05',
          '-W',
          '2',
          '-M',
          'dont',
          '-s',
          '4000',
          to,
        );
        assert.match(said, / 3 received, 0% packet loss/);
      });

      it(`UDP datagrams of every size, ${name}`, async () => {
        const said = await rig.runProgram(from, 'traffic', 'udp', to, `${UDP_PORT}`, `${MAX_PING}`);
        assert.equal(said, `${MAX_PING + 1} datagrams answered`);
      });

      it(`100 MB down and up again, ${name}`, async () => {
        const file = join(rig.directory, from);
        const url = `http://${to}:${HTTP_PORT}`;
        const headers = await rig.run(from, 'curl', '-sS', '-m', '20', '-D', '-', '-o', file, `${url}/bytes/${BYTES}`);
        const digest = /^x-sha256: ([0-9a-f]{64})/im.exec(headers)?.[1];
        assert.equal(await fileDigest(file), digest);
        const answer = await rig.run(from, 'curl', '-sS', '-m', '20', '-H', 'Expect:', '-T', file, url);
        assert.equal(answer, `sha256: ${digest}\nbytes: ${BYTES}`);
      });
    }

    it('no kernel has seen a bad header or checksum', async () => {
      for (const host of HOSTS) {
        const seen = parseSnmp(await rig.run(host, 'cat', '/proc/net/snmp'));
        assert.deepEqual(
          BAD.map(name => [name, seen.get(name)]),
          BAD.map(name => [name, 0]),
          host,
        );
      }
    });

    it('our node has dropped nothing', async () => {
      const drops = [...(await rig.counters('ours'))].filter(([name]) => name.startsWith('drop-'));
      assert.deepEqual(drops, []);
    });
  });
}
