/** A segment over a pool, with ends that keep what they get, and a check that every slot is where it should be. */
import { strict as assert } from 'node:assert';
import { Counters } from '../../datapath/counters.ts';
import type { Packet } from '../../datapath/packet/packet.ts';
import { Pool } from '../../datapath/packet/pool.ts';
import { type Impairments, UNIMPAIRED } from '../../datapath/segment/impairments.ts';
import type { NodePort } from '../../datapath/segment/ports.ts';
import type { RemoteUplink } from '../../datapath/segment/remote.ts';
import { Segment } from '../../datapath/segment/segment.ts';

export const BURST = 16;
/** Every offload that there is. */
export const ALL = 127;

/** Slabs of rigs that are done with: each new one would be allocated, and collected some time. */
const spare = new Map<number, Uint8Array[]>();

export class End {
  readonly port: NodePort | RemoteUplink;
  readonly pool: Pool;
  private readonly slots: Packet[] = [];
  /** Read and not yet given back. */
  readonly kept: Packet[] = [];

  constructor(pool: Pool, port: NodePort | RemoteUplink) {
    this.pool = pool;
    this.port = port;
    for (let i = 0; i < BURST; i++) this.slots.push(this.pool.take() as Packet);
  }

  /** Sends a frame. @returns whether the port took it */
  send(bytes: Uint8Array, fields: Partial<Packet> = {}): boolean {
    const p = this.pool.take();
    if (p === null) return false;
    this.pool.bytes.set(bytes, p.off);
    p.len = bytes.length;
    Object.assign(p, fields);
    const taken = this.port.handOver(p) === 0;
    if (!taken) this.pool.release(p);
    return taken;
  }

  /** Reads what has come, as a path does: the packets are its own until it gives them back. */
  read(): Packet[] {
    const got: Packet[] = [];
    for (let n = 1; n > 0; ) {
      n = this.port.readBurst(this.slots, BURST);
      for (let i = 0; i < n; i++) {
        got.push(this.slots[i]);
        this.slots[i] = this.pool.take() as Packet;
        assert.ok(this.slots[i], 'the segment leaves slots to those that read');
      }
    }
    this.kept.push(...got);
    return got;
  }

  bytes(p: Packet): Uint8Array {
    return this.pool.bytes.slice(p.off, p.off + p.len);
  }

  /** What has come, as bytes, the slots given back. */
  receive(): Uint8Array[] {
    const frames = this.read().map(p => this.bytes(p));
    this.giveBack();
    return frames;
  }

  giveBack(): void {
    for (const p of this.kept) this.pool.release(p);
    this.kept.length = 0;
  }

  isClosed = false;

  close(): void {
    this.isClosed = true;
    this.port.close();
    this.giveBack();
    for (const p of this.slots) this.pool.release(p);
    this.slots.length = 0;
  }
}

export class Rig {
  readonly pool: Pool;
  readonly time = new Float64Array(1);
  readonly counters = new Counters();
  readonly segment: Segment;

  constructor(o: { slots?: number; mtu?: number; seed?: number; impairments?: Partial<Impairments> } = {}) {
    const slots = o.slots ?? 2048;
    this.pool = new Pool(slots, spare.get(slots)?.pop());
    const { pool, time, counters } = this;
    this.segment = new Segment({
      name: 'lan',
      mtu: o.mtu ?? 1500,
      pool,
      counters,
      time,
      seed: o.seed ?? 1,
      impairments: { ...UNIMPAIRED, ...o.impairments },
    });
  }

  end(name: string, offloads = ALL): End {
    return new End(this.pool, this.segment.attach(name, offloads));
  }

  /** Lets time pass until `ms`, with a stop wherever something is due. */
  until(ms: number, each: () => void = () => {}): void {
    for (let due = this.segment.run(); due <= ms; due = this.segment.run()) {
      each();
      this.time[0] = due;
    }
    each();
    this.time[0] = ms;
    this.segment.run();
    each();
  }

  /** Everything is closed: each slot is back in the pool, once. The rig is done with. */
  assertWhole(): void {
    const { pool } = this;
    assert.equal(pool.available, pool.packets.length, 'slots lost or doubled');
    const all = new Set<Packet>();
    for (let p = pool.take(); p !== null; p = pool.take()) all.add(p);
    assert.equal(all.size, pool.packets.length, 'a slot is in the pool twice');
    for (const p of all) pool.release(p);
    const slabs = spare.get(all.size);
    if (slabs === undefined) spare.set(all.size, [pool.bytes]);
    else slabs.push(pool.bytes);
  }
}
