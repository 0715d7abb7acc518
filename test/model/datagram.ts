/**
 * Which fragments of one datagram belong together, by comparing each with all others. The slow twin of
 * mtu/datagram-table.ts.
 */

export interface Piece {
  /** Payload bytes [from, end) of the datagram. */
  from: number;
  end: number;
  /** MF: not the last. */
  more: boolean;
}

export type Finding = 'new' | 'duplicate' | 'overlap' | 'malformed';

/** What `piece` is to those that have come. */
export function slowJudge(come: Piece[], piece: Piece): Finding {
  const last = come.find(c => !c.more);
  if (last !== undefined && (piece.more ? piece.end >= last.end : piece.end !== last.end)) return 'malformed';
  if (last === undefined && !piece.more && come.some(c => c.end >= piece.end)) return 'malformed';
  if (come.some(c => c.from === piece.from && c.end === piece.end)) return 'duplicate';
  if (come.some(c => c.from < piece.end && piece.from < c.end)) return 'overlap';
  return 'new';
}

/** True if every byte up to the end of the last one has come, none of them twice. */
export function slowComplete(come: Piece[]): boolean {
  const last = come.find(c => !c.more);
  return last !== undefined && come.reduce((sum, c) => sum + c.end - c.from, 0) === last.end;
}

/** What a fragment met with: it went on with what the path said of its first one, or it was dropped. */
export type Fate = string;

interface SlowDatagram {
  come: Piece[];
  state: 'waiting' | 'admitted' | 'refused';
  reason: string;
  ports: string;
  decision: number;
  held: number[];
  deadline: number;
}

/**
 * Virtual reassembly without bounds, in plain words. The path's judgement of a first fragment is a function of its ports:
 * a decision to admit it with, or the name of a drop reason.
 */
export class SlowVirtualReassembly {
  readonly fates: Fate[] = [];
  private readonly datagrams = new Map<string, SlowDatagram>();
  private readonly judge: (ports: string) => number | string;

  constructor(judge: (ports: string) => number | string) {
    this.judge = judge;
  }

  get held(): number {
    let n = 0;
    for (const d of this.datagrams.values()) n += d.held.length;
    return n;
  }

  /** @param ports as text, of a first fragment */
  accept(packet: number, key: string, piece: Piece, ports: string, now: number): void {
    this.expire(now);
    const d = this.datagrams.get(key) ?? {
      come: [],
      state: 'waiting',
      reason: '',
      ports: '',
      decision: 0,
      held: [],
      deadline: now + 30_000,
    };
    this.datagrams.set(key, d);
    if (d.state === 'refused') {
      this.fates.push(`${packet} ${d.reason}`);
      return;
    }
    let finding = slowJudge(d.come, piece);
    if (finding === 'duplicate') {
      if (piece.from !== 0 || ports === d.ports) {
        this.fates.push(`${packet} drop-fragment-duplicate`);
        return;
      }
      finding = 'overlap';
    }
    if (finding !== 'new') {
      this.refuse(d, `drop-fragment-${finding}`);
      this.fates.push(`${packet} drop-fragment-${finding}`);
      return;
    }
    d.come.push(piece);
    if (piece.from === 0) {
      const judgement = this.judge(ports);
      d.ports = ports;
      if (typeof judgement === 'string') {
        this.fates.push(`${packet} ${judgement}`);
        this.refuse(d, judgement);
      } else {
        d.state = 'admitted';
        d.decision = judgement;
        this.fates.push(`${packet} goes first`);
        for (const waiting of d.held) this.fates.push(`${waiting} goes ${d.ports} ${d.decision}`);
        d.held = [];
      }
    } else if (d.state === 'admitted') {
      this.fates.push(`${packet} goes ${d.ports} ${d.decision}`);
    } else {
      d.held.push(packet);
    }
    if (d.state === 'admitted' && slowComplete(d.come)) this.datagrams.delete(key);
  }

  /** Ends what is too old, oldest first. */
  expire(now: number): void {
    for (const [key, d] of this.datagrams) {
      if (d.deadline > now) continue;
      for (const waiting of d.held) this.fates.push(`${waiting} drop-fragment-timeout`);
      this.datagrams.delete(key);
    }
  }

  private refuse(d: SlowDatagram, reason: string): void {
    for (const waiting of d.held) this.fates.push(`${waiting} ${reason}`);
    d.held = [];
    d.state = 'refused';
    d.reason = reason;
  }
}
