/**
 * A thread of its own for one case, because V8 compiles the path for what it has seen: a second case in the same thread
 * would be measured with code made for two.
 */
import '../../datapath/inlining.ts';
import v8 from 'node:v8';
import { parentPort, workerData } from 'node:worker_threads';
import { referenceTime, warmReference } from '../reference.ts';
import { type Case, Rig } from './rig.ts';

const WARM_UP_PACKETS = 1_500_000;
const HEAP_PACKETS = 500_000;

export interface Request {
  /** A sample of so many packets, or the growth of the heap. */
  kind: 'time' | 'heap';
  packets: number;
}

export interface Answer {
  /** time: ns of CPU time per packet. heap: bytes per packet. */
  value: number;
  /** time: the reference work beside it, in ns. */
  reference: number;
}

const rig = new Rig(workerData as Case);
// Big tables are slow, and warm with fewer packets.
rig.run(Math.max(WARM_UP_PACKETS, 2 * (workerData as Case).flows));
rig.check();
warmReference();

/** CPU time of the process, not wall time: on a shared machine the neighbours weigh less. The other threads sleep. */
function time(packets: number): Answer {
  const start = process.cpuUsage();
  rig.run(packets);
  const used = process.cpuUsage(start);
  return { value: ((used.user + used.system) * 1000) / packets, reference: referenceTime() };
}

/** The smallest of some: compiling in between would count as the packets', which allocate every time or never. */
function heap(): Answer {
  let least = Number.POSITIVE_INFINITY;
  for (let i = 0; i < 5; i++) {
    const before = v8.getHeapStatistics().used_heap_size;
    rig.run(HEAP_PACKETS);
    least = Math.min(least, v8.getHeapStatistics().used_heap_size - before);
  }
  // Asking allocates a few hundred bytes itself: rounded away. Collections make it negative.
  return { value: Math.max(0, Math.round((100 * least) / HEAP_PACKETS) / 100), reference: 0 };
}

parentPort!.on('message', (request: Request) => {
  parentPort!.postMessage(request.kind === 'heap' ? heap() : time(request.packets));
});
parentPort!.postMessage({ value: 0, reference: 0 } satisfies Answer);
