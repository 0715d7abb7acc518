import assert from 'node:assert/strict';
import fc from 'fast-check';
import { BusyPoll, MOST_MS } from '../../datapath/drive/busy-poll.ts';

describe('how long a loop looks before it sleeps', () => {
  /** Waits of a loop that finds something `gaps` ms after it began to wait, in turn. @returns ms that it looked in all */
  function spent(poll: BusyPoll, gaps: readonly number[]): number {
    let looked = 0;
    for (const gap of gaps) {
      looked += Math.min(poll.ms, gap);
      poll.waited(gap);
    }
    return looked;
  }
  const times = (n: number, ...gaps: number[]) => Array.from({ length: n }, () => gaps).flat();

  it('auto: finds a ping every 3 ms awake, after a few', () => {
    const poll = new BusyPoll('auto');
    spent(poll, times(10, 2.9, 0.03));
    assert.ok(poll.ms > 2.9, `${poll.ms}`);
  });

  it('auto: costs a ping a second under a ten-thousandth of a processor', () => {
    assert.ok(spent(new BusyPoll('auto'), times(100, 1000, 0.03)) < 100 * 1000 * 1e-4);
  });

  it('auto: sleeps at once after a long pause, and where others want the processor', () => {
    for (const end of [(p: BusyPoll) => p.waited(MOST_MS + 1), (p: BusyPoll) => p.crowded()]) {
      const poll = new BusyPoll('auto');
      spent(poll, times(20, 1));
      assert.ok(poll.ms >= 1);
      end(poll);
      assert.equal(poll.ms, 0);
    }
  });

  it('auto: never looks for longer than its limit', () => {
    fc.assert(
      fc.property(fc.array(fc.double({ min: 0, max: 20, noNaN: true })), gaps => {
        const poll = new BusyPoll('auto');
        for (const gap of gaps) {
          assert.ok(poll.ms >= 0 && poll.ms <= MOST_MS);
          poll.waited(gap);
        }
      }),
    );
  });

  it('a number of microseconds: so long, whatever comes', () => {
    const poll = new BusyPoll(50);
    for (const gap of [0.01, 3, 1000, 0.04]) {
      assert.equal(poll.ms, 0.05);
      poll.waited(gap);
    }
    poll.crowded();
    assert.equal(poll.ms, 0.05);
    assert.equal(new BusyPoll(0).isOn, false);
  });
});
