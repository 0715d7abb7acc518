import assert from 'node:assert/strict';
import { ledgerProgram } from '../../datapath/control/ledger.ts';

describe('control/ledger', () => {
  it('takes pod networks of the node and of its peers', () => {
    assert.deepEqual(
      ledgerProgram({
        own: ['10.244.1.0/24'],
        peers: [
          { name: 'b', networks: ['10.244.2.0/24'] },
          { name: 'c', networks: [] },
        ],
      }),
      {
        own: [{ prefix: 0x0af40100, length: 24 }],
        peers: [
          { name: 'b', networks: [{ prefix: 0x0af40200, length: 24 }] },
          { name: 'c', networks: [] },
        ],
      },
    );
  });

  const many = Array.from({ length: 4097 }, (_, i) => `10.${i >> 8}.${i & 255}.0/24`);
  const wrong: [params: Record<string, unknown>, problem: string][] = [
    [{}, 'own: got nothing, expected a list'],
    [{ own: [] }, 'peers: got nothing, expected a list'],
    [{ own: ['10.0.0.0'], peers: [] }, 'own[0]: got "10.0.0.0", expected a network of IPv4'],
    [{ own: [7], peers: [] }, 'own[0]: got 7, expected a network of IPv4'],
    [{ own: [], peers: [null] }, 'peers[0].name: got nothing, expected a name'],
    [{ own: [], peers: [{ name: 'b' }] }, 'peers[0].networks: got nothing, expected a list'],
    [{ own: [], peers: [{ name: 'b', networks: [{}] }] }, 'peers[0].networks[0]: got {}, expected a network of IPv4'],
  ];
  for (const [params, problem] of wrong) {
    it(`refuses ${JSON.stringify(params)}`, () => {
      assert.throws(() => ledgerProgram(params), { message: `keep-ledger: ${problem}` });
    });
  }

  it('refuses more than a path can look through', () => {
    assert.throws(() => ledgerProgram({ own: many, peers: [] }), /got 4097 networks, expected at most 4096/);
  });
});
