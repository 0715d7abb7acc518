/** Every clause of the table, in its order. */
import type { Clause } from './check.ts';
import { ECN } from './ecn.ts';
import { GENEVE } from './geneve.ts';
import { IPIP } from './ipip.ts';
import { VXLAN } from './vxlan.ts';

export const CLAUSES: readonly Clause[] = [...VXLAN, ...GENEVE, ...IPIP, ...ECN];
