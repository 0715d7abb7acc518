/**
 * A backend in memory with a journal on disk, for one process.
 *
 * The journal is a file of lines, each `CRC32 JSON`. A write is one line, in the file before anybody hears of it: a killed
 * process loses nothing that it has answered. (A machine that loses power loses the last second: fdatasync is called once
 * a second.) A last line that is torn was never answered, and is cut off. When the file is much longer than what it says, a
 * new one is written beside it and renamed over it, so that there is always one whole journal.
 */
import {
  closeSync,
  existsSync,
  fdatasync,
  fdatasyncSync,
  fsyncSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  writeSync,
} from 'node:fs';
import { crc32 } from 'node:zlib';
import { type Backend, type Entry, type NewEntry, WriteConflict } from './store.ts';

/** Below this length a journal is not worth making shorter. */
const MIN_COMPACTED_BYTES = 4 << 20;
const SYNC_INTERVAL_MS = 1000;
const NEWLINE = 0x0a;
const NOTHING = Buffer.alloc(0);

/** A line of the journal: an entry, or the first line after compaction. */
type Line = { r: number; s: string; p: string; o: Entry['object'] } | { r: number; compacted: true };

interface Held {
  revision: number;
  line: Buffer;
}

export class Journal implements Backend {
  private readonly path: string | null;
  private readonly held = new Map<string, Held>();
  private fd = -1;
  private revision = 0;
  /** Length of the file, and of what a compacted one would have. */
  private bytes = 0;
  private heldBytes = 0;
  private dirty = false;
  private feed: (entry: Entry) => void = () => {};
  private timer: NodeJS.Timeout | undefined;

  /** @param directory where the journal lies or shall lie; null: in memory alone */
  constructor(directory: string | null) {
    this.path = directory === null ? null : `${directory}/journal`;
    if (directory !== null) mkdirSync(directory, { recursive: true, mode: 0o700 });
  }

  /** @throws Error naming the line where the journal is damaged elsewhere than at its end */
  async open(feed: (entry: Entry) => void): Promise<{ revision: number; completeFrom: number }> {
    this.feed = feed;
    let completeFrom = 0;
    if (this.path !== null) {
      if (existsSync(this.path)) completeFrom = this.read(readFileSync(this.path));
      this.fd = openSync(this.path, 'a+', 0o600);
      ftruncateSync(this.fd, this.bytes);
      this.timer = setInterval(() => this.sync(), SYNC_INTERVAL_MS);
      this.timer.unref();
    }
    return { revision: this.revision, completeFrom };
  }

  async write({ storage, place, object }: NewEntry, expected: number): Promise<number> {
    const key = `${storage}\n${place}`;
    if ((this.held.get(key)?.revision ?? 0) !== expected || (object === null && expected === 0)) {
      throw new WriteConflict(`${storage} ${place}`);
    }
    const revision = this.revision + 1;
    const line = this.path === null ? NOTHING : encode({ r: revision, s: storage, p: place, o: object });
    this.append(line);
    this.hold(key, object === null ? null : { revision, line });
    this.revision = revision;
    this.feed({ revision, storage, place, object });
    if (this.bytes > MIN_COMPACTED_BYTES && this.bytes > 4 * this.heldBytes) this.compact();
    return revision;
  }

  async newest(): Promise<number> {
    return this.revision;
  }

  async close(): Promise<void> {
    clearInterval(this.timer);
    if (this.fd < 0) return;
    fdatasyncSync(this.fd);
    closeSync(this.fd);
    this.fd = -1;
  }

  /** @returns the revision from which on every change is known */
  private read(text: Buffer): number {
    let completeFrom = 0;
    let start = 0;
    for (let number = 1; start < text.length; number++) {
      const end = text.indexOf(NEWLINE, start);
      const line = end < 0 ? undefined : decode(text.subarray(start, end));
      if (line === undefined) {
        // Whatever comes behind a torn line was written after it: then it is not torn but damaged.
        if (end < 0 || end === text.length - 1) break;
        throw new Error(`${this.path}:${number}: damaged: remove the file to begin anew`);
      }
      this.revision = line.r;
      if ('compacted' in line) {
        completeFrom = line.r;
      } else {
        const held = line.o === null ? null : { revision: line.r, line: Buffer.from(text.subarray(start, end + 1)) };
        this.hold(`${line.s}\n${line.p}`, held);
        this.feed({ revision: line.r, storage: line.s, place: line.p, object: line.o });
      }
      start = end + 1;
    }
    this.bytes = start;
    return completeFrom;
  }

  private hold(key: string, held: Held | null): void {
    this.heldBytes -= this.held.get(key)?.line.length ?? 0;
    if (held === null) {
      this.held.delete(key);
    } else {
      // In the order of revisions, which compaction keeps.
      this.held.delete(key);
      this.held.set(key, held);
      this.heldBytes += held.line.length;
    }
  }

  private append(line: Buffer): void {
    if (this.fd < 0) {
      if (this.path !== null) throw new Error(`${this.path} is closed`);
      return;
    }
    try {
      writeAll(this.fd, line);
    } catch (error) {
      // Half a line, as a full disk leaves it, must not stand before the next one.
      ftruncateSync(this.fd, this.bytes);
      throw error;
    }
    this.bytes += line.length;
    this.dirty = true;
  }

  private compact(): void {
    if (this.path === null) return;
    const next = `${this.path}.new`;
    const fd = openSync(next, 'w', 0o600);
    const lines = [...[...this.held.values()].map(({ line }) => line), encode({ r: this.revision, compacted: true })];
    const whole = Buffer.concat(lines);
    writeAll(fd, whole);
    fsyncSync(fd);
    closeSync(fd);
    renameSync(next, this.path);
    closeSync(this.fd);
    this.fd = openSync(this.path, 'a+', 0o600);
    this.bytes = whole.length;
  }

  private sync(): void {
    if (!this.dirty) return;
    this.dirty = false;
    // A failure shows in the next write.
    fdatasync(this.fd, () => {});
  }
}

function writeAll(fd: number, bytes: Buffer): void {
  for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done);
}

function encode(line: Line): Buffer {
  const json = JSON.stringify(line);
  return Buffer.from(`${crc32(json).toString(16).padStart(8, '0')} ${json}\n`);
}

function decode(line: Buffer): Line | undefined {
  const json = line.subarray(9);
  if (line[8] !== 0x20 || line.toString('latin1', 0, 8) !== crc32(json).toString(16).padStart(8, '0')) return undefined;
  return JSON.parse(json.toString()) as Line;
}
