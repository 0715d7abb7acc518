/**
 * The slow twin of conntrack and NAT: a list of flows, each with the tuples seen on both sides, searched from the front.
 * It does not choose ports or backends; it is told what the box chose, and says whether that may be.
 */

export interface Tuple {
  protocol: number;
  src: number;
  dst: number;
  sport: number;
  dport: number;
}

interface SlowFlow {
  original: Tuple;
  reply: Tuple;
  deadline: number;
  answered: boolean;
  streamFrom: number;
  /** Its backend has gone, be it for a moment: its next packet begins it anew. */
  lost: boolean;
}

export function same(a: Tuple, b: Tuple): boolean {
  return a.protocol === b.protocol && a.src === b.src && a.dst === b.dst && a.sport === b.sport && a.dport === b.dport;
}

export function inverse(t: Tuple): Tuple {
  return { protocol: t.protocol, src: t.dst, dst: t.src, sport: t.dport, dport: t.sport };
}

/** UDP flows with Linux's timeouts: 30 s, and 120 s for those that go both ways for more than 2 s. */
export class SlowNat {
  flows: SlowFlow[] = [];

  expire(now: number): void {
    this.flows = this.flows.filter(flow => flow.deadline > now);
  }

  /** The tuple that a packet of a known flow must leave with, or null if it belongs to none. Refreshes the flow. */
  pass(t: Tuple, now: number): Tuple | null {
    this.expire(now);
    for (const flow of this.flows) {
      const back = same(t, flow.reply);
      if (!back && !same(t, flow.original)) continue;
      flow.deadline = now + (flow.answered && now > flow.streamFrom ? 120_000 : 30_000);
      // Once a stream, always a stream.
      if (flow.answered && now > flow.streamFrom) flow.streamFrom = Number.NEGATIVE_INFINITY;
      if (back) flow.answered = true;
      return inverse(back ? flow.original : flow.reply);
    }
    return null;
  }

  /** A flow that came in as `original` and left as `out`. @returns what is wrong with that, or '' */
  begin(original: Tuple, out: Tuple, now: number): string {
    this.expire(now);
    const reply = inverse(out);
    for (const flow of this.flows) {
      for (const t of [flow.original, flow.reply]) {
        if (same(t, reply)) return 'its replies belong to another flow';
        if (same(t, original)) return 'it is a known flow';
      }
    }
    this.flows.push({ original, reply, deadline: now + 30_000, answered: false, streamFrom: now + 2000, lost: false });
    return '';
  }

  /** The flows through the service address `vip` whose backend is no longer `listed`. */
  loseBackends(vip: number, listed: (address: number) => boolean): void {
    for (const flow of this.flows) if (flow.original.dst === vip && !listed(flow.reply.src)) flow.lost = true;
  }

  /** A packet `t` of the client of a lost flow ends that flow. */
  forgetLost(t: Tuple): void {
    this.flows = this.flows.filter(flow => !(flow.lost && same(flow.original, t)));
  }
}
