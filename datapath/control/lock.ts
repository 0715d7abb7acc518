/** One node of a name at a time: a lock file that the kernel unlocks when its process ends, however that ends. */
import {
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { dirname } from 'node:path';
import * as libc from '../io/libc.ts';
import { RUN_DIR } from './client.ts';

export interface Lock {
  /** Descriptor that holds it. */
  fd: number;
  path: string;
}

export function lockPath(node: string): string {
  return `${RUN_DIR}/${node}.lock`;
}

/**
 * Takes the lock; the file then holds our process id. One left behind by a killed process is taken over.
 * @throws Error when a running process holds it
 */
export function takeLock(path: string): Lock {
  for (;;) {
    const fd = openOrMake(path);
    if (fd < 0) continue;
    if (libc.flock(fd, libc.LOCK_EX | libc.LOCK_NB) !== 0) {
      closeSync(fd);
      const pid = readFileSync(path, 'utf8').trim();
      throw new Error(`${path}: a node of this name is running already${pid === '' ? '' : `, as process ${pid}`}`);
    }
    // Its owner may have removed it between our open() and the lock: then it is nobody's, and there may be another.
    if (fstatSync(fd).ino === statSync(path, { throwIfNoEntry: false })?.ino) {
      ftruncateSync(fd);
      writeSync(fd, `${process.pid}\n`, 0);
      return { fd, path };
    }
    closeSync(fd);
  }
}

/** @returns -1 if the directory has just been removed, as the last lab in it does when it goes; mkdir may find that, too */
function openOrMake(path: string): number {
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
    return openSync(path, constants.O_RDWR | constants.O_CREAT, 0o600);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return -1;
    throw error;
  }
}

/** Removes the file first: whoever finds it unlocked must not find it. */
export function releaseLock({ fd, path }: Lock): void {
  rmSync(path, { force: true });
  closeSync(fd);
}
