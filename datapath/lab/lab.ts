/**
 * A cluster in network namespaces of one machine.
 *
 *      tp-LAB-POD        tp-LAB-NODE                     tp-LAB-net                    tp-LAB-ROUTER
 *      +--------+      +---------------+       +-----------------------------+       +-------------+
 *      |  eth0 ------- | k8s-ctr ------------- segment br10 - br10 - router-eth1 ------- eth1      |
 *      +--------+      |      |        |       |    k8s-w1 -+                |       |    loop1 2  |
 *      +--------+      |     tp0       |       |                             |       |  eth0 ---------- tp-LAB-away
 *      |  eth0 ------- |               |       |  segment br20 - br20 - router-eth2 ------ eth2      |
 *      +--------+      +---------------+       +-----------------------------+       +-------------+
 *
 * Pods' eth0 and the node's tp0 are TUNs. All nodes run in one process in tp-LAB-net, and subnets are segments of it, each
 * with a TAP on the bridge of its name. With a process a node, in its own namespace, every node has a TAP on the bridge
 * itself, called like the node. Routers are the kernel's own forwarding. A host's name is its namespace's name without
 * the prefix.
 */

import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { execa } from 'execa';
import { callNode, RUN_DIR } from '../control/client.ts';
import { Capture } from './capture.ts';
import { makeKernelNode } from './kernel-node.ts';
import { LabError, requireRoot } from './lab-error.ts';
import { LabProcesses } from './lab-processes.ts';
import { type LabState, readLabState, writeLabState } from './lab-state.ts';
import type { Mode, ModeOptions } from './modes.ts';
import { writeNameFiles } from './name-files.ts';
import {
  API_LOG,
  AWAY,
  checkLabName,
  memberEnvironment,
  NODES,
  namespaceOf,
  SWITCH,
  socketOf,
  stateDirOf,
} from './names.ts';
import { makeNetwork } from './network.ts';
import { configOf, type NodeOptions, restartNode, startNodes } from './nodes.ts';
import { identifyProcess, isAlive } from './processes.ts';
import { labExists, labNames, namespacesOf, removeLab } from './remains.ts';
import { startApi, startServers } from './servers.ts';
import { writeTools } from './terminal-files.ts';
import { addressOf, hostsOf, type LabPod, type Topology } from './topology.ts';
import { topologyNamed } from './topology-file.ts';

/** The cluster of article 001. */
export const DEFAULT_TOPOLOGY = 'cilium';

export interface LabOptions extends ModeOptions, NodeOptions {
  /** Default `lab`. */
  name?: string;
  /** Default: DEFAULT_TOPOLOGY. */
  topology?: Topology;
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
  kind: 'node' | 'pod' | 'router' | 'host';
  node: string;
  address: string;
  namespace: string;
  pid: number | null;
  state: 'up' | 'down' | 'idle';
}

export class Lab {
  readonly name: string;
  readonly topology: Topology;
  readonly options: ModeOptions;
  readonly stateDir: string;
  private static readonly closed = new Set<string>();
  /** Under way; a second `down` waits for the first. */
  private static readonly removals = new Map<string, Promise<boolean>>();
  readonly processes: LabProcesses;
  private captures = 0;

  private constructor(state: LabState) {
    this.name = state.name;
    this.topology = state.topology;
    this.options = state.options;
    this.stateDir = stateDirOf(state.name);
    this.processes = new LabProcesses(state.name, state.processes);
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
    const { topology = topologyNamed(DEFAULT_TOPOLOGY), mode, profile, offload, processes, loops, etcd } = options;
    requireRoot('a lab');
    if (processes && topology.subnets.some(({ impairments }) => impairments !== undefined)) {
      throw new LabError('a wire that is impaired is in the process of all nodes: not with --processes', {
        usage: true,
      });
    }
    if (Lab.closed.has(name)) throw new LabError(`lab '${name}': interrupted`);
    const present = new LabError(`lab '${name}' is there already: 'tunpath lab down --name ${name}' removes it`);
    if (Lab.exists(name)) throw present;
    mkdirSync(RUN_DIR, { recursive: true });
    try {
      mkdirSync(stateDirOf(name), { mode: 0o700 });
    } catch {
      throw present;
    }
    const lab = new Lab({
      name,
      topology,
      options: { mode, profile, offload, processes, loops, etcd },
      owner: null,
      processes: [],
    });
    try {
      lab.writeState();
      // Before anything is awaited, so that whatever takes the lab down finds them.
      writeNameFiles(name, topology);
      writeTools(
        name,
        topology.nodes.map(node => node.name),
      );
      await makeNetwork(name, topology);
      // All of them, also when one has failed: down() below ends only what already lives in its namespace.
      const started = await Promise.allSettled([
        ...(options.kernel ? topology.nodes.map(node => makeKernelNode(lab, node)) : startNodes(lab, options)),
        ...startServers(name, topology, lab.processes),
      ]);
      const failed = started.find(result => result.status === 'rejected');
      if (failed !== undefined) throw failed.reason;
      // What it tells the nodes of, they are asked on sockets that are there by now.
      if (options.api) await startApi(name, lab.processes);
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
    let state: LabState;
    try {
      state = readLabState(name);
    } catch (error) {
      if (error instanceof SyntaxError) throw error;
      throw new LabError(`no lab '${name}' is up`, { cause: error });
    }
    return new Lab(state);
  }

  /** Whether anything of that name is there, whole or left behind. */
  static exists(name: string): boolean {
    return labExists(name);
  }

  /** Whether the process that brought the lab up still runs. */
  static ownerRuns(name: string): boolean {
    try {
      const { owner } = readLabState(name);
      return owner !== null && isAlive(owner);
    } catch {
      return false;
    }
  }

  /** Names of all labs that are up or left behind. */
  static list(): string[] {
    return labNames();
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
      removal = removeLab(name).finally(() => Lab.removals.delete(name));
      Lab.removals.set(name, removal);
    }
    return removal;
  }

  /** Takes a lab down for good: this process makes no more of that name. For commands that a signal ends. */
  static close(name: string): Promise<boolean> {
    Lab.closed.add(name);
    return Lab.down(name);
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
    return this.hasNode(point) && !this.options.processes && existsSync(configOf(this.name, point));
  }

  private hasNode(name: string): boolean {
    return this.topology.nodes.some(node => node.name === name);
  }

  private capturePoint(point: string): [netns: string, device: string] {
    const colon = point.indexOf(':');
    if (colon >= 0) return [this.namespace(point.slice(0, colon)), point.slice(colon + 1)];
    if (this.hasNode(point)) return [this.namespace(SWITCH), point];
    return [this.namespace(point), this.topology.routers.some(({ name }) => name === point) ? 'any' : 'eth0'];
  }

  /** Asks a node's control socket; see DESIGN section 5 for what `get` knows. */
  control(node: string, method: string, params: Record<string, unknown> = {}): Promise<unknown> {
    return callNode(socketOf(this.name, node), method, params);
  }

  status(): HostStatus[] {
    const present = new Set(namespacesOf(this.name));
    const shared = this.processes.find(NODES);
    const row = (host: string, kind: HostStatus['kind'], node: string, address: string): HostStatus => {
      const namespace = namespaceOf(this.name, host);
      const isShared = kind === 'node' && shared !== undefined;
      const started = isShared ? shared : this.processes.find(host);
      // Of several nodes in a process one may have ended.
      const alive = started !== undefined && isAlive(started) && (!isShared || existsSync(socketOf(this.name, host)));
      const state = !present.has(namespace) ? 'down' : started === undefined ? 'idle' : alive ? 'up' : 'down';
      return { host, kind, node, address, namespace, pid: alive ? started.pid : null, state };
    };
    const { nodes, pods, routers, hosts } = this.topology;
    const ofNodes = nodes.map(node => row(node.name, 'node', node.name, addressOf(node.address)));
    // Such a pod is its node.
    const inMemory = ({ name, node, address }: LabPod): HostStatus => ({
      ...ofNodes.find(({ host }) => host === node)!,
      host: name,
      kind: 'pod',
      address,
      namespace: '',
    });
    return [
      ...ofNodes,
      ...pods.map(pod => (pod.memory === undefined ? row(pod.name, 'pod', pod.node, pod.address) : inMemory(pod))),
      ...routers.map(({ name, legs }) => row(name, 'router', '', addressOf(legs[0]!.address))),
      ...hosts.map(({ name, address }) => row(name, 'host', '', addressOf(address))),
    ];
  }

  private writeState(): void {
    const state: LabState = {
      name: this.name,
      topology: this.topology,
      options: this.options,
      owner: identifyProcess(process.pid),
      processes: this.processes.list,
    };
    writeLabState(state);
  }

  /**
   * Ends nodes, if they still run, and starts them again with the configurations that they had. Those of one process go
   * on while one of them is restarted; when the process has died, all of them start again.
   * @returns the nodes that have been started
   * @throws LabError when one does not become ready
   */
  async restartNode(name: string): Promise<string[]> {
    const isUp = this.status().some(({ host, state }) => host === name && state === 'up');
    const started = await restartNode(this, name, isUp);
    this.writeState();
    return started;
  }

  /** Whether its API has ended, which it had. */
  get hasLostApi(): boolean {
    return this.processes.hasLost(API_LOG);
  }

  /** Starts the API again, with what it held and the pods that it had started. @throws LabError when it does not become ready */
  async restartApi(): Promise<void> {
    await this.processes.end(API_LOG);
    await startApi(this.name, this.processes);
    this.writeState();
  }
}
