/** A terminal on a host of a lab: one shell, whose variables stay, and lines that are typed into it one after the other. */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { MAIN } from '../fixtures/program.ts';

const LOOK_MS = 20;
/** That a line may take, and its shell. */
const LONGEST_MS = 180_000;
/** Until a process that has been interrupted is killed. */
const PATIENCE_MS = 5000;

export interface Typed {
  /** Both streams, white space as one blank, without colours. */
  printed: string;
  exitCode: number;
}

/** A command that runs on while others are typed. */
export interface Running {
  printed(): string;
  hasEnded(): boolean;
  /** Ctrl-C. @returns what it has printed */
  interrupt(): Promise<string>;
}

export class Terminal {
  private readonly shell: ChildProcess;
  private readonly directory = mkdtempSync(join(tmpdir(), 'tunpath-terminal-'));
  private count = 0;

  constructor(lab: string, host: string, env: NodeJS.ProcessEnv) {
    this.shell = spawn(process.execPath, [MAIN, 'lab', 'exec', '--name', lab, host, '--', 'bash'], {
      stdio: ['pipe', 'ignore', 'ignore'],
      env: { ...process.env, ...env },
    });
    // Background jobs are groups of their own, as in a terminal.
    this.shell.stdin!.write('set -m\n');
  }

  /** @param input what the command reads */
  async type(command: string, input?: string): Promise<Typed> {
    const [out, end, inputFile] = this.files(input);
    this.shell.stdin!.write(`{ ${command}\n} <${inputFile} >${out} 2>&1; echo $? >${end}.new; mv ${end}.new ${end}\n`);
    await this.until(() => existsSync(end), command);
    return { printed: plain(readFileSync(out, 'utf8')), exitCode: Number(readFileSync(end, 'utf8')) };
  }

  async start(command: string): Promise<Running> {
    const [out, end, inputFile] = this.files();
    const pidFile = `${end}.pid`;
    this.shell.stdin!.write(
      `{ ${command}\n} <${inputFile} >${out} 2>&1 & echo $! >${pidFile}.new; mv ${pidFile}.new ${pidFile}\n`,
    );
    await this.until(() => existsSync(pidFile), command);
    const pid = Number(readFileSync(pidFile, 'utf8'));
    const signal = (name: NodeJS.Signals | 0): boolean => {
      try {
        return process.kill(-pid, name);
      } catch {
        return false;
      }
    };
    const printed = (): string => (existsSync(out) ? plain(readFileSync(out, 'utf8')) : '');
    return {
      printed,
      hasEnded: () => !signal(0),
      async interrupt() {
        signal('SIGINT');
        const deadline = performance.now() + PATIENCE_MS;
        while (signal(0)) {
          if (performance.now() > deadline) signal('SIGKILL');
          await sleep(LOOK_MS);
        }
        return printed();
      },
    };
  }

  close(): void {
    this.shell.stdin!.end();
    this.shell.kill('SIGTERM');
    rmSync(this.directory, { recursive: true, force: true });
  }

  /** Of one command: what it prints, what is there when it has ended, and what it reads. */
  private files(input?: string): [out: string, end: string, input: string] {
    const base = join(this.directory, `${++this.count}`);
    if (input !== undefined) writeFileSync(`${base}.in`, input);
    return [`${base}.out`, `${base}.end`, input === undefined ? '/dev/null' : `${base}.in`];
  }

  private async until(holds: () => boolean, command: string): Promise<void> {
    const deadline = performance.now() + LONGEST_MS;
    while (!holds()) {
      if (performance.now() > deadline) {
        // Else every line behind it would wait as long.
        this.shell.kill('SIGKILL');
        throw new Error(`does not end: ${command}`);
      }
      if (this.shell.exitCode !== null) throw new Error(`the shell has ended: ${command}`);
      await sleep(LOOK_MS);
    }
  }
}

function plain(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: colours begin with one
  return text.replace(/\x1b\[[0-9;]*m/g, '').replace(/\s+/g, ' ');
}
