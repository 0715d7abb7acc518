import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { notify } from '../../datapath/control/notify.ts';
import { NotifySocket } from '../fixtures/notify-socket.ts';

describe('sd_notify', () => {
  let directory: string;
  before(() => {
    directory = mkdtempSync(join(tmpdir(), 'tunpath-notify-'));
  });
  after(() => rmSync(directory, { recursive: true }));

  for (const kind of ['a path', 'an abstract name']) {
    it(`reaches ${kind} in one datagram`, () => {
      const path = kind === 'a path' ? join(directory, 'notify') : `@tunpath-test-${process.pid}`;
      const manager = new NotifySocket(path);
      try {
        assert.equal(notify({ READY: 1, STATUS: '3 pods' }, path), true);
        assert.equal(manager.receive(), 'READY=1\nSTATUS=3 pods');
        assert.equal(manager.receive(), null);
      } finally {
        manager.close();
      }
    });
  }

  it('says so when nobody listens, and throws nothing', () => {
    assert.equal(notify({ READY: 1 }, join(directory, 'nobody')), false);
    assert.equal(notify({ READY: 1 }, 'relative'), false);
    assert.equal(notify({ READY: 1 }, `/${'x'.repeat(200)}`), false);
    const before = process.env.NOTIFY_SOCKET;
    delete process.env.NOTIFY_SOCKET;
    assert.equal(notify({ READY: 1 }), false);
    if (before !== undefined) process.env.NOTIFY_SOCKET = before;
  });
});
