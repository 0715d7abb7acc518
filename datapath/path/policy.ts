/**
 * Steps 5 and 7: network policy. A new flow is judged by its first packet and carries the verdict; what answers it and what
 * ICMP says about it go with the flow. When policies have changed, a flow is judged once more by its next packet. One that
 * is not allowed any more stays in the table, denied, or its answers would pass for a new flow the other way round.
 */
import type { Flows } from '../flow/flows.ts';
import {
  DEADLINE,
  EGRESS_RULE,
  ENTRY_SHIFT,
  INGRESS_RULE,
  META,
  O_SRC,
  POLICY_EPOCH,
  PROTOCOL_MASK,
  R_PORTS,
  R_SRC,
} from '../flow/table.ts';
import type { Packet } from '../packet/packet.ts';
import { DENIED, type Policies } from '../policy/policies.ts';
import { CONTINUE, DROP_POLICY_DENIED_EGRESS, DROP_POLICY_DENIED_INGRESS } from '../verdict.ts';
import type { Path } from './path.ts';

/** How long a denied flow is remembered after its last packet. */
const DENIED_MS = 120_000;

/** Step 5, on the destination that the flow really has. @returns CONTINUE or DROP_POLICY_DENIED_* */
export function judgeEgress(path: Path, p: Packet, flows: Flows, policies: Policies): number {
  const { words } = flows.table;
  const base = p.flow << ENTRY_SHIFT;
  if (p.isNew === 0) {
    // Of no flow are only the node's own errors.
    if (p.flow === 0 || words[base + POLICY_EPOCH] === policies.epoch) return CONTINUE;
    // track() has made a copy for who only asks.
    return judgeAgain(path, p, words, p.probe === 0 ? base : flows.table.ownScratch << ENTRY_SHIFT, policies);
  }
  // What its answers will come from: the backend, where a service has chosen one.
  const rule = policies.judgeEgress(p.src, words[base + R_SRC], p.protocol, words[base + R_PORTS] >>> 16);
  words[base + EGRESS_RULE] = rule;
  p.policy = rule;
  return rule === DENIED ? DROP_POLICY_DENIED_EGRESS : CONTINUE;
}

/** Step 7, of a new flow: where the destination is a pod of this node. */
export function judgeIngress(p: Packet, flows: Flows, policies: Policies): number {
  const { words } = flows.table;
  const base = p.flow << ENTRY_SHIFT;
  const rule = policies.judgeIngress(p.src, words[base + R_SRC], p.protocol, words[base + R_PORTS] >>> 16);
  words[base + INGRESS_RULE] = rule;
  words[base + POLICY_EPOCH] = policies.epoch;
  if (rule !== 0) p.policy = rule;
  return rule === DENIED ? DROP_POLICY_DENIED_INGRESS : CONTINUE;
}

/** A flow of before the last change, or one that has been denied since. */
function judgeAgain(path: Path, p: Packet, words: Int32Array, base: number, policies: Policies): number {
  // Denied flows have the epoch's complement, which is none.
  if (words[base + POLICY_EPOCH] !== ~policies.epoch) {
    const client = words[base + O_SRC];
    const server = words[base + R_SRC];
    const protocol = words[base + META] & PROTOCOL_MASK;
    const port = words[base + R_PORTS] >>> 16;
    let rule = policies.judgeEgress(client, server, protocol, port);
    words[base + EGRESS_RULE] = rule;
    if (rule !== DENIED) {
      rule = policies.judgeIngress(client, server, protocol, port);
      words[base + INGRESS_RULE] = rule;
    }
    words[base + POLICY_EPOCH] = rule !== DENIED ? policies.epoch : ~policies.epoch;
    if (rule !== DENIED) return CONTINUE;
  }
  words[base + DEADLINE] = (path.now + DENIED_MS) | 0;
  p.policy = DENIED;
  return words[base + EGRESS_RULE] === DENIED ? DROP_POLICY_DENIED_EGRESS : DROP_POLICY_DENIED_INGRESS;
}
