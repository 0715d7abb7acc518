import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { Worker } from 'node:worker_threads';
import { hugeMemory, residentMemory } from '../../datapath/io/huge-memory.ts';
import { addressOf } from '../../datapath/io/libc.ts';

const MIB = 1 << 20;
const MODULE = new URL('../../datapath/io/huge-memory.js', import.meta.url);

/** Takes memory, touches all of it, and says so. */
const TAKER = `
  import { parentPort } from 'node:worker_threads';
  import { hugeMemory } from ${JSON.stringify(MODULE.href)};
  const words = hugeMemory(${64 * MIB});
  for (let i = 0; i < words.length; i += 4096) words[i] = 1;
  parentPort.on('message', () => parentPort.postMessage(words[0]));
  parentPort.postMessage(0);
`;

describe('memory in huge pages', () => {
  it('is zeroed, as long as asked, and written at both ends', () => {
    for (const bytes of [8, 4096, 3 * MIB + 24, 64 * MIB]) {
      const memory = hugeMemory(bytes);
      assert.equal(memory.length, bytes);
      assert.equal(addressOf(memory) % (2 * MIB), 0);
      assert.ok(Buffer.alloc(bytes).equals(memory));
      memory[0] = memory[bytes - 1] = 7;
      assert.equal(memory[bytes - 1], 7);
    }
  });

  it('is there before it is touched, where a loop will fill it', () => {
    // In a process of its own: here, memory that other tests gave back may serve.
    const script = `
      import { residentMemory } from ${JSON.stringify(MODULE.href)};
      const before = process.memoryUsage().rss;
      const memory = residentMemory(${32 * MIB + 100});
      console.log(JSON.stringify({ grown: process.memoryUsage().rss - before, length: memory.length }));
    `;
    const said = execFileSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' });
    const { grown, length } = JSON.parse(said);
    assert.ok(grown >= 32 * MIB, `${grown / MIB} MiB`);
    assert.equal(length, 32 * MIB + 100);
    assert.ok(residentMemory(3 * MIB).every(byte => byte === 0));
  });

  it('goes with the thread that took it', async () => {
    const take = async () => {
      const thread = new Worker(new URL(`data:text/javascript,${encodeURIComponent(TAKER)}`));
      await new Promise(resolve => thread.once('message', resolve));
      await thread.terminate();
    };
    await take();
    const before = process.memoryUsage().rss;
    for (let i = 0; i < 4; i++) await take();
    const grown = process.memoryUsage().rss - before;
    assert.ok(grown < 96 * MIB, `four threads with 64 MiB each have left ${Math.round(grown / MIB)} MiB behind`);
  });
});
