/** Namespaces and processes of one comparison, and the end of all of them, whichever way the run ends. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { RUN_DIR } from '../../datapath/control/client.ts';
import { ipBatch } from '../../datapath/control/ip.ts';
import { flattened } from '../../datapath/flattened.ts';
import { LabError } from '../../datapath/lab/lab-error.ts';
import { NETNS_DIR } from '../../datapath/lab/names.ts';
import { endProcesses, identifyProcess, isAlive, type ProcessIdentity } from '../../datapath/lab/processes.ts';

const TUNPATH = fileURLToPath(flattened(new URL('../../datapath/cli/main.js', import.meta.url)));
const START_TIMEOUT_MS = 10_000;
const GRACE_MS = 3000;

/** IPv6 is off on both sides: its neighbour discovery and multicast reports would be traffic nobody asked for. */
const NO_IPV6 = { 'net/ipv6/conf/all/disable_ipv6': 1, 'net/ipv6/conf/default/disable_ipv6': 1 };

export interface Finished {
  stdout: string;
  stderr: string;
  /** null where a signal ended it. */
  code: number | null;
  /** It was ended because it took too long. */
  late: boolean;
}

export class Sandbox {
  /** Of everything it makes; a process id, so that two runs never meet. */
  readonly prefix: string;
  private readonly directory: string;
  private readonly namespaces: string[] = [];
  private processes: ProcessIdentity[] = [];
  private readonly nodes = new Map<string, number>();
  private readonly emergency = () => this.removeNow();

  /** @param tag  keeps several of one process apart */
  constructor(tag = '') {
    this.prefix = `tb${process.pid}-${tag}`;
    this.directory = mkdtempSync(join(tmpdir(), this.prefix));
    process.once('exit', this.emergency);
  }

  /** Full name of a namespace, or of a node. */
  full(name: string): string {
    return this.prefix + name;
  }

  // ---- namespaces

  /** Makes namespaces with their loopback up. */
  async addNamespaces(...names: string[]): Promise<void> {
    this.namespaces.push(...names.map(name => this.full(name)));
    await ipBatch(names.map(name => `netns add ${this.full(name)}`));
    await Promise.all(names.map(name => this.ip(name, ['link set lo up'], NO_IPV6)));
  }

  /** Runs `ip` commands in a namespace. */
  ip(name: string, lines: string[], sysctls: Record<string, string | number> = {}): Promise<void> {
    return ipBatch(lines, { netns: this.full(name), sysctls });
  }

  // ---- processes

  /**
   * Starts a command in a namespace and returns once it has printed `ready`. It ends with the sandbox.
   * @throws LabError with what it printed, when it ends before that or takes too long
   */
  async start(name: string, argv: readonly string[], ready: string): Promise<ChildProcess> {
    const child = this.spawn(name, argv);
    let output = '';
    const keep = (chunk: string) => {
      output += chunk;
    };
    const streams = [child.stdout!, child.stderr!];
    for (const stream of streams) stream.setEncoding('utf8').on('data', keep);
    let ended = false;
    child.once('error', error => {
      output += error.message;
      ended = true;
    });
    child.once('exit', () => {
      ended = true;
    });
    for (let waited = 0; !output.includes(ready); waited += 5) {
      if (ended || waited > START_TIMEOUT_MS) {
        child.kill('SIGKILL');
        throw new LabError(`no '${ready.trim()}' from '${argv.join(' ')}': ${output.trim() || 'it printed nothing'}`);
      }
      await sleep(5);
    }
    // Read on, so that the pipe never fills, but keep nothing.
    for (const stream of streams) stream.off('data', keep).resume();
    return child;
  }

  /** Starts `tunpath node` in the namespace of the same name and returns once packets flow. JSON is YAML. */
  startNode(name: string, spec: object): Promise<void> {
    return this.startNodes(name, { [name]: spec });
  }

  /**
   * Several nodes in one process, which runs in a namespace of theirs.
   * @param specs by the nodes' names
   * @param segments that they are on, as `metadata.name` and `spec`
   */
  async startNodes(
    namespace: string,
    specs: Readonly<Record<string, object>>,
    segments: Readonly<Record<string, object>> = {},
  ): Promise<void> {
    const document = (kind: string, name: string, spec: object) =>
      JSON.stringify({ apiVersion: 'tunpath.dev/v1', kind, metadata: { name }, spec });
    const wires = Object.entries(segments).map(([name, spec]) => document('Segment', name, spec));
    const files = Object.entries(specs).map(([name, spec]) => {
      const file = join(this.directory, `${name}.yaml`);
      writeFileSync(file, [...wires.splice(0), document('NodeConfig', this.full(name), spec)].join('\n---\n'));
      return file;
    });
    const argv = [process.execPath, TUNPATH, 'node', ...files.flatMap(file => ['--config', file])];
    const { pid } = await this.start(namespace, argv, 'ready\n');
    for (const name of Object.keys(specs)) this.nodes.set(name, pid as number);
  }

  /** Process of a node that startNode has started. */
  pidOf(node: string): number {
    return this.nodes.get(node) as number;
  }

  /**
   * Runs a command in a namespace to its end, or for `timeoutMs`.
   * @param signal  ends it early; `code` is then null
   * @throws LabError when it cannot be started
   */
  async run(name: string, argv: readonly string[], timeoutMs: number, signal: AbortSignal): Promise<Finished> {
    const child = this.spawn(name, argv);
    const finished: Finished = { stdout: '', stderr: '', code: null, late: false };
    child.stdout!.setEncoding('utf8').on('data', chunk => {
      finished.stdout += chunk;
    });
    child.stderr!.setEncoding('utf8').on('data', chunk => {
      finished.stderr += chunk;
    });
    const kill = () => void child.kill('SIGKILL');
    const timer = setTimeout(() => {
      finished.late = true;
      kill();
    }, timeoutMs);
    signal.addEventListener('abort', kill, { once: true });
    if (signal.aborted) kill();
    try {
      finished.code = await new Promise<number | null>((resolve, reject) => {
        child.once('error', error => reject(new LabError(`${argv[0]}: ${error.message}`)));
        child.once('close', resolve);
      });
    } finally {
      clearTimeout(timer);
      signal.removeEventListener('abort', kill);
    }
    return finished;
  }

  /** `ip netns exec` becomes the command, so the child's pid is the command's. */
  private spawn(name: string, argv: readonly string[]): ChildProcess {
    const child = spawn('ip', ['netns', 'exec', this.full(name), ...argv], {
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true, // in a session of its own: Ctrl-C ends the run in order, not every process at once
    });
    const identity = child.pid === undefined ? null : identifyProcess(child.pid);
    this.processes = this.processes.filter(isAlive);
    if (identity !== null) this.processes.push(identity);
    return child;
  }

  // ---- the end

  /** Ends every process and removes the namespaces. */
  async remove(): Promise<void> {
    await endProcesses(this.processes, GRACE_MS);
    this.removeNow();
    process.removeListener('exit', this.emergency);
  }

  /** What can be done without waiting; also the last resort when the process ends early. */
  private removeNow(): void {
    for (const { pid } of this.processes.filter(isAlive)) kill(pid);
    for (const name of this.namespaces.splice(0)) removeNamespace(name);
    removeEntries(RUN_DIR, this.prefix);
    removeEntries(tmpdir(), this.prefix);
  }
}

/** Removes what runs left behind that were killed with SIGKILL. */
export function removeLeftovers(): void {
  for (const name of existsSync(NETNS_DIR) ? readdirSync(NETNS_DIR) : []) {
    const pid = /^tb(\d+)-/.exec(name)?.[1];
    if (pid === undefined || existsSync(`/proc/${pid}`)) continue;
    const inside = execFileSync('ip', ['netns', 'pids', name], { encoding: 'utf8' }).split('\n');
    for (const process of inside) if (process !== '') kill(Number(process));
    removeNamespace(name);
    removeEntries(RUN_DIR, `tb${pid}-`);
    removeEntries(tmpdir(), `tb${pid}-`);
  }
}

function removeNamespace(name: string): void {
  if (existsSync(join(NETNS_DIR, name))) execFileSync('ip', ['netns', 'del', name]);
}

function removeEntries(directory: string, prefix: string): void {
  for (const entry of existsSync(directory) ? readdirSync(directory) : []) {
    if (entry.startsWith(prefix)) rmSync(join(directory, entry), { recursive: true, force: true });
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // Ended between the look and the signal.
  }
}
