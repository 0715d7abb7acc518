/** `--html FILE` of `tunpath bench`. */

import { closeSync, existsSync, openSync, rmSync, writeFileSync } from 'node:fs';
import type { Report } from '../../bench/result.ts';
import { describeFileError } from '../control/read-text.ts';
import { UsageError } from './exit.ts';

/** Before the measurement rather than after it. @throws UsageError when the file could not be written */
export function checkHtml(file: string | undefined): void {
  if (file === undefined) return;
  try {
    const isThere = existsSync(file);
    closeSync(openSync(file, 'a'));
    if (!isThere) rmSync(file);
  } catch (error) {
    throw new UsageError(`--html ${file}: cannot be written: ${describeFileError(error)}`);
  }
}

/** Writes the page where one is wanted. */
export async function writeHtml(file: string | undefined, report: Report): Promise<void> {
  if (file === undefined) return;
  const { renderPage } = await import('../../bench/html/page.ts');
  writeFileSync(file, renderPage(report));
  process.stderr.write(`wrote ${file}\n`);
}
