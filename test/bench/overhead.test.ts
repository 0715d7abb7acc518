import assert from 'node:assert/strict';
import { MODES, theoryOf, UNDERLAY_MTUS } from '../../bench/overhead/theory.ts';
import { measureWire } from '../../bench/overhead/wire.ts';

describe('bench/overhead', () => {
  it('theory, worked by hand for an underlay of 1500', () => {
    // 1448 bytes of 1500 + 38; 1398 of the same frame through VXLAN; a length field of 16 bits says 65535.
    assert.deepEqual(theoryOf('native', 1500), {
      headerBytes: 0,
      mtuInside: 1500,
      goodputShare: 1448 / 1538,
      segments: Math.ceil(65_483 / 1448),
      fragments: 1,
      fragmentedShare: 1472 / 1538,
    });
    const vxlan = theoryOf('vxlan', 1500);
    assert.equal(vxlan.mtuInside, 1450);
    assert.equal(vxlan.goodputShare, 1398 / 1538);
    assert.equal(vxlan.segments, 47);
    // 1480 bytes go as 1424 and 56, each with 20 + 50 + 38 bytes around.
    assert.equal(vxlan.fragments, 2);
    assert.equal(vxlan.fragmentedShare, 1472 / (1424 + 56 + 2 * 108));
    assert.equal(theoryOf('ipip', 1500).goodputShare, 1428 / 1538);
  });

  for (const mode of MODES) {
    for (const mtu of UNDERLAY_MTUS) {
      it(`${mode}, underlay ${mtu}: what the node puts on the wire is what theory says`, () => {
        assert.deepEqual(measureWire(mode, mtu), theoryOf(mode, mtu));
      });
    }
  }
});
