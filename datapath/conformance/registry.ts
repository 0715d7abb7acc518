/** Every clause of the table, in its order. */
import type { Clause } from './check.ts';
import { ECN } from './ecn.ts';
import { GENEVE } from './geneve.ts';
import { ICMP } from './icmp.ts';
import { IPIP } from './ipip.ts';
import { PMTU } from './pmtu.ts';
import { VXLAN } from './vxlan.ts';

export const CLAUSES: readonly Clause[] = [...VXLAN, ...GENEVE, ...IPIP, ...PMTU, ...ICMP, ...ECN];
