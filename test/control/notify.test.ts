import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { notify } from '../../datapath/control/notify.ts';
import * as libc from '../../datapath/io/libc.ts';

describe('sd_notify', () => {
  let directory: string;
  before(() => {
    directory = mkdtempSync(join(tmpdir(), 'tunpath-notify-'));
  });
  after(() => rmSync(directory, { recursive: true }));

  /** A datagram socket, bound as a service manager's. Node has none of this kind. */
  function listen(path: string): { receive(): string; close(): void } {
    const fd = libc.socket(libc.AF_UNIX, libc.SOCK_DGRAM | libc.SOCK_CLOEXEC, 0);
    const name = new TextEncoder().encode(path.replace(/^@/, '\0'));
    const address = new Uint8Array(2 + name.length + (path.startsWith('@') ? 0 : 1));
    address[0] = libc.AF_UNIX;
    address.set(name, 2);
    assert.equal(libc.bind(fd, libc.addressOf(address), address.length), 0);
    return {
      receive: () => {
        const bytes = new Uint8Array(1000);
        return new TextDecoder().decode(bytes.subarray(0, libc.read(fd, libc.addressOf(bytes), bytes.length)));
      },
      close: () => libc.close(fd),
    };
  }

  for (const kind of ['a path', 'an abstract name']) {
    it(`reaches ${kind} in one datagram`, () => {
      const path = kind === 'a path' ? join(directory, 'notify') : `@tunpath-test-${process.pid}`;
      const manager = listen(path);
      try {
        assert.equal(notify({ READY: 1, STATUS: '3 pods' }, path), true);
        assert.equal(manager.receive(), 'READY=1\nSTATUS=3 pods');
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
