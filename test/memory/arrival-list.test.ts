import assert from 'node:assert/strict';
import fc from 'fast-check';
import { ArrivalList } from '../../datapath/memory/arrival-list.ts';

describe('ArrivalList', () => {
  it('keeps the order of arrival, whatever is taken out', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(7), { maxLength: 100 }), numbers => {
        const list = new ArrivalList(8);
        let model: number[] = [];
        for (const i of numbers) {
          if (model.includes(i)) {
            list.remove(i);
            model = model.filter(other => other !== i);
          } else {
            list.append(i);
            model.push(i);
          }
          assert.equal(list.first, model[0] ?? -1);
        }
        const drained: number[] = [];
        while (list.first >= 0) {
          drained.push(list.first);
          list.remove(list.first);
        }
        assert.deepEqual(drained, model);
      }),
    );
  });
});
