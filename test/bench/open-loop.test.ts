import assert from 'node:assert/strict';
import {
  encodeHistogram,
  mergeHistograms,
  newHistogram,
  percentileCurve,
  percentileOf,
  recordMs,
} from '../../bench/e2e/histogram.ts';
import { type Link, runOpenLoop } from '../../bench/e2e/open-loop.ts';

/** A server that answers in turn after `serviceMs` each, and does nothing from `pauseAt` on for `pauseMs`. Time is its own. */
class SlowServer implements Link {
  private time = 1000;
  private freeAt = 0;
  private readonly waiting: { sequence: number; at: number }[] = [];
  private readonly model: {
    serviceMs: number;
    pauseAt: number;
    pauseMs: number;
    loses?: (sequence: number) => boolean;
  };

  constructor(model: SlowServer['model']) {
    this.model = model;
  }

  now(): number {
    return this.time;
  }

  send(sequence: number): void {
    const { serviceMs, pauseAt, pauseMs, loses } = this.model;
    let start = Math.max(this.time, this.freeAt);
    if (start >= pauseAt && start < pauseAt + pauseMs) start = pauseAt + pauseMs;
    this.freeAt = start + serviceMs;
    if (!loses?.(sequence)) this.waiting.push({ sequence, at: this.freeAt });
  }

  /** Time goes by, and nobody looks. */
  pass(ms: number): void {
    this.time += ms;
  }

  receive(deadline: number): number {
    const next = this.waiting[0];
    this.time = Math.max(this.time, Math.min(next?.at ?? Infinity, deadline));
    return next !== undefined && next.at <= this.time ? this.waiting.shift()!.sequence : -1;
  }
}

/** What a client sees that waits for each answer before it asks again. */
function closedLoop(link: Link, count: number): number[] {
  return Array.from({ length: count }, (_, i) => {
    const start = link.now();
    link.send(i);
    while (link.receive(Infinity) !== i);
    return link.now() - start;
  });
}

function openLoop(server: SlowServer, plan = { rate: 1000, count: 1000, patience: 500 }) {
  const times: number[] = [];
  return { ...runOpenLoop(server, plan, ms => times.push(ms)), times: times.sort((a, b) => a - b) };
}

describe('bench/e2e/open-loop', () => {
  it('an even server: every request takes its time', () => {
    const { sent, lost, times } = openLoop(new SlowServer({ serviceMs: 0.25, pauseAt: Infinity, pauseMs: 0 }));
    assert.deepEqual([sent, lost, times.length], [1000, 0, 1000]);
    for (const ms of times) assert.ok(Math.abs(ms - 0.25) < 1e-6, `${ms}`);
  });

  it('a pause counts for each request that was due in it, not once', () => {
    const pause = { serviceMs: 0.25, pauseAt: 1500, pauseMs: 100 };
    const { times } = openLoop(new SlowServer(pause));
    // A request every millisecond: the one at the pause's beginning waits 100 ms, the next 99.25, for the server has to
    // work them off, and so on down to the 133rd.
    const slow = times.filter(ms => ms > 0.26);
    assert.ok(slow.length > 130 && slow.length < 137, `${slow.length}`);
    assert.ok(Math.abs(times.at(-1)! - 100.25) < 0.01, `${times.at(-1)}`);
    assert.ok(times[989] > 90, `p99 ${times[989]}`);

    const closed = closedLoop(new SlowServer({ ...pause, pauseAt: 1100 }), 1000).sort((a, b) => a - b);
    assert.equal(closed.filter(ms => ms > 0.26).length, 1);
    assert.ok(closed[989] < 0.26, 'the closed loop leaves them out');
  });

  it('a sender that is held up sends late, and the wait counts', () => {
    const server = new SlowServer({ serviceMs: 0, pauseAt: Infinity, pauseMs: 0 });
    const link: Link = {
      now: () => server.now(),
      receive: deadline => server.receive(deadline),
      send: sequence => {
        server.send(sequence);
        if (sequence === 100) server.pass(50);
      },
    };
    const times: number[] = [];
    runOpenLoop(link, { rate: 1000, count: 500, patience: 500 }, ms => times.push(ms));
    assert.equal(times.length, 500);
    // The one before the pause is answered after it, and so on: 50, 49, 48...
    assert.ok(Math.abs(Math.max(...times) - 50) < 0.01, `${Math.max(...times)}`);
    const late = times.filter(ms => ms > 0.5).length;
    assert.ok(late >= 49 && late <= 51, `${late}`);
  });

  it('a lost request counts as the time that was waited for it', () => {
    const loses = (sequence: number) => sequence % 100 === 50;
    const { sent, lost, times } = openLoop(new SlowServer({ serviceMs: 0.1, pauseAt: Infinity, pauseMs: 0, loses }));
    assert.deepEqual([sent, lost, times.length], [1000, 10, 1000]);
    assert.ok(
      times.slice(-10).every(ms => ms >= 500),
      `${times.slice(-11)}`,
    );
    assert.ok(times[989] < 0.2);
  });

  it('an answer that comes twice, or to what was not asked, counts once or not at all', () => {
    const server = new SlowServer({ serviceMs: 0.1, pauseAt: Infinity, pauseMs: 0 });
    let last = 0;
    let strange = 0;
    const link: Link = {
      now: () => server.now(),
      send: sequence => server.send(sequence),
      receive: deadline => {
        if (strange++ % 3 === 0) return 99_999;
        if (strange % 3 === 2 && last > 0) return last;
        const sequence = server.receive(deadline);
        if (sequence >= 0) last = sequence;
        return sequence;
      },
    };
    const times: number[] = [];
    const { lost } = runOpenLoop(link, { rate: 1000, count: 200, patience: 10 }, ms => times.push(ms));
    assert.deepEqual([lost, times.length], [0, 200]);
  });
});

describe('bench/e2e/histogram', () => {
  it('adds up what several processes recorded, to three digits, from nanoseconds to seconds', () => {
    const one = newHistogram();
    const two = newHistogram();
    for (let i = 1; i <= 500; i++) recordMs(one, i / 1000);
    for (let i = 501; i <= 999; i++) recordMs(two, i / 1000);
    recordMs(two, 5000);
    const sum = mergeHistograms([encodeHistogram(one), encodeHistogram(two)]);
    assert.equal(sum.totalCount, 1000);
    for (const [percentile, us] of [
      [50, 500],
      [90, 900],
      [99, 990],
      [99.9, 999],
      [100, 5e6],
    ]) {
      const found = percentileOf(sum, percentile);
      assert.ok(Math.abs(found / us - 1) < 1e-3, `p${percentile}: ${found}, not ${us}`);
    }
  });

  it('a curve rises to the greatest value, denser towards the end', () => {
    const histogram = newHistogram();
    for (let i = 1; i <= 10_000; i++) recordMs(histogram, i / 1000);
    const curve = percentileCurve(histogram);
    assert.equal(curve[0][0], 0);
    assert.equal(curve.at(-1)![0], 100);
    assert.ok(Math.abs(curve.at(-1)![1] / 10_000 - 1) < 1e-3);
    for (let i = 1; i < curve.length; i++) {
      assert.ok(curve[i][0] > curve[i - 1][0] && curve[i][1] >= curve[i - 1][1], `${curve[i]}`);
    }
    assert.ok(curve.filter(([percentile]) => percentile > 99).length > 20);
    assert.ok(curve.length < 100, `${curve.length}`);
  });
});
