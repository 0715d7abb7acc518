import assert from 'node:assert/strict';
import { formatStatus } from '../../datapath/cli/get.ts';
import { type Column, columnsOf, formatTable } from '../../datapath/cli/table.ts';

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
    const text = formatStatus(
      { node: 'a', ports: [{ name: 'eth0', mtu: 1500 }], uptime: 3, tunnel: { mtu: 1450 } },
      false,
    );
    assert.equal(text, 'node:   a\nuptime: 3\n\nports:\nNAME    MTU\neth0   1500\n\ntunnel:\n MTU\n1450\n');
  });
});
