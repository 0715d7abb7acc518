/** What a proof finds by real datapaths against what arithmetic says, for configurations at random. */
import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import { findPath, limitsOf } from '../../datapath/mtu-prove/path.ts';
import { Walker } from '../../datapath/mtu-prove/walk.ts';
import { Random } from '../../datapath/random.ts';
import { walkByLengths } from '../model/mtu-walk.ts';
import { networkOf, type Side, type TwoNodes } from './configs.ts';

const SEED = Number(process.env.SEED ?? 20261121);
const CONFIGURATIONS = 60;

function configuration(random: Random): TwoNodes {
  const one = <T>(...values: T[]): T => values[random.below(values.length)];
  const protocol = one('none', 'ipip', 'vxlan', 'vxlan', 'geneve', 'geneve');
  const tooBig = one('signal', 'signal', 'fragment-inner', 'fragment-outer', 'larger-underlay');
  const isTunnel = protocol !== 'none';
  const side = (): Side => ({
    uplinkMtu: tooBig === 'larger-underlay' ? one(1600, 9000) : one(1500, 1500, 1400, 9000),
    podMtu: tooBig === 'larger-underlay' ? 1500 : one(undefined, undefined, 1450, 1300),
    tunnel: isTunnel ? { ...one({}, {}, { df: 'set' }, { df: 'clear' }, { df: 'inherit' }) } : {},
    route: one({}, {}, { mtu: 1350 }),
    spec: { mtu: { tooBig: isTunnel || !/outer|larger/.test(tooBig) ? tooBig : 'signal' } },
  });
  const options = { options: one([], [{ class: 1, type: 1, data: '0011223344556677' }]) };
  const [a, b] = [side(), side()];
  if (protocol === 'geneve') for (const end of [a, b]) Object.assign(end.tunnel!, options);
  const link = (between: string[]) => ({
    between,
    mtu: one(1500, 1500, 1280, 1000, 9000),
    layer: one(3, 3, 3, 2),
    icmp: one('allowed', 'allowed', 'filtered'),
    ...one({}, {}, { carriedBy: { protocol: one('vxlan', 'wireguard') } }),
  });
  const links = one(
    undefined,
    [link(['a', 'b'])],
    [link(['a', 'r1']), link(['r1', 'b'])],
    [link(['a', 'r1']), link(['r1', 'r2']), link(['r2', 'b'])],
  );
  const profile = one('linux', 'cilium', 'calico', 'flannel', 'rfc');
  return { protocol, profile, a, b, ...(links === undefined ? {} : { links }) };
}

describe(`mtu prove against arithmetic (SEED=${SEED})`, () => {
  const random = new Random(SEED);
  const seen = new Map<string, number>();
  for (let n = 0; n < CONFIGURATIONS; n++) {
    const chosen = configuration(random);
    it(`${n}: ${chosen.protocol}, ${chosen.profile}, ${chosen.links?.length ?? 'no'} links`, () => {
      const network = networkOf(chosen);
      const [a, b] = network.nodes;
      const path = findPath(network, a, b.pods[0].address);
      assert.equal(path.broken, null);
      const most = a.pods[0].routeMtu;
      const lengths = new Set([100, most, ...limitsOf(path).flatMap(limit => [limit, limit + 1])]);
      const walker = new Walker(network);
      for (const len of [...lengths].filter(length => length <= most)) {
        for (const df of [true, false]) {
          const ending = walker.walk(path, a.pods[0], len, df);
          seen.set(ending.kind, (seen.get(ending.kind) ?? 0) + 1);
          const expected = walkByLengths(network, path, a.pods[0].address, len, df);
          assert.deepEqual(ending, expected, `${len} bytes, DF ${df}, ${JSON.stringify(chosen)}`);
        }
      }
    });
  }

  it('every ending was among them', () => {
    for (const kind of ['delivered', 'signalled', 'lost'])
      assert.ok((seen.get(kind) ?? 0) > 20, `${kind}: ${seen.get(kind)}`);
  });
});
