import assert from 'node:assert/strict';
import { capabilitySets, maskOf, missingCapabilities, RUNNING } from '../../datapath/control/capabilities.ts';

describe('capabilities', () => {
  it('reads the sets of a status file', () => {
    const status =
      'Name:\tnode\nCapInh:\t0000000000000001\nCapPrm:\t000001ffffffffff\nCapEff:\t0000000000203000\nCapBnd:\t0000000000003000\nCapAmb:\t0\n';
    assert.deepEqual(capabilitySets(status), {
      inheritable: 1n,
      permitted: 0x1ffffffffffn,
      effective: 0x203000n,
      bounding: 0x3000n,
    });
    assert.equal(typeof capabilitySets().effective, 'bigint');
  });

  it('names what is missing', () => {
    assert.equal(maskOf(RUNNING), 0x3000n);
    assert.deepEqual(missingCapabilities(['CAP_NET_ADMIN', 'CAP_SYS_ADMIN'], 0x3000n), ['CAP_SYS_ADMIN']);
    assert.deepEqual(missingCapabilities(RUNNING, 0x3000n), []);
    assert.deepEqual(missingCapabilities(RUNNING, 0n), ['CAP_NET_ADMIN', 'CAP_NET_RAW']);
  });
});
