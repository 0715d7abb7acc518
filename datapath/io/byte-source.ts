/** Bytes that are read from front to back, a bounded piece of them in memory at a time. */
import { closeSync, openSync, readSync } from 'node:fs';

export interface ByteSource {
  /** Over memory in which [begin, begin + available) is unread. Another one after fill(). */
  readonly view: DataView;
  readonly begin: number;
  readonly available: number;
  /** Makes `n` bytes available; false if there are not so many. */
  fill(n: number): boolean;
  /** Goes `n` available bytes on. */
  advance(n: number): void;
  /** An error about the byte `at` behind the current position. */
  error(message: string, at?: number): Error;
}

/** What can be asked for at once: more than a record or a block may have. */
const CAPACITY = 2 << 20;

/** The bytes of a file. */
export class FileBytes implements ByteSource {
  readonly path: string;
  readonly view: DataView;
  begin = 0;
  private end = 0;
  private position = 0;
  private readonly fd: number;
  private readonly buffer = new Uint8Array(CAPACITY);

  /** @throws the error of open(2) */
  constructor(path: string) {
    this.path = path;
    this.view = new DataView(this.buffer.buffer);
    this.fd = openSync(path, 'r');
  }

  get available(): number {
    return this.end - this.begin;
  }

  fill(n: number): boolean {
    if (this.end - this.begin >= n) return true;
    this.buffer.copyWithin(0, this.begin, this.end);
    this.end -= this.begin;
    this.begin = 0;
    while (this.end < n) {
      const got = readSync(this.fd, this.buffer, this.end, this.buffer.length - this.end, null);
      if (got === 0) return false;
      this.end += got;
    }
    return true;
  }

  advance(n: number): void {
    this.begin += n;
    this.position += n;
  }

  error(message: string, at = 0): Error {
    return new Error(`${this.path}: byte ${this.position + at}: ${message}`);
  }

  close(): void {
    closeSync(this.fd);
  }
}

/** Bytes that are in memory already. */
export class MemoryBytes implements ByteSource {
  readonly view: DataView;
  begin = 0;
  private readonly name: string;

  /** @param name what errors call it */
  constructor(bytes: Uint8Array, name: string) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    this.name = name;
  }

  get available(): number {
    return this.view.byteLength - this.begin;
  }

  fill(n: number): boolean {
    return this.available >= n;
  }

  advance(n: number): void {
    this.begin += n;
  }

  error(message: string, at = 0): Error {
    return new Error(`${this.name}: byte ${this.begin + at}: ${message}`);
  }
}
