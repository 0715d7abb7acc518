import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PcapngSink, RingSink } from '../../datapath/cli/capture.ts';
import type { WatchContext } from '../../datapath/control/watch.ts';
import { CaptureFile } from '../../datapath/io/capture-file.ts';
import { KIND_RECEIVED, type WatchRecord } from '../../datapath/watch/record.ts';
import { pattern, udp4 } from '../fixtures/packets.ts';

const PORT = { number: 0, name: 'default/p1', kind: 'pod', device: 'eth0', layer: 3 as const };
const CONTEXT = { node: 'a', ports: [PORT] } as unknown as WatchContext;

describe('capture into a ring of files', () => {
  let dir = '';
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'tunpath-ring-'));
  });
  afterEach(() => rmSync(dir, { recursive: true }));

  /** Writes packets numbered from 1. @returns the numbers in each file */
  async function write(packets: number, size: number, files: number): Promise<Record<string, number[]>> {
    const sink = new RingSink(join(dir, 'c'), path => new PcapngSink(path, false), { size, files });
    sink.context(CONTEXT);
    for (let i = 1; i <= packets; i++) {
      const bytes = udp4({ id: i, payload: pattern(400) });
      const record = { kind: KIND_RECEIVED, detail: 0, layer: 3, timeMs: i, number: i, length: bytes.length, bytes };
      sink.packet('a', record as WatchRecord);
      await sink.flush();
    }
    sink.close();
    const found: Record<string, number[]> = {};
    for (const name of readdirSync(dir).sort()) {
      const file = new CaptureFile(join(dir, name));
      const ids: number[] = [];
      for (let packet = file.next(); packet !== null; packet = file.next()) {
        assert.equal(packet.interface, 'default/p1', 'every file says which port it was');
        ids.push((packet.bytes[4] << 8) | packet.bytes[5]);
      }
      file.close();
      found[name] = ids;
    }
    return found;
  }

  it('each is a whole file of about that size, and the first is written anew', async () => {
    const found = await write(40, 5000, 3);
    assert.deepEqual(Object.keys(found), ['c0', 'c1', 'c2']);
    for (const name of Object.keys(found)) assert.ok(statSync(join(dir, name)).size < 5000 + 700, name);
    const kept = Object.values(found)
      .flat()
      .sort((a, b) => a - b);
    assert.deepEqual(
      kept,
      Array.from({ length: kept.length }, (_, i) => 41 - kept.length + i),
      'the last ones, each once',
    );
    assert.ok(kept.length < 40);
  });

  it('without a number of files each has its own name', async () => {
    const found = await write(40, 5000, Number.POSITIVE_INFINITY);
    const names = Object.keys(found);
    assert.deepEqual(names.slice(0, 2), ['c', 'c1']);
    assert.deepEqual(
      names.flatMap(name => found[name]),
      Array.from({ length: 40 }, (_, i) => i + 1),
    );
  });
});
