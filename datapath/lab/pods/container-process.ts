/**
 * The process of a container: in its pod's network namespace, with the pod's name as its hostname. It outlives whoever
 * started it, and may be found again by its pid; only one with a terminal, or one whose input somebody holds, ends with it.
 */
import { spawn } from 'node:child_process';
import { closeSync, existsSync, openSync, readFileSync, statSync, writeSync } from 'node:fs';
import { constants } from 'node:os';
import { PassThrough, type Writable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { readLog } from '../../api/pods/process.ts';
import type { ContainerProcess } from '../../api/streams/runtime.ts';
import { openPty } from '../../io/pty.ts';
import { identifyProcess, isAlive, type ProcessIdentity } from '../processes.ts';

export interface Launch {
  /** Name of the network namespace. */
  namespace: string;
  hostname: string;
  words: readonly string[];
  env: NodeJS.ProcessEnv;
  /** PATH of the command; default that of `env`, by which it is brought into its namespaces. */
  path?: string;
  /** Default `/`. */
  cwd?: string;
  /** User and group; default those of this process. */
  user?: { uid: number; gid: number };
}

/** Whether an adopted process still runs is looked at so often. */
const ADOPTED_POLL_MS = 200;
/** What a terminal has printed before somebody looks is kept so far. */
const MAX_UNSEEN = 1 << 16;
/** Exit status of one whose end nobody saw. (kubelet: ContainerStatusUnknown) */
export const UNKNOWN_EXIT = 137;

/** What is to be run for a launch to be in its namespaces. */
export function wrapped({ namespace, hostname, words, user, path }: Launch): string[] {
  const as =
    user === undefined ? [] : ['setpriv', `--reuid=${user.uid}`, `--regid=${user.gid}`, '--clear-groups', '--'];
  const script = 'echo "$0" > /proc/sys/kernel/hostname; exec "$@"';
  const found = path === undefined ? [] : ['env', `PATH=${path}`];
  return [
    'ip',
    'netns',
    'exec',
    namespace,
    'unshare',
    '--uts',
    'sh',
    '-c',
    script,
    hostname,
    ...as,
    ...found,
    ...words,
  ];
}

/** Where a program is, as a shell would find it. */
export function findProgram(name: string, path: string): boolean {
  if (name.includes('/')) return existsSync(name);
  return path.split(':').some(directory => statSync(`${directory}/${name}`, { throwIfNoEntry: false })?.isFile());
}

export class RunningContainer {
  readonly identity: ProcessIdentity;
  /** Its exit status; 128 and the number of the signal that ended it. */
  readonly exit: Promise<number>;
  private readonly log: string;
  private readonly input: Writable | undefined;
  private readonly terminal: ReturnType<typeof openPty> | undefined;
  private readonly watchers = new Set<PassThrough>();
  private unseen: Buffer[] = [];
  private unseenBytes = 0;
  private hasEnded = false;

  private constructor(
    identity: ProcessIdentity,
    exit: Promise<number>,
    log: string,
    io: { input?: Writable; terminal?: ReturnType<typeof openPty> } = {},
  ) {
    this.identity = identity;
    this.log = log;
    this.input = io.input;
    this.terminal = io.terminal;
    this.exit = exit.then(code => {
      this.hasEnded = true;
      return code;
    });
    io.terminal?.master.on('data', (chunk: Buffer) => this.printed(chunk));
  }

  /** @param log where its output goes, at the end of what is there @throws Error where it cannot be started */
  static async start(launch: Launch, log: string, stdin: boolean, tty: boolean): Promise<RunningContainer> {
    const [program, ...rest] = wrapped(launch) as [string, ...string[]];
    const options = { env: launch.env, cwd: launch.cwd ?? '/' };
    const fd = openSync(log, 'a', 0o600);
    const terminal = tty ? openPty() : undefined;
    const child =
      terminal === undefined
        ? spawn(program, rest, { ...options, detached: true, stdio: [stdin ? 'pipe' : 'ignore', fd, fd] })
        : spawn('setsid', ['--ctty', program, ...rest], {
            ...options,
            stdio: [terminal.slave, terminal.slave, terminal.slave],
          });
    closeSync(fd);
    if (terminal !== undefined) {
      closeSync(terminal.slave);
      // EIO: the last who had the other side open is gone.
      terminal.master.on('error', () => terminal.master.destroy());
    }
    child.stdin?.on('error', () => {});
    const exit = new Promise<number>(resolve => {
      child.once('exit', (code, signal) => resolve(code ?? 128 + (signal === null ? 0 : constants.signals[signal])));
    });
    const pid = await new Promise<number>((resolve, reject) => {
      child.once('error', reject);
      child.once('spawn', () => resolve(child.pid!));
    });
    child.unref();
    // One that has ended at once is nobody's to be found again.
    const identity = identifyProcess(pid) ?? { pid, startTicks: 0 };
    return new RunningContainer(identity, exit, log, {
      ...(child.stdin === null ? {} : { input: child.stdin }),
      ...(terminal === undefined ? {} : { terminal }),
    });
  }

  /** One that another process started. @returns undefined where it has ended */
  static adopt(identity: ProcessIdentity, log: string): RunningContainer | undefined {
    if (!isAlive(identity)) return undefined;
    const exit = (async () => {
      while (isAlive(identity)) await sleep(ADOPTED_POLL_MS, undefined, { ref: false });
      return UNKNOWN_EXIT;
    })();
    return new RunningContainer(identity, exit, log);
  }

  /** Sends a signal to it and all that it has started in its process group. */
  kill(signal: NodeJS.Signals): void {
    if (this.hasEnded) return;
    try {
      process.kill(-this.identity.pid, signal);
    } catch {
      // It ends just now.
    }
  }

  /** Returns when a line of its output is this one, or it has ended. */
  async untilPrinted(line: string, from: number): Promise<void> {
    while (!this.hasEnded) {
      if (readFileSync(this.log).subarray(from).toString('latin1').split('\n').includes(line)) return;
      await sleep(5);
    }
  }

  /** Its streams for one more client; with a terminal, what it has printed while nobody looked comes first. */
  attach(stdin: boolean): ContainerProcess {
    // To one who looks on, its end is no failure.
    const exit = this.exit.then(() => 0);
    const io = stdin && this.input !== undefined ? { stdin: this.inputOfClient(this.input) } : {};
    const { terminal } = this;
    if (terminal === undefined) {
      const options = { follow: true, previous: false };
      return { ...io, stdout: readLog(this.log, options, () => this.hasEnded), exit, kill: () => {} };
    }
    const output = new PassThrough();
    for (const chunk of this.unseen) output.write(chunk);
    this.unseen = [];
    this.watchers.add(output);
    const leave = (): void => {
      this.watchers.delete(output);
      output.end();
    };
    terminal.master.once('close', leave);
    return {
      ...(stdin ? { stdin: this.inputOfClient(terminal.master) } : {}),
      stdout: output,
      resize: terminal.resize,
      exit,
      kill: leave,
    };
  }

  /** The container's input stays open when one who typed there goes, but where there is no terminal an end is an end. */
  private inputOfClient(target: Writable): Writable {
    const typed = new PassThrough();
    typed.pipe(target, { end: this.terminal === undefined });
    return typed;
  }

  private printed(chunk: Buffer): void {
    const fd = openSync(this.log, 'a', 0o600);
    writeSync(fd, chunk);
    closeSync(fd);
    for (const watcher of this.watchers) watcher.write(chunk);
    if (this.watchers.size > 0 || this.unseenBytes > MAX_UNSEEN) return;
    this.unseen.push(chunk);
    this.unseenBytes += chunk.length;
  }
}
