import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { replaceFile } from '../../datapath/io/replace-file.ts';

describe('replaceFile', () => {
  it('puts another file there, whole and of its own mode, whatever another writer is writing', () => {
    const directory = mkdtempSync(join(tmpdir(), 'tunpath-replace-'));
    const path = join(directory, 'file');
    replaceFile(path, 'one');
    const { ino } = statSync(path);
    writeFileSync(`${path}.new`, 'half', { mode: 0o666 });
    replaceFile(path, 'two', 0o600);
    assert.equal(readFileSync(path, 'utf8'), 'two');
    assert.equal(statSync(path).mode & 0o777, 0o600);
    assert.notEqual(statSync(path).ino, ino, 'whoever reads the old one goes on reading it');
    assert.equal(readFileSync(`${path}.new`, 'utf8'), 'half', 'of another writer');
    assert.deepEqual(readdirSync(directory), ['file', 'file.new']);
    rmSync(directory, { recursive: true });
  });
});
