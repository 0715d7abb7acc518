/**
 * What a node must still know when it is started again: the configuration that was applied to it while it ran. Without
 * that a crash and a restart by the service manager would take it back to the file without a word.
 *
 * The file is the user's, so it wins whenever the user has touched it: what was applied holds only as long as the file is
 * what it was then.
 */
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { replaceFile } from '../io/replace-file.ts';

/** The configuration that was applied last. */
export interface Applied {
  /** Of the node's own configuration file at that time. */
  fileSha256: string;
  /** When, ISO 8601. */
  at: string;
  text: string;
}

export function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

/** The applied configuration of one node, in a state directory. */
export class AppliedState {
  readonly path: string;

  constructor(directory: string, node: string) {
    this.path = join(directory, `${node}.applied.json`);
  }

  /** @param file text of the configuration file. @returns null when nothing has been applied since that was written */
  load(file: string): Applied | null {
    try {
      const applied = JSON.parse(readFileSync(this.path, 'utf8')) as Applied;
      return applied.fileSha256 === sha256(file) && typeof applied.text === 'string' ? applied : null;
    } catch {
      return null;
    }
  }

  /** Remembers what has been applied; nothing if that is the file itself. Replaces in one step. */
  save(file: string, text: string, at: Date): void {
    if (text === file) {
      this.forget();
      return;
    }
    mkdirSync(join(this.path, '..'), { recursive: true, mode: 0o700 });
    const applied: Applied = { fileSha256: sha256(file), at: at.toISOString(), text };
    replaceFile(this.path, JSON.stringify(applied), 0o600);
  }

  forget(): void {
    rmSync(this.path, { force: true });
  }
}
