/** One running node: devices, the loop's thread, and the control plane around it. */

import { Counters } from '../counters.ts';
import type { Lead, Spot } from '../drive/requests.ts';
import type { DeviceHandle, PodHandle } from '../io/handle.ts';
import type { PathMtuRow } from '../mtu/path-mtu.ts';
import type { TranslatedRow } from '../nat/translation.ts';
import { PORT_POD } from '../port.ts';
import { compile } from '../program/compile.ts';
import type { Change } from '../program/diff.ts';
import { mtusOf, podMtuOf } from '../program/mtus.ts';
import type { Program } from '../program/program.ts';
import type { AddressConflict } from '../route/claims.ts';
import { type Plan, planChange, planUplink, type Refusal } from './apply.ts';
import { missingCapabilities } from './capabilities.ts';
import { carryOut, findMissing } from './carry-out.ts';
import { type Devices, openDevices, openPods } from './devices.ts';
import type { Effect } from './effects.ts';
import { FlowHistory } from './history.ts';
import { type KeptNode, PortKeeper } from './keep-ports.ts';
import { inOwnNamespace } from './kernel-changes.ts';
import { KINDS } from './kinds.ts';
import { ledgerProgram } from './ledger.ts';
import { loadConfig, type Problem } from './load-config.ts';
import type { LoopClient } from './loop-thread.ts';
import type { Loops } from './loops.ts';
import {
  endpointRows,
  flowRow,
  masqueradeRows,
  natRows,
  type PortedService,
  type PortSample,
  type PortUsage,
  type RuleHits,
  samplePorts,
  serviceRows,
} from './nat-rows.ts';
import { policyRows } from './policy-rows.ts';
import { type HealthChange, PortHealth } from './port-health.ts';
import type { ResolvedConfig, ResolvedUplink } from './resolved.ts';
import { serve, socketPath } from './server.ts';
import {
  announcementRows,
  type ConflictRow,
  conflictRows,
  describeConflict,
  type NeighborRow,
  neighborRows,
  type PortStates,
  pathMtuRows,
  portRows,
  portStates,
  type RouteRow,
  readAnnouncements,
  routeRows,
  statusOf,
} from './status.ts';
import type { OpenUplink } from './uplink/uplink.ts';
import { releaseVeth } from './veth.ts';
import { WatchClients, type WatchContext, watchContext } from './watch.ts';

/** How often ports in use are looked at, for the forecast of `get nat`. */
const PORT_SAMPLE_MS = 10_000;

/** Answer to the method apply: one of these. */
export interface ApplyResult {
  /** The configuration is not valid. */
  problems?: Problem[];
  /** It is, but this cannot change while the node runs. */
  refused?: Refusal[];
  /** What has changed. */
  applied?: {
    servicesSet: number;
    servicesRemoved: number;
    masquerade: boolean;
    routes: number;
    tunnel: boolean;
    /** Everything that has changed, and what it does to flows. */
    changes: Effect[];
    /** How long packets have waited for a piece of the change at most. */
    longestStopMs: number;
    /** Why this will be forgotten when the node ends; null if it will not. */
    notKept: string | null;
    /** Ports that are not up after it, a line each. */
    missing: string[];
  };
}

export interface NodeOptions {
  seed: number;
  /** Those of the process, one of which is for this node. */
  loops: Loops;
  /** The pods' devices, where they are open already. */
  pods?: readonly PodHandle[];
  /**
   * Called with every configuration that was to be applied, and what has come of it.
   * @returns why the node will not remember what was applied; null if it will
   */
  onApply?: (result: ApplyResult, text: string, file: string) => string | null;
  /** Called with the method of every request of the control socket. */
  onRequest?: (method: string) => void;
  /** Called when the node is to be started again once it has ended, which it then does. */
  onRestart?: () => void;
  /** Called with what went wrong beside the path of packets; the node goes on. */
  onError?: (error: Error) => void;
  /** Called when a port has come up, gone down, or is gone. */
  onPort?: (change: HealthChange) => void;
  /** Called with what concerns the uplink: that it is another one, and who else uses its address. */
  onUplink?: (what: string) => void;
  /** A port that stays up has changed: a pod's veth takes packets of another length, the host port has its routes again. */
  onPortChange?: (what: string) => void;
}

export class Node {
  private config: ResolvedConfig;
  private program: Program;
  /** In the order of the program. */
  private ports: PortStates;
  private uplink: OpenUplink;
  private readonly health: PortHealth;
  private readonly keeper: PortKeeper;
  /** Conflicts that have been told. */
  private readonly told = new Map<string, number>();
  private readonly onUplink: (what: string) => void;
  /** Rejects when something that is gone cannot come back. */
  private readonly lost: Promise<never>;
  private readonly counters: Counters;
  private readonly loop: LoopClient;
  private readonly loops: Loops;
  private readonly started = process.hrtime.bigint();
  private readonly startedAt = new Date().toISOString();
  private watchContext: WatchContext | null = null;
  private readonly watchClients = new WatchClients({
    request: (method, params) => this.loop.request(method, params),
    context: () => this.context(),
  });
  private readonly history: FlowHistory;
  private socket: { close(): Promise<void> } | null = null;
  private stopping: Promise<void> | null = null;
  /** The last two samples of ports in use: the older one is the base of the forecast, never younger than one interval. */
  private portSamples: [PortSample, PortSample];
  private readonly sampler: NodeJS.Timeout;
  /** Changes are made one after the other. */
  private applying: Promise<unknown> = Promise.resolve();

  private readonly onRestart: NodeOptions['onRestart'];
  private readonly onApply: NonNullable<NodeOptions['onApply']>;

  private constructor(
    config: ResolvedConfig,
    program: Program,
    devices: Devices,
    loop: LoopClient,
    counters: Counters,
    { loops, onApply, onRestart, onPort, onUplink, onPortChange, onError }: NodeOptions,
  ) {
    this.loop = loop;
    this.loops = loops;
    this.onRestart = onRestart;
    this.config = config;
    this.program = program;
    this.ports = portStates(
      program.ports,
      (_, i) => devices.handles[i],
      (_, i) => i,
    );
    this.uplink = devices.uplink;
    this.onApply = onApply ?? (() => null);
    this.history = new FlowHistory(this.watchClients, onError ?? (() => {}));
    this.history.keep(config.spec.flowHistory);
    this.counters = counters;
    const nothing = samplePorts([], performance.now());
    this.portSamples = [nothing, nothing];
    this.sampler = setInterval(() => void this.samplePorts(), PORT_SAMPLE_MS).unref();
    this.onUplink = onUplink ?? (() => {});
    this.health = new PortHealth(onPort ?? (() => {}));
    for (const key of this.ports.keys()) this.health.of(key);
    let lose: (error: Error) => void = () => {};
    this.lost = new Promise((_, reject) => {
      lose = reject;
    });
    this.lost.catch(() => {});
    this.keeper = new PortKeeper(this.keptNode(), {
      health: this.health,
      onError: onError ?? (() => {}),
      onUplink: this.onUplink,
      onPortChange: onPortChange ?? (() => {}),
      onLost: lose,
    });
    this.loop.onEvent = event => {
      if (event === 'device') this.keeper.hint();
      else void this.tellConflicts().catch(() => {});
    };
  }

  /** What the keeper of the ports sees of the node, and does to it. */
  private keptNode(): KeptNode {
    const node = this;
    return {
      get config() {
        return node.config;
      },
      get ports() {
        return node.ports;
      },
      get uplink() {
        return node.uplink;
      },
      set uplink(uplink) {
        node.uplink = uplink;
      },
      exclusively(work) {
        const done = node.applying.then(work);
        node.applying = done.catch(() => {});
        return done;
      },
      change: changes => node.loop.change(changes),
      async detach(key) {
        const state = node.ports.get(key)!;
        await node.loop.change([{ kind: 'detach', key, port: state.port }]);
        if (!('fd' in state.handle)) return;
        node.ports = new Map(node.ports).set(key, { ...state, handle: { ...state.handle, fd: -1 } });
      },
      async attach(key, handle) {
        const state = node.ports.get(key)!;
        await node.loop.change([{ kind: 'port', key, port: state.port, device: 'other', handle }]);
        node.ports = new Map(node.ports).set(key, { ...state, handle });
      },
      changeUplink: uplink => node.changeUplink(uplink),
      claim: () => node.claim(true),
    };
  }

  /** Asks whether the node's address is free, where it is the datapath's alone, and tells the link where it is now. */
  private async claim(moved: boolean): Promise<void> {
    const { claims, kernelMac } = this.config.spec.uplink;
    // With a MAC for the kernel there is no link.
    if (claims === true) await this.loop.request('claim', moved ? 'moved' : 'new');
    else if (moved && kernelMac === undefined) await this.loop.request('claim', 'announce');
  }

  private async changeUplink(uplink: ResolvedUplink): Promise<void> {
    const plan = planUplink(this.config, this.program, uplink);
    // Without it nobody enters the pods' namespaces; they then learn of a smaller MTU by ICMP.
    if (missingCapabilities(['CAP_SYS_ADMIN']).length > 0) plan.kernel = inOwnNamespace(plan.kernel);
    await this.adopt(plan);
  }

  private async tellConflicts(): Promise<void> {
    const own = this.config.spec.uplink.address.split('/')[0];
    for (const row of await this.conflicts()) {
      const what = describeConflict(row, own);
      // Again when it had been over.
      if ((this.told.get(what) ?? Number.POSITIVE_INFINITY) <= row.packets) continue;
      this.told.set(what, row.packets);
      this.onUplink(what);
    }
  }

  private async conflicts(): Promise<ConflictRow[]> {
    return conflictRows((await this.loop.request('conflicts')) as AddressConflict[], this.config.spec.uplink.mac);
  }

  /**
   * Opens devices, starts the loop, and resolves once packets flow and the control socket listens. The caller holds the
   * lock of the node's name.
   * @throws Error with nothing left behind
   */
  static async start(config: ResolvedConfig, options: NodeOptions): Promise<Node> {
    const program = compile(config);
    const path = socketPath(config.metadata.name);
    const devices = await openDevices(config, options.pods ?? (await openPods(config)));
    const counters = new Counters();
    let loop: LoopClient;
    try {
      loop = await options.loops.startNode({
        name: config.metadata.name,
        program,
        devices: devices.handles,
        counters: counters.values.buffer as SharedArrayBuffer,
        seed: options.seed,
        ...config.spec.loop,
      });
    } catch (error) {
      // The loop has closed the devices.
      await devices.uplink.close();
      throw error;
    }
    const node = new Node(config, program, devices, loop, counters, options);
    try {
      const handler = (method: string, params: Record<string, unknown>): Promise<unknown> => {
        options.onRequest?.(method);
        return node.handle(method, params);
      };
      node.socket = await serve(path, handler, { onError: options.onError });
      await node.claim(false);
      node.keeper.start();
      return node;
    } catch (error) {
      await node.stop();
      throw error;
    }
  }

  private async samplePorts(): Promise<void> {
    // Nothing to count, and no reason to wake the loop.
    if (this.program.nat === null) return;
    const usage = (await this.loop.request('ports-in-use').catch(() => [])) as PortUsage[];
    this.portSamples = [this.portSamples[1], samplePorts(usage, performance.now())];
  }

  /** Resolves when the loop has ended; rejects when it has died, or when what is gone cannot come back in this process. */
  get ended(): Promise<void> {
    return Promise.race([this.loop.ended, this.lost]);
  }

  /** Ends the node in its loop, which closes the devices and so removes them, and the socket. */
  stop(): Promise<void> {
    this.stopping ??= (async () => {
      clearInterval(this.sampler);
      this.history.keep(0);
      this.keeper.stop();
      await this.socket?.close();
      await this.uplink.close();
      await this.loop.stop();
      for (const { handle } of this.ports.values()) releaseVeth(handle);
    })();
    return this.stopping;
  }

  private async handle(method: string, params: Record<string, unknown>): Promise<unknown> {
    switch (method) {
      case 'status':
        return this.status();
      case 'get':
        return this.get(String(params.kind));
      case 'config':
        return this.config;
      case 'apply': {
        const { text, file } = params;
        if (typeof text !== 'string' || typeof file !== 'string') throw new Error('apply needs text and file, strings');
        return this.apply(text, file, params.dryRun === true);
      }
      case 'segments':
        return this.loops.segments();
      case 'impair':
        return this.loops.impair(
          params.spot as Spot,
          params.impairments as Record<string, unknown>,
          params.clear === true,
        );
      case 'mirror': {
        const { device, offload } = params;
        if (typeof device !== 'string') throw new Error('mirror needs device, a string');
        await this.loops.beginMirror(this.config.metadata.name, device, offload === 'none' ? 'none' : 'auto');
        return null;
      }
      case 'unmirror':
        await this.loops.endMirror(this.config.metadata.name);
        return null;
      case 'lead':
        return this.loop.request('lead', {
          announcements: readAnnouncements(params.addresses),
          again: params.again === true,
        } satisfies Lead);
      case 'restart':
        this.onRestart?.();
        setImmediate(() => void this.stop());
        return null;
      case 'keep-ledger':
        await this.loop.request('keep-ledger', ledgerProgram(params));
        return null;
      case 'ledger':
        return { since: this.startedAt, rows: await this.loop.request('ledger') };
      case 'watch':
        return this.watchClients.watch(params);
      case 'history':
        return this.history.past(this.context());
      case 'stop':
        // Answered first: the socket closes with the node.
        setImmediate(() => void this.stop());
        return null;
      default:
        throw new Error(
          `unknown method "${method}": expected status, get, config, apply, keep-ledger, ledger, watch, history, segments, impair, mirror, unmirror, lead, restart or stop`,
        );
    }
  }

  /** What it was started with, and what has been applied since. */
  get current(): ResolvedConfig {
    return this.config;
  }

  /**
   * Makes the running node what the configuration says: all of it, or nothing if it is not valid or says something that
   * cannot change. Packets flow on: the loop takes each piece between two bursts.
   * @param dryRun says what would change, and changes nothing
   */
  apply(text: string, file: string, dryRun = false): Promise<ApplyResult> {
    const applied = this.applying.then(async () => {
      const result = await this.applyNow(text, file, dryRun);
      if (dryRun) return result;
      const notKept = this.onApply(result, text, file);
      if (result.applied !== undefined) result.applied.notKept = notKept;
      return result;
    });
    this.applying = applied.catch(() => {});
    return applied;
  }

  private async applyNow(text: string, file: string, dryRun: boolean): Promise<ApplyResult> {
    const loaded = loadConfig(text, file);
    if (loaded.problems !== undefined) return { problems: loaded.problems };
    const plan = planChange(this.config, this.program, loaded.config);
    if (Array.isArray(plan)) return { refused: plan };
    const refused = [
      ...this.loops.findRefusals(loaded.segments).map(message => ({ path: [], message })),
      ...findMissing(plan),
      ...((await this.uplink.findRefusals?.(plan.config)) ?? []),
    ];
    if (refused.length > 0) return { refused };
    const count = (kind: Change['kind']) => plan.changes.filter(change => change.kind === kind).length;
    const services = plan.changes.flatMap(change => (change.kind === 'service' ? [change] : []));
    const set = services.filter(({ service }) => service !== null).map(({ name }) => name);
    const applied = {
      servicesSet: new Set(set).size,
      servicesRemoved: services.length - set.length,
      masquerade: count('rules') > 0,
      routes: count('route'),
      tunnel: count('tunnel') > 0,
      changes: plan.effects,
      longestStopMs: 0,
      notKept: null,
      missing: [],
    };
    if (dryRun) return { applied };
    this.loop.longestMs = 0;
    await this.adopt(plan);
    await this.loops.follow(loaded.segments);
    await this.keeper.look();
    const longestStopMs = Math.round(this.loop.longestMs * 1000) / 1000;
    return { applied: { ...applied, longestStopMs, missing: this.missing() } };
  }

  /** Ports that are not up, a line each. */
  private missing(): string[] {
    return Array.from(this.ports.keys(), key => ({ key, ...this.health.of(key) }))
      .filter(({ state }) => state !== 'up')
      .map(({ key, state, why }) => `port ${key} is ${state}${why === null ? '' : `: ${why}`}`);
  }

  /** Becomes what a plan says. */
  private async adopt(plan: Plan): Promise<void> {
    const { config, program, loop, uplink } = this;
    const { opened, numbers } = await carryOut(plan, { config, program, loop, uplink });
    const before = this.ports;
    this.config = plan.config;
    this.history.keep(plan.config.spec.flowHistory);
    this.program = plan.program;
    this.ports = portStates(
      plan.program.ports,
      key => opened.get(key) ?? this.handleOf(key),
      key => (numbers === null ? before.get(key)!.number : numbers.get(key)!),
    );
    for (const [key, { handle }] of before) if (opened.has(key) || !this.ports.has(key)) releaseVeth(handle);
  }

  /** Of a port that stays; a pod's MTU may be another by now. */
  private handleOf(key: string): DeviceHandle {
    const { port, handle } = this.ports.get(key)!;
    const { uplink, pods } = this.config.spec;
    if (port.kind !== PORT_POD) return { ...handle, mtu: uplink.mtu };
    const pod = pods.find(({ name }) => name === port.name);
    // A veth has the MTU that whoever made it gave it.
    return pod === undefined || handle.kind === 'veth'
      ? handle
      : { ...handle, mtu: podMtuOf(pod, mtusOf(this.config)).device };
  }

  /** What watched packets refer to; another object after a change. */
  private context(): WatchContext {
    if (this.watchContext?.config !== this.config) this.watchContext = watchContext(this.config, this.ports);
    return this.watchContext;
  }

  private async get(kind: string): Promise<unknown> {
    const { config, ports, loop } = this;
    switch (kind) {
      case 'routes':
        return routeRows((await loop.request('routes')) as RouteRow[], config, ports, await this.pathMtus());
      case 'ports':
        return portRows(ports, this.counters, this.health);
      case 'neighbors':
        return neighborRows((await loop.request('neighbors')) as NeighborRow[], config.spec.uplink.device);
      case 'l2-announce':
        return announcementRows(
          (await loop.request('led')) as { address: number; remainingMs: number }[],
          config.spec.uplink.device,
        );
      case 'pmtu':
        return pathMtuRows(await this.pathMtus(), config);
      case 'services':
        return serviceRows((await loop.request('services')) as PortedService[]);
      case 'endpoints':
        return endpointRows((await loop.request('services')) as PortedService[]);
      case 'conntrack':
        return this.flows();
      case 'nat': {
        const usage = (await loop.request('ports-in-use')) as PortUsage[];
        return natRows(usage, this.portSamples[0], performance.now(), config.spec.masquerade);
      }
      case 'masquerade':
        return masqueradeRows(config.spec.masquerade, (await loop.request('masquerade-hits')) as RuleHits | null);
      case 'policies':
        return policyRows(config.spec);
      case 'counters':
        return this.counters.snapshot();
      default:
        throw new Error(`unknown kind "${kind}": expected ${KINDS.join(', ')}`);
    }
  }

  /** Rows of conntrack, a piece at a time: the loop is asked for the next when this one has been taken. */
  private async *flows(): AsyncGenerator<unknown[]> {
    let from = 1;
    while (from !== 0) {
      const piece = (await this.loop.request('flows', from)) as {
        next: number;
        rows: TranslatedRow[];
        policyEpoch: number;
      };
      const rules = this.program.policy?.rules ?? [];
      if (piece.rows.length > 0) yield piece.rows.map(row => flowRow(row, rules, piece.policyEpoch));
      from = piece.next;
    }
  }

  /** Narrower paths that the underlay has told of. */
  private async pathMtus(): Promise<PathMtuRow[]> {
    return (await this.loop.request('path-mtus')) as PathMtuRow[];
  }

  private async status(): Promise<unknown> {
    const uplinkLines = await this.uplink.status();
    const { node, profile, ...rest } = statusOf(this.config, this.ports, this.health);
    return {
      node,
      profile,
      uptimeSeconds: Number((process.hrtime.bigint() - this.started) / 1_000_000_000n),
      ...rest,
      loop: { ...((await this.loop.request('io')) as object), busyPoll: this.config.spec.loop.busyPoll },
      tables: await this.loop.request('tables'),
      rounds: await this.loop.request('rounds'),
      watches: this.watchClients.count,
      flowHistory: { ...this.history.size, seen: this.history.seen, lost: this.history.lost },
      conflicts: await this.conflicts(),
      pathMtus: pathMtuRows(await this.pathMtus(), this.config),
      // Last: with a routed uplink these are many lines.
      ...(uplinkLines.length === 0 ? {} : { uplink: uplinkLines }),
    };
  }
}
