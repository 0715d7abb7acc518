/**
 * The neighbour table as plain objects in a Map: every rule is a scan. What it does is a list of lines, one per packet
 * handed to the owner, in the words of test/route/neighbor.test.ts.
 */

export interface ModelOptions {
  capacity: number;
  queuePerNeighbor: number;
  totalQueue: number;
  maxUnresolved: number;
  maxLearnt: number;
  address: string;
  /** True for addresses of the subnet. */
  inSubnet: (address: string) => boolean;
  /** Order of timers that end at the same time. */
  tie: (a: string, b: string) => number;
}

interface Entry {
  address: string;
  state: string;
  mac: string;
  due: number;
  probes: number;
  changed: number;
  confirmed: number;
  used: number;
  list: '' | 'unresolved' | 'learnt';
  /** The smallest of a list is evicted first. */
  rank: number;
}

export interface ModelArp {
  operation: 'request' | 'reply';
  /** Ethernet destination is our MAC, not broadcast. */
  unicast: boolean;
  mac: string;
  sender: string;
  target: string;
  /** The target MAC repeats the sender's. */
  repeats: boolean;
}

const USABLE = ['REACHABLE', 'STALE', 'DELAY', 'PROBE', 'PERMANENT'];
const NEVER = Number.POSITIVE_INFINITY;

export class NeighborModel {
  readonly log: string[] = [];
  readonly entries = new Map<string, Entry>();
  readonly own: Set<string>;
  /** When each own address was last announced against somebody. */
  private readonly defended = new Map<string, number>();
  held: { id: number; address: string }[] = [];
  private readonly asked = new Map<string, number>();
  private readonly o: ModelOptions;
  private serial = 0;
  private now = 0;

  constructor(o: ModelOptions) {
    this.o = o;
    this.own = new Set([o.address]);
  }

  addOwn(address: string): void {
    this.own.add(address);
    this.delete(address);
  }

  removeOwn(address: string): void {
    this.own.delete(address);
    this.defended.delete(address);
  }

  send(address: string, id: number, now: number): void {
    this.now = now;
    let e = this.entries.get(address);
    if (e === undefined) {
      if (this.own.has(address)) return void this.log.push(`refused ${id}`);
      while (this.of('unresolved').length >= this.o.maxUnresolved) this.evict('unresolved');
      if (this.full()) this.evict(this.of('unresolved').length > 0 ? 'unresolved' : 'learnt');
      if (this.full()) return void this.log.push(`refused ${id}`);
      e = this.create(address);
      this.start(e);
    } else if (e.state === 'FAILED') this.start(e);
    else if (e.state === 'INCOMPLETE') {
      e.used = now;
      e.rank = ++this.serial;
    }
    if (USABLE.includes(e.state)) {
      this.use(e);
      this.log.push(`packet ${id} to ${e.mac}`);
      return;
    }
    const queue = this.held.filter(h => h.address === address);
    const oldest =
      queue.length >= this.o.queuePerNeighbor
        ? queue[0]
        : this.held.length >= this.o.totalQueue
          ? this.held[0]
          : undefined;
    if (oldest !== undefined) this.drop(oldest, 'drop-neighbor-queue-full');
    this.held.push({ id, address });
  }

  arp(p: ModelArp, now: number): string {
    this.now = now;
    const asksUs = p.operation === 'request' && this.own.has(p.target);
    const answer = `reply ${p.target} to ${p.mac} ${p.sender}`;
    if (p.sender === '0.0.0.0') {
      if (asksUs) this.log.push(answer);
      return asksUs ? 'taken' : 'continue';
    }
    if (this.own.has(p.sender)) {
      if (now - (this.defended.get(p.sender) ?? -NEVER) >= 10_000) {
        this.defended.set(p.sender, now);
        this.log.push(`request ${p.sender} to everybody`);
      }
      return 'drop-address-conflict';
    }
    let e = this.entries.get(p.sender);
    if (asksUs) {
      if (e !== undefined) this.update(e, p.mac, 'STALE', true);
      else if (this.o.inSubnet(p.sender)) {
        if (this.of('learnt').length >= this.o.maxLearnt) this.evict('learnt');
        if (this.full()) this.evict('learnt');
        if (!this.full()) {
          e = this.create(p.sender);
          e.list = 'learnt';
          e.rank = ++this.serial;
          this.update(e, p.mac, 'STALE', true);
        }
      }
      this.log.push(answer);
      return 'taken';
    }
    if (e === undefined) return 'continue';
    const gratuitous = p.sender === p.target && (p.operation === 'request' || p.repeats);
    const state = p.operation === 'reply' && p.unicast ? 'REACHABLE' : 'STALE';
    this.update(e, p.mac, state, gratuitous || now - e.changed > 1000);
    return 'continue';
  }

  permanent(address: string, mac: string): boolean {
    let e = this.entries.get(address);
    if (e === undefined) {
      if (this.own.has(address)) return false;
      if (this.full()) this.evict(this.of('unresolved').length > 0 ? 'unresolved' : 'learnt');
      if (this.full()) return false;
      e = this.create(address);
    }
    e.state = 'PERMANENT';
    e.mac = mac;
    e.list = '';
    e.due = NEVER;
    e.probes = 0;
    e.changed = this.now;
    this.flush(e);
    return true;
  }

  delete(address: string): boolean {
    const e = this.entries.get(address);
    if (e !== undefined) this.remove(e, 'drop-neighbor-unreachable');
    return e !== undefined;
  }

  tick(now: number): number {
    this.now = now;
    for (;;) {
      const first = [...this.entries.values()].sort((a, b) => a.due - b.due || this.o.tie(a.address, b.address))[0];
      if (first === undefined || first.due > now) return first === undefined ? NEVER : first.due - now;
      this.expire(first);
    }
  }

  private expire(e: Entry): void {
    if (e.state === 'INCOMPLETE') {
      if (e.probes === 3) this.fail(e);
      else this.ask(e);
    } else if (e.state === 'REACHABLE') {
      const inUse = this.now - e.used <= 5000;
      e.state = inUse ? 'DELAY' : 'STALE';
      e.due = inUse ? this.now + 5000 : Math.max(e.used, e.confirmed) + 60_000;
    } else if (e.state === 'DELAY' || e.state === 'PROBE') {
      if (e.state === 'DELAY') e.probes = 0;
      e.state = 'PROBE';
      if (e.probes === 3) this.fail(e);
      else {
        e.probes++;
        e.due = this.now + 1000;
        this.log.push(`request ${e.address} to ${e.mac}`);
      }
    } else if (e.state === 'STALE') {
      const keep = this.entries.size > this.o.capacity / 2 ? 60_000 : 600_000;
      const end = Math.max(e.used, e.confirmed) + keep;
      if (end <= this.now) this.remove(e, '');
      else e.due = Math.min(end, this.now + 60_000);
    } else this.remove(e, '');
  }

  private update(e: Entry, mac: string, wanted: string, override: boolean): void {
    if (e.state === 'PERMANENT') return;
    const known = USABLE.includes(e.state);
    const same = known && e.mac === mac;
    const state = e.list === 'learnt' ? 'STALE' : wanted;
    if (known && !same && !override) return;
    if (same && state === 'STALE') return;
    if (!same || e.state !== state) e.changed = this.now;
    e.state = state;
    e.mac = mac;
    if (state === 'REACHABLE') {
      e.confirmed = this.now;
      e.probes = 0;
      e.due = this.now + 30_000;
    } else e.due = Math.max(e.used, e.confirmed) + 60_000;
    if (known) return;
    e.probes = 0;
    if (e.list === 'unresolved') e.list = '';
    this.flush(e);
  }

  private use(e: Entry): void {
    e.used = this.now;
    if (e.state !== 'STALE') return;
    e.list = '';
    e.state = 'DELAY';
    e.due = this.now + 5000;
  }

  private flush(e: Entry): void {
    const queue = this.take(e.address);
    if (queue.length > 0) this.use(e);
    for (const h of queue) this.log.push(`packet ${h.id} to ${e.mac}`);
  }

  private start(e: Entry): void {
    e.state = 'INCOMPLETE';
    e.probes = 0;
    e.changed = this.now;
    e.used = this.now;
    e.list = 'unresolved';
    e.rank = ++this.serial;
    this.ask(e);
  }

  private ask(e: Entry): void {
    const earliest = (this.asked.get(e.address) ?? -NEVER) + 1000;
    if (earliest > this.now) {
      e.due = earliest;
      return;
    }
    this.asked.set(e.address, this.now);
    e.probes++;
    e.due = this.now + 1000;
    this.log.push(`request ${e.address} to everybody`);
  }

  private fail(e: Entry): void {
    e.state = 'FAILED';
    e.changed = this.now;
    e.list = 'unresolved';
    e.rank = -++this.serial;
    e.due = this.now + 60_000;
    for (const h of this.take(e.address)) this.log.push(`unreachable ${h.id}`);
  }

  private create(address: string): Entry {
    const e: Entry = {
      address,
      state: '',
      mac: '',
      due: NEVER,
      probes: 0,
      changed: this.now,
      confirmed: -NEVER,
      used: this.now,
      list: '',
      rank: 0,
    };
    this.entries.set(address, e);
    return e;
  }

  private of(list: string): Entry[] {
    return [...this.entries.values()].filter(e => e.list === list).sort((a, b) => a.rank - b.rank);
  }

  private full(): boolean {
    return this.entries.size === this.o.capacity;
  }

  private evict(list: string): void {
    const e = this.of(list)[0];
    if (e !== undefined) this.remove(e, 'drop-neighbor-queue-full');
  }

  private remove(e: Entry, reason: string): void {
    this.entries.delete(e.address);
    for (const h of this.take(e.address)) this.log.push(`release ${h.id} ${reason}`);
  }

  private take(address: string): { id: number; address: string }[] {
    const queue = this.held.filter(h => h.address === address);
    this.held = this.held.filter(h => h.address !== address);
    return queue;
  }

  private drop(h: { id: number; address: string }, reason: string): void {
    this.held = this.held.filter(other => other !== h);
    this.log.push(`release ${h.id} ${reason}`);
  }
}
