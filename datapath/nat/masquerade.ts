/**
 * Masquerade: which new flows leave under another source address. Rules stand in order as in a POSTROUTING chain; the
 * first whose conditions all hold decides, and its number is kept with the flow and shown. Compiled to one Int32Array;
 * a rule that does not match costs a few compares.
 *
 * A rule is what it says. When the list changes, rules that stay keep number and hits wherever they stand now, and a number
 * is never given to another rule: flows remember it for as long as they live.
 */

export interface Prefix {
  /** int32 */
  address: number;
  length: number;
}

export interface MasqueradeRule {
  /** Any of these... absent or empty: any address. */
  from?: readonly Prefix[];
  /** ...but none of these. */
  notFrom?: readonly Prefix[];
  to?: readonly Prefix[];
  notTo?: readonly Prefix[];
  /** Matches if (mark & mask) === value. Without it the packet's mark does not matter. */
  mark?: { value: number; mask: number };
  protocol?: number;
  /** RETURN: leave the packet as it is, and look no further. */
  action: 'MASQUERADE' | 'RETURN';
  /** Do not even try to keep the source port. */
  randomFully?: boolean;
  /** Outside address; absent: the address of the interface that the packet leaves by. */
  source?: number;
  /** Outside ports, both ends included. */
  ports?: readonly [number, number];
}

const FLAG_MASQUERADE = 1;
const FLAG_MARK = 2;
const FLAG_PROTOCOL = 4;

// Words of a rule; its prefixes follow as (masked address, mask) pairs: from, notFrom, to, notTo.
const FLAGS = 0;
const MARK = 1;
const MARK_MASK = 2;
const PROTOCOL = 3;
const FROM = 4; // how many
const NOT_FROM = 5;
const TO = 6;
const NOT_TO = 7;
const RULE_WORDS = 8;

export class MasqueradeRules {
  readonly count: number;
  /** By place, from 1: the number that flows remember a rule by. */
  readonly numbers: Int32Array;
  /** Flows that each rule has decided, by place, from 1; [0] counts those that no rule matched. */
  readonly hits: Float64Array;

  private readonly keys: string[];
  /** The number of the next rule that is new. */
  private readonly nextNumber: number;
  private readonly code: Int32Array;
  private readonly sources: Int32Array;
  private readonly keeps: Uint8Array;
  private readonly ranges: Int32Array;

  /** @param before the list that these take the place of */
  constructor(rules: readonly MasqueradeRule[], before?: MasqueradeRules) {
    const code: number[] = [];
    for (const rule of rules) {
      let flags = rule.action === 'MASQUERADE' ? FLAG_MASQUERADE : 0;
      if (rule.mark) flags |= FLAG_MARK;
      if (rule.protocol !== undefined) flags |= FLAG_PROTOCOL;
      const lists = [rule.from ?? [], rule.notFrom ?? [], rule.to ?? [], rule.notTo ?? []];
      code.push(flags, rule.mark?.value ?? 0, rule.mark?.mask ?? 0, rule.protocol ?? 0);
      code.push(...lists.map(list => list.length));
      for (const { address, length } of lists.flat()) {
        const mask = length === 0 ? 0 : -1 << (32 - length);
        code.push(address & mask, mask);
      }
    }
    this.code = Int32Array.from(code);
    this.count = rules.length;
    // By place, which counts from 1.
    this.sources = Int32Array.from([0, ...rules.map(rule => rule.source ?? 0)]);
    this.keeps = Uint8Array.from([1, ...rules.map(rule => (rule.randomFully ? 0 : 1))]);
    this.ranges = Int32Array.from([0, 0, ...rules.flatMap(rule => rule.ports ?? [0, 0])]);
    this.hits = new Float64Array(rules.length + 1);
    this.hits[0] = before?.hits[0] ?? 0;
    this.keys = keysOf(rules);
    this.numbers = new Int32Array(rules.length + 1);
    let next = before?.nextNumber ?? 1;
    for (const [i, key] of this.keys.entries()) {
      const old = before?.keys.indexOf(key) ?? -1;
      this.numbers[i + 1] = old < 0 ? next++ : before!.numbers[old + 1];
      if (old >= 0) this.hits[i + 1] = before!.hits[old + 1];
    }
    this.nextNumber = next;
  }

  /**
   * Judges a new flow by its addresses as they leave (the destination already translated). countHit() belongs to it.
   * @returns the place of the rule, from 1, if it says MASQUERADE; its negative if it says RETURN; 0 if none matched
   */
  match(src: number, dst: number, protocol: number, mark: number): number {
    const { code } = this;
    let at = 0;
    for (let rule = 1; rule <= this.count; rule++) {
      const flags = code[at + FLAGS];
      const from = at + RULE_WORDS;
      const notFrom = from + code[at + FROM] * 2;
      const to = notFrom + code[at + NOT_FROM] * 2;
      const notTo = to + code[at + TO] * 2;
      const next = notTo + code[at + NOT_TO] * 2;
      if (
        ((flags & FLAG_MARK) === 0 || (mark & code[at + MARK_MASK]) === code[at + MARK]) &&
        ((flags & FLAG_PROTOCOL) === 0 || protocol === code[at + PROTOCOL]) &&
        (from === notFrom || contains(code, from, notFrom, src)) &&
        !contains(code, notFrom, to, src) &&
        (to === notTo || contains(code, to, notTo, dst)) &&
        !contains(code, notTo, next, dst)
      ) {
        return (flags & FLAG_MASQUERADE) === 0 ? -rule : rule;
      }
      at = next;
    }
    return 0;
  }

  /** The number of the rule at a place that match() gave, with its sign. */
  numberOf(place: number): number {
    return place < 0 ? -this.numbers[-place] : this.numbers[place];
  }

  /** Counts a flow that the rule at this place, as match() gave it, has decided. */
  countHit(matched: number): void {
    this.hits[Math.abs(matched)]++;
  }

  /** By place: outside address of a rule (int32), 0 for that of the interface. */
  source(rule: number): number {
    return this.sources[rule];
  }

  /** Whether flows of a rule may keep their source port. */
  keepsPort(rule: number): boolean {
    return this.keeps[rule] !== 0;
  }

  /** Outside ports of a rule, both ends included; 0 and 0 for any. */
  minPort(rule: number): number {
    return this.ranges[rule * 2];
  }

  maxPort(rule: number): number {
    return this.ranges[rule * 2 + 1];
  }
}

/** What each rule says, as text; the second of two that say the same has one of its own. */
function keysOf(rules: readonly MasqueradeRule[]): string[] {
  const seen = new Map<string, number>();
  return rules.map(rule => {
    const text = JSON.stringify(rule);
    const copies = (seen.get(text) ?? 0) + 1;
    seen.set(text, copies);
    return `${text} ${copies}`;
  });
}

/** True if one of the (address, mask) pairs in words [from, to) holds `address`. */
function contains(code: Int32Array, from: number, to: number, address: number): boolean {
  for (let at = from; at < to; at += 2) if ((address & code[at + 1]) === code[at]) return true;
  return false;
}
