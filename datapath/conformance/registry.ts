/** Every clause of the table, in its order. */
import type { Clause } from './check.ts';
import { GENEVE } from './geneve.ts';
import { VXLAN } from './vxlan.ts';

export const CLAUSES: readonly Clause[] = [...VXLAN, ...GENEVE];
