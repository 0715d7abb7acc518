/** Record Route and Timestamp in ICMP errors: as in Linux's __icmp_send, the error has those of the packet, and quotes it as it came. */
import assert from 'node:assert/strict';
import { udp4 } from '../fixtures/packets.ts';
import { HOST, POD, TestNode } from '../forward-rig.ts';

const NOP = 1;
const octets = (address: string) => address.split('.').map(Number);
const SEEN = '10.9.9.9';
/** Three places, of which the first is taken. */
const ROUTE = [7, 15, 8, ...octets(SEEN), ...Array<number>(8).fill(0)];

/** The error that a packet with these options gets whose TTL is up, header and quote apart; null: none. */
function errorAbout(
  options: number[],
  profile = 'linux',
): { options: number[]; quote: Uint8Array; sent: Uint8Array } | null {
  const node = new TestNode({ profile });
  const sent = udp4({
    src: POD,
    dst: '203.0.113.1',
    ttl: 1,
    options: Uint8Array.from(options),
    payload: new Uint8Array(900),
  });
  node.send('p1', sent);
  assert.equal(node.balance, 0);
  const [error] = node.collect('p1');
  if (error === undefined) return null;
  const headerLen = (error[0] & 15) * 4;
  assert.equal(error[9], 1);
  assert.equal(error.length, 576);
  return { options: [...error.subarray(20, headerLen)], quote: error.subarray(headerLen + 8), sent };
}

describe('options of ICMP errors', () => {
  it('Record Route comes back with our address twice, coming and going', () => {
    const error = errorAbout([...ROUTE, NOP])!;
    assert.deepEqual(error.options, [7, 15, 16, ...octets(SEEN), ...octets(HOST), ...octets(HOST), 0]);
    assert.deepEqual(error.quote, error.sent.subarray(0, error.quote.length), 'the quote is what came');
  });

  it('a Timestamp comes back with two times; what else there was does not', () => {
    const { options } = errorAbout([148, 4, 0, 0, 68, 12, 5, 0, ...Array<number>(8).fill(0)])!;
    assert.deepEqual(options.slice(0, 4), [68, 12, 13, 0]);
    assert.ok(options.slice(4, 8).some(Boolean) && options.slice(8).some(Boolean));
  });

  it('a full one comes back as it is, and with no room for half an entry there is no error', () => {
    const full = [7, 7, 8, ...octets(SEEN), NOP];
    assert.deepEqual(errorAbout(full)!.options, [...full.slice(0, 7), 0]);
    assert.equal(errorAbout([7, 9, 4, 0, 0, 0, 0, 0, 0, NOP, NOP, NOP]), null);
  });

  it('what stands before a faulty option comes back in the error about that', () => {
    const { options } = errorAbout([...ROUTE, 68, 3, 5, 0, 0].concat([0, 0, 0, 0]))!;
    assert.deepEqual(options.slice(0, 3), [7, 15, 16]);
  });

  it('in a profile that leaves options alone there are none', () => {
    assert.deepEqual(errorAbout([...ROUTE, NOP], 'cilium')!.options, []);
  });
});
