/** What the whole machine did: the first line of /proc/stat, which counts softirq work that belongs to no process. */
import { readFileSync } from 'node:fs';

/** Seconds of all cores together since boot. */
export interface MachineTime {
  /** Work of processes, of the kernel and of interrupts. */
  busy: number;
  /** What the hypervisor gave to others while a core had something to do. */
  steal: number;
  /** Everything, idle time included. */
  total: number;
}

const TICKS_PER_SECOND = 100; // USER_HZ is 100 on every Linux architecture that Node runs on

export function machineTime(): MachineTime {
  return parseMachineTime(readFileSync('/proc/stat', 'utf8'));
}

/** @param text  /proc/stat; man 5 proc names the fields. Guest time is part of user and nice already. */
export function parseMachineTime(text: string): MachineTime {
  const fields = text.slice(0, text.indexOf('\n')).trim().split(/\s+/).slice(1, 9).map(Number);
  const [user, nice, system, idle, iowait, irq, softirq, steal] = fields;
  const busy = user + nice + system + irq + softirq;
  return {
    busy: busy / TICKS_PER_SECOND,
    steal: steal / TICKS_PER_SECOND,
    total: (busy + idle + iowait + steal) / TICKS_PER_SECOND,
  };
}

/** What passed between two readings. */
export function timeBetween(before: MachineTime, after: MachineTime): MachineTime {
  return {
    busy: after.busy - before.busy,
    steal: after.steal - before.steal,
    total: after.total - before.total,
  };
}
