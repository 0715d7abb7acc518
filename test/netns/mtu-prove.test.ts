/**
 * What `tunpath mtu prove` says of the prepared configurations, held against the same configurations on real devices: the packet that it
 * names fails in the way that it names, and the one that is a byte shorter arrives.
 */
import { strict as assert } from 'node:assert';
import { fileURLToPath } from 'node:url';
import type { ProbeEnd } from '../../datapath/lab/probe.ts';
import { probeOneWay } from '../../datapath/lab/probe.ts';
import { loadInputs } from '../../datapath/mtu-prove/load.ts';
import { Network } from '../../datapath/mtu-prove/network.ts';
import { type Case, prove } from '../../datapath/mtu-prove/prove.ts';
import { Rig } from './rig.ts';
import { buildUnderlay } from './underlay.ts';

const FIXTURES = fileURLToPath(new URL('../../../test/fixtures/mtu/', import.meta.url)); // seen from dist/test/netns
const CONFIGURATIONS = ['clean', 'mixed-mtu', 'vxlan-over-1280', 'vxlan-in-vxlan', 'dsr-option', 'filtered-icmp'];

describe('tunpath mtu prove on real devices', function () {
  this.timeout(60_000);
  for (const name of CONFIGURATIONS) {
    describe(name, () => {
      let rig: Rig;
      let cases: Case[];
      let pods: Map<string, ProbeEnd>;

      before(async () => {
        const inputs = loadInputs([`${FIXTURES}${name}`]);
        assert.deepEqual(inputs.problems, []);
        cases = prove(new Network(inputs.configs, inputs.underlays)).filter(({ kind }) => kind === 'pods');
        assert.equal(cases.length, 2, 'there and back');
        rig = new Rig(`mp${CONFIGURATIONS.indexOf(name)}`);
        pods = await buildUnderlay(rig, `${FIXTURES}${name}`, inputs);
      });
      after(() => rig?.close());

      for (const way of [0, 1]) {
        it(way === 0 ? 'there' : 'back', async () => {
          const { sender, receiver, largest, verdict, ranges, fails } = cases[way];
          const [from, to] = [sender, receiver!].map(pod => pods.get(pod.name)!);
          const ping = async (bytes: number, df: boolean) => {
            const argv = ['-n', '-M', df ? 'do' : 'dont', '-c', '1', '-W', '1', '-s', `${bytes - 28}`, to.address];
            return rig.exec(from.netns.slice(rig.prefix.length), 'ping', ...argv);
          };
          // The first packet of all also waits for ARP.
          await ping(100, true);
          if (fails !== null && verdict === 'black hole') {
            assert.match((await ping(fails.bytes, fails.df)).stdout, / 0 received/, 'the packet that was named');
          }

          const { next, ended, withoutDf, ...found } = await probeOneWay(from, to);
          assert.equal(found.device, sender.deviceMtu);
          assert.equal(found.largest, largest, 'the largest that arrives');
          if (verdict === 'ok') {
            assert.deepEqual(ended, { outcome: 'local', error: 'EMSGSIZE', mtu: largest });
            assert.equal((await ping(largest, true)).code, 0);
            assert.match((await ping(largest + 1, true)).stderr, /message too long/i);
            return;
          }
          const endingOf = (df: boolean) => ranges.find(range => range.df === df && range.from === next)!.ending;
          const [withDf, without] = [endingOf(true), endingOf(false)];
          assert.equal(ended.outcome, withDf.kind, `${next} with DF`);
          if (ended.outcome === 'signalled' && withDf.kind === 'signalled') assert.equal(ended.mtu, withDf.mtu);
          assert.equal(
            withoutDf?.outcome,
            without.kind === 'delivered' ? 'arrived' : without.kind,
            `${next} without DF`,
          );
          assert.equal((await ping(largest, true)).code, 0, 'one byte less than what fails');
        });
      }
    });
  }
});
