import assert from 'node:assert/strict';
import fc from 'fast-check';
import { clampMss } from '../../datapath/mtu/mss.ts';
import { parseIpv4 } from '../../datapath/packet/parse.ts';
import { Pool } from '../../datapath/packet/pool.ts';
import { completeChecksum } from '../../datapath/packet/segment.ts';
import { CONTINUE } from '../../datapath/verdict.ts';
import * as tcp from '../../datapath/wire/tcp.ts';
import { FLAG_NEEDS_CSUM } from '../../datapath/wire/virtio-net.ts';
import { bytesOf, FILLER, fix, fragment, hex, load, loadPartial, pattern, tcp4, udp4 } from '../fixtures/packets.ts';
import { slowTransportOk } from '../model/checksum.ts';

const pool = new Pool(4);
const SYN_ACK = tcp.SYN | tcp.ACK_FLAG;

const syn = (options: string, o: Parameters<typeof tcp4>[0] = {}) =>
  tcp4({ flags: tcp.SYN, tcpOptions: hex(options), ...o });

/** What clampMss makes of the packet; the same bytes if it leaves it alone. */
function clamp(bytes: Uint8Array, mtu: number): Uint8Array {
  const p = load(pool, bytes);
  assert.equal(parseIpv4(pool.view, p), CONTINUE);
  const changed = clampMss(pool.view, p, mtu);
  const result = bytesOf(pool, p);
  assert.equal(changed, Buffer.compare(result, bytes) !== 0);
  pool.release(p);
  return result;
}

describe('clampMss', () => {
  const rows: [string, Uint8Array, number, Uint8Array][] = [
    ['lowers the MSS of a SYN', syn('020405b4'), 1450, syn('02040582')],
    ['and of a SYN-ACK', syn('020405b4', { flags: SYN_ACK }), 1450, syn('02040582', { flags: SYN_ACK })],
    ['with ECN flags', syn('020405b4', { flags: 0xc2 }), 1450, syn('02040582', { flags: 0xc2 })],
    [
      'as Linux lays it out',
      syn('020405b4 0402 080a0102030400000000 01 030307'),
      1400,
      syn('02040550 0402 080a0102030400000000 01 030307'),
    ],
    ['never raises it', syn('02040400'), 1450, syn('02040400')],
    ['leaves what just fits', syn('02040582'), 1450, syn('02040582')],
    ['lowers by one', syn('02040583'), 1450, syn('02040582')],
    ['at an odd place', syn('01 020405b4 010101'), 1450, syn('01 02040582 010101')],
    ['at an odd place, low byte only', syn('030307 020405b4 00'), 1490, syn('030307 020405aa 00')],
    ['both, if there are two', syn('020405b4 0204ffff'), 1450, syn('02040582 02040582')],
    [
      'behind options it does not know',
      syn('fe04dead 1d06beefbeef 020405b4 0101'),
      1450,
      syn('fe04dead 1d06beefbeef 02040582 0101'),
    ],
    ['not behind the end of options', syn('00 020405b4 000000'), 1450, syn('00 020405b4 000000')],
    ['not behind an option of length 0', syn('0800 020405b4 0101'), 1450, syn('0800 020405b4 0101')],
    ['not behind an option of length 1', syn('0801 020405b4 0101'), 1450, syn('0801 020405b4 0101')],
    ['not behind an option that runs over', syn('08ff 020405b4 0101'), 1450, syn('08ff 020405b4 0101')],
    ['not an MSS of another length', syn('020305b4 020405b4 '), 1450, syn('020305 b4020405b4')],
    ['not one that is cut off', syn('01010102'), 1450, syn('01010102')],
    ['not one that is cut off in the middle', syn('01020405'), 1450, syn('01020405')],
    ['adds no option', syn('01010101'), 500, syn('01010101')],
    ['nothing but a SYN', syn('020405b4', { flags: tcp.ACK_FLAG }), 1450, syn('020405b4', { flags: tcp.ACK_FLAG })],
    ['the smallest path', syn('020405b4'), 68, syn('0204001c')],
    ['no path at all', syn('020405b4'), 40, syn('020405b4')],
    ['not UDP', udp4({ payload: pattern(40) }), 68, udp4({ payload: pattern(40) })],
  ];
  for (const [what, bytes, mtu, expected] of rows) {
    it(what, () => assert.deepEqual(clamp(bytes, mtu), expected));
  }

  it('changes a first fragment, and no later one', () => {
    const whole = syn('020405b4', { payload: pattern(100) });
    const clamped = syn('02040582', { payload: pattern(100) });
    assert.deepEqual(clamp(fragment(whole, 0, 64), 1450), fragment(clamped, 0, 64));
    assert.deepEqual(clamp(fragment(whole, 64, 60), 1450), fragment(whole, 64, 60));
  });

  it('leaves a checksum that is owed as it is: completing it later gives the right one', () => {
    for (const options of ['020405b4', '01 020405b4 010101']) {
      const p = loadPartial(pool, syn(options, { payload: pattern(9) }));
      assert.equal(parseIpv4(pool.view, p), CONTINUE);
      assert.ok(clampMss(pool.view, p, 1450));
      completeChecksum(pool.view, p);
      assert.deepEqual(bytesOf(pool, p), syn(options.replace('05b4', '0582'), { payload: pattern(9) }));
      pool.release(p);
    }
  });

  it('updates the checksum if what is owed is that of something inside', () => {
    const p = load(pool, syn('020405b4', { payload: pattern(60) }));
    assert.equal(parseIpv4(pool.view, p), CONTINUE);
    p.vnetFlags = FLAG_NEEDS_CSUM;
    p.csumStart = p.l4 + 44;
    p.csumOffset = 6;
    assert.ok(clampMss(pool.view, p, 1450));
    assert.deepEqual(bytesOf(pool, p), syn('02040582', { payload: pattern(60) }));
    pool.release(p);
  });

  it('keeps a wrong checksum wrong', () => {
    const wrong = syn('020405b4');
    wrong[36] ^= 1;
    assert.ok(!slowTransportOk(clamp(wrong, 1450)));
  });

  it('survives any options: stays in the header, never raises, keeps the checksum right', () => {
    const options = fc.uint8Array({ minLength: 0, maxLength: 10 }).map(words => {
      const bytes = new Uint8Array(words.length * 4);
      // Kinds and lengths that mean something, more often than chance would have it.
      bytes.forEach((_, i) => {
        bytes[i] = [0, 1, 2, 4, 2, 4, 255, words[i >> 2]][(words[i >> 2] * (i + 3)) & 7];
      });
      return bytes;
    });
    fc.assert(
      fc.property(options, fc.integer({ min: 0, max: 65535 }), (tcpOptions, mtu) => {
        const bytes = fix(tcp4({ flags: tcp.SYN, tcpOptions, payload: pattern(8) }));
        const p = load(pool, bytes);
        assert.equal(parseIpv4(pool.view, p), CONTINUE);
        clampMss(pool.view, p, mtu);
        const result = bytesOf(pool, p);
        assert.ok(slowTransportOk(result));
        const end = 40 + tcpOptions.length;
        assert.deepEqual(result.slice(0, 36), bytes.slice(0, 36));
        assert.deepEqual(result.slice(38, 40), bytes.slice(38, 40));
        assert.deepEqual(result.slice(end), bytes.slice(end));
        for (let i = p.off - 16; i < p.off; i++) assert.equal(pool.bytes[i], FILLER);
        const first = mssOf(bytes);
        assert.equal(mssOf(result), first < 0 ? -1 : mtu <= 40 ? first : Math.min(first, mtu - 40));
        pool.release(p);
      }),
      { numRuns: 2000 },
    );
  });
});

/** The first MSS option of a TCP packet with a 20-byte IP header, or -1. */
function mssOf(packet: Uint8Array): number {
  const options = packet.slice(40, 20 + (packet[32] >> 4) * 4);
  for (let i = 0; i < options.length && options[i] !== 0; ) {
    if (options[i] === 1) {
      i++;
      continue;
    }
    const length = options[i + 1];
    if (length === undefined || length < 2 || i + length > options.length) return -1;
    if (options[i] === 2 && length === 4) return options[i + 2] * 256 + options[i + 3];
    i += length;
  }
  return -1;
}
