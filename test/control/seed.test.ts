import assert from 'node:assert/strict';
import { chooseSeed } from '../../datapath/control/seed.ts';

describe('chooseSeed', () => {
  it('takes the seed that is asked for', () => {
    assert.equal(chooseSeed('1'), 1);
    assert.equal(chooseSeed('2147483647'), 2147483647);
  });

  it('takes another one each time by default', () => {
    const seeds = Array.from({ length: 20 }, () => chooseSeed(undefined));
    assert.ok(new Set(seeds).size > 18, seeds.join(' '));
    for (const seed of seeds) assert.ok(Number.isInteger(seed) && seed! >= 1);
  });

  for (const wanted of ['', '0', '-1', '1.5', 'one', '2147483648', '99999999999']) {
    it(`refuses '${wanted}'`, () => assert.equal(chooseSeed(wanted), undefined));
  }
});
