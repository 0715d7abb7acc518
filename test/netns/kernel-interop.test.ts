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
import { BAD, KERNEL_POD, MTU, OUR_POD, setUpKernelNode, spec } from './kernel-node.ts';
import { parseSnmp, Rig } from './rig.ts';

const WHOAMI = fileURLToPath(new URL('../../datapath/lab/whoami.js', import.meta.url));
/** MTU less IPv4 and ICMP headers. */
const MAX_PING = MTU - 28;
const BYTES = 100_000_000;
const HTTP_PORT = 8080;
const UDP_PORT = 9000;

const HOSTS = ['ours', 'pod', 'kernel', 'kpod'];

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
