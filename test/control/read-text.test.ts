import { strict as assert } from 'node:assert';
import { execFileSync, spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { readText } from '../../datapath/control/read-text.ts';
import { temporaryDirectory } from '../fixtures/directory.ts';

describe('readText', () => {
  const directory = temporaryDirectory('text');

  it('reads a file in whole, also where characters lie across pieces', () => {
    const file = join(directory, 'a');
    const text = 'ä'.repeat(400_001);
    writeFileSync(file, text);
    assert.equal(readText(file), text);
  });

  it('reads a pipe to its end', () => {
    const file = join(directory, 'pipe');
    execFileSync('mkfifo', [file]);
    const writer = `(printf a; sleep 0.1; printf b) > ${file} &`;
    spawnSync('sh', ['-c', writer], { stdio: 'ignore' });
    assert.equal(readText(file), 'ab');
  });

  it('reads no more of a device than the limit', () => {
    assert.throws(() => readText('/dev/zero', 1_000_000), /^Error: got more than 1000000 bytes, expected a text file$/);
    assert.equal(readText('/dev/null'), '');
  });

  it('throws what the file system says', () => {
    assert.throws(() => readText(join(directory, 'none')), { code: 'ENOENT' });
    assert.throws(() => readText(directory), { code: 'EISDIR' });
  });
});
