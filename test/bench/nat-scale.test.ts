/** The questions of bench/nat-scale.ts, smaller: what must hold at any scale is asserted, what takes how long is not. */
import { strict as assert } from 'node:assert';
import { takeAllPorts } from '../../bench/nat-scale/ports.ts';
import { changeServices } from '../../bench/nat-scale/services.ts';
import { floodWithSyns } from '../../bench/nat-scale/syn-flood.ts';

describe('NAT at scale', function () {
  this.timeout(60_000);

  it('a SYN flood takes nothing from established connections, no memory, and is explained', () => {
    const capacity = 8192;
    const result = floodWithSyns(400_000, 1000, capacity);
    assert.equal(result.delivered, result.sent);
    assert.equal(result.unexplained, 0);
    assert.deepEqual([...result.drops], [], 'the table makes room for each');
    const { created, evicted, expired, used } = result.flows;
    assert.equal(used, capacity);
    assert.equal(created, used + evicted + expired);
    assert.ok(result.heap[1] - result.heap[0] < 16, `heap ${result.heap.join(' -> ')} MiB`);
    assert.ok(result.rss[1] - result.rss[0] < 64, `RSS ${result.rss.join(' -> ')} MiB`);
  });

  it('a table half full of established connections still takes every new one', () => {
    const result = floodWithSyns(100_000, 2000, 4096);
    assert.equal(result.delivered, result.sent);
    assert.deepEqual([...result.drops], []);
  });

  it('every port of a masquerade address is found, the next flow is told, and closed ones come back', () => {
    const result = takeAllPorts();
    assert.equal(result.allocated, 64512);
    assert.equal(result.distinct, 64512);
    assert.equal(result.errorSent, true);
    assert.equal(result.refused, 1);
    assert.equal(result.comeBack, result.closed);
  });

  it('a stream loses nothing while services change', () => {
    const result = changeServices(500, 200, 10_000);
    assert.equal(result.lost, 0);
  });
});
