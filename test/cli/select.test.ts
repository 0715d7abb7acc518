import { strict as assert } from 'node:assert';
import { type FlowFlags, flowFilter } from '../../datapath/cli/flow-flags.ts';
import { ALL_KINDS, findKind } from '../../datapath/cli/kinds.ts';
import { namedRows, sortRows } from '../../datapath/cli/select.ts';
import { KINDS } from '../../datapath/control/kinds.ts';

const FLOWS = [
  {
    id: 'web',
    protocol: 'tcp',
    number: 6,
    state: 'ESTABLISHED',
    original: { src: '10.244.1.10', dst: '10.96.0.10', sport: 40000, dport: 80 },
    reply: { src: '10.244.2.10', dst: '10.244.1.10', sport: 8080, dport: 40000 },
    unreplied: false,
    assured: true,
    dnat: true,
    snat: false,
  },
  {
    id: 'out',
    protocol: 'udp',
    number: 17,
    state: null,
    original: { src: '10.244.1.11', dst: '192.0.2.1', sport: 5000, dport: 53 },
    reply: { src: '192.0.2.1', dst: '192.168.10.1', sport: 53, dport: 61000 },
    unreplied: true,
    assured: false,
    dnat: false,
    snat: true,
  },
];

describe('get conntrack takes the filters of conntrack -L', () => {
  const rows: [flags: FlowFlags, found: string[]][] = [
    [{}, ['web', 'out']],
    [{ src: '10.244.1.10' }, ['web']],
    [{ src: '10.244.0.0/16' }, ['web', 'out']],
    [{ src: '0.0.0.0/0', dst: '192.0.2.0/24' }, ['out']],
    [{ replySrc: '10.244.2.10' }, ['web']],
    [{ replyDst: '192.168.10.1' }, ['out']],
    [{ proto: 'TCP' }, ['web']],
    [{ proto: '17' }, ['out']],
    [{ sport: '5000' }, ['out']],
    [{ dport: '80' }, ['web']],
    [{ replyPortSrc: '8080' }, ['web']],
    [{ replyPortDst: '61000' }, ['out']],
    [{ state: 'established' }, ['web']],
    [{ status: 'ASSURED' }, ['web']],
    [{ status: 'UNREPLIED,SRC_NAT' }, ['out']],
    [{ srcNat: true }, ['out']],
    [{ srcNat: '192.168.10.1' }, ['out']],
    [{ srcNat: '192.168.10.2' }, []],
    [{ dstNat: '10.244.2.0/24' }, ['web']],
    [{ src: '10.244.1.10', proto: 'udp' }, []],
  ];
  for (const [flags, found] of rows) {
    it(JSON.stringify(flags), () => {
      assert.deepEqual(
        FLOWS.filter(flowFilter(flags)).map(({ id }) => id),
        found,
      );
    });
  }

  it('says what it expected', () => {
    assert.throws(() => flowFilter({ src: 'web' }), /^UsageError: --src web: expected an address or a network/);
    assert.throws(() => flowFilter({ dport: '70000' }), /--dport 70000: expected a port from 0 to 65535/);
    assert.throws(() => flowFilter({ status: 'DYING' }), /--status DYING: expected one of ASSURED, SEEN_REPLY/);
  });
});

describe('get KIND', () => {
  it('knows every kind by its singular and a short name, each name once', () => {
    const names = ALL_KINDS.flatMap(({ name, aliases }) => [name, ...aliases]);
    assert.equal(new Set(names).size, names.length);
    for (const [word, kind] of [
      ['svc', 'services'],
      ['Route', 'routes'],
      ['ct', 'conntrack'],
      ['ep', 'endpoints'],
      ['po', 'ports'],
      ['neigh', 'neighbors'],
    ]) {
      assert.equal(findKind(word).name, kind);
    }
    for (const kind of KINDS) assert.equal(findKind(kind).name, kind);
  });

  it('says what was probably meant', () => {
    assert.throws(
      () => findKind('servces'),
      /^UsageError: no kind 'servces' \(did you mean services\?\): expected one/,
    );
    assert.throws(() => findKind('quux'), /no kind 'quux': expected one of routes, services/);
  });

  it('finds rows by name, with and without the namespace', () => {
    const rows = [{ name: 'default/web', to: 1 }, { name: 'kube-system/web' }, { name: 'default/db', address: 'x' }];
    assert.deepEqual(namedRows(rows, 'default/web', ['name']), [rows[0]]);
    assert.deepEqual(namedRows(rows, 'web', ['name']), [rows[0], rows[1]]);
    assert.deepEqual(namedRows(rows, 'x', ['name', 'address']), [rows[2]]);
    assert.deepEqual(namedRows(rows, 'we', ['name']), []);
  });

  it('sorts by a column or a field, numbers and addresses by their size, what is absent last', () => {
    const rows = [
      { rxPackets: 10, a: { b: '10.0.0.10' } },
      { a: { b: '10.0.0.9' } },
      { rxPackets: 9, a: { b: '9.0.0.0' } },
    ];
    for (const field of ['rxPackets', 'RX-PACKETS', 'rx-packets', '.rxPackets', '{.rxPackets}']) {
      assert.deepEqual(
        sortRows(rows, field).map(row => row.rxPackets),
        [9, 10, undefined],
        field,
      );
    }
    assert.deepEqual(
      sortRows(rows, '.a.b').map(row => (row.a as { b: string }).b),
      ['9.0.0.0', '10.0.0.9', '10.0.0.10'],
    );
    assert.throws(
      () => sortRows(rows, 'rxPacket'),
      /--sort-by rxPacket \(did you mean rxPackets\?\): expected one of rxPackets, a/,
    );
    assert.deepEqual(sortRows([], 'any'), []);
  });
});
