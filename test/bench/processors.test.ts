import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { onProcessor, processors } from '../../bench/processors.ts';

/** What the kernel says of the calling thread, as "0-1" or "1". */
const allowed = () => /Cpus_allowed_list:\s*(\S+)/.exec(readFileSync('/proc/thread-self/status', 'utf8'))?.[1];
const ASK = `
  const { readFileSync } = require('node:fs');
  const status = readFileSync('/proc/thread-self/status', 'utf8');
  require('node:worker_threads').parentPort.postMessage(/Cpus_allowed_list:\\s*(\\S+)/.exec(status)[1]);
`;

describe('bench/processors', () => {
  it('are those that the kernel lets us use', () => {
    const listed = (allowed() as string).split(',').flatMap(range => {
      const [first, last = first] = range.split('-').map(Number);
      return Array.from({ length: last - first + 1 }, (_, i) => first + i);
    });
    assert.deepEqual(processors(), listed);
  });

  it('a thread started on one stays there, and who started it is free', async () => {
    const before = allowed();
    for (const processor of processors()) {
      const thread = onProcessor(processor, () => new Worker(ASK, { eval: true }));
      assert.deepEqual(await once(thread, 'message'), [`${processor}`]);
      assert.equal(allowed(), before);
    }
  });

  it('one that is not there is an error, and changes nothing', () => {
    const before = allowed();
    assert.throws(() => onProcessor(1023, () => assert.fail('was called')), /sched_setaffinity/);
    assert.equal(allowed(), before);
  });
});
