/** A file that is written front to back, gathered into large writes. */
import { closeSync, openSync, writeSync } from 'node:fs';

const GATHERED = 1 << 20;

export class FileWriter {
  private readonly fd: number;
  private readonly buffer = new Uint8Array(GATHERED);
  private used = 0;

  /** @param path a file to make or empty; `-` is standard output. @throws the error of open(2) */
  constructor(path: string) {
    this.fd = path === '-' ? 1 : openSync(path, 'w');
  }

  /** @throws the error of write(2) */
  write(bytes: Uint8Array): void {
    if (this.used + bytes.length > GATHERED) this.flush();
    if (bytes.length > GATHERED) {
      writeAll(this.fd, bytes);
      return;
    }
    this.buffer.set(bytes, this.used);
    this.used += bytes.length;
  }

  flush(): void {
    const { used } = this;
    this.used = 0;
    writeAll(this.fd, this.buffer.subarray(0, used));
  }

  close(): void {
    this.flush();
    if (this.fd !== 1) closeSync(this.fd);
  }
}

function writeAll(fd: number, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done, bytes.length - done);
}
