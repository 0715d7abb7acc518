/** A node as its loop has it: a datapath over its devices, what it is asked, and how it ends. */
import { Counters, EVENT_WAKEUPS } from '../counters.ts';
import { BURST, type Datapath } from '../forward.ts';
import { fromMachineTime, monotonicClock } from '../io/clock.ts';
import type { Device } from '../io/device.ts';
import { closeHandle, createDevice, type DeviceHandle } from '../io/handle.ts';
import { residentMemory } from '../io/huge-memory.ts';
import type { Uring } from '../io/uring.ts';
import { rowOf, type TranslatedRow } from '../nat/translation.ts';
import type { Pool } from '../packet/pool.ts';
import type { LedgerProgram } from '../path/ledger.ts';
import { NEIGHBORS } from '../path/path.ts';
import type { Port } from '../port.ts';
import type { Change } from '../program/diff.ts';
import { Installation } from '../program/install.ts';
import { Random } from '../random.ts';
import { HOP_NAMES } from '../route/nexthop.ts';
import type { RemoteSegment } from '../segment/remote.ts';
import type { Segment } from '../segment/segment.ts';
import { LoopWatches, type WatchRequest } from '../watch/watches.ts';
import type { Source } from './poll.ts';
import type { Lead, LoopEvent, NodeData, NodeMethod } from './requests.ts';
import type { Rounds } from './rounds.ts';

/** Flow table entries looked at for one request: about 0.1 ms of the loop's time. */
const FLOWS_PER_REQUEST = 1024;

/** What the nodes of one thread share. */
export interface LoopShare {
  pool: Pool;
  /** The thread's, or why it has none. */
  ring: Uring | string;
  segments: ReadonlyMap<string, Segment | RemoteSegment>;
  rounds: Rounds;
  /** A node's code has failed: it is out of order, and the others go on. */
  failed(node: LoopNode, error: unknown): void;
  /** Says something to a node's control plane. */
  tell(node: string, event: LoopEvent['event']): void;
}

/** Between two words about conflicts, whoever makes them, ms. */
const CONFLICT_NEWS_MS = 1000;
const DAY_MS = 86_400_000;
const timeOfDay = () => Date.now() % DAY_MS;

export class LoopNode {
  readonly name: string;
  readonly datapath: Datapath;
  readonly busyPoll: number | 'auto';
  /** Its ports that have a descriptor. */
  sources: Source[] = [];
  /** When its timers want to be looked at, as the clock. */
  due = 0;
  /** Whether it has done anything since its timers were looked at: that may have set one. */
  isActive = true;
  private readonly counters: Counters;
  private readonly share: LoopShare;
  private readonly ioUring: 'auto' | 'off';
  private readonly installation: Installation;
  private readonly watches: LoopWatches;
  /** Conflicts that the control plane has been told of, and when that was. */
  private toldConflicts = 0;
  private toldAt = Number.NEGATIVE_INFINITY;
  /** Ports whose packets lie in memory: those of segments. */
  private inMemory: Port[] = [];

  /** @throws Error with every device closed */
  constructor(data: NodeData, share: LoopShare) {
    const { pool } = share;
    this.name = data.name;
    this.share = share;
    this.ioUring = data.ioUring;
    this.busyPoll = data.busyPoll;
    this.counters = new Counters(data.counters);
    const { counters } = this;
    const random = new Random(data.seed);
    const devices: Device[] = [];
    try {
      for (const handle of data.devices) devices.push(this.open(handle));
      const environment = { pool, counters, clock: monotonicClock, random, memory: residentMemory, timeOfDay };
      this.installation = new Installation(data.program, devices, environment);
      this.datapath = this.installation.datapath;
    } catch (error) {
      for (const device of devices) device.close();
      for (const handle of data.devices.slice(devices.length)) closeHandle(handle);
      throw error;
    }
    this.watches = new LoopWatches(this.datapath, () => performance.timeOrigin + performance.now());
    this.findPorts();
  }

  private open(handle: DeviceHandle): Device {
    const { pool, ring, segments } = this.share;
    return createDevice(handle, pool, this.ioUring === 'off' || typeof ring === 'string' ? null : ring, segments);
  }

  /** Finds out what is to be waited for, after ports have come or gone. */
  findPorts(): void {
    const { ports } = this.datapath;
    this.sources = ports
      .filter(port => port.device.fd >= 0)
      .map(port => ({
        fd: port.device.fd,
        read: () => this.receive(port),
        gone: () => this.share.tell(this.name, 'device'),
      }));
    this.inMemory = ports.filter(port => port.device.pending !== undefined);
  }

  private receive(port: Port): number {
    this.isActive = true;
    try {
      return this.datapath.receive(port);
    } catch (error) {
      this.share.failed(this, error);
      return -1;
    }
  }

  /** Looks at its timers where that can matter. @param now as the clock @returns when to come again */
  tick(now: number): number {
    if (!this.isActive && now < this.due) return this.due;
    if (this.isActive) this.counters.event(EVENT_WAKEUPS);
    this.isActive = false;
    try {
      this.due = now + this.datapath.tick();
      if (this.datapath.neighbors.claims.news !== this.toldConflicts) this.tellConflicts(now);
    } catch (error) {
      this.share.failed(this, error);
    }
    return this.due;
  }

  private tellConflicts(now: number): void {
    if (now - this.toldAt < CONFLICT_NEWS_MS) return;
    this.toldAt = now;
    this.toldConflicts = this.datapath.neighbors.claims.news;
    this.share.tell(this.name, 'conflict');
  }

  /** Whether packets may come to it without a descriptor. */
  get isInMemory(): boolean {
    return this.inMemory.length > 0;
  }

  /** Whether anything waits in memory. */
  get hasPending(): boolean {
    for (let i = 0; i < this.inMemory.length; i++) if (this.inMemory[i].device.pending !== 0) return true;
    return false;
  }

  /** Takes in what waits in memory, a burst from each port. @returns whether there was anything */
  receivePending(): boolean {
    let any = false;
    for (let i = 0; i < this.inMemory.length; i++) {
      const port = this.inMemory[i];
      if (port.device.pending === 0) continue;
      any = true;
      if (this.receive(port) < 0) return false;
    }
    return any;
  }

  /** Closes its devices, which removes them, and gives every packet back. */
  close(): void {
    try {
      this.datapath.close();
    } finally {
      for (const port of this.datapath.ports) port.device.close();
    }
  }

  handle(method: NodeMethod, params: unknown): unknown {
    const { datapath, share } = this;
    switch (method) {
      case 'routes':
        return Array.from(datapath.routes.entries(), ({ prefix, length, value }) => {
          const hop = this.installation.hopOf(value);
          return { prefix, length, ...hop, kind: HOP_NAMES[hop.kind] };
        });
      case 'neighbors':
        return datapath.neighbors.entries(monotonicClock.now());
      case 'path-mtus':
        return datapath.pathMtu.rows(monotonicClock.now());
      case 'tables': {
        const { flows, pool } = datapath;
        const table =
          flows === null ? [] : [{ table: 'conntrack', used: flows.table.used, size: flows.table.capacity }];
        return [
          ...table,
          { table: 'routes', used: datapath.routes.size, size: 1 << 24, bytes: datapath.routes.memoryBytes },
          { table: 'neighbors', used: datapath.neighbors.size, size: NEIGHBORS },
          { table: 'fragments', used: datapath.fragmentsHeld, size: pool.size },
          // Of all nodes in this loop.
          { table: 'packets', used: pool.size - pool.available - BURST, size: pool.size },
        ];
      }
      case 'io':
        return {
          ioUring:
            this.ioUring === 'off'
              ? 'off by the configuration'
              : typeof share.ring === 'string'
                ? share.ring
                : 'in use',
        };
      case 'rounds':
        // Of all nodes in this loop.
        return share.rounds.rows();
      case 'flows': {
        // A piece at a time, so that a long table does not stop the loop.
        const rows: TranslatedRow[] = [];
        const now = monotonicClock.now();
        const { flows } = datapath;
        const next = flows?.list(params as number, FLOWS_PER_REQUEST, now, flow => rows.push(rowOf(flows, flow, now)));
        return { next: next ?? 0, rows, policyEpoch: datapath.policies?.epoch ?? 0 };
      }
      case 'services':
        return datapath.nat === null ? [] : Array.from(datapath.nat.services.rows());
      case 'ports-in-use':
        return datapath.nat?.translation.ports.usage() ?? [];
      case 'masquerade-hits':
        return datapath.nat === null ? null : { numbers: datapath.nat.rules.numbers, hits: datapath.nat.rules.hits };
      case 'change':
        this.installation.apply(params as Change[], handle => this.open(handle));
        return null;
      case 'keep-ledger':
        this.installation.keepLedger(params as LedgerProgram | null);
        return null;
      case 'ledger':
        return this.installation.ledgerRows();
      case 'conflicts':
        return datapath.neighbors.claims.conflicts(monotonicClock.now());
      case 'claim': {
        const { neighbors, underlay } = datapath;
        const now = Math.floor(monotonicClock.now());
        // The address may have been somebody else's until now: whoever has learnt that learns otherwise at once.
        if (params === 'moved' && datapath.canTransmit()) neighbors.announce(underlay.address);
        if (params !== 'new') neighbors.announced.isTold = false;
        if (params === 'announce') neighbors.claims.announce(underlay.address, now);
        else neighbors.claims.claim(underlay.address, now);
        datapath.flush();
        return null;
      }
      case 'lead': {
        const { announcements, again } = params as Lead;
        const list = announcements.map(({ address, until }) => ({
          address,
          until: fromMachineTime(until),
        }));
        datapath.neighbors.lead(list, monotonicClock.now(), again);
        datapath.flush();
        return null;
      }
      case 'led': {
        const now = monotonicClock.now();
        return datapath.neighbors.announced
          .rows(now)
          .map(({ address, until }) => ({ address, remainingMs: until - now }));
      }
      case 'ports':
        return this.installation.portNumbers();
      case 'watch':
        this.watches.start(params as WatchRequest);
        return null;
      case 'unwatch':
        this.watches.end(params as number);
        return null;
    }
  }
}
