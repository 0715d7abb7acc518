/** One running node: devices, the loop's thread, and the control plane around it. */
import { MessageChannel, type MessagePort, Worker } from 'node:worker_threads';
import type { FlowRow } from '../conntrack/conntrack.ts';
import {
  Counters,
  PORT_RX_BYTES,
  PORT_RX_DROPPED,
  PORT_RX_PACKETS,
  PORT_TX_BYTES,
  PORT_TX_DROPPED,
  PORT_TX_PACKETS,
} from '../counters.ts';
import { flattened } from '../flattened.ts';
import { OFFLOADS } from '../io/device.ts';
import type { DeviceHandle } from '../io/handle.ts';
import * as libc from '../io/libc.ts';
import type { TunTapHandle } from '../io/tuntap.ts';
import { ipBatch } from '../lab/ip.ts';
import type { LoopData, LoopRequest, LoopResponse, RoutesRequest } from '../loop.ts';
import { PORT_KINDS } from '../port.ts';
import type { Program } from '../program.ts';
import { TOO_BIG_NAMES } from '../route/nexthop.ts';
import { formatAddress, formatCidr, formatMac } from './address.ts';
import { type Change, inRequests, planChange, type Refusal } from './apply.ts';
import { compile, mtusOf, outerHeaderOf } from './compile.ts';
import { closeDevices, type Devices, openDevices, openPods } from './devices.ts';
import { KINDS } from './kinds.ts';
import { loadConfig, type Problem } from './load-config.ts';
import {
  endpointRows,
  flowRow,
  masqueradeRows,
  natRows,
  type PortedService,
  type PortSample,
  type PortUsage,
  samplePorts,
  serviceRows,
} from './nat-rows.ts';
import type { ResolvedConfig } from './resolved.ts';
import { serve, socketPath } from './server.ts';
import type { OpenUplink } from './uplink/uplink.ts';

/** How often ports in use are looked at, for the forecast of `get nat`. */
const PORT_SAMPLE_MS = 10_000;

const EFD_NONBLOCK = 0o4000;
const EFD_CLOEXEC = 0o2000000;

/** Each is some 10 us of the loop's time. */
const REMOVALS_PER_REQUEST = 32;
const ROUTES_PER_REQUEST = 64;

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
    /** How long packets have waited for a piece of the change at most. */
    longestStopMs: number;
    /** Why this will be forgotten when the node ends; null if it will not. */
    notKept: string | null;
  };
}

export interface NodeOptions {
  seed: number;
  /** The pods' devices, where they are open already. */
  pods?: readonly TunTapHandle[];
  /**
   * Called with every configuration that was to be applied, and what has come of it.
   * @returns why the node will not remember what was applied; null if it will
   */
  onApply?: (result: ApplyResult, text: string, file: string) => string | null;
  /** Called with the method of every request of the control socket. */
  onRequest?: (method: string) => void;
  /** Called with what went wrong beside the path of packets; the node goes on. */
  onError?: (error: Error) => void;
}

/** The loop's thread, seen from the control plane. */
class LoopThread {
  /** Resolves when the thread has ended; rejects when it died of an error. */
  readonly ended: Promise<void>;
  private readonly worker: Worker;
  private readonly port: MessagePort;
  private readonly wakeFd: number;
  private readonly one = new Int32Array([1, 0]);
  private readonly waiting = new Map<number, { resolve(value: unknown): void; reject(error: Error): void }>();
  private nextId = 1;
  private over = false;
  /** The longest that packets have waited for one request since it was last set to 0, ms. */
  longestMs = 0;

  constructor(data: Omit<LoopData, 'control' | 'wakeFd'>) {
    const channel = new MessageChannel();
    this.port = channel.port1;
    this.wakeFd = libc.eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (this.wakeFd < 0) throw new Error(`eventfd: ${libc.errnoName(libc.errno())}`);
    const workerData: LoopData = { ...data, control: channel.port2, wakeFd: this.wakeFd };
    this.worker = new Worker(flattened(new URL('../loop.js', import.meta.url)), {
      workerData,
      transferList: [channel.port2],
    });
    this.port.on('message', (response: LoopResponse) => {
      const request = this.waiting.get(response.id);
      this.longestMs = Math.max(this.longestMs, response.tookMs ?? 0);
      this.waiting.delete(response.id);
      if (response.error !== undefined) request?.reject(new Error(response.error));
      else request?.resolve(response.result);
    });
    this.ended = new Promise((resolve, reject) => {
      this.worker.once('error', reject);
      this.worker.once('exit', () => resolve());
    });
    this.ended
      .catch(() => {})
      .then(() => {
        this.over = true;
        for (const request of this.waiting.values()) request.reject(new Error('the loop has ended'));
        this.waiting.clear();
        this.port.close();
      });
  }

  /** Resolves when packets flow. */
  ready(): Promise<unknown> {
    return this.expect(0);
  }

  request(method: LoopRequest['method'], params?: unknown): Promise<unknown> {
    const id = this.nextId++;
    const answer = this.expect(id);
    this.port.postMessage({ id, method, params } satisfies LoopRequest);
    libc.write(this.wakeFd, libc.addressOf(this.one), 8);
    return answer;
  }

  private expect(id: number): Promise<unknown> {
    if (this.over) return Promise.reject(new Error('the loop has ended'));
    return new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject }));
  }
}

export class Node {
  private config: ResolvedConfig;
  private program: Program;
  private readonly handles: DeviceHandle[];
  private readonly uplink: OpenUplink;
  private readonly counters: Counters;
  private readonly loop: LoopThread;
  private readonly started = process.hrtime.bigint();
  private socket: { close(): Promise<void> } | null = null;
  private stopping: Promise<void> | null = null;
  /** The last two samples of ports in use: the older one is the base of the forecast, never younger than one interval. */
  private portSamples: [PortSample, PortSample];
  private readonly sampler: NodeJS.Timeout | null;
  /** Changes are made one after the other. */
  private applying: Promise<unknown> = Promise.resolve();

  private readonly onApply: NonNullable<NodeOptions['onApply']>;

  private constructor(config: ResolvedConfig, program: Program, devices: Devices, { seed, onApply }: NodeOptions) {
    this.config = config;
    this.program = program;
    this.handles = devices.handles;
    this.uplink = devices.uplink;
    this.onApply = onApply ?? (() => null);
    const buffer = new Counters().values.buffer as SharedArrayBuffer;
    this.counters = new Counters(buffer);
    const nothing = samplePorts([], performance.now());
    this.portSamples = [nothing, nothing];
    this.sampler = program.nat === null ? null : setInterval(() => void this.samplePorts(), PORT_SAMPLE_MS).unref();
    this.loop = new LoopThread({ program, devices: devices.handles, counters: buffer, seed, ...config.spec.loop });
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
    let node: Node | null = null;
    try {
      node = new Node(config, program, devices, options);
      await Promise.race([node.loop.ready(), node.loop.ended]);
      const handler = (method: string, params: Record<string, unknown>): Promise<unknown> => {
        options.onRequest?.(method);
        return node!.handle(method, params);
      };
      node.socket = await serve(path, handler, { onError: options.onError });
      return node;
    } catch (error) {
      if (node === null) await closeDevices(devices);
      else await node.stop();
      throw error;
    }
  }

  private async samplePorts(): Promise<void> {
    const usage = (await this.loop.request('ports-in-use').catch(() => [])) as PortUsage[];
    this.portSamples = [this.portSamples[1], samplePorts(usage, performance.now())];
  }

  /** Resolves when the loop has ended, for whatever reason. */
  get ended(): Promise<void> {
    return this.loop.ended;
  }

  /** Ends the loop, which closes the devices and so removes them, and the socket. */
  stop(): Promise<void> {
    this.stopping ??= (async () => {
      if (this.sampler !== null) clearInterval(this.sampler);
      await this.socket?.close();
      await this.uplink.close();
      await this.loop.request('stop').catch(() => {});
      await this.loop.ended.catch(() => {});
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
        return this.apply(text, file);
      }
      case 'stop':
        // Answered first: the socket closes with the node.
        setImmediate(() => void this.stop());
        return null;
      default:
        throw new Error(`unknown method "${method}": expected status, get, config, apply or stop`);
    }
  }

  /**
   * Makes the running node what the configuration says: all of it, or nothing if it is not valid or says something that
   * cannot change. Packets flow on: the loop takes each piece between two bursts.
   */
  apply(text: string, file: string): Promise<ApplyResult> {
    const applied = this.applying.then(async () => {
      const result = await this.applyNow(text, file);
      const notKept = this.onApply(result, text, file);
      if (result.applied !== undefined) result.applied.notKept = notKept;
      return result;
    });
    this.applying = applied.catch(() => {});
    return applied;
  }

  private async applyNow(text: string, file: string): Promise<ApplyResult> {
    const loaded = loadConfig(text, file);
    if (loaded.problems !== undefined) return { problems: loaded.problems };
    const change = planChange(this.config, this.program, loaded.config);
    if (Array.isArray(change)) return { refused: change };
    const { config, program, removed, set, rules } = change;
    const refused = (await this.uplink.findRefusals?.(config)) ?? [];
    if (refused.length > 0) return { refused };
    this.loop.longestMs = 0;

    // The kernel first: it may refuse. Its routes to what is not there yet lead to the datapath's own answer.
    await this.uplink.serve?.(this.config, config);
    try {
      await this.changeHostRoutes(change.addedHostRoutes, 'append');
    } catch (error) {
      await this.uplink.serve?.(this.config);
      throw error;
    }
    for (let i = 0; i < removed.length; i += REMOVALS_PER_REQUEST) {
      await this.loop.request('remove-services', removed.slice(i, i + REMOVALS_PER_REQUEST));
    }
    for (const piece of inRequests(set)) await this.loop.request('set-services', piece);
    if (rules !== null) await this.loop.request('set-rules', rules);
    await this.changeRoutes(change);
    this.config = config;
    this.program = program;
    await this.changeHostRoutes(change.removedHostRoutes, 'del');
    await this.uplink.serve?.(config);
    return {
      applied: {
        servicesSet: new Set(set).size,
        servicesRemoved: removed.length,
        masquerade: rules !== null,
        routes: change.changedRoutes.length + change.removedRoutes.length,
        tunnel: change.tunnel,
        longestStopMs: Math.round(this.loop.longestMs * 1000) / 1000,
        notKept: null,
      },
    };
  }

  private async changeRoutes({ program, changedRoutes, removedRoutes, tunnel }: Change): Promise<void> {
    const { nextHops } = program;
    // Next hops name peers by their place in the tunnel: both change at once.
    if (tunnel) {
      const all: RoutesRequest = { changed: changedRoutes, removed: removedRoutes, nextHops, tunnel: program.tunnel };
      await this.loop.request('change-routes', all);
      return;
    }
    for (let i = 0; i < changedRoutes.length; i += ROUTES_PER_REQUEST) {
      const changed = changedRoutes.slice(i, i + ROUTES_PER_REQUEST);
      await this.loop.request('change-routes', { changed, removed: [], nextHops } satisfies RoutesRequest);
    }
    for (let i = 0; i < removedRoutes.length; i += ROUTES_PER_REQUEST) {
      const removed = removedRoutes.slice(i, i + ROUTES_PER_REQUEST);
      await this.loop.request('change-routes', { changed: [], removed, nextHops } satisfies RoutesRequest);
    }
  }

  /** All or nothing, too. */
  private async changeHostRoutes(routes: string[], verb: 'append' | 'del'): Promise<void> {
    const lines = routes.map(route => `route ${verb} ${route}`);
    if (lines.length === 0) return;
    try {
      await ipBatch(lines);
    } catch (error) {
      if (verb === 'append') for (const route of routes) await ipBatch([`route del ${route}`]).catch(() => {});
      throw error;
    }
  }

  private async get(kind: string): Promise<unknown> {
    switch (kind) {
      case 'routes':
        return this.routes();
      case 'ports':
        return this.ports();
      case 'neighbors': {
        const rows = (await this.loop.request('neighbors')) as NeighborRow[];
        return rows.map(({ address, mac, ...rest }) => ({
          address: formatAddress(address),
          mac: mac === null ? null : formatMac(mac.hi, mac.lo),
          device: this.config.spec.uplink.device,
          ...rest,
        }));
      }
      case 'services':
        return serviceRows((await this.loop.request('services')) as PortedService[]);
      case 'endpoints':
        return endpointRows((await this.loop.request('services')) as PortedService[]);
      case 'conntrack':
        return this.flows();
      case 'nat':
        return natRows(
          (await this.loop.request('ports-in-use')) as PortUsage[],
          this.portSamples[0],
          performance.now(),
        );
      case 'masquerade': {
        const hits = (await this.loop.request('masquerade-hits')) as number[];
        return masqueradeRows(this.config.spec.masquerade, hits);
      }
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
      const piece = (await this.loop.request('flows', from)) as { next: number; rows: FlowRow[] };
      if (piece.rows.length > 0) yield piece.rows.map(flowRow);
      from = piece.next;
    }
  }

  /** What a device does for us, and of the rest why not. */
  private offloadsOf({ kind, offloads, refused }: DeviceHandle): { offloads: string[]; refused: string[] } {
    const names = offloadNames(offloads);
    if (kind !== 'tap' || this.config.spec.tunnel.protocol !== 'ipip') return { offloads: names, refused };
    return {
      offloads: names.filter(name => name !== 'tunnel'),
      refused: [...refused, 'tunnel: there is none for IPIP, whose superpackets are cut in software'],
    };
  }

  private async status(): Promise<unknown> {
    const { metadata, spec } = this.config;
    const { tunnel } = spec;
    const uplinkLines = await this.uplink.status();
    const mtus = mtusOf(this.config);
    const outer = outerHeaderOf(this.config);
    return {
      node: metadata.name,
      profile: spec.profile,
      uptimeSeconds: Number((process.hrtime.bigint() - this.started) / 1_000_000_000n),
      underlay: {
        kind: spec.uplink.kind,
        interface: 'interface' in spec.uplink.written ? spec.uplink.written.interface : null,
        device: spec.uplink.device,
        address: spec.uplink.address,
        mac: spec.uplink.mac,
        gateway: spec.uplink.gateway ?? null,
        mtu: spec.uplink.mtu,
      },
      tunnel: {
        protocol: tunnel.protocol,
        ...('port' in tunnel ? { port: tunnel.port, vni: tunnel.vni, mac: tunnel.mac } : {}),
        peers: tunnel.peers.map(peer => peer.address),
        acceptFrom: tunnel.acceptFrom,
        mtu: mtus.tunnel,
      },
      ...(outer === undefined
        ? {}
        : {
            outer: {
              ttl: outer.ttl,
              dscp: outer.dscp,
              df: outer.df === 'inherit' ? outer.df : outer.df === 1 ? 'set' : 'clear',
              ecn: outer.ecn,
              ...(tunnel.protocol === 'ipip' ? {} : { udpChecksum: outer.udpChecksum }),
            },
          }),
      mtu: { pods: mtus.device, tooBig: spec.mtu.tooBig, clampMss: spec.mtu.clampMss },
      ports: this.handles.map((handle, i) => ({
        name: this.program.ports[i].name,
        kind: PORT_KINDS[this.program.ports[i].kind],
        device: handle.name,
        mtu: handle.mtu,
        ...this.offloadsOf(handle),
      })),
      loop: { ...((await this.loop.request('io')) as object), busyPoll: spec.loop.busyPoll },
      tables: await this.loop.request('tables'),
      // Last: with a routed uplink these are many lines.
      ...(uplinkLines.length === 0 ? {} : { uplink: uplinkLines }),
    };
  }

  private ports(): unknown[] {
    const { counters, program, handles } = this;
    return program.ports.map((port, i) => ({
      name: port.name,
      kind: PORT_KINDS[port.kind],
      device: handles[i].name,
      addresses: port.addresses.map(formatAddress),
      identity: port.identity,
      mtu: handles[i].mtu,
      rxPackets: counters.ofPort(i, PORT_RX_PACKETS),
      rxBytes: counters.ofPort(i, PORT_RX_BYTES),
      rxDropped: counters.ofPort(i, PORT_RX_DROPPED),
      txPackets: counters.ofPort(i, PORT_TX_PACKETS),
      txBytes: counters.ofPort(i, PORT_TX_BYTES),
      txDropped: counters.ofPort(i, PORT_TX_DROPPED),
    }));
  }

  private async routes(): Promise<unknown[]> {
    const { program, handles, config } = this;
    const rows = (await this.loop.request('routes')) as RouteRow[];
    const uplink = config.spec.uplink.device;
    return rows.map(row => {
      const to =
        row.length === 0
          ? 'default'
          : row.length === 32
            ? formatAddress(row.prefix)
            : formatCidr(row.prefix, row.length);
      const base = { to, kind: row.kind, mtu: row.mtu, tooBig: TOO_BIG_NAMES[row.tooBig] };
      switch (row.kind) {
        case 'tunnel':
          return {
            ...base,
            via: formatAddress(program.tunnel!.peers[row.peer].address),
            device: config.spec.tunnel.protocol,
            underlayVia: formatAddress(row.gateway),
          };
        case 'gateway':
          return { ...base, via: formatAddress(row.gateway), device: uplink };
        case 'onlink':
          return { ...base, via: null, device: uplink };
        case 'pod':
          return { ...base, via: null, device: handles[row.port].name, pod: program.ports[row.port].name };
        case 'host':
          // With a gateway it leads on, through the host's kernel.
          return {
            ...base,
            via: row.gateway === 0 ? null : formatAddress(row.gateway),
            device: config.spec.host?.device ?? null,
          };
        default:
          return { ...base, via: null, device: null };
      }
    });
  }
}

interface RouteRow {
  prefix: number;
  length: number;
  kind: string;
  port: number;
  gateway: number;
  peer: number;
  mtu: number;
  /** TOO_BIG_*. */
  tooBig: number;
}

interface NeighborRow {
  address: number;
  mac: { hi: number; lo: number } | null;
}

function offloadNames(bits: number): string[] {
  return OFFLOADS.filter(offload => (bits & offload.bits) !== 0).map(({ name }) => name);
}
