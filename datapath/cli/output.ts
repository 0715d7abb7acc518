/** Standard output and standard error, of which either may be a closed pipe or a full disk. */

import { once } from 'node:events';
import { describeFileError } from '../control/read-text.ts';
import { DONE, NO } from './exit.ts';

/**
 * Ends the command as soon as nobody reads its output: quietly where a pipe was closed, as `| head` does, with one line
 * where a file system is full. What the command has still to take down, it takes down at SIGTERM.
 */
export function guardStreams(): void {
  // Who closed the diagnostics does not want them.
  process.stderr.on('error', () => {});
  process.stdout.on('error', error => {
    const quiet = (error as NodeJS.ErrnoException).code === 'EPIPE';
    if (!quiet) process.stderr.write(`tunpath: standard output: ${describeFileError(error)}\n`);
    if (process.listenerCount('SIGTERM') > 0) process.kill(process.pid, 'SIGTERM');
    else process.exit(quiet ? DONE : NO);
  });
}

/** Writes to standard output, and waits where its reader is slow, so that long tables are not held here. */
export async function print(text: string): Promise<void> {
  if (!process.stdout.write(text)) await once(process.stdout, 'drain');
}
