/**
 * What the tests on real devices share: namespaces, nodes, processes and captures under a prefix of their own, and all of
 * it gone at the end, also when the test process is killed half way (SIGKILL excepted).
 */
import { strict as assert } from 'node:assert';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import { callNode } from '../../datapath/control/client.ts';
import { ipBatch } from '../../datapath/control/ip.ts';
import { inNamespace } from '../../datapath/control/netns.ts';
import { socketPath } from '../../datapath/control/server.ts';
import { parseSnmp as countersIn } from '../../datapath/host/probe-pair.ts';
import { MAIN } from '../fixtures/program.ts';
import { UNIT } from '../fixtures/unit.ts';

const NETNS_DIR = '/run/netns';
/** Of a node: on a loaded machine, under the unit. */
const START_TIMEOUT_MS = 30_000;
const STOP_TIMEOUT_MS = 3000;

/** Namespaces are made without IPv6: the datapath speaks IPv4, and the counters are then only what a test did. */
const NO_IPV6 = { 'net/ipv6/conf/all/disable_ipv6': 1, 'net/ipv6/conf/default/disable_ipv6': 1 };

export interface Result {
  code: number;
  stdout: string;
  stderr: string;
}

/** A row of `get ports`. */
export interface PortRow {
  name: string;
  kind: string;
  device: string;
  rxPackets: number;
  rxBytes: number;
  rxDropped: number;
  txPackets: number;
  txDropped: number;
}

/** A child process that is ended with the rig. */
export class Running {
  readonly child: ChildProcess;
  readonly exited: Promise<number | null>;
  output = '';

  constructor(argv: string[]) {
    this.child = spawn(argv[0], argv.slice(1), { stdio: ['ignore', 'pipe', 'pipe'] });
    for (const stream of [this.child.stdout!, this.child.stderr!]) {
      stream.setEncoding('utf8').on('data', chunk => {
        this.output += chunk;
      });
    }
    this.exited = new Promise(resolve => {
      this.child.once('close', code => resolve(code));
      this.child.once('error', error => {
        this.output += error.message;
        resolve(null);
      });
    });
  }

  get pid(): number {
    return this.child.pid!;
  }

  get ended(): boolean {
    return this.child.exitCode !== null || this.child.signalCode !== null || this.child.pid === undefined;
  }

  /** Waits until it has printed `text`. @throws when it ends before that, or takes too long */
  async until(text: string): Promise<void> {
    const deadline = Date.now() + START_TIMEOUT_MS;
    while (!this.output.includes(text)) {
      if (this.ended || Date.now() > deadline)
        throw new Error(`no "${text}" from ${this.child.spawnargs}: ${this.output}`);
      await sleep(5);
    }
  }

  /** Ends it: asked first, then made to. @returns its exit code; null if it had to be killed */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<number | null> {
    if (!this.ended) this.child.kill(signal);
    const code = await Promise.race([this.exited, sleep(STOP_TIMEOUT_MS, 'late' as const)]);
    if (code !== 'late') return code;
    this.child.kill('SIGKILL');
    return this.exited;
  }
}

/** A started `tunpath node`. */
export interface RunningNode extends Running {
  readonly name: string;
}

export class Rig {
  readonly prefix: string;
  readonly directory: string;
  /** Nodes get what the systemd unit leaves them of capabilities and system calls, and its flags. */
  asService = false;
  private readonly namespaces = new Set<string>();
  private readonly running = new Set<Running>();
  private readonly emergency = () => this.removeNow();

  /** @param name tells the rigs of one test process apart */
  constructor(name: string) {
    this.prefix = `tn${process.pid}-${name}-`;
    removeOrphans();
    this.directory = mkdtempSync(join(tmpdir(), this.prefix));
    process.once('exit', this.emergency);
  }

  /** Full name of a namespace or node of this rig. */
  full(name: string): string {
    return this.prefix + name;
  }

  // ---- Namespaces

  /** Makes namespaces, their loopback up. */
  async namespace(...names: string[]): Promise<void> {
    for (const name of names) this.namespaces.add(this.full(name));
    await ipBatch(names.map(name => `netns add ${this.full(name)}`));
    await Promise.all(names.map(name => this.ip(name, ['link set lo up'], NO_IPV6)));
  }

  /** As namespace, for what cannot wait. @returns its full name */
  namespaceNow(name: string): string {
    const full = this.full(name);
    this.namespaces.add(full);
    execFileSync('ip', ['netns', 'add', full]);
    inNamespace(full, () => {
      for (const [file, value] of Object.entries(NO_IPV6)) writeFileSync(`/proc/sys/${file}`, `${value}`);
    });
    return full;
  }

  /** A namespace whose bridge br0 has `addresses` and joins the uplinks. */
  async bridge(name: string, ...addresses: string[]): Promise<void> {
    await this.namespace(name);
    // A bridge that snoops reports itself to 224.0.0.22 (RFC 4286), now and then, to every port.
    const lines = [
      'link add br0 type bridge mcast_snooping 0',
      'link set br0 up',
      ...addresses.map(a => `addr add ${a} dev br0`),
    ];
    await this.ip(name, lines);
  }

  /** Runs `ip` commands in a namespace. */
  ip(name: string, lines: string[], sysctls: Record<string, string | number> = {}): Promise<void> {
    return ipBatch(lines, { netns: this.full(name), sysctls });
  }

  /**
   * Puts the TAP `device` of namespace `from` on the bridge of `bridge`, as port `as`. Where a node of ours runs there and
   * has a host port, its processes have the node's address then.
   */
  async plug(from: string, device: string, bridge: string, as: string): Promise<void> {
    await this.ip(from, [`link set ${device} netns ${this.full(bridge)} name ${as}`]);
    await this.ip(bridge, [`link set ${as} master br0 up`]);
    if (!existsSync(socketPath(this.full(from)))) return;
    const { spec } = (await callNode(socketPath(this.full(from)), 'config')) as { spec: { host?: object } };
    if (spec.host === undefined) return;
    await until('the node to see that its TAP was moved', async () => {
      return (await this.status<{ underlay: { atHostPort: boolean } }>(from)).underlay.atHostPort;
    });
  }

  // ---- Processes

  /** Runs a command to its end in a namespace. Never throws for what the command says. */
  async exec(name: string, ...argv: string[]): Promise<Result> {
    const result = await execa('ip', ['netns', 'exec', this.full(name), ...argv], {
      reject: false,
      stdin: 'ignore',
      timeout: 30_000,
      maxBuffer: 1 << 28,
    });
    return { code: result.exitCode ?? -1, stdout: result.stdout, stderr: result.stderr };
  }

  /** As exec, for a command that must succeed. @returns what it printed */
  async run(name: string, ...argv: string[]): Promise<string> {
    const { code, stdout, stderr } = await this.exec(name, ...argv);
    assert.equal(code, 0, `${argv.join(' ')} in ${name}: exit ${code}: ${stderr}${stdout}`);
    return stdout;
  }

  /** Starts a command in a namespace; it is ended with the rig. */
  spawn(name: string, ...argv: string[]): Running {
    return this.command('ip', 'netns', 'exec', this.full(name), ...argv);
  }

  /** Starts a command where the test itself runs; it is ended with the rig. */
  command(...argv: string[]): Running {
    const running = new Running(argv);
    this.running.add(running);
    return running;
  }

  /** Starts a program of this directory, `traffic` for traffic.ts, in a namespace. */
  program(name: string, file: string, ...args: string[]): Running {
    return this.spawn(name, process.execPath, programFile(file), ...args);
  }

  /** Runs a program of this directory to its end. */
  runProgram(name: string, file: string, ...args: string[]): Promise<string> {
    return this.run(name, process.execPath, programFile(file), ...args);
  }

  // ---- Nodes

  /** Writes a configuration. JSON is YAML. @returns its file */
  writeConfig(name: string, spec: object): string {
    const file = join(this.directory, `${name}.yaml`);
    const config = { apiVersion: 'tunpath.dev/v1', kind: 'NodeConfig', metadata: { name: this.full(name) }, spec };
    writeFileSync(file, JSON.stringify(config, null, 1));
    return file;
  }

  /** Starts a node in the namespace of the same name and returns once packets flow. */
  async node(name: string, spec: object): Promise<RunningNode> {
    const running = this.tunpath(name, 'node', '--config', this.writeConfig(name, spec));
    await running.until('ready\n');
    return Object.assign(running, { name: this.full(name) });
  }

  /** Starts the tunpath command in a namespace. */
  tunpath(name: string, ...args: string[]): Running {
    const argv = [process.execPath, MAIN, ...args];
    if (!this.asService || args[0] !== 'node') return this.spawn(name, ...argv);
    return this.program(name, 'confine', UNIT, ...argv, '--drop-capabilities');
  }

  /** `get KIND` of a running node of this rig, by its control socket. */
  async get<Row>(name: string, kind: string): Promise<Row[]> {
    return (await callNode(socketPath(this.full(name)), 'get', { kind })) as Row[];
  }

  /** The counters of a node by name; absent means 0. */
  async counters(name: string): Promise<Map<string, number>> {
    const rows = await this.get<{ name: string; packets: number }>(name, 'counters');
    return new Map(rows.map(row => [row.name, row.packets]));
  }

  async status<Status>(name: string): Promise<Status> {
    return (await callNode(socketPath(this.full(name)), 'status')) as Status;
  }

  async ports(name: string): Promise<PortRow[]> {
    return this.get<PortRow>(name, 'ports');
  }

  // ---- The end

  /** Removes everything, and makes sure that nothing is left. For `after` hooks. */
  async close(): Promise<void> {
    await Promise.all([...this.running].map(running => running.stop()));
    this.removeNow();
    process.removeListener('exit', this.emergency);
    const left = [...readdirSync(NETNS_DIR), ...runFiles()].filter(entry => entry.startsWith(this.prefix));
    assert.deepEqual(left, [], 'namespaces, sockets and locks left behind');
  }

  /** What can be done without waiting; also the last resort when the test process ends early. */
  private removeNow(): void {
    for (const running of this.running) if (!running.ended) running.child.kill('SIGKILL');
    for (const name of this.namespaces) {
      if (existsSync(join(NETNS_DIR, name))) execFileSync('ip', ['netns', 'del', name]);
    }
    for (const file of runFiles()) {
      if (file.startsWith(this.prefix)) rmSync(join('/run/tunpath', file), { force: true });
    }
    rmSync(this.directory, { recursive: true, force: true });
    this.running.clear();
    this.namespaces.clear();
  }
}

/** Namespaces of test processes that were killed before they could clean up. */
function removeOrphans(): void {
  for (const entry of existsSync(NETNS_DIR) ? readdirSync(NETNS_DIR) : []) {
    const pid = /^tn(\d+)-/.exec(entry)?.[1];
    if (pid !== undefined && !existsSync(`/proc/${pid}`)) execFileSync('ip', ['netns', 'del', entry]);
  }
}

function programFile(file: string): string {
  return fileURLToPath(new URL(`${file}.js`, import.meta.url));
}

function runFiles(): string[] {
  return existsSync('/run/tunpath') ? readdirSync('/run/tunpath').filter(entry => /\.(sock|lock)$/.test(entry)) : [];
}

/** Waits until `condition` holds. @throws after `timeoutMs` */
export async function until(
  what: string,
  condition: () => Promise<boolean> | boolean,
  timeoutMs = 5000,
): Promise<void> {
  const deadline = Date.now() + timeoutMs;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`waited ${timeoutMs} ms for ${what}`);
    await sleep(20);
  }
}

/**
 * The kernel's counters of a namespace (/proc/net/snmp), as "Udp.InCsumErrors".
 * @param text what `cat /proc/net/snmp` printed there
 */
export function parseSnmp(text: string): Map<string, number> {
  return new Map(Object.entries(countersIn(text)));
}

/** User and system time of a process so far, in seconds. */
export function cpuSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const TICKS_PER_SECOND = 100; // USER_HZ is 100 on every Linux architecture that Node runs on
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}
