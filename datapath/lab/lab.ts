/**
 * A cluster in network namespaces of one machine.
 *
 *      tp-LAB-POD        tp-LAB-NODE                     tp-LAB-net                    tp-LAB-router
 *      +--------+      +---------------+       +-----------------------------+       +-------------+
 *      |  eth0 ------- | k8s-ctr ------------- segment br10 - br10 - router-eth1 ------- eth1      |
 *      +--------+      |      |        |       |    k8s-w1 -+                |       |    loop1 2  |
 *      +--------+      |     tp0       |       |                             |       |  eth0 ---------- tp-LAB-away
 *      |  eth0 ------- |               |       |  segment br20 - br20 - router-eth2 ------ eth2      |
 *      +--------+      +---------------+       +-----------------------------+       +-------------+
 *
 * Pods' eth0 and the node's tp0 are TUNs. All nodes run in one process in tp-LAB-net, and subnets are segments of it, each
 * with a TAP on the bridge of its name. With a process a node, in its own namespace, every node has a TAP on the bridge
 * itself, called like the node. The router is the kernel's own forwarding. A host's name is its namespace's name without
 * the prefix.
 */

import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import {
  closeSync,
  existsSync,
  fstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import { stringify } from 'yaml';
import { callNode, RUN_DIR } from '../control/client.ts';
import { ipBatch } from '../control/ip.ts';
import { SCHEMA_LINE } from '../control/schema-file.ts';
import { SEED_VARIABLE } from '../control/seed.ts';
import { Capture } from './capture.ts';
import { makeKernelNode } from './kernel-node.ts';
import { LabError, requireRoot } from './lab-error.ts';
import {
  type LabNodeConfig,
  type Mode,
  type ModeOptions,
  nodeConfig,
  segmentConfigs,
  segmentDevice,
  UPLINK_DEVICE,
} from './modes.ts';
import { removeNameFiles, writeNameFiles } from './name-files.ts';
import {
  AWAY,
  apiDirOf,
  checkLabName,
  memberEnvironment,
  NETNS_DIR,
  namespaceOf,
  namespacePrefix,
  SWITCH,
  socketOf,
  stateDirOf,
  zoneFileOf,
} from './names.ts';
import { makeNetwork } from './network.ts';
import { endProcesses, identifyProcess, inodesOf, isAlive, type ProcessIdentity, processesOf } from './processes.ts';
import {
  addressOf,
  CLUSTER_DOMAIN,
  dnsNameOf,
  hostsOf,
  type LabNode,
  routerWebAddress,
  TOPOLOGIES,
  type Topology,
} from './topology.ts';

export interface LabOptions extends ModeOptions {
  /** Default `lab`. */
  name?: string;
  /** Default: the cluster of article 001. */
  topology?: Topology;
  /** Of every node's random choices, so that a run can be had again; default: each node its own. */
  seed?: number;
  /** Changes a node's configuration before the node starts, for experiments that no mode covers. */
  adjust?: (config: LabNodeConfig) => void;
  /** A Kubernetes API beside it, whose objects the nodes follow, with a kubeconfig. */
  api?: boolean;
  /** Nodes made of the kernel's own VXLAN instead of ours, to compare with. Services and the way out are not set up. */
  kernel?: boolean;
}

export interface ExecResult {
  stdout: string;
  stderr: string;
  /** 128 and the signal's number where a signal ended it, as a shell says it. */
  exitCode: number;
}

export interface ExecOptions {
  /** What the command reads; default nothing. */
  input?: string;
  /** Ends the command after so long; the exit code is then 143. */
  timeoutMs?: number;
}

export interface CaptureOptions {
  /** pcap filter. */
  filter?: string;
  /** Default: whole packets of any size. */
  snaplen?: number;
  /** Default: a new file in the lab's state directory, which `down` removes. */
  path?: string;
}

/** What one host of a lab is and whether it runs. */
export interface HostStatus {
  host: string;
  kind: 'node' | 'pod' | 'router';
  node: string;
  address: string;
  namespace: string;
  pid: number | null;
  state: 'up' | 'down' | 'idle';
}

interface LabProcess extends ProcessIdentity {
  host: string;
}

/** lab.json: enough for another process to use the lab. */
interface LabState {
  name: string;
  topology: Topology;
  options: ModeOptions;
  owner: ProcessIdentity | null;
  processes: LabProcess[];
}

const READY_TIMEOUT_MS = 10_000;
const END_GRACE_MS = 2000;
const DOWN_ROUNDS = 10;
const WEB_PORT = 80;
const DNS_PORT = 53;
/** What the log of the process with all nodes is called, and its configuration of segments. */
const NODES = 'nodes';
const SEGMENTS_FILE = 'segments.yaml';
/** What the API is called among a lab's processes; it is no host. */
const API_LOG = 'api';

const MAIN = fileURLToPath(new URL('../cli/main.js', import.meta.url));
const API = fileURLToPath(new URL('./api-process.js', import.meta.url));
const DNS = fileURLToPath(new URL('./dns-server.js', import.meta.url));
const WHOAMI = fileURLToPath(new URL('./whoami.js', import.meta.url));

export class Lab {
  readonly name: string;
  readonly topology: Topology;
  readonly options: ModeOptions;
  readonly stateDir: string;
  private static readonly closed = new Set<string>();
  /** Under way; a second `down` waits for the first. */
  private static readonly removals = new Map<string, Promise<boolean>>();
  private readonly processes: LabProcess[];
  private captures = 0;

  private constructor(state: LabState) {
    this.name = state.name;
    this.topology = state.topology;
    this.options = state.options;
    this.stateDir = stateDirOf(state.name);
    this.processes = state.processes;
  }

  get mode(): Mode {
    return this.options.mode;
  }

  /**
   * Makes a lab and returns when packets flow on every node. What was made goes away again when that fails.
   * @throws LabError when a lab of that name is there, or a node does not become ready
   */
  static async up(options: LabOptions): Promise<Lab> {
    const name = checkLabName(options.name ?? 'lab');
    const { topology = TOPOLOGIES.cilium!, mode, profile, offload, processes } = options;
    requireRoot('a lab');
    if (Lab.closed.has(name)) throw new LabError(`lab '${name}': interrupted`);
    const present = new LabError(`lab '${name}' is there already: 'tunpath lab down --name ${name}' removes it`);
    if (Lab.exists(name)) throw present;
    mkdirSync(RUN_DIR, { recursive: true });
    try {
      mkdirSync(stateDirOf(name), { mode: 0o700 });
    } catch {
      throw present;
    }
    const lab = new Lab({ name, topology, options: { mode, profile, offload, processes }, owner: null, processes: [] });
    try {
      lab.writeState();
      // Before anything is awaited, so that whatever takes the lab down finds them.
      writeNameFiles(name, topology);
      await makeNetwork(name, topology);
      // All of them, also when one has failed: down() below ends only what already lives in its namespace.
      const started = await Promise.allSettled([
        ...(options.kernel ? topology.nodes.map(node => makeKernelNode(lab, node)) : lab.startNodes(options)),
        ...lab.startServers(),
      ]);
      const failed = started.find(result => result.status === 'rejected');
      if (failed !== undefined) throw failed.reason;
      // What it tells the nodes of, they are asked on sockets that are there by now.
      if (options.api) await lab.startApi();
      lab.writeState();
    } catch (error) {
      await Lab.down(name);
      throw error;
    }
    return lab;
  }

  /** A lab that another process brought up. @throws LabError when there is none of that name. */
  static open(name: string): Lab {
    checkLabName(name);
    let text: string;
    try {
      text = readFileSync(`${stateDirOf(name)}/lab.json`, 'utf8');
    } catch (error) {
      throw new LabError(`no lab '${name}' is up`, { cause: error });
    }
    return new Lab(JSON.parse(text) as LabState);
  }

  /** Whether anything of that name is there, whole or left behind. */
  static exists(name: string): boolean {
    return existsSync(stateDirOf(name)) || namespacesOf(name).length > 0;
  }

  /** Whether the process that brought the lab up still runs. */
  static ownerRuns(name: string): boolean {
    try {
      const { owner } = JSON.parse(readFileSync(`${stateDirOf(name)}/lab.json`, 'utf8')) as LabState;
      return owner !== null && isAlive(owner);
    } catch {
      return false;
    }
  }

  /** Names of all labs that are up or left behind. */
  static list(): string[] {
    const names = new Set<string>();
    for (const entry of listDir(NETNS_DIR)) {
      const match = /^tp-([a-z0-9]+)-/.exec(entry);
      if (match !== null) names.add(match[1]!);
    }
    for (const entry of listDir(RUN_DIR)) {
      const match = /^lab-([a-z0-9]+)$/.exec(entry);
      if (match !== null) names.add(match[1]!);
    }
    return [...names].sort();
  }

  /**
   * Removes a lab, also a half-made one or one whose makers were killed: the processes in its namespaces, the
   * namespaces, the files.
   * @returns whether there was anything to remove
   */
  static down(name: string): Promise<boolean> {
    checkLabName(name);
    let removal = Lab.removals.get(name);
    if (removal === undefined) {
      removal = Lab.remove(name).finally(() => Lab.removals.delete(name));
      Lab.removals.set(name, removal);
    }
    return removal;
  }

  /** Takes a lab down for good: this process makes no more of that name. For commands that a signal ends. */
  static close(name: string): Promise<boolean> {
    Lab.closed.add(name);
    return Lab.down(name);
  }

  private static async remove(name: string): Promise<boolean> {
    if (!Lab.exists(name)) return false;
    // Usually one round. What a killed maker had begun may still have been making namespaces during the first look.
    for (let round = 1; ; round++) {
      const namespaces = namespacesOf(name);
      const inodes = inodesOf(namespaces);
      await endProcesses(processesOf(name, inodes), END_GRACE_MS);
      await ipBatch(namespaces.map(namespace => `netns del ${namespace}`));
      const left = [...namespacesOf(name), ...processesOf(name, inodes).map(({ pid }) => `process ${pid}`)];
      if (left.length === 0) break;
      if (round === DOWN_ROUNDS) throw new LabError(`lab '${name}' does not go away: ${left.join(', ')}`);
    }
    // A killed node leaves its socket.
    for (const entry of listDir(RUN_DIR)) {
      if (entry.startsWith(namespacePrefix(name))) rmSync(`${RUN_DIR}/${entry}`, { force: true });
    }
    removeNameFiles(name);
    rmSync(stateDirOf(name), { recursive: true, force: true });
    rmSync(apiDirOf(name), { recursive: true, force: true });
    try {
      rmdirSync(RUN_DIR);
    } catch {
      // Other labs or nodes are in it.
    }
    return true;
  }

  down(): Promise<boolean> {
    return Lab.down(this.name);
  }

  /** Names of everything one can `exec` in. */
  get hosts(): string[] {
    return hostsOf(this.topology);
  }

  /** @throws LabError when the lab has no such host. */
  namespace(host: string): string {
    if (!this.hosts.includes(host) && host !== SWITCH && host !== AWAY) {
      throw new LabError(`lab '${this.name}' has no host '${host}': expected one of ${this.hosts.join(', ')}`, {
        usage: true,
      });
    }
    return namespaceOf(this.name, host);
  }

  /** Runs a command to its end. Its failure is in the exit code, never thrown. */
  async exec(host: string, argv: readonly string[], options: ExecOptions = {}): Promise<ExecResult> {
    const result = await execa('ip', ['netns', 'exec', this.namespace(host), ...argv], {
      env: memberEnvironment(this.name),
      reject: false,
      stripFinalNewline: false,
      maxBuffer: 1 << 30,
      ...(options.input === undefined ? { stdin: 'ignore' } : { input: options.input }),
      ...(options.timeoutMs === undefined ? {} : { timeout: options.timeoutMs, forceKillAfterDelay: 500 }),
    });
    const exitCode = result.exitCode ?? (result.timedOut ? 143 : 128 + 15);
    return { stdout: String(result.stdout), stderr: String(result.stderr), exitCode };
  }

  /** Starts a command and leaves its streams and its end to the caller. `down` ends it at the latest. */
  spawn(host: string, argv: readonly string[], options: SpawnOptions = {}): ChildProcess {
    const env = { ...memberEnvironment(this.name), ...options.env };
    return spawn('ip', ['netns', 'exec', this.namespace(host), ...argv], { ...options, env });
  }

  /**
   * Captures packets from now until `stop()`.
   * @param point  a node: its port on the switch, so all it sends and receives; a pod: its eth0; `router`: all interfaces,
   *               in cooked frames; `HOST:DEVICE`: any other interface
   */
  async capture(point: string, options: CaptureOptions = {}): Promise<Capture> {
    const [netns, device] = this.capturePoint(point);
    const path = options.path ?? `${this.stateDir}/${point.replaceAll(':', '-')}-${++this.captures}.pcap`;
    const { filter = '', snaplen = 262_144 } = options;
    const start = (ended?: () => Promise<unknown>): Promise<Capture> =>
      Capture.start(netns, device, path, { filter, snaplen, env: memberEnvironment(this.name), ended });
    if (!this.isOnSegment(point)) return start();
    // A node's port on a segment has a device as long as somebody looks at it.
    await this.control(point, 'mirror', { device: point, offload: this.options.offload ?? 'auto' });
    const end = (): Promise<unknown> => this.control(point, 'unmirror');
    return start(end).catch(async error => {
      await end();
      throw error;
    });
  }

  /** Is this the name of a node whose switch port is in memory? One of the kernel's has no file, and a veth. */
  private isOnSegment(point: string): boolean {
    return this.hasNode(point) && !this.options.processes && existsSync(this.configOf(point));
  }

  private hasNode(name: string): boolean {
    return this.topology.nodes.some(node => node.name === name);
  }

  private configOf(node: string): string {
    return `${this.stateDir}/${node}.yaml`;
  }

  private capturePoint(point: string): [netns: string, device: string] {
    const colon = point.indexOf(':');
    if (colon >= 0) return [this.namespace(point.slice(0, colon)), point.slice(colon + 1)];
    if (this.hasNode(point)) return [this.namespace(SWITCH), point];
    return [this.namespace(point), point === this.topology.router.name ? 'any' : 'eth0'];
  }

  /** Asks a node's control socket; see DESIGN section 5 for what `get` knows. */
  control(node: string, method: string, params: Record<string, unknown> = {}): Promise<unknown> {
    return callNode(socketOf(this.name, node), method, params);
  }

  status(): HostStatus[] {
    const present = new Set(namespacesOf(this.name));
    const running = new Map(this.processes.map(started => [started.host, started]));
    const shared = running.get(NODES);
    const row = (host: string, kind: HostStatus['kind'], node: string, address: string): HostStatus => {
      const namespace = namespaceOf(this.name, host);
      const isShared = kind === 'node' && shared !== undefined;
      const started = isShared ? shared : running.get(host);
      // Of several nodes in a process one may have ended.
      const alive = started !== undefined && isAlive(started) && (!isShared || existsSync(socketOf(this.name, host)));
      const state = !present.has(namespace) ? 'down' : started === undefined ? 'idle' : alive ? 'up' : 'down';
      return { host, kind, node, address, namespace, pid: alive ? started.pid : null, state };
    };
    const { nodes, pods, router } = this.topology;
    return [
      ...nodes.map(node => row(node.name, 'node', node.name, addressOf(node.address))),
      ...pods.map(pod => row(pod.name, 'pod', pod.node, pod.address)),
      row(router.name, 'router', '', addressOf(router.legs[0]!.address)),
    ];
  }

  private writeState(): void {
    const state: LabState = {
      name: this.name,
      topology: this.topology,
      options: this.options,
      owner: identifyProcess(process.pid),
      processes: this.processes,
    };
    writeFileSync(`${this.stateDir}/lab.json`, `${JSON.stringify(state, null, 2)}\n`);
  }

  private ip(lines: string[], options: Parameters<typeof ipBatch>[1] = {}): Promise<void> {
    return ipBatch(lines, { ...options, env: memberEnvironment(this.name) });
  }

  /** Writes the nodes' configurations and starts them. */
  private startNodes({ adjust, seed }: LabOptions): Promise<void>[] {
    const { nodes } = this.topology;
    for (const node of nodes) {
      const config = nodeConfig(this.name, this.topology, node, this.options);
      adjust?.(config);
      writeFileSync(this.configOf(node.name), SCHEMA_LINE + stringify(config));
    }
    const env = seed === undefined ? {} : { [SEED_VARIABLE]: `${seed}` };
    return this.options.processes ? nodes.map(node => this.launchNode(node, env)) : [this.launchNodes(env)];
  }

  /** Starts all nodes in one process, as their files say, and joins their segments to the bridges. */
  private async launchNodes(env: NodeJS.ProcessEnv): Promise<void> {
    const segments = `${this.stateDir}/${SEGMENTS_FILE}`;
    writeFileSync(
      segments,
      segmentConfigs(this.topology, this.options)
        .map(document => stringify(document))
        .join('---\n'),
    );
    const files = [segments, ...this.topology.nodes.map(({ name }) => this.configOf(name))];
    const argv = [process.execPath, MAIN, 'node', ...files.flatMap(file => ['--config', file])];
    await this.startProcess(NODES, argv, 'ready', env, SWITCH);
    const missing = this.topology.nodes.filter(({ name }) => !existsSync(socketOf(this.name, name)));
    if (missing.length > 0) {
      const log = readFileSync(`${this.stateDir}/${NODES}.log`, 'utf8').trim();
      throw new LabError(`${missing.map(({ name }) => name).join(', ')} did not start: ${log}`);
    }
    const joins = this.topology.subnets.map(({ bridge }) => `link set dev ${segmentDevice(bridge)} master ${bridge}`);
    await this.ip(joins, { netns: this.namespace(SWITCH) });
  }

  /** Starts a node as its file says, and puts its uplink on its bridge. */
  private async launchNode({ name, bridge }: LabNode, env: NodeJS.ProcessEnv): Promise<void> {
    await this.startProcess(name, [process.execPath, MAIN, 'node', '--config', this.configOf(name)], 'ready', env);

    // The node keeps its TAP by file descriptor, wherever the kernel's side of it goes.
    const net = this.namespace(SWITCH);
    await this.ip([`link set dev ${UPLINK_DEVICE} netns ${net} name ${name}`], { netns: this.namespace(name) });
    await this.ip([`link set dev ${name} master ${bridge} up`], { netns: net });
    await this.untilAtHostPort(name);
  }

  /**
   * Ends nodes, if they still run, and starts them again with the configurations that they had. Those of one process go
   * on while one of them is restarted; when the process has died, all of them start again.
   * @returns the nodes that have been started
   * @throws LabError when one does not become ready
   */
  async restartNode(name: string): Promise<string[]> {
    const node = this.topology.nodes.find(candidate => candidate.name === name);
    if (node === undefined) throw new LabError(`lab '${this.name}' has no node '${name}'`, { usage: true });
    if (!this.options.processes) {
      const isUp = this.status().some(({ host, state }) => host === name && state === 'up');
      if (isUp && (await this.restartInProcess(name))) return [name];
    }
    const host = this.options.processes ? name : NODES;
    for (const old of this.processes.filter(started => started.host === host)) {
      await endProcesses([old], END_GRACE_MS);
      this.processes.splice(this.processes.indexOf(old), 1);
    }
    if (this.options.processes) await this.launchNode(node, {});
    else await this.launchNodes({});
    this.writeState();
    return this.options.processes ? [name] : this.topology.nodes.map(other => other.name);
  }

  /** @returns whether the node has come back */
  private async restartInProcess(name: string): Promise<boolean> {
    const socket = (): string | undefined => {
      const stat = statSync(socketOf(this.name, name), { throwIfNoEntry: false });
      return stat === undefined ? undefined : `${stat.ino} ${stat.ctimeMs}`;
    };
    const answers = (): Promise<boolean> =>
      this.control(name, 'status').then(
        () => true,
        () => false,
      );
    const before = socket();
    await this.control(name, 'restart');
    for (const deadline = Date.now() + READY_TIMEOUT_MS; Date.now() < deadline; await sleep(5)) {
      const now = socket();
      if (now !== undefined && now !== before && (await answers())) return true;
    }
    return false;
  }

  /** Whether its API has ended, which it had. */
  get hasLostApi(): boolean {
    const api = this.processes.filter(({ host }) => host === API_LOG);
    return api.length > 0 && !api.some(isAlive);
  }

  /** Starts the API again, with what it held and the pods that it had started. @throws LabError when it does not become ready */
  async restartApi(): Promise<void> {
    for (const old of this.processes.filter(({ host }) => host === API_LOG)) {
      this.processes.splice(this.processes.indexOf(old), 1);
    }
    await this.startApi();
    this.writeState();
  }

  /** The node's processes have its address as soon as the node has seen that its TAP has left their namespace. */
  private async untilAtHostPort(node: string): Promise<void> {
    const deadline = Date.now() + READY_TIMEOUT_MS;
    for (;;) {
      const { underlay } = (await callNode(socketOf(this.name, node), 'status')) as {
        underlay: { atHostPort: boolean };
      };
      if (underlay.atHostPort) return;
      if (Date.now() > deadline) throw new LabError(`${node} does not see that its TAP was moved`);
      await sleep(5);
    }
  }

  /** The API belongs to no host: it runs in the machine's own namespace. */
  private startApi(): Promise<void> {
    return this.startProcess(API_LOG, [process.execPath, API, this.name], 'ready', {}, null);
  }

  private startServers(): Promise<void>[] {
    const { pods, services, router } = this.topology;
    const serve = (host: string, hostname: string, addresses: string[], port = WEB_PORT): Promise<void> =>
      this.startProcess(host, [process.execPath, WHOAMI, `${port}`, hostname, ...addresses], 'listening');
    const records = services.map(service => `${dnsNameOf(service)}=${service.address}`);
    return [
      ...pods
        .filter(pod => pod.hostname !== undefined)
        .map(pod =>
          serve(
            pod.name,
            pod.hostname!,
            ['127.0.0.1', '::1', pod.address, ...(pod.linkLocal ? [pod.linkLocal] : [])],
            pod.port,
          ),
        ),
      ...pods
        .filter(pod => pod.dns)
        .map(pod =>
          this.startProcess(
            pod.name,
            // The file is written where there is an API, and says what that has.
            [process.execPath, DNS, `${DNS_PORT}`, CLUSTER_DOMAIN, `@${zoneFileOf(this.name)}`, ...records],
            'listening',
          ),
        ),
      serve(router.name, router.name, ['127.0.0.1', routerWebAddress(this.topology)]),
    ];
  }

  /**
   * Starts a process that outlives this one, and waits until a line of its log is `readyLine`.
   * @param host what it and its log are called
   * @param at the host whose namespace it runs in; null: the machine's own
   */
  private async startProcess(
    host: string,
    argv: string[],
    readyLine: string,
    env: NodeJS.ProcessEnv = {},
    at: string | null = host,
  ): Promise<void> {
    const logPath = `${this.stateDir}/${host}.log`;
    const log = openSync(logPath, 'a', 0o600);
    const logged = fstatSync(log).size;
    const options: SpawnOptions = { detached: true, stdio: ['ignore', log, log], cwd: '/', env };
    const child =
      at !== null
        ? this.spawn(at, argv, options)
        : spawn(argv[0]!, argv.slice(1), { ...options, env: { ...memberEnvironment(this.name), ...env } });
    closeSync(log);
    child.on('error', () => {});
    child.unref();
    const identity = child.pid === undefined ? null : identifyProcess(child.pid);
    if (identity !== null) this.processes.push({ host, ...identity });

    for (let waited = 0; ; waited += 5) {
      const text = readFileSync(logPath).subarray(logged).toString('utf8');
      if (text.split('\n').includes(readyLine)) return;
      if (identity === null || child.exitCode !== null || child.signalCode !== null) {
        throw new LabError(`${host} ended at once: ${text.trim() || `exit status ${child.exitCode}`}`);
      }
      if (waited > READY_TIMEOUT_MS)
        throw new LabError(`${host} is not ready after ${READY_TIMEOUT_MS} ms: ${text.trim()}`);
      await sleep(5);
    }
  }
}

function namespacesOf(lab: string): string[] {
  return listDir(NETNS_DIR).filter(entry => entry.startsWith(namespacePrefix(lab)));
}

function listDir(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}
