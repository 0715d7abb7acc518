/** The processes of a lab, which outlive the command that starts them. */
import { type SpawnOptions, spawn } from 'node:child_process';
import { closeSync, fstatSync, openSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { LabError } from './lab-error.ts';
import { memberEnvironment, namespaceOf, stateDirOf } from './names.ts';
import { END_GRACE_MS, endProcesses, identifyProcess, isAlive, type ProcessIdentity } from './processes.ts';

export const READY_TIMEOUT_MS = 30_000;

/** One of them, and the host that it runs on, or what else it is called. */
export interface LabProcess extends ProcessIdentity {
  host: string;
}

export interface Start {
  /** What it and its log are called. */
  host: string;
  argv: string[];
  /** The line of its log that says it is ready; without one it need only not end at once. */
  readyLine?: string;
  env?: NodeJS.ProcessEnv;
  /** The host whose namespace it runs in; null: the machine's own. Default: `host`. */
  at?: string | null;
}

export class LabProcesses {
  private readonly lab: string;
  readonly list: LabProcess[];

  constructor(lab: string, list: LabProcess[]) {
    this.lab = lab;
    this.list = list;
  }

  find(host: string): LabProcess | undefined {
    return this.list.findLast(started => started.host === host);
  }

  /** Whether there was one for this host, and none is left. */
  hasLost(host: string): boolean {
    const started = this.list.filter(candidate => candidate.host === host);
    return started.length > 0 && !started.some(isAlive);
  }

  /** Ends what runs for a host. */
  async end(host: string): Promise<void> {
    for (const old of this.list.filter(started => started.host === host)) {
      await endProcesses([old], END_GRACE_MS);
      this.list.splice(this.list.indexOf(old), 1);
    }
  }

  logOf(host: string): string {
    return `${stateDirOf(this.lab)}/${host}.log`;
  }

  /** Starts a process and waits until it is ready. @throws LabError when it ends at once, or does not become ready */
  async start({ host, argv, readyLine, env = {}, at = host }: Start): Promise<void> {
    const logPath = this.logOf(host);
    const log = openSync(logPath, 'a', 0o600);
    const logged = fstatSync(log).size;
    const options: SpawnOptions = {
      detached: true,
      stdio: ['ignore', log, log],
      cwd: '/',
      env: { ...memberEnvironment(this.lab), ...env },
    };
    const command = at === null ? argv : ['ip', 'netns', 'exec', namespaceOf(this.lab, at), ...argv];
    const child = spawn(command[0]!, command.slice(1), options);
    closeSync(log);
    child.on('error', () => {});
    child.unref();
    const identity = child.pid === undefined ? null : identifyProcess(child.pid);
    if (identity !== null) this.list.push({ host, ...identity });

    for (let waited = 0; ; waited += 5) {
      const text = readFileSync(logPath).subarray(logged).toString('utf8');
      if (readyLine !== undefined && text.split('\n').includes(readyLine)) return;
      if (identity === null || child.exitCode !== null || child.signalCode !== null) {
        throw new LabError(`${host} ended at once: ${text.trim() || `exit status ${child.exitCode}`}`);
      }
      if (readyLine === undefined && waited >= STAYS_MS) return;
      if (waited > READY_TIMEOUT_MS)
        throw new LabError(`${host} is not ready after ${READY_TIMEOUT_MS} ms: ${text.trim()}`);
      await sleep(5);
    }
  }
}

/** A command that has not ended after so long was at least found. */
const STAYS_MS = 100;
