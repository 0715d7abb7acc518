/** Commands in pods, with or without a terminal, and the logs of containers. */
import { spawn } from 'node:child_process';
import { closeSync, createReadStream, openSync, readSync, statSync, watch } from 'node:fs';
import { constants } from 'node:os';
import { PassThrough, Readable } from 'node:stream';
import { openPty } from '../../io/pty.ts';
import type { ContainerProcess, LogOptions } from '../streams/runtime.ts';

export interface CommandOptions {
  stdin: boolean;
  tty: boolean;
  env: NodeJS.ProcessEnv;
}

const NOT_FOUND = 127; // as a shell has it

/** Starts a command. One that cannot be started ends with 127, as in a shell, and says so. */
export function startCommand(argv: readonly string[], options: CommandOptions): ContainerProcess {
  return options.tty ? startInTerminal(argv, options) : startPlain(argv, options);
}

function startPlain(argv: readonly string[], { stdin, env }: CommandOptions): ContainerProcess {
  // A group of its own, so that what it starts ends with it.
  const child = spawn(argv[0]!, argv.slice(1), {
    env,
    stdio: [stdin ? 'pipe' : 'ignore', 'pipe', 'pipe'],
    detached: true,
    cwd: '/',
  });
  const { exit, failed } = exitOf(child);
  const complaint = new PassThrough();
  void failed.then(text => complaint.end(text));
  return {
    ...(child.stdin === null ? {} : { stdin: child.stdin }),
    // Taken up at once: of a child that has ended, Node throws away what nobody reads.
    stdout: child.stdout!.pipe(new PassThrough()),
    stderr: child.pid === undefined ? complaint : child.stderr!.pipe(new PassThrough()),
    exit,
    kill: () => killGroup(child.pid),
  };
}

function startInTerminal(argv: readonly string[], { env }: CommandOptions): ContainerProcess {
  const { master, slave, resize } = openPty();
  // The terminal has to be the one that its session belongs to: Ctrl-C is for whoever runs in it.
  const child = spawn('setsid', ['--ctty', ...argv], {
    env: { TERM: 'xterm', ...env },
    stdio: [slave, slave, slave],
    cwd: '/',
  });
  closeSync(slave);
  const output = new PassThrough();
  master.on('data', chunk => output.write(chunk));
  // EIO: the last who had the other side open is gone.
  master.on('error', () => master.destroy());
  master.on('close', () => output.end());
  const { exit } = exitOf(child);
  return { stdin: master, stdout: output, resize, exit, kill: () => killGroup(child.pid) };
}

function exitOf(child: ReturnType<typeof spawn>): { exit: Promise<number>; failed: Promise<string> } {
  let fail: (text: string) => void = () => {};
  const failed = new Promise<string>(resolve => {
    fail = resolve;
  });
  const exit = new Promise<number>(resolve => {
    child.once('error', error => {
      fail(`${error.message}\n`);
      resolve(NOT_FOUND);
    });
    child.once('exit', (code, signal) => resolve(code ?? 128 + (signal === null ? 0 : constants.signals[signal])));
  });
  return { exit, failed };
}

function killGroup(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // It has ended.
  }
}

/** What a container has printed, and with `follow` what it will print, until `ended` says that it prints no more. */
export function readLog(path: string, options: LogOptions, ended: () => boolean): Readable {
  const start = options.tailLines === undefined ? 0 : startOfTail(path, options.tailLines);
  const limit = options.limitBytes ?? Number.POSITIVE_INFINITY;
  if (!options.follow) {
    if (limit === 0) return Readable.from([]);
    return createReadStream(path, { start, ...(limit === Number.POSITIVE_INFINITY ? {} : { end: start + limit - 1 }) });
  }
  return Readable.from(follow(path, start, limit, ended));
}

async function* follow(path: string, start: number, limit: number, ended: () => boolean): AsyncGenerator<Buffer> {
  const fd = openSync(path, 'r');
  const watcher = watch(path);
  let wake: () => void = () => {};
  watcher.on('change', () => wake());
  try {
    let at = start;
    const piece = Buffer.alloc(1 << 16);
    while (at - start < limit) {
      const isLast = ended();
      const length = readSync(fd, piece, 0, Math.min(piece.length, limit - (at - start)), at);
      at += length;
      if (length > 0) yield Buffer.from(piece.subarray(0, length));
      else if (isLast) return;
      // Also without news: whether the container has ended is no change of its log.
      else {
        await new Promise<void>(resolve => {
          wake = resolve;
          setTimeout(resolve, 250).unref();
        });
      }
    }
  } finally {
    watcher.close();
    closeSync(fd);
  }
}

/** Where the last lines of a file begin. */
function startOfTail(path: string, lines: number): number {
  const { size } = statSync(path);
  const fd = openSync(path, 'r');
  try {
    const piece = Buffer.alloc(1 << 16);
    let left = lines;
    for (let end = size; end > 0; ) {
      const length = Math.min(piece.length, end);
      readSync(fd, piece, 0, length, end - length);
      for (let index = length - 1; index >= 0; index--) {
        // The newline that ends the file begins no line.
        if (piece[index] !== 0x0a || end - length + index === size - 1) continue;
        if (--left <= 0) return lines === 0 ? size : end - length + index + 1;
      }
      end -= length;
    }
    return lines === 0 ? size : 0;
  } finally {
    closeSync(fd);
  }
}
