/** What tshark is asked for, and how its answer is read. */

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LINK_RAW, PcapWriter } from '../../datapath/io/pcap.ts';
import { decodeCapture } from '../../datapath/lab/capture.ts';
import { HEADER_LEN } from '../../datapath/wire/ipv4.ts';
import * as tcp from '../../datapath/wire/tcp.ts';
import { tcp4 } from '../fixtures/packets.ts';

const GOOD = '1';
const BAD = '0';

/** A segment of two bytes whose checksum comes out as 0, with `checksum` in its field. */
function segmentOfZero(checksum: number): Uint8Array {
  const payload = new Uint8Array(2);
  const field = HEADER_LEN + tcp.CHECKSUM;
  // What is missing from the sum of all words to 0xffff is what the checksum of the same segment with two zeros says.
  const zeros = tcp4({ payload });
  payload.set(zeros.subarray(field, field + 2));
  const segment = tcp4({ payload });
  new DataView(segment.buffer).setUint16(field, checksum);
  return segment;
}

describe('decodeCapture', () => {
  let directory = '';
  before(() => {
    directory = mkdtempSync(join(tmpdir(), 'tunpath-capture-'));
  });
  after(() => rmSync(directory, { recursive: true, force: true }));

  it('takes a TCP checksum of 0xffff for 0, as Linux writes it, and no other', async () => {
    const path = join(directory, 'checksums.pcap');
    const right = tcp4({ payload: Uint8Array.of(1, 2) });
    const wrong = right.slice();
    new DataView(wrong.buffer).setUint16(HEADER_LEN + tcp.CHECKSUM, 0xffff);
    const packets = [segmentOfZero(0), segmentOfZero(0xffff), segmentOfZero(1), right, wrong];
    const writer = new PcapWriter(path, LINK_RAW);
    for (const packet of packets) writer.write(0, packet);
    writer.close();
    const rows = await decodeCapture(path, ['ip.checksum.status', 'tcp.checksum.status']);
    assert.deepEqual(
      rows,
      [GOOD, GOOD, BAD, GOOD, BAD].map(status => [[GOOD], [status]]),
    );
  });
});
