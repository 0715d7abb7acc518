/** Pseudoterminals, for commands that want to talk to a person. (pty(7), ioctl_tty(2)) */
import { closeSync, constants, openSync } from 'node:fs';
import { ReadStream } from 'node:tty';
import * as libc from './libc.ts';

const TIOCSPTLCK = 0x40045431;
const TIOCGPTN = 0x80045430;
const TIOCSWINSZ = 0x5414;

export interface Pty {
  /** The side of whoever looks at the terminal: read what is printed, write what is typed. */
  master: ReadStream;
  /** Descriptor for the command's input and output; its opener closes it when the command has it. */
  slave: number;
  resize(columns: number, rows: number): void;
}

/** @throws Error when there is no more, or no devpts */
export function openPty(): Pty {
  const fd = libc.open('/dev/ptmx', libc.O_RDWR | libc.O_CLOEXEC);
  if (fd < 0) throw new Error(`/dev/ptmx: ${libc.errnoName(libc.errno())}`);
  const number = new Int32Array(1);
  // Unlocked by a zero; then its number is asked for.
  if (
    libc.ioctl(fd, TIOCSPTLCK, libc.addressOf(number)) !== 0 ||
    libc.ioctl(fd, TIOCGPTN, libc.addressOf(number)) !== 0
  ) {
    const reason = libc.errnoName(libc.errno());
    closeSync(fd);
    throw new Error(`/dev/ptmx: ${reason}`);
  }
  const slave = openSync(`/dev/pts/${number[0]}`, constants.O_RDWR | constants.O_NOCTTY);
  const master = new ReadStream(fd);
  const size = new Int16Array(4); // struct winsize {rows, columns, 0, 0}
  return {
    master,
    slave,
    resize(columns, rows) {
      if (master.destroyed) return;
      size[0] = rows;
      size[1] = columns;
      libc.ioctl(fd, TIOCSWINSZ, libc.addressOf(size));
    },
  };
}
