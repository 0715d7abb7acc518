import assert from 'node:assert/strict';
import {
  parseConnections,
  parseLatency,
  parsePacketRates,
  parseRoundTrips,
  parseTcp,
  parseUdp,
  TrialError,
} from '../../bench/e2e/parse.ts';
import { Progress } from '../../bench/e2e/progress.ts';
import { formatFigure } from '../../bench/e2e.ts';
import { parseMachineTime, timeBetween } from '../../bench/machine.ts';

/** Sums as iperf3 3.12 printed them for 1 s of TCP with 4 flows. */
const TCP = JSON.stringify({
  start: {},
  end: {
    sum_sent: {
      seconds: 1.003044,
      bytes: 2637168640,
      bits_per_second: 21033323682.70983,
      retransmits: 7,
      sender: true,
    },
    sum_received: { seconds: 1.004523, bytes: 2634153984, bits_per_second: 20978346809.38117, sender: true },
  },
});

/** And for 1 s of UDP with 64 bytes. */
const UDP = JSON.stringify({
  end: {
    sum: { seconds: 1.000167, bytes: 25956480, bits_per_second: 207630869, lost_packets: 276034, packets: 405570 },
    sum_sent: { seconds: 1, bytes: 25956480, bits_per_second: 207630869, lost_packets: 0, packets: 405570 },
    sum_received: { seconds: 2, bytes: 8290304, bits_per_second: 66311358, lost_packets: 276034, packets: 405570 },
  },
});

const REFUSED = JSON.stringify({ start: {}, intervals: [], end: {}, error: 'unable to connect to server' });

describe('bench/e2e/parse', () => {
  it('TCP: what was received, of all flows', () => {
    const tcp = parseTcp(TCP);
    assert.equal(tcp.gigabitsPerSecond, 20.97834680938117);
    assert.equal(tcp.gigabytes, 2.634153984);
    assert.equal(tcp.retransmits, 7);
  });

  it('UDP: what arrived, by bytes and in the time of the receiver', () => {
    const udp = parseUdp(UDP, 64);
    assert.equal(udp.delivered, 129536 / 2);
    assert.equal(udp.offered, 405570);
    assert.ok(Math.abs(udp.lostPercent - 68.06075) < 1e-4, `${udp.lostPercent}`);
  });

  it('round trips', () => {
    const trips = { count: 9, lost: 1, seconds: 1, p50: 20.5, p99: 40, p999: 80, max: 99 };
    assert.deepEqual(parseRoundTrips(`${JSON.stringify(trips)}\n`), trips);
  });

  const failures: [what: string, run: () => unknown, said: RegExp][] = [
    ['an error of iperf3', () => parseTcp(REFUSED), /unable to connect to server/],
    ['an error of iperf3 with UDP', () => parseUdp(REFUSED, 64), /unable to connect to server/],
    ['no sums', () => parseTcp('{"end":{}}'), /no sums/],
    ['half a report', () => parseTcp(TCP.slice(0, 100)), /no JSON but/],
    ['no object', () => parseTcp('7'), /no JSON but '7'/],
    ['nothing received', () => parseUdp(UDP.replace('8290304', '0'), 64), /nothing arrived/],
    ['no rate', () => parsePacketRates('{"found":[{"rate":0}],"delivered":9}'), /no rate without loss/],
    ['no datagram', () => parsePacketRates('{"found":[],"delivered":0}'), /no rate without loss/],
    ['nothing but losses', () => parseLatency('{"sent":7,"lost":7,"histogram":""}'), /no request was answered/],
    ['no connection', () => parseConnections('{"completed":0,"failed":3}'), /no connection came about/],
    ['no reply', () => parseRoundTrips('{"count":0,"lost":5}'), /no request was answered/],
  ];
  for (const [what, run, said] of failures) {
    it(`${what}: a trial without a figure`, () => {
      assert.throws(run, (error: unknown) => error instanceof TrialError && said.test(error.message));
    });
  }
});

describe('bench/machine', () => {
  it('reads /proc/stat: iowait is idle, steal is neither, guest is not counted twice', () => {
    const before = parseMachineTime('cpu  100 10 20 1000 30 1 2 5 50 0\ncpu0 100 10 20 1000 30 1 2 5 50 0\n');
    assert.deepEqual(before, { busy: 1.33, steal: 0.05, total: 11.68 });
    const after = parseMachineTime('cpu  200 10 20 1100 30 1 2 105 150 0\ncpu0 0 0 0 0 0 0 0 0 0 0\n');
    assert.deepEqual(timeBetween(before, after), { busy: 1, steal: 1, total: 3 });
  });
});

describe('bench/e2e/progress', () => {
  it('tells how long the rest takes, judged by the part behind it', () => {
    let now = 1000;
    const lines: string[] = [];
    const progress = new Progress(
      40,
      () => now,
      line => lines.push(line),
    );
    progress.say('start');
    now += 20_000;
    progress.advance(10);
    progress.say('a quarter');
    now += 50_000;
    progress.advance(30);
    progress.say('all');
    assert.deepEqual(lines, ['[   0 s] start', '[  20 s] a quarter  (60 s left)', '[  70 s] all  (0 s left)']);
  });
});

describe('formatFigure', () => {
  it('three digits, thousands as k', () => {
    assert.deepEqual([0.05, 9.876, 31.84, 999.4, 46123, 151234, 1234567].map(formatFigure), [
      '0.0500',
      '9.88',
      '31.8',
      '999',
      '46.1k',
      '151k',
      '1235k',
    ]);
  });
});
