import assert from 'node:assert/strict';
import fc from 'fast-check';
import { formatStatus } from '../../datapath/cli/get.ts';
import { type Column, columnsOf, formatTable, layOut } from '../../datapath/cli/table.ts';

interface Pod {
  name: string;
  mtu: number | null;
  peers: string[];
}

const COLUMNS: Column<Pod>[] = [
  { title: 'NAME', value: pod => pod.name },
  { title: 'MTU', value: pod => pod.mtu, align: 'right' },
  { title: 'PEERS', value: pod => pod.peers, wide: true },
];
const PODS: Pod[] = [
  { name: 'curl-pod', mtu: 1450, peers: ['10.0.0.1', '10.0.0.2'] },
  { name: 'w', mtu: null, peers: [] },
];

describe('formatTable', () => {
  it('aligns columns, without borders, colours or trailing blanks', () => {
    assert.equal(formatTable(PODS, COLUMNS), 'NAME        MTU\ncurl-pod   1450\nw             -\n');
  });

  it('shows wide columns when asked', () => {
    const lines = formatTable(PODS, COLUMNS, true).split('\n');
    assert.equal(lines[0], 'NAME        MTU   PEERS');
    assert.equal(lines[1], 'curl-pod   1450   10.0.0.1,10.0.0.2');
    assert.equal(lines[2], 'w             -   -');
  });

  it('prints the titles alone where there are no rows', () => {
    assert.equal(formatTable([], COLUMNS), 'NAME   MTU\n');
  });
});

describe('layOut', () => {
  it('is never wider than the terminal, and every column is there or named as left out', () => {
    const word = fc.stringMatching(/^[a-z0-9./-]{0,40}$/);
    const cell = fc.oneof(
      fc.array(word, { maxLength: 6 }).map(words => words.join(' ')),
      fc.integer(),
      fc.constant(null),
    );
    const table = fc.integer({ min: 1, max: 14 }).chain(count =>
      fc.record({
        titles: fc.uniqueArray(fc.stringMatching(/^[A-Z]{1,16}$/), { minLength: count, maxLength: count }),
        spares: fc.array(fc.nat(3), { minLength: count, maxLength: count }),
        rows: fc.array(fc.array(cell, { minLength: count, maxLength: count }), { maxLength: 5 }),
      }),
    );
    fc.assert(
      fc.property(table, fc.constantFrom(40, 80, 132), ({ titles, spares, rows }, width) => {
        const columns = titles.map((title, i) => ({ title, spare: spares[i], value: (row: unknown[]) => row[i] }));
        const { text, hidden } = layOut(rows, columns, { width });
        const lines = text.split('\n');
        assert.ok(
          lines.every(line => line.length <= width),
          text,
        );
        const shown = lines[0].split(/ {3,}/).filter(title => title !== '');
        assert.deepEqual([...shown, ...hidden].sort(), [...titles].sort());
        // What is shown is whole, in however many lines.
        const squeezed = text.replaceAll(/[ \n]/g, '').length;
        assert.ok(rows.length > 0 || squeezed === shown.join('').length);
        assert.ok(shown[0] === titles[0], 'the first column names the row');
      }),
    );
  });

  const rows = [
    { name: 'tp-lab-k8s-ctr', state: 'ok', why: 'a text with words, and one,two,three', bytes: 123456789 },
    { name: 'b', state: 'fail', why: 'unbreakable-'.repeat(3), bytes: 1 },
  ];
  const columns: Column<(typeof rows)[number]>[] = [
    { title: 'NAME', value: row => row.name },
    { title: 'STATE', value: row => row.state },
    { title: 'WHY', value: row => row.why },
    { title: 'BYTES', value: row => row.bytes, align: 'right', spare: 1 },
  ];

  it('breaks texts between words and behind commas before anything is left out', () => {
    const { text, hidden } = layOut(rows, columns, { width: 80 });
    assert.deepEqual(hidden, []);
    assert.deepEqual(text.split('\n'), [
      'NAME             STATE   WHY                                        BYTES',
      'tp-lab-k8s-ctr   ok      a text with words, and one,two,three   123456789',
      'b                fail    unbreakable-unbreakable-unbreakable-           1',
      '',
    ]);
    const narrow = layOut([rows[0]], columns, { width: 58 });
    assert.deepEqual(narrow.text.split('\n'), [
      'NAME             STATE   WHY                         BYTES',
      'tp-lab-k8s-ctr   ok      a text with words,      123456789',
      '                         and one,two,three',
      '',
    ]);
  });

  it('leaves out the least important columns, names them, and is never wider than it may be', () => {
    assert.deepEqual(layOut(rows, columns, { width: 60 }).hidden, ['BYTES']);
    assert.deepEqual(layOut(rows, columns, { width: 30 }).hidden, ['WHY', 'BYTES']);
    for (let width = 1; width < 100; width++) {
      for (const line of layOut(rows, columns, { width }).text.split('\n')) assert.ok(line.length <= width, `${width}`);
    }
  });

  it('colours a word that says how something is, and nothing else', () => {
    const lines = layOut(rows, columns, { color: true }).text.split('\n');
    assert.ok(lines[1].startsWith('tp-lab-k8s-ctr   \u001b[32mok\u001b[0m      a text'), lines[1]);
    assert.ok(lines[2].startsWith('b                \u001b[31mfail\u001b[0m    unbr'), lines[2]);
    assert.ok(!lines[0].includes('\u001b'));
  });

  it('takes 40,000 rows in their stride', function () {
    this.timeout(5000);
    const many = Array.from({ length: 40_000 }, (_, i) => ({ ...rows[i % 2], bytes: i }));
    assert.equal(layOut(many, columns, { width: 70 }).text.split('\n').length > 40_000, true);
  });
});

describe('columnsOf', () => {
  it('takes every field of any row, numbers to the right', () => {
    const columns = columnsOf([
      { to: 'default', rxPackets: 3 },
      { to: '10.0.0.0/8', rxPackets: 12, drop_reason: 'ttl' },
    ]);
    assert.deepEqual(
      columns.map(({ title, align }) => [title, align]),
      [
        ['TO', undefined],
        ['RX-PACKETS', 'right'],
        ['DROP-REASON', undefined],
      ],
    );
  });
});

describe('formatStatus', () => {
  it('puts single values first and every table under its name', () => {
    const { text } = formatStatus(
      { node: 'a', ports: [{ name: 'eth0', mtu: 1500 }], uptime: 3, tunnel: { mtu: 1450 } },
      {},
    );
    assert.equal(text, 'node:   a\nuptime: 3\n\nports:\nNAME    MTU\neth0   1500\n\ntunnel:\n MTU\n1450\n');
  });
});
