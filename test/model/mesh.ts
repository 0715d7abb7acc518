/** Threads that send each other packets, as plain lists: who holds which, and what lies between whom. */

/** One thing on its way: which slot, and what for. */
export interface Sent {
  slot: number;
  crossing: number;
}

export class SlowMesh {
  readonly alive: boolean[];
  /** By slot: whose it is. */
  private readonly owners: number[] = [];
  /** By slot: who holds it, in its hands or in its pool; or the list that it lies in. */
  private readonly held: Set<number>[];
  private readonly free: Set<number>[];
  /** [from][to] */
  private readonly staged: Sent[][][];
  private readonly arriving: Sent[][][];
  private readonly returning: number[][][];
  private readonly returned: number[][][];

  constructor(threads: number, share: number) {
    const lists = <T>(): T[][][] => Array.from({ length: threads }, () => Array.from({ length: threads }, () => []));
    this.alive = Array.from({ length: threads }, () => true);
    this.held = Array.from({ length: threads }, () => new Set());
    this.free = Array.from(
      { length: threads },
      (_, t) => new Set(Array.from({ length: share }, (_, i) => t * share + i)),
    );
    for (let slot = 0; slot < threads * share; slot++) this.owners.push(Math.floor(slot / share));
    this.staged = lists();
    this.arriving = lists();
    this.returning = lists();
    this.returned = lists();
  }

  available(thread: number): number {
    return this.free[thread]!.size;
  }

  holding(thread: number): number[] {
    return [...this.held[thread]!];
  }

  take(thread: number, slot: number): void {
    if (!this.free[thread]!.delete(slot)) throw new Error(`slot ${slot} is not in the pool of ${thread}`);
    this.held[thread]!.add(slot);
  }

  release(thread: number, slot: number): void {
    if (!this.held[thread]!.delete(slot)) throw new Error(`${thread} does not hold slot ${slot}`);
    const owner = this.owners[slot]!;
    if (owner === thread) this.free[owner]!.add(slot);
    else if (this.alive[owner]) this.returning[thread]![owner]!.push(slot);
  }

  /** @returns whether there was room */
  send(from: number, to: number, sent: Sent, room: number): boolean {
    if (!this.alive[to]) return false;
    if (this.staged[from]![to]!.length + this.arriving[from]![to]!.length >= room) return false;
    if (!this.held[from]!.delete(sent.slot)) throw new Error(`${from} does not hold slot ${sent.slot}`);
    this.staged[from]![to]!.push(sent);
    return true;
  }

  flush(from: number): void {
    for (let to = 0; to < this.alive.length; to++) {
      this.arriving[from]![to]!.push(...this.staged[from]![to]!.splice(0));
      this.returned[from]![to]!.push(...this.returning[from]![to]!.splice(0));
    }
  }

  collect(thread: number): void {
    for (const row of this.returned) for (const slot of row[thread]!.splice(0)) this.free[thread]!.add(slot);
  }

  /** What comes to a thread now, by sender and in order. */
  receive(thread: number): Sent[] {
    this.collect(thread);
    const all = this.arriving.flatMap(row => row[thread]!.splice(0));
    for (const { slot } of all) this.held[thread]!.add(slot);
    return all;
  }

  /** A thread dies. Slots of the others end where they belong; what it had published arrives. @returns what comes to whom */
  kill(dead: number): Sent[][] {
    this.alive[dead] = false;
    const lost = new Set([
      ...this.held[dead]!,
      ...this.returning[dead]!.flat(),
      ...this.staged[dead]!.flat().map(({ slot }) => slot),
    ]);
    const came: Sent[][] = this.alive.map(() => []);
    for (let t = 0; t < this.alive.length; t++) {
      if (!this.alive[t]) continue;
      for (const { slot } of [...this.staged[t]![dead]!.splice(0), ...this.arriving[t]![dead]!.splice(0)]) {
        this.held[t]!.add(slot);
        this.release(t, slot);
      }
      this.collect(t);
      came[t] = this.arriving[dead]![t]!.splice(0);
      for (const { slot } of came[t]!) this.held[t]!.add(slot);
      this.flush(t);
    }
    for (const slot of lost) if (this.alive[this.owners[slot]!]) this.free[this.owners[slot]!]!.add(slot);
    return came;
  }
}
