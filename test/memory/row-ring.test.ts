import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { RowRing } from '../../datapath/memory/row-ring.ts';

const ROWS = 8;
const STRIDE = 3;

describe('ring of rows', () => {
  it('hands over rows in order, no more than it has room for, also where the count wraps', () => {
    const op = fc.constantFrom('stage', 'publish', 'take', 'settle');
    const start = fc.constantFrom(0, 5, 0x7ffffffd, -3);
    fc.assert(
      fc.property(start, fc.array(op, { maxLength: 200 }), (count, ops) => {
        const memory = RowRing.allocate(ROWS, STRIDE);
        // Both ends have come so far.
        new Int32Array(memory)[0] = count;
        new Int32Array(memory)[16] = count;
        const writer = new RowRing(memory, STRIDE, 'writer');
        const reader = new RowRing(memory, STRIDE, 'reader');
        const staged: number[] = [];
        const published: number[] = [];
        const taken: number[] = [];
        let next = 1;
        for (const one of ops) {
          if (one === 'stage') {
            const at = writer.claim();
            assert.equal(at >= 0, staged.length + published.length + taken.length < ROWS);
            if (at < 0) continue;
            for (let i = 0; i < STRIDE; i++) writer.words[at + i] = next + i;
            writer.stage();
            staged.push(next++);
          } else if (one === 'publish') {
            assert.equal(writer.publish(), staged.length > 0);
            published.push(...staged.splice(0));
          } else if (one === 'take') {
            const at = reader.peek();
            assert.equal(at >= 0, published.length > 0);
            if (at < 0) continue;
            const row = published.shift()!;
            for (let i = 0; i < STRIDE; i++) assert.equal(reader.words[at + i], row + i);
            reader.next();
            taken.push(row);
          } else {
            reader.settle();
            taken.length = 0;
          }
          const unread = Array.from(writer.unread(), at => writer.words[at]);
          assert.deepEqual(unread, [...taken, ...published, ...staged]);
        }
      }),
    );
  });

  it('takes a power of two only', () => {
    assert.throws(() => RowRing.allocate(6, 1), /6 rows, expected a power of two/);
  });
});
