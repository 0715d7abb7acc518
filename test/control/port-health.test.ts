/** What becomes of a port: each change once, with its time and reason. */
import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { describeHealth, type HealthChange, PortHealth } from '../../datapath/control/port-health.ts';

/** A health whose clock goes on by a second with every look. */
function healthAt() {
  let seconds = 0;
  const changes: HealthChange[] = [];
  const health = new PortHealth(
    change => changes.push(change),
    () => new Date(1000 * seconds++),
  );
  return { health, changes, at: (second: number) => new Date(1000 * second).toISOString() };
}

describe('health of ports', () => {
  it('is up until something is said, since it was first asked for', () => {
    const { health, changes, at } = healthAt();
    assert.deepEqual(health.of('pod p'), { state: 'up', since: at(0), why: null });
    assert.deepEqual(health.of('pod p'), { state: 'up', since: at(0), why: null });
    assert.deepEqual(changes, []);
  });

  it('says what has changed, and since when', () => {
    const { health, changes, at } = healthAt();
    health.set('pod p', 'gone', 'its network namespace is gone');
    health.set('pod p', 'up', 'attached again');
    assert.deepEqual(changes, [
      { port: 'pod p', was: 'up', health: { state: 'gone', since: at(1), why: 'its network namespace is gone' } },
      { port: 'pod p', was: 'gone', health: { state: 'up', since: at(2), why: 'attached again' } },
    ]);
    assert.deepEqual(changes.map(describeHealth), [
      'port pod p is gone: its network namespace is gone',
      'port pod p is up again: attached again',
    ]);
  });

  it('takes a better reason for the same state without a word', () => {
    const { health, changes, at } = healthAt();
    health.set('uplink', 'down', 'eth0 is down');
    health.set('uplink', 'down', 'eth0 has no carrier');
    assert.equal(changes.length, 1);
    assert.deepEqual(health.of('uplink'), { state: 'down', since: at(1), why: 'eth0 has no carrier' });
  });

  it('forgets ports that are not there any more', () => {
    const { health, changes } = healthAt();
    health.set('pod p', 'gone', 'x');
    health.keepOnly(['pod q']);
    assert.equal(health.of('pod p').state, 'up');
    assert.equal(changes.length, 1);
  });

  it('names every transition of any history, and no other', () => {
    const step = fc.tuple(fc.constantFrom('a', 'b'), fc.constantFrom('up', 'down', 'gone'));
    fc.assert(
      fc.property(fc.array(step), steps => {
        const { health, changes } = healthAt();
        const states = new Map<string, string>();
        let expected = 0;
        for (const [port, state] of steps) {
          if ((states.get(port) ?? 'up') !== state) expected++;
          states.set(port, state);
          health.set(port, state, null);
          assert.equal(health.of(port).state, state);
        }
        assert.equal(changes.length, expected);
        for (const { was, health: is } of changes) assert.notEqual(was, is.state);
      }),
    );
  });
});
