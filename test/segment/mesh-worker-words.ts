/** What test/segment/mesh-threads.test.ts and its threads say to each other. */
import type { MeshMemory } from '../../datapath/segment/mesh.ts';

export interface MeshWorkerData {
  memory: MeshMemory;
  thread: number;
  seed: number;
  /** Packets of its own that it sends. */
  count: number;
  /** By word: see WORD_*. */
  words: SharedArrayBuffer;
}

/** 0: go on; 1: send nothing more, and end once everything is at home. */
export const WORD_STOP = 0;
/** The thread that is no more, from 1; and how many have forgotten, then reclaimed it. */
export const WORD_DEAD = 1;
export const WORD_FORGOTTEN = 2;
export const WORD_RECLAIMED = 3;
/** Threads that have sent all that they were to send. */
export const WORD_SENT = 4;
/** How many have seen WORD_STOP, and send nothing new. */
export const WORD_QUIET = 8;
/** [WORD_RECEIVED + thread]: frames that it has got. */
export const WORD_RECEIVED = 5;
/** [WORD_WAKE + thread]: counts up when it is to wake. */
export const WORD_WAKE = 16;
export const WORDS = 32;
