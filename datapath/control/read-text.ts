/** Files that a user names: configurations, in whole, and no more of them than a configuration can be. */
import { isUtf8 } from 'node:buffer';
import { closeSync, openSync, readSync } from 'node:fs';

/** A configuration of ten thousand services with ten endpoints each has 9 MB. */
const MAX_BYTES = 32 * 1024 * 1024;
const CHUNK_BYTES = 256 * 1024;
const STDIN = 0;
const RETRY_MS = 10;
/** What bytes that are no UTF-8 are read as. */
const NO_CHARACTER = '\ufffd';
/** Byte order marks. */
const UTF16_MARKS = [0xfeff, 0xfffe];

/**
 * The text of a file, or of standard input for "-". Pipes are read to their end, devices to the limit.
 * @throws Error of the file system, or one that says that there is too much, or that it is no text
 */
export function readText(file: string, maxBytes = MAX_BYTES): string {
  const fd = file === '-' ? STDIN : openSync(file, 'r');
  try {
    const chunks: Buffer[] = [];
    let length = 0;
    for (;;) {
      const chunk = Buffer.allocUnsafe(CHUNK_BYTES);
      const got = readChunk(fd, chunk);
      if (got === 0) return textOf(Buffer.concat(chunks, length), file);
      length += got;
      if (length > maxBytes) {
        const message = `got more than ${maxBytes} bytes, expected a text file`;
        throw Object.assign(new Error(message), { code: 'EFBIG', syscall: 'read', path: file });
      }
      chunks.push(chunk.subarray(0, got));
    }
  } finally {
    if (fd !== STDIN) closeSync(fd);
  }
}

/** What is wrong with a file that somebody has named, in a word: "no such file or directory". Any other error as it is. */
export function describeFileError(error: unknown): string {
  const { message, syscall } = error as NodeJS.ErrnoException;
  return syscall === undefined ? message : (/^E[A-Z0-9]+: (.+?), /.exec(message)?.[1] ?? message);
}

/** @throws Error with the line where it is no UTF-8, or has a zero byte */
function textOf(bytes: Buffer, file: string): string {
  const text = bytes.toString('utf8');
  const at = isUtf8(bytes) ? text.indexOf('\0') : text.indexOf(NO_CHARACTER);
  if (at < 0) return text;
  const isUtf16 = bytes.length > 1 && UTF16_MARKS.includes(bytes.readUInt16BE(0));
  const line = text.slice(0, at).split('\n').length;
  const message = `line ${line}: got ${isUtf16 ? 'UTF-16' : 'bytes that are no text'}, expected a text file in UTF-8`;
  throw Object.assign(new Error(message), { code: 'EILSEQ', syscall: 'read', path: file });
}

/** @returns 0 at the end */
function readChunk(fd: number, chunk: Buffer): number {
  for (;;) {
    try {
      return readSync(fd, chunk, 0, chunk.length, null);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'EOF') return 0;
      // A terminal or a pipe that somebody has made non-blocking has nothing yet.
      if (code !== 'EAGAIN') throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, RETRY_MS);
    }
  }
}
