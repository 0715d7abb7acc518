/** `--html FILE` of `tunpath bench`. */
import { accessSync, constants, existsSync, statSync, writeFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import type { Report } from '../../bench/result.ts';
import { describeFileError, UsageError } from './exit.ts';

/** Before the measurement rather than after it. @throws UsageError when the file could not be written */
export function checkHtml(file: string | undefined): void {
  if (file === undefined) return;
  try {
    if (existsSync(file) && statSync(file).isDirectory()) throw new Error('is a directory');
    accessSync(existsSync(file) ? file : dirname(resolve(file)), constants.W_OK);
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
