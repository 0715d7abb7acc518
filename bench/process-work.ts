/** What a process has done since it started: man 5 proc_pid_stat, proc_pid_io. */
import { readFileSync } from 'node:fs';

export interface ProcessWork {
  /** Seconds of processor time. */
  user: number;
  system: number;
  /** Calls. */
  reads: number;
  writes: number;
}

const TICKS_PER_SECOND = 100; // USER_HZ, as in machine.ts

export function processWork(pid: number): ProcessWork {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const io = readFileSync(`/proc/${pid}/io`, 'utf8');
  const count = (name: string) => Number(new RegExp(`^${name}: (\\d+)`, 'm').exec(io)?.[1]);
  return {
    user: Number(fields[11]) / TICKS_PER_SECOND,
    system: Number(fields[12]) / TICKS_PER_SECOND,
    reads: count('syscr'),
    writes: count('syscw'),
  };
}
