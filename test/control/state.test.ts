import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { lockPath, releaseLock, takeLock } from '../../datapath/control/lock.ts';
import { AppliedState } from '../../datapath/control/state.ts';

describe('what a node keeps', () => {
  let directory: string;
  before(() => {
    directory = mkdtempSync(join(tmpdir(), 'tunpath-state-'));
  });
  after(() => rmSync(directory, { recursive: true }));

  it('an applied configuration holds as long as the file is what it was', () => {
    const state = new AppliedState(join(directory, 'made'), 'a');
    assert.equal(state.load('file'), null);
    state.save('file', 'applied', new Date(0));
    assert.equal(statSync(state.path).mode & 0o777, 0o600);
    assert.equal(state.load('file')?.text, 'applied');
    assert.equal(state.load('file')?.at, '1970-01-01T00:00:00.000Z');
    assert.equal(state.load('file, edited'), null);
    assert.equal(new AppliedState(join(directory, 'made'), 'b').load('file'), null);
    state.save('file', 'applied again', new Date(0));
    assert.equal(state.load('file')?.text, 'applied again');
    assert.deepEqual(readdirSync(join(directory, 'made')), ['a.applied.json']);
    state.save('file', 'file', new Date(0));
    assert.ok(!existsSync(state.path), 'the file itself need not be kept');
  });

  for (const [what, text] of [
    ['empty', ''],
    ['cut off', '{"fileSha256":"'],
    ['of another shape', '[]'],
    ['null', 'null'],
  ]) {
    it(`a state that is ${what} is none`, () => {
      const state = new AppliedState(directory, 'bad');
      writeFileSync(state.path, text);
      assert.equal(state.load('file'), null);
      state.forget();
      state.forget();
    });
  }

  it('a lock has one holder, names it, and leaves nothing', () => {
    const path = join(directory, 'a.lock');
    const lock = takeLock(path);
    assert.throws(
      () => takeLock(path),
      new RegExp(`a\\.lock: a node of this name is running already, as process ${process.pid}$`),
    );
    releaseLock(lock);
    assert.ok(!existsSync(path));
    writeFileSync(path, '4194305\n');
    const taken = takeLock(path);
    assert.throws(() => takeLock(path), /running already/);
    releaseLock(taken);
    assert.equal(lockPath('a'), '/run/tunpath/a.lock');
  });

  it('a lock can be had while a lab that goes takes the directory with it', async () => {
    const run = join(directory, 'run');
    const rmdir = `for (;;) try { require('fs').rmdirSync(${JSON.stringify(run)}) } catch {}`;
    const other = spawn(process.execPath, ['-e', rmdir]);
    try {
      await once(other, 'spawn');
      let removed = 0;
      const end = Date.now() + 5000;
      while (removed < 20 && Date.now() < end) {
        const lock = takeLock(join(run, 'a.lock'));
        releaseLock(lock);
        await setImmediate();
        if (!existsSync(run)) removed++;
      }
      assert.ok(removed > 0, 'it was never removed');
    } finally {
      other.kill('SIGKILL');
      await once(other, 'exit');
    }
  });
});
