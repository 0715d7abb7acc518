import assert from 'node:assert/strict';
import fc from 'fast-check';
import {
  contains,
  formatAddress,
  formatCidr,
  formatMac,
  parseAddress,
  parseCidr,
  parseMac,
  prefixMask,
} from '../../datapath/control/address.ts';

const int32 = fc.integer({ min: -0x80000000, max: 0x7fffffff });

describe('control/address', () => {
  it('reads and prints addresses as int32', () => {
    for (const [text, address] of [
      ['0.0.0.0', 0],
      ['10.0.0.1', 0x0a000001],
      ['127.255.255.255', 0x7fffffff],
      ['128.0.0.0', -0x80000000],
      ['192.168.10.1', 0xc0a80a01 | 0],
      ['255.255.255.255', -1],
    ] as const) {
      assert.equal(parseAddress(text), address, text);
      assert.equal(formatAddress(address), text);
    }
  });

  it('refuses every other spelling of an address', () => {
    for (const text of [
      ...['', '10', '10.1', '10.1.1', '10.1.1.1.1', '10.1.1.', '.10.1.1', '10..1.1', '256.1.1.1', '10.1.1.256'],
      ...['010.1.1.1', '10.1.1.01', '0x0a.1.1.1', '0xa010101', '167837953', '-1.1.1.1', '+1.1.1.1', '1e1.1.1.1'],
      ...[' 10.1.1.1', '10.1.1.1 ', '10.1.1.1\n', '10. 1.1.1', '10.1.1.1/32', 'a.b.c.d', '::1', '::ffff:10.1.1.1'],
      ...['१0.1.1.1', '10.1.1.1\0', '99999999999999999999.1.1.1'],
    ]) {
      assert.equal(parseAddress(text), undefined, JSON.stringify(text));
    }
  });

  it('prints what it reads and reads what it prints, for all addresses and lengths', () => {
    fc.assert(
      fc.property(int32, fc.integer({ min: 0, max: 32 }), (address, length) => {
        assert.equal(parseAddress(formatAddress(address)), address);
        const cidr = parseCidr(formatCidr(address, length))!;
        assert.deepEqual(cidr, { address, prefix: address & prefixMask(length), length });
        assert.ok(contains(cidr, address));
        if (length > 0) assert.ok(!contains(cidr, address ^ (1 << (32 - length))), 'the last bit of the prefix counts');
      }),
    );
  });

  it('reads networks, host bits kept beside', () => {
    assert.deepEqual(parseCidr('10.244.2.1/24'), { address: 0x0af40201, prefix: 0x0af40200, length: 24 });
    assert.deepEqual(parseCidr('255.1.2.3/0'), { address: 0xff010203 | 0, prefix: 0, length: 0 });
    assert.deepEqual(parseCidr('10.0.0.1/32'), { address: 0x0a000001, prefix: 0x0a000001, length: 32 });
  });

  it('refuses every other spelling of a network', () => {
    for (const text of [
      ...['', '/', '10.0.0.0', '10.0.0.0/', '/8', '10.0.0.0/33', '10.0.0.0/08', '10.0.0.0/-1', '10.0.0.0/8/8'],
      ...['10.0.0.0/ 8', '10.0.0.0/8 ', '10.0.0.0 /8', '10.0.0.0/255.0.0.0', '10/8', '010.0.0.0/8', '10.0.0.0/1e1'],
    ]) {
      assert.equal(parseCidr(text), undefined, JSON.stringify(text));
    }
  });

  it('reads and prints MACs', () => {
    assert.deepEqual(parseMac('02:42:0a:f4:01:00'), { hi: 0x0242, lo: 0x0af40100 });
    assert.deepEqual(parseMac('FF:FF:FF:FF:FF:FE'), { hi: 0xffff, lo: -2 });
    assert.equal(formatMac(0x0242, 0xc0a80a01 | 0), '02:42:c0:a8:0a:01');
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 0xffff }), int32, (hi, lo) => {
        assert.deepEqual(parseMac(formatMac(hi, lo)), { hi, lo });
      }),
    );
  });

  it('refuses every other spelling of a MAC', () => {
    for (const text of [
      ...['', '02', '02:00:00:00:00', '02:00:00:00:00:00:00', '2:0:0:0:0:1', '02-00-00-00-00-01', '0200.0000.0001'],
      ...['020000000001', '02:00:00:00:00:0g', ' 02:00:00:00:00:01', '02:00:00:00:00:01\n'],
    ]) {
      assert.equal(parseMac(text), undefined, JSON.stringify(text));
    }
  });
});
