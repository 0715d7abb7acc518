/**
 * The loop's thread. It alone owns the tables, so they need no locks; it sleeps in poll() until a device or the control
 * plane has something for it. Requests come through a message port, read synchronously after an eventfd has woken us:
 * in-band, between two bursts, so a change is seen by all packets after it and by none before.
 */
import { type MessagePort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import './inlining.ts';
import type { FlowRow } from './conntrack/conntrack.ts';
import { Counters, EVENT_WAKEUPS } from './counters.ts';
import { BURST, type Datapath } from './forward.ts';
import { monotonicClock } from './io/clock.ts';
import type { Device } from './io/device.ts';
import { createDevice, type DeviceHandle } from './io/handle.ts';
import { hugeMemory, residentMemory } from './io/huge-memory.ts';
import * as libc from './io/libc.ts';
import { Uring } from './io/uring.ts';
import { SLOT_BYTES } from './packet/packet.ts';
import { Pool } from './packet/pool.ts';
import { NEIGHBORS } from './path/path.ts';
import type { Port } from './port.ts';
import type { Change } from './program/diff.ts';
import { Installation } from './program/install.ts';
import type { Program } from './program/program.ts';
import { Random } from './random.ts';
import { HOP_NAMES } from './route/nexthop.ts';

/** Packets in flight and held: a burst, its fragments, and what waits for ARP. Untouched slots cost address space only. */
const SLOTS = 4096;

/** Flow table entries looked at for one request: about 0.1 ms of the loop's time. */
const FLOWS_PER_REQUEST = 1024;

/**
 * A round that has sent on so many packets without flow control lets others have the processor. Who reads them may be
 * waiting for it, and the default socket buffer (212,992 bytes) holds 277 datagrams of 64 bytes, a tenth of what the loop
 * moves in one time slice: without this a flood fills it again and again while its reader does not run, and of 800,000
 * datagrams a second that got to the pod 200,000 were read. With nobody waiting it costs 0.3 us.
 */
const YIELD_AFTER = 16;

const POLLIN = 1;
const POLLERR = 8;
const POLLHUP = 16;
const POLLNVAL = 32;
/** struct pollfd: int fd; short events; short revents. */
const POLLFD_BYTES = 8;

export interface LoopData {
  program: Program;
  /** One for each port of the program, in order. */
  devices: DeviceHandle[];
  counters: SharedArrayBuffer;
  control: MessagePort;
  /** eventfd that is written after a message has been posted to `control`. */
  wakeFd: number;
  seed: number;
  ioUring: 'auto' | 'off';
  /** Microseconds to look for packets again and again before the thread sleeps; 0: it sleeps at once. */
  busyPoll: number;
}

export interface LoopRequest {
  id: number;
  method:
    | 'routes'
    | 'neighbors'
    | 'tables'
    | 'io'
    | 'flows'
    | 'services'
    | 'ports-in-use'
    | 'masquerade-hits'
    | 'change'
    | 'ports'
    | 'stop';
  params?: unknown;
}

export interface LoopResponse {
  id: number;
  /** How long packets had to wait for it, ms. */
  tookMs?: number;
  result?: unknown;
  error?: string;
}

class Loop {
  private readonly datapath: Datapath;
  private readonly control: MessagePort;
  private readonly counters: Counters;
  private readonly installation: Installation;
  private readonly open: (handle: DeviceHandle) => Device;
  private readonly wakeFd: number;
  /** What is waited for: these ports, in order, and behind them the control plane. */
  private polled: Port[] = [];
  /** Ports whose device is gone, though nobody has closed it. */
  private readonly dead = new Set<Port>();
  private pollView = new DataView(new ArrayBuffer(0));
  private pollAddress = 0;
  /** Kept: the kernel reads and writes it by its address. */
  private pollBytes = new Uint8Array(0);
  private readonly eventWord = new Int32Array(2);
  private readonly eventAddress: number;
  /** 'in use', or why not. */
  private readonly ioUring: string;
  private readonly busyPollMs: number;
  private running = true;

  constructor(data: LoopData) {
    const pool = new Pool(SLOTS, hugeMemory(SLOTS * SLOT_BYTES));
    this.counters = new Counters(data.counters);
    this.control = data.control;
    this.wakeFd = data.wakeFd;
    const random = new Random(data.seed);
    const ring = data.ioUring === 'auto' ? Uring.open() : 'off by the configuration';
    this.ioUring = typeof ring === 'string' ? ring : 'in use';
    this.busyPollMs = data.busyPoll / 1000;
    this.open = handle => createDevice(handle, pool, typeof ring === 'string' ? null : ring);
    const environment = { pool, counters: this.counters, clock: monotonicClock, random, memory: residentMemory };
    this.installation = new Installation(data.program, data.devices.map(this.open), environment);
    this.datapath = this.installation.datapath;
    this.eventAddress = libc.addressOf(this.eventWord);
    this.pollPorts();
  }

  /** Sets up what is waited for, after ports have come or gone. */
  private pollPorts(): void {
    const { ports } = this.datapath;
    for (const port of this.dead) if (!ports.includes(port)) this.dead.delete(port);
    this.polled = ports.filter(port => port.device.fd >= 0 && !this.dead.has(port));
    this.pollBytes = new Uint8Array((this.polled.length + 1) * POLLFD_BYTES);
    this.pollView = new DataView(this.pollBytes.buffer);
    this.pollAddress = libc.addressOf(this.pollBytes);
    this.polled.forEach((port, i) => {
      this.setPollFd(i, port.device.fd);
    });
    this.setPollFd(this.polled.length, this.wakeFd);
  }

  private setPollFd(index: number, fd: number): void {
    this.pollView.setInt32(index * POLLFD_BYTES, fd, true);
    this.pollView.setInt16(index * POLLFD_BYTES + 4, POLLIN, true);
  }

  private revents(index: number): number {
    return this.pollView.getInt16(index * POLLFD_BYTES + 6, true);
  }

  /** Runs until it is told to stop. */
  run(): void {
    const { datapath, counters } = this;
    while (this.running) {
      const ports = this.polled;
      // After every round, for what was read may have set a timer.
      const timeout = datapath.tick();
      const ready = this.wait(ports.length + 1, timeout);
      if (ready > 0) {
        counters.event(EVENT_WAKEUPS);
        // One burst for every port that has something: a busy port waits for the others between its bursts.
        for (let i = 0; i < ports.length; i++) {
          const events = this.revents(i);
          if (events & POLLIN) {
            if (datapath.receive(ports[i]) < 0) this.bury(i);
          } else if (events & (POLLERR | POLLHUP | POLLNVAL)) this.bury(i);
        }
        if (this.revents(ports.length) & POLLIN) this.handleRequests();
        if (datapath.uncontrolled >= YIELD_AFTER) libc.schedYield();
        datapath.uncontrolled = 0;
      }
    }
    for (const port of datapath.ports) port.device.close();
  }

  /** The device of a port is gone: nothing more comes from it. */
  private bury(index: number): void {
    this.dead.add(this.polled[index]);
    this.setPollFd(index, -1);
  }

  /** Waits until something is ready, or `timeout` is over. @returns how many are */
  private wait(count: number, timeout: number): number {
    const { pollAddress, busyPollMs } = this;
    if (busyPollMs > 0) {
      const end = performance.now() + Math.min(busyPollMs, timeout);
      do {
        const ready = libc.poll(pollAddress, count, 0);
        if (ready !== 0) return ready;
      } while (performance.now() < end);
    }
    return libc.poll(pollAddress, count, pollTimeout(timeout));
  }

  private handleRequests(): void {
    libc.read(this.wakeFd, this.eventAddress, 8);
    const started = performance.now();
    for (let m = receiveMessageOnPort(this.control); m !== undefined; m = receiveMessageOnPort(this.control)) {
      const request = m.message as LoopRequest;
      const response: LoopResponse = { id: request.id };
      try {
        response.result = this.handle(request);
      } catch (error) {
        response.error = error instanceof Error ? error.message : String(error);
      }
      response.tookMs = performance.now() - started;
      this.control.postMessage(response);
    }
  }

  private handle(request: LoopRequest): unknown {
    const { datapath } = this;
    switch (request.method) {
      case 'routes':
        return Array.from(datapath.routes.entries(), ({ prefix, length, value }) => {
          const hop = this.installation.hopOf(value);
          return { prefix, length, ...hop, kind: HOP_NAMES[hop.kind] };
        });
      case 'neighbors':
        return datapath.neighbors.entries(monotonicClock.now());
      case 'tables': {
        const nat = datapath.nat;
        const flows =
          nat === null
            ? []
            : [{ table: 'conntrack', used: nat.conntrack.table.used, size: nat.conntrack.table.capacity }];
        return [
          ...flows,
          { table: 'routes', used: datapath.routes.size, size: 1 << 24, bytes: datapath.routes.memoryBytes },
          { table: 'neighbors', used: datapath.neighbors.size, size: NEIGHBORS },
          { table: 'fragments', used: datapath.fragmentsHeld, size: SLOTS },
          { table: 'packets', used: SLOTS - datapath.pool.available - BURST, size: SLOTS },
        ];
      }
      case 'io':
        return { ioUring: this.ioUring };
      case 'flows': {
        // A piece at a time, so that a long table does not stop the loop.
        const rows: FlowRow[] = [];
        const next = datapath.nat?.conntrack.list(
          request.params as number,
          FLOWS_PER_REQUEST,
          monotonicClock.now(),
          rows,
        );
        return { next: next ?? 0, rows };
      }
      case 'services':
        return datapath.nat === null ? [] : Array.from(datapath.nat.services.rows());
      case 'ports-in-use':
        return datapath.nat?.conntrack.ports.usage() ?? [];
      case 'masquerade-hits':
        return datapath.nat === null ? null : { numbers: datapath.nat.rules.numbers, hits: datapath.nat.rules.hits };
      case 'change':
        try {
          this.installation.apply(request.params as Change[], this.open);
        } finally {
          this.pollPorts();
        }
        return null;
      case 'ports':
        return this.installation.portNumbers();
      case 'stop':
        this.running = false;
        return null;
    }
  }
}

/** Milliseconds for poll(): rounded up, or it would spin through the last fraction; -1 sleeps until something happens. */
function pollTimeout(ms: number): number {
  return ms > 0x7fffffff ? -1 : Math.ceil(ms);
}

const data = workerData as LoopData;
const loop = new Loop(data);
data.control.postMessage({ id: 0, result: 'ready' } satisfies LoopResponse);
loop.run();
data.control.close();
