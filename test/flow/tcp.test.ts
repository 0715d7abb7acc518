import assert from 'node:assert/strict';
import { formatConntrack } from '../../datapath/cli/lines.ts';
import { flowRow } from '../../datapath/control/nat-rows.ts';
import type { TcpOptions } from '../../datapath/flow/tcp.ts';
import { TCP_ESTABLISHED, timeoutsOf } from '../../datapath/flow/timeouts.ts';
import { ACK_FLAG, FIN, PSH, RST, SYN, URG } from '../../datapath/wire/tcp.ts';
import { fragment, pattern, type TcpOptions as Segment, tcp4 } from '../fixtures/packets.ts';
import { Box } from '../nat/box.ts';

const C = '10.1.0.1';
const S = '10.2.0.2';
const SCALE_7 = Uint8Array.from([2, 4, 5, 180, 1, 3, 3, 7, 4, 2, 1, 1]); // MSS, window scale 7, SACK permitted

/** One segment: 'c' from the client, 's' from the server; flags as letters; what it must come to, and the state then. */
type Row = [from: 'c' | 's', flags: string, o: Segment, verdict: string, state: string];

function flagBits(letters: string): number {
  const bits: Record<string, number> = { S: SYN, A: ACK_FLAG, F: FIN, R: RST, P: PSH, U: URG };
  return [...letters].reduce((sum, letter) => sum | (bits[letter] ?? 0), 0);
}

function segment(from: string, flags: string, o: Segment): Uint8Array {
  const ends = from === 'c' ? { src: C, dst: S, sport: 1000, dport: 80 } : { src: S, dst: C, sport: 80, dport: 1000 };
  return tcp4({ ...ends, flags: flagBits(flags), ack: flags.includes('A') ? 1 : 0, window: 8192, ...o });
}

function stateOf(box: Box): string {
  return box
    .rows()
    .map(row => row.state + (row.assured ? ' assured' : ''))
    .join();
}

function play(rows: Row[], options: TcpOptions = {}): Box {
  const box = new Box({ tcp: options });
  rows.forEach(([from, flags, o, verdict, state], i) => {
    box.now += 10;
    const result = box.send(segment(from, flags, o));
    const what = `segment ${i + 1}: ${from} ${flags} ${JSON.stringify(o)}`;
    assert.equal(result.verdict, verdict, what);
    assert.equal(stateOf(box), state, what);
  });
  return box;
}

const ok = 'continue';
const OPEN: Row[] = [
  ['c', 'S', { seq: 100 }, ok, 'SYN_SENT'],
  ['s', 'SA', { seq: 500, ack: 101 }, ok, 'SYN_RECV'],
  ['c', 'A', { seq: 101, ack: 501 }, ok, 'ESTABLISHED assured'],
];

describe('TCP tracking', () => {
  it('follows a connection from SYN to TIME_WAIT', () => {
    play([
      ...OPEN,
      ['c', 'PA', { seq: 101, ack: 501, payload: pattern(10) }, ok, 'ESTABLISHED assured'],
      ['s', 'A', { seq: 501, ack: 111 }, ok, 'ESTABLISHED assured'],
      ['c', 'FA', { seq: 111, ack: 501 }, ok, 'FIN_WAIT assured'],
      ['s', 'A', { seq: 501, ack: 112 }, ok, 'CLOSE_WAIT assured'],
      ['s', 'PA', { seq: 501, ack: 112, payload: pattern(5) }, ok, 'CLOSE_WAIT assured'],
      ['s', 'FA', { seq: 506, ack: 112 }, ok, 'LAST_ACK assured'],
      ['c', 'A', { seq: 112, ack: 507 }, ok, 'TIME_WAIT assured'],
    ]);
  });

  it('follows a simultaneous open', () => {
    play([
      ['c', 'S', { seq: 100 }, ok, 'SYN_SENT'],
      ['s', 'S', { seq: 500 }, ok, 'SYN_SENT2'],
      ['s', 'SA', { seq: 500, ack: 101 }, ok, 'SYN_RECV'],
      ['c', 'SA', { seq: 100, ack: 501 }, ok, 'SYN_RECV'],
      ['s', 'A', { seq: 501, ack: 101 }, ok, 'ESTABLISHED assured'],
      ['c', 'A', { seq: 101, ack: 501 }, ok, 'ESTABLISHED assured'],
    ]);
  });

  it('opens a closed connection anew for a SYN on the same ports', () => {
    const box = play([
      ...OPEN,
      ['c', 'FA', { seq: 101, ack: 501 }, ok, 'FIN_WAIT assured'],
      ['s', 'FA', { seq: 501, ack: 102 }, ok, 'LAST_ACK assured'],
      ['c', 'A', { seq: 102, ack: 502 }, ok, 'TIME_WAIT assured'],
      ['c', 'S', { seq: 90_000 }, ok, 'SYN_SENT'],
      ['s', 'SA', { seq: 70_000, ack: 90_001 }, ok, 'SYN_RECV'],
    ]);
    assert.equal(box.flows.table.used, 1);
    assert.equal(box.flows.table.stats.deleted, 1);
  });

  it('deletes a flow whose only answer is a RST', () => {
    const box = play([
      ['c', 'S', { seq: 100 }, ok, 'SYN_SENT'],
      ['s', 'RA', { seq: 0, ack: 101 }, ok, ''],
    ]);
    box.flows.table.sweep(box.now, 100);
    assert.equal(box.flows.table.used, 0);
  });

  describe('names what is invalid', () => {
    for (const flags of ['', 'SF', 'SR', 'FP', 'F', 'FR', 'SU A F', 'RU', 'P']) {
      it(`flags "${flags}"`, () => {
        play([...OPEN, ['c', flags, { seq: 101 }, 'drop-ct-invalid-tcp-flags', 'ESTABLISHED assured']]);
      });
    }

    it('a SYN ACK, a RST and a FIN without a connection', () => {
      play([
        ['s', 'SA', {}, 'drop-ct-invalid-tcp-new', ''],
        ['c', 'R', {}, 'drop-ct-invalid-tcp-new', ''],
        ['c', 'FA', {}, 'drop-ct-invalid-tcp-new', ''],
      ]);
    });

    it('steps that a state does not allow', () => {
      play([
        ['c', 'S', { seq: 100 }, ok, 'SYN_SENT'],
        ['c', 'A', { seq: 101, ack: 1 }, 'drop-ct-invalid-tcp-state', 'SYN_SENT'],
        ['s', 'FA', { seq: 1, ack: 101 }, 'drop-ct-invalid-tcp-state', 'SYN_SENT'],
        ['s', 'SA', { seq: 500, ack: 101 }, ok, 'SYN_RECV'],
        ['s', 'S', { seq: 500 }, 'drop-ct-invalid-tcp-state', 'SYN_RECV'],
      ]);
    });

    it('data beyond the window that the receiver offers', () => {
      play([
        ...OPEN,
        [
          'c',
          'A',
          { seq: 501 + 60_000, ack: 501, payload: pattern(1) },
          'drop-ct-invalid-tcp-seq-high',
          'ESTABLISHED assured',
        ],
      ]);
    });

    it('an ACK of data that nobody has sent', () => {
      play([...OPEN, ['s', 'A', { seq: 501, ack: 102 }, 'drop-ct-invalid-tcp-ack-high', 'ESTABLISHED assured']]);
    });

    it('a RST before the acknowledged data', () => {
      play([...OPEN, ['s', 'R', { seq: 400 }, 'drop-ct-invalid-tcp-rst', 'ESTABLISHED assured']]);
    });
  });

  it('lets old data and old ACKs pass without believing them', () => {
    const box = play([
      ...OPEN,
      ['c', 'A', { seq: 101 - 20_000, ack: 501, payload: pattern(1) }, ok, 'ESTABLISHED assured'],
      ['c', 'A', { seq: 101, ack: (501 - 70_000) >>> 0 }, ok, 'ESTABLISHED assured'],
    ]);
    assert.equal(box.flows.tcp.ignored, 2);
  });

  it('believes an exact RST at once, and one elsewhere in the window only as a hint', () => {
    play([...OPEN, ['s', 'R', { seq: 501 }, ok, 'CLOSE assured']]);
    play([
      ...OPEN,
      ['s', 'R', { seq: 510 }, ok, 'ESTABLISHED assured'],
      ['c', 'A', { seq: 101, ack: 501 }, ok, 'ESTABLISHED assured'], // the challenge ACK
      ['s', 'R', { seq: 501 }, ok, 'CLOSE assured'],
    ]);
  });

  it('scales windows only if both sides offer it', () => {
    const far = 501 + 100_000;
    const syn = (both: boolean): Row[] => [
      ['c', 'S', { seq: 100, tcpOptions: SCALE_7 }, ok, 'SYN_SENT'],
      ['s', 'SA', { seq: 500, ack: 101, tcpOptions: both ? SCALE_7 : new Uint8Array(0) }, ok, 'SYN_RECV'],
      ['c', 'A', { seq: 101, ack: 501 }, ok, 'ESTABLISHED assured'],
    ];
    play([...syn(true), ['s', 'A', { seq: far, ack: 101, payload: pattern(1) }, ok, 'ESTABLISHED assured']]);
    play([
      ...syn(false),
      ['s', 'A', { seq: far, ack: 101, payload: pattern(1) }, 'drop-ct-invalid-tcp-seq-high', 'ESTABLISHED assured'],
    ]);
  });

  it('takes the highest SACK edge for the acknowledgement', () => {
    const sack = Uint8Array.from([1, 1, 5, 10, 0, 0, 0, 150, 0, 0, 0, 200]);
    const opened: Row[] = [
      ['c', 'S', { seq: 100, tcpOptions: SCALE_7 }, ok, 'SYN_SENT'],
      ['s', 'SA', { seq: 500, ack: 101, tcpOptions: SCALE_7 }, ok, 'SYN_RECV'],
      ['c', 'A', { seq: 101, ack: 501 }, ok, 'ESTABLISHED assured'],
    ];
    play([
      ...opened,
      ['s', 'A', { seq: 501, ack: 101, tcpOptions: sack }, 'drop-ct-invalid-tcp-ack-high', 'ESTABLISHED assured'],
      ['c', 'A', { seq: 101, ack: 501, payload: pattern(99) }, ok, 'ESTABLISHED assured'],
      ['s', 'A', { seq: 501, ack: 101, tcpOptions: sack }, ok, 'ESTABLISHED assured'],
    ]);
  });

  it('picks up a connection in the middle, unless told not to', () => {
    play([
      ['c', 'A', { seq: 5000, ack: 9000, payload: pattern(5) }, ok, 'ESTABLISHED'],
      ['s', 'A', { seq: 9000, ack: 5005 }, ok, 'ESTABLISHED'],
      ['c', 'A', { seq: 5005, ack: 9000 }, ok, 'ESTABLISHED assured'],
      // Its window scale is unknown, so nothing is out of window.
      ['s', 'A', { seq: 9000 + 900_000, ack: 5005, payload: pattern(5) }, ok, 'ESTABLISHED assured'],
    ]);
    play([['c', 'A', { seq: 5000, ack: 9000 }, 'drop-ct-invalid-tcp-new', '']], { loose: false });
  });

  it('judges nothing but flags, states and RSTs when liberal', () => {
    play(
      [
        ...OPEN,
        ['s', 'A', { seq: 501, ack: 99_999 }, ok, 'ESTABLISHED assured'],
        ['c', 'A', { seq: 900_000, ack: 501 }, ok, 'ESTABLISHED assured'],
        ['s', 'R', { seq: 400 }, 'drop-ct-invalid-tcp-rst', 'ESTABLISHED assured'],
      ],
      { liberal: true },
    );
  });

  it('takes up a connection that the ends have begun anew', () => {
    play([
      ...OPEN,
      ['c', 'S', { seq: 900_000 }, ok, 'ESTABLISHED assured'], // ignored: the server decides
      ['s', 'SA', { seq: 700_000, ack: 900_001 }, ok, 'SYN_RECV assured'],
      ['c', 'A', { seq: 900_001, ack: 700_001 }, ok, 'ESTABLISHED assured'],
      ['s', 'A', { seq: 700_001, ack: 900_001, payload: pattern(10) }, ok, 'ESTABLISHED assured'],
    ]);
  });

  it('does not take a challenge ACK for the last ACK', () => {
    play([
      ...OPEN,
      ['c', 'FA', { seq: 101, ack: 501 }, ok, 'FIN_WAIT assured'],
      ['s', 'FA', { seq: 501, ack: 102 }, ok, 'LAST_ACK assured'],
      ['c', 'S', { seq: 5000 }, ok, 'LAST_ACK assured'],
      ['s', 'A', { seq: 502, ack: 102 }, ok, 'LAST_ACK assured'],
      ['c', 'A', { seq: 102, ack: 502 }, ok, 'TIME_WAIT assured'],
    ]);
  });

  it('does not call the acknowledgement of a fragmented segment invalid', () => {
    const box = play(OPEN);
    const whole = segment('c', 'A', { seq: 101, ack: 501, payload: pattern(200) });
    assert.equal(box.send(fragment(whole, 0, 64)).verdict, ok);
    assert.equal(box.send(fragment(whole, 64, 156)).verdict, 'drop-ct-fragment', 'that is for whoever holds fragments');
    assert.equal(box.send(segment('s', 'A', { seq: 501, ack: 301 })).verdict, ok);
  });

  describe('timeouts', () => {
    const expires = (box: Box) => box.rows()[0].expires;

    it('are those of the state', () => {
      assert.equal(expires(play(OPEN.slice(0, 1))), 120);
      assert.equal(expires(play(OPEN.slice(0, 2))), 60);
      const box = play([...OPEN, ['c', 'A', { seq: 101, ack: 501 }, ok, 'ESTABLISHED assured']]);
      assert.equal(expires(box), timeoutsOf('linux')[TCP_ESTABLISHED] / 1000);
    });

    it('are short while data is not acknowledged', () => {
      const sent: Row = ['c', 'A', { seq: 101, ack: 501, payload: pattern(9) }, ok, 'ESTABLISHED assured'];
      assert.equal(expires(play([...OPEN, sent])), 300);
      assert.equal(
        expires(play([...OPEN, sent, ['s', 'A', { seq: 501, ack: 110 }, ok, 'ESTABLISHED assured']])),
        432000,
      );
    });

    it('are not renewed by a client that only repeats its SYN', () => {
      const box = play(OPEN.slice(0, 1));
      for (let i = 0; i < 119; i++) {
        box.now += 1000;
        assert.equal(box.send(segment('c', 'S', { seq: 100 })).isNew, false);
      }
      box.now += 1000;
      assert.equal(box.send(segment('c', 'S', { seq: 100 })).isNew, true);
    });

    it('drop to the retransmission timeout after 3 repetitions', () => {
      const again: Row = ['c', 'A', { seq: 101, ack: 501 }, ok, 'ESTABLISHED assured'];
      const box = play([...OPEN, again, again, again]);
      assert.equal(expires(box), 300);
    });

    it('drop when both sides send FIN or RST out of window', () => {
      const bad = 'drop-ct-invalid-tcp-seq-high';
      const box = play([
        ...OPEN,
        ['c', 'A', { seq: 101, ack: 501 }, ok, 'ESTABLISHED assured'],
        ['c', 'FA', { seq: 101 + 900_000, ack: 501 }, bad, 'ESTABLISHED assured'],
        ['s', 'FA', { seq: 501 + 900_000, ack: 101 }, bad, 'ESTABLISHED assured'],
      ]);
      assert.equal(expires(box), 300);
    });
  });

  it('is listed as conntrack -L does', () => {
    const box = play(OPEN.slice(0, 1));
    assert.equal(
      formatConntrack(flowRow(box.rows()[0])),
      'tcp      6 120 SYN_SENT src=10.1.0.1 dst=10.2.0.2 sport=1000 dport=80 [UNREPLIED] ' +
        'src=10.2.0.2 dst=10.1.0.1 sport=80 dport=1000 mark=0 use=1',
    );
  });
});
