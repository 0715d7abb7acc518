/**
 * How commands end: 0 done, 1 it ran and the answer is no, 2 wrong usage or bad input. An error may carry its own
 * `exitCode`; any other error ends with 1.
 */

import { describeFileError, readText as readWhole } from '../control/read-text.ts';
import { sentenceOf } from './sentences.ts';

export const DONE = 0;
export const NO = 1;
export const USAGE = 2;

/** What the caller wrote cannot be done as written. */
export class UsageError extends Error {
  override name = 'UsageError';
  readonly exitCode = USAGE;
}

/** The text of a file that the caller named; "-" is standard input. @throws UsageError */
export function readText(file: string): string {
  try {
    return readWhole(file);
  } catch (error) {
    throw new UsageError(`${file === '-' ? 'standard input' : file}: ${describeFileError(error)}`);
  }
}

export function exitCodeOf(error: unknown): number {
  const code = (error as { exitCode?: unknown } | null)?.exitCode;
  return typeof code === 'number' ? code : NO;
}

/**
 * Writes an error for people, in one line: ours as it is, the system's as a sentence, and a fault in the program with what
 * to do about it.
 */
export function reportError(error: unknown): void {
  const expected = error instanceof Error && typeof (error as { exitCode?: unknown }).exitCode === 'number';
  const text = expected ? error.message : (sentenceOf(error) ?? faultText(error));
  process.stderr.write(`tunpath: ${text}\n`);
  if (process.env.TUNPATH_DEBUG !== undefined && error instanceof Error) process.stderr.write(`${error.stack}\n`);
}

function faultText(error: unknown): string {
  const message = (error instanceof Error ? error.message : String(error)).split('\n')[0];
  return `a fault of tunpath itself, please report it: ${message} (TUNPATH_DEBUG=1 shows where)`;
}
