/** A client that watches, as the node's control plane serves it. */
import { strict as assert } from 'node:assert';
import { WatchClients, type WatchContext } from '../../datapath/control/watch.ts';
import { RecordRing } from '../../datapath/memory/record-ring.ts';
import { HEADER_BYTES } from '../../datapath/watch/record.ts';
import type { WatchSpec } from '../../datapath/watch/watch.ts';

const PIECES = 50;
/** As a piece has them at most. */
const ROWS = 256;

describe('a client that watches', () => {
  it('leaves others their turn, however much happens and however fast it reads', async () => {
    let ring: RecordRing | null = null;
    const context = {} as WatchContext;
    const clients = new WatchClients({
      request: async (method, params) => {
        if (method === 'watch') ring = new RecordRing((params as { spec: WatchSpec }).spec.ring);
        return null;
      },
      context: () => context,
    });
    const rows = await clients.watch({ drops: true });
    let turns = 0;
    let other = setImmediate(function next() {
      turns++;
      other = setImmediate(next);
    });
    let pieces = 0;
    for await (const piece of rows) {
      for (let i = 0; i < ROWS; i++) if (ring!.reserve(HEADER_BYTES) >= 0) ring!.publish();
      if (piece.length > 0) pieces++;
      if (pieces === PIECES) break;
    }
    clearImmediate(other);
    assert.ok(turns >= PIECES - 2, `${turns} turns while ${PIECES} pieces were read`);
    assert.equal(clients.count, 0);
  });
});
