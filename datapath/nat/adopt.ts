/**
 * A flow of another node's table in this one, from a row of its listing: for looking at what a packet would meet, never for
 * the loop. What a row does not say is as for a connection that was picked up in the middle: its TCP windows are unknown,
 * so that no segment is out of them, and it counts for no backend.
 */
import type { Flows } from '../flow/flows.ts';
import {
  DEADLINE,
  EGRESS_RULE,
  ENTRY_SHIFT,
  ENTRY_WORDS,
  FLAG_ASSURED,
  FLAG_SEEN_REPLY,
  INGRESS_RULE,
  META,
  O_DST,
  O_PORTS,
  O_SRC,
  POLICY_EPOCH,
  R_DST,
  R_PORTS,
  R_SRC,
  STATE_SHIFT,
  TCP_FLAGS,
} from '../flow/table.ts';
import { PICKED_UP } from '../flow/tcp.ts';
import { GENERIC, GRE_STREAM, ICMP_QUERY, STATE_NAMES, UDP_NEW, UDP_STREAM } from '../flow/timeouts.ts';
import * as ipv4 from '../wire/ipv4.ts';
import { DELTA, FLAG_DNAT, FLAG_SNAT, RULE } from './flow-words.ts';
import { packDeltas } from './rewrite.ts';
import type { TranslatedRow, Translation } from './translation.ts';

export interface Adopted
  extends Pick<TranslatedRow, 'protocol' | 'state' | 'original' | 'reply' | 'seenReply' | 'assured'> {
  snat: boolean;
  dnat: boolean;
  rule: number;
  /** Seconds until it expires. */
  expires: number;
}

/**
 * @param translation null where nothing is translated
 * @param policyEpoch of the policies that have judged it; 0: its next packet is judged
 * @param now milliseconds
 * @returns false if there is no room, or another flow has its addresses
 */
export function adoptFlow(
  flows: Flows,
  translation: Translation | null,
  row: Adopted,
  policyEpoch: number,
  now: number,
): boolean {
  const { words } = flows.table;
  const { protocol, original, reply } = row;
  const base = 0;
  const [ports, answered] = [portsOf(original), portsOf(reply)];
  const isIcmp = protocol === ipv4.PROTO_ICMP;
  flows.client?.flowAbandoned(base);
  words.fill(0, base, base + ENTRY_WORDS);
  words[base + O_SRC] = original.src;
  words[base + O_DST] = original.dst;
  words[base + O_PORTS] = ports;
  words[base + R_SRC] = reply.src;
  words[base + R_DST] = reply.dst;
  words[base + R_PORTS] = answered;
  words[base + META] =
    protocol |
    (stateOf(row) << STATE_SHIFT) |
    (row.seenReply ? FLAG_SEEN_REPLY : 0) |
    (row.assured ? FLAG_ASSURED : 0) |
    (row.snat ? FLAG_SNAT : 0) |
    (row.dnat ? FLAG_DNAT : 0);
  words[base + DEADLINE] = now + row.expires * 1000;
  words[base + TCP_FLAGS] = protocol === ipv4.PROTO_TCP ? PICKED_UP : 0;
  words[base + RULE] = row.rule;
  words[base + POLICY_EPOCH] = policyEpoch;
  words[base + EGRESS_RULE] = 0;
  words[base + INGRESS_RULE] = 0;
  const forward = isIcmp ? (answered & ~0xffff) | (ports & 0xffff) : (answered << 16) | (answered >>> 16);
  words[base + DELTA] = packDeltas(original.src, original.dst, ports, reply.dst, reply.src, forward);
  const flow = flows.table.insert(now | 0);
  if (flow < 0) return false;
  if ((words[(flow << ENTRY_SHIFT) + META] & FLAG_SNAT) !== 0) translation?.ports.record(flow);
  return true;
}

function portsOf({ sport, dport }: TranslatedRow['original']): number {
  return (sport << 16) | dport;
}

function stateOf({ protocol, state, assured }: Adopted): number {
  const named = STATE_NAMES.indexOf(state);
  if (state !== '' && named >= 0) return named;
  if (protocol === ipv4.PROTO_UDP) return assured ? UDP_STREAM : UDP_NEW;
  if (protocol === ipv4.PROTO_ICMP) return ICMP_QUERY;
  return protocol === ipv4.PROTO_GRE ? GRE_STREAM : GENERIC;
}
