/** Hundreds of tests make nodes of their own, one after the other: mocha requires this first (.mocharc.json). */
import { mapLargeMemory } from '../datapath/io/huge-memory.ts';

mapLargeMemory();
