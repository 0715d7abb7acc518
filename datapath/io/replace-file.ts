/** Files that whoever reads them finds whole, whenever their writer is killed. */
import { renameSync, rmSync, writeFileSync } from 'node:fs';
import { threadId } from 'node:worker_threads';

let count = 0;

/** Replaces a file in one step; of several writers at once, in this process or another, one wins. @param mode of the new one */
export function replaceFile(path: string, text: string, mode = 0o644): void {
  const next = `${path}.${process.pid}-${threadId}-${++count}.new`;
  // One that a killed writer of the same number has left may have another mode.
  rmSync(next, { force: true });
  writeFileSync(next, text, { mode });
  renameSync(next, path);
}
