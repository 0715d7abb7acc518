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
  let ring: RecordRing;
  const rings = new Set<SharedArrayBuffer>();
  const context = {} as WatchContext;
  const clients = new WatchClients({
    request: async (method, params) => {
      if (method === 'watch') {
        const memory = (params as { spec: WatchSpec }).spec.ring;
        rings.add(memory);
        ring = new RecordRing(memory);
      }
      return null;
    },
    context: () => context,
  });
  const happen = (count: number) => {
    for (let i = 0; i < count; i++) if (ring.reserve(HEADER_BYTES) >= 0) ring.publish();
  };

  it('leaves others their turn, however much happens and however fast it reads', async () => {
    const rows = await clients.watch({ drops: true });
    let turns = 0;
    let other = setImmediate(function next() {
      turns++;
      other = setImmediate(next);
    });
    let pieces = 0;
    for await (const piece of rows) {
      happen(ROWS);
      if (piece.length > 0) pieces++;
      if (pieces === PIECES) break;
    }
    clearImmediate(other);
    assert.ok(turns >= PIECES - 2, `${turns} turns while ${PIECES} pieces were read`);
    assert.equal(clients.count, 0);
  });

  it('gets the memory of one that has gone, and nothing that lay in it', async () => {
    rings.clear();
    for (let i = 0; i < 20; i++) {
      const rows = await clients.watch({});
      const kinds: string[] = [];
      happen(i);
      for await (const piece of rows) {
        kinds.push(...piece.flatMap(row => Object.keys(row)));
        // What finds no room is no matter of the next one.
        happen(100_000);
        break;
      }
      assert.deepEqual(kinds, ['context', ...Array<string>(i).fill('record')]);
    }
    assert.equal(rings.size, 1);
  });
});
