/** Files that whoever reads them finds whole, whenever their writer is killed. */
import { renameSync, rmSync, writeFileSync } from 'node:fs';

/** Replaces a file in one step. @param mode of the new one */
export function replaceFile(path: string, text: string, mode = 0o644): void {
  const next = `${path}.new`;
  // One that a killed writer has left may have another mode.
  rmSync(next, { force: true });
  writeFileSync(next, text, { mode });
  renameSync(next, path);
}
