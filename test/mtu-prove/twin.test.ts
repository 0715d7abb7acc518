/** What a proof says of a packet against what real datapaths do with it, for configurations at random. */
import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import { findPath, limitsOf } from '../../datapath/mtu-prove/path.ts';
import { walk } from '../../datapath/mtu-prove/walk.ts';
import { Random } from '../../datapath/random.ts';
import { pattern, udp4 } from '../fixtures/packets.ts';
import { networkOf, POD_ADDRESSES, type Side, type TwoNodes } from './configs.ts';
import { Wire } from './wire.ts';

const SEED = Number(process.env.SEED ?? 20261121);
const CONFIGURATIONS = 60;
/** By then every lesson of a path of four links has been learnt. */
const SENDS = 6;
const DF = 0x4000;

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

describe(`mtu prove against the datapath (SEED=${SEED})`, () => {
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
      const wire = new Wire(network);
      for (const len of [...lengths].filter(length => length <= most)) {
        for (const df of [true, false]) {
          const ending = walk(network, path, a.pods[0].address, len, df);
          seen.set(ending.kind, (seen.get(ending.kind) ?? 0) + 1);
          wire.forget();
          const packet = udp4({
            src: POD_ADDRESSES[0],
            dst: POD_ADDRESSES[1],
            fragment: df ? DF : 0,
            payload: pattern(len - 28),
          });
          let came = wire.send('a', packet);
          for (let i = 1; i < SENDS; i++) came = wire.send('a', packet);
          const what = `${len} bytes, DF ${df}, ${JSON.stringify(chosen)}: ${JSON.stringify(ending)}`;
          const [toSender, toReceiver] = ['a', 'b'].map(name => came.get(name)!);
          if (ending.kind === 'delivered') {
            const inner = ending.cuts.filter(({ where }) => where === 'inner').at(-1)?.pieces ?? 1;
            const outer = ending.cuts.filter(({ where }) => where === 'outer').at(-1)?.pieces;
            assert.equal(toReceiver.length, inner, what);
            assert.equal(toSender.length, 0, what);
            if (outer !== undefined) assert.ok(wire.arrived.get('b')! >= outer, what);
          } else {
            // A short piece of a datagram may come through where a long one does not.
            const arrived = toReceiver.reduce((sum, piece) => sum + piece.length - 20, 0);
            assert.ok(arrived < len - 20, what);
            const mtus = toSender.map(error => new DataView(error.buffer, error.byteOffset).getUint16(26));
            assert.deepEqual(mtus, ending.kind === 'signalled' ? [ending.mtu] : [], what);
          }
        }
      }
    });
  }

  it('every ending was among them', () => {
    for (const kind of ['delivered', 'signalled', 'lost'])
      assert.ok((seen.get(kind) ?? 0) > 20, `${kind}: ${seen.get(kind)}`);
  });
});
