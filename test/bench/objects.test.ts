/** bench/objects.ts, smaller: what must hold at any scale is asserted, what takes how long is not. */
import assert from 'node:assert/strict';
import { measureCluster } from '../../bench/objects/cluster.ts';

describe('a cluster as objects', function () {
  this.timeout(60_000);

  it('becomes programs, of which a change makes one service new', async () => {
    const seen = await measureCluster({ nodes: 4, pods: 40, services: 20, policies: 5, watches: 10 });
    assert.equal(seen.errors, 0);
    assert.equal(seen.slices, 20);
    // Those of the API itself are there, too: a namespace and a service at the least.
    assert.ok(seen.objects > 4 + 40 + 20 + 5 + 20, `${seen.objects}`);
    assert.equal(seen.changedServices, 1);
  });
});
