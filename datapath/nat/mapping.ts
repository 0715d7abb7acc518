/**
 * Endpoint-independent mapping and filtering (RFC 4787 REQ-1 and REQ-8, RFC 5382 REQ-1, RFC 5508 REQ-1): one inside
 * endpoint has one outside endpoint whatever it talks to, and no two inside endpoints share one. A mapping lives as long
 * as a flow uses it.
 *
 * Kept in a flow table of its own: the "original tuple" is (inside address, outside address, inside port), the "reply
 * tuple" (outside address, 0, outside port), so both are found in one lookup.
 */

import {
  ENTRY_SHIFT,
  ENTRY_WORDS,
  FLAG_PERMANENT,
  FlowTable,
  META,
  O_DST,
  O_PORTS,
  O_SRC,
  POLICY_EPOCH,
  R_DST,
  R_PORTS,
  R_SRC,
} from '../flow/table.ts';
import { CountTable } from '../memory/count-table.ts';
import type { Random } from '../random.ts';

/** Word of a mapping: how many flows it has. No policy judges a mapping. */
const FLOWS = POLICY_EPOCH;

/** Who may send to a mapping from outside. */
export type Filtering = 'endpoint-independent' | 'address-dependent' | 'address-and-port-dependent';

export class EndpointMappings {
  readonly filtering: Filtering;
  private readonly table: FlowTable;
  /** (mapping, remote address) -> flows, for address-dependent filtering. */
  private readonly remotes: CountTable;

  /** @param memory as TableOptions has it */
  constructor(
    capacity: number,
    random: Random,
    filtering: Filtering = 'address-and-port-dependent',
    memory?: (bytes: number) => Uint8Array,
  ) {
    this.filtering = filtering;
    this.table = new FlowTable({ capacity, random, whenFull: 'drop-new', memory });
    // A flow has one remote.
    const remotes = filtering === 'address-dependent' ? capacity : 1;
    this.remotes = new CountTable(remotes, random, remotes);
  }

  get size(): number {
    return this.table.used;
  }

  /** The mapping of an inside endpoint at `outside`, or 0. */
  findInside(protocol: number, address: number, port: number, outside: number, now: number): number {
    const ref = this.table.find(address, outside, port << 16, protocol, now);
    return ref < 0 ? 0 : ref >>> 1;
  }

  /** The mapping behind an outside endpoint, or 0. */
  findOutside(protocol: number, outside: number, port: number, now: number): number {
    const ref = this.table.find(outside, 0, port << 16, protocol, now);
    return ref < 0 ? 0 : ref >>> 1;
  }

  /** Makes a mapping without users. @returns its number, or 0 if there is no room or one of the endpoints has one */
  create(protocol: number, address: number, port: number, outside: number, outsidePort: number, now: number): number {
    const { words } = this.table;
    words.fill(0, 0, ENTRY_WORDS);
    words[O_SRC] = address;
    words[O_DST] = outside;
    words[O_PORTS] = port << 16;
    words[R_SRC] = outside;
    words[R_DST] = 0;
    words[R_PORTS] = outsidePort << 16;
    words[META] = protocol | FLAG_PERMANENT;
    const entry = this.table.insert(now);
    return Math.max(entry, 0);
  }

  insideAddress(mapping: number): number {
    return this.table.words[(mapping << ENTRY_SHIFT) + O_SRC];
  }

  insidePort(mapping: number): number {
    return this.table.words[(mapping << ENTRY_SHIFT) + O_PORTS] >>> 16;
  }

  outsidePort(mapping: number): number {
    return this.table.words[(mapping << ENTRY_SHIFT) + R_PORTS] >>> 16;
  }

  /** A flow with the host `remote` uses the mapping. */
  join(mapping: number, remote: number): void {
    this.table.words[(mapping << ENTRY_SHIFT) + FLOWS]++;
    if (this.filtering === 'address-dependent') this.remotes.add(mapping, remote, 0, 1);
  }

  /** The flow is over; the last one takes the mapping along. */
  leave(mapping: number, remote: number): void {
    const base = mapping << ENTRY_SHIFT;
    if (this.filtering === 'address-dependent') this.remotes.add(mapping, remote, 0, -1);
    if (--this.table.words[base + FLOWS] === 0) this.table.remove(mapping);
  }

  /** Drops a mapping that no flow has joined. */
  discard(mapping: number): void {
    if (this.table.words[(mapping << ENTRY_SHIFT) + FLOWS] === 0) this.table.remove(mapping);
  }

  /** Whether `remote` may begin a flow to the mapping from outside. */
  admits(mapping: number, remote: number): boolean {
    if (this.filtering === 'endpoint-independent') return true;
    return this.filtering === 'address-dependent' && this.remotes.get(mapping, remote, 0) > 0;
  }
}
