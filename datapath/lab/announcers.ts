/** The part that a lab's nodes have in announcing services: an announcer beside each node, as long as the API runs. */
import { L2Announcer } from '../api/agent/l2-announcer.ts';
import type { Cluster } from '../api/controllers/cluster.ts';
import { callNode } from '../control/client.ts';
import { socketOf } from './names.ts';

/** What the articles' policies know the uplink of a node as. */
const DEVICE = 'eth1';

const CONCERNED = new Set([
  'services',
  'configmaps',
  'ciliuml2announcementpolicies.cilium.io',
  'nodes',
  // Released, one is taken by the next who looks.
  'leases.coordination.k8s.io',
]);

/** Changes of one moment are looked at together. */
const DEBOUNCE_MS = 20;
const RETRY_MS = 2000;

/** @param onError hears what went wrong, the same of a node once */
export function announceServices(
  lab: string,
  cluster: Cluster,
  nodes: readonly string[],
  onError: (text: string) => void,
): { heard(storage: string): void; stop(): void } {
  const loops = nodes.map(name => {
    const announcer = new L2Announcer({
      cluster,
      node: name,
      device: DEVICE,
      now: machineNow,
      lead: (addresses, patienceMs, again) =>
        callNode(socketOf(lab, name), 'lead', { addresses: [...addresses], again }, patienceMs),
    });
    return new Loop(announcer, text => onError(`${name}: ${text}`));
  });
  return {
    heard(storage) {
      if (CONCERNED.has(storage)) for (const loop of loops) loop.soon(DEBOUNCE_MS);
    },
    stop() {
      for (const loop of loops) loop.stop();
    },
  };
}

/** The machine's CLOCK_MONOTONIC, ms: all processes of the machine have the same. */
function machineNow(): number {
  return Number(process.hrtime.bigint() / 1000n) / 1000;
}

class Loop {
  private readonly announcer: L2Announcer;
  private readonly onError: (text: string) => void;
  private timer: NodeJS.Timeout | undefined;
  private due = Number.POSITIVE_INFINITY;
  private isBusy = false;
  /** Asked for while it was busy. */
  private again = false;
  private stopped = false;
  private complaint = '';

  constructor(announcer: L2Announcer, onError: (text: string) => void) {
    this.announcer = announcer;
    this.onError = onError;
    this.soon(DEBOUNCE_MS);
  }

  soon(ms: number): void {
    if (this.stopped) return;
    if (this.isBusy) {
      this.again = true;
      return;
    }
    const due = machineNow() + ms;
    // What has been asked for stays, however often others ask for later.
    if (due >= this.due) return;
    this.due = due;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => void this.run(), ms);
    this.timer.unref();
  }

  stop(): void {
    this.stopped = true;
    clearTimeout(this.timer);
  }

  private async run(): Promise<void> {
    this.isBusy = true;
    this.due = Number.POSITIVE_INFINITY;
    this.again = false;
    let next = RETRY_MS;
    try {
      next = await this.announcer.tick();
      this.complaint = '';
    } catch (error) {
      const { message } = error as Error;
      if (message !== this.complaint) this.onError(message);
      this.complaint = message;
    }
    this.isBusy = false;
    this.soon(this.again ? DEBOUNCE_MS : next);
  }
}
