/** Every clause of the table, in its order. */
import type { Clause } from './check.ts';
import { ECN } from './ecn.ts';
import { FRAGMENTS } from './fragments.ts';
import { GENEVE } from './geneve.ts';
import { ICMP } from './icmp.ts';
import { IP_ID } from './ip-id.ts';
import { IPIP } from './ipip.ts';
import { NAT_ICMP } from './nat-icmp.ts';
import { NAT_TCP } from './nat-tcp.ts';
import { NAT_UDP } from './nat-udp.ts';
import { OPTIONS } from './options.ts';
import { PMTU } from './pmtu.ts';
import { VXLAN } from './vxlan.ts';

export const CLAUSES: readonly Clause[] = [
  ...VXLAN,
  ...GENEVE,
  ...IPIP,
  ...ECN,
  ...PMTU,
  ...ICMP,
  ...FRAGMENTS,
  ...OPTIONS,
  ...IP_ID,
  ...NAT_UDP,
  ...NAT_TCP,
  ...NAT_ICMP,
];
