/** Which processes are a lab's: those that live in its namespaces. No name and no recorded pid is trusted for killing. */

import { readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { NETNS_DIR } from './names.ts';

/** A process that cannot be mistaken for a later one with the same pid. */
export interface ProcessIdentity {
  pid: number;
  /** Clock ticks between boot and its start, from /proc/PID/stat. */
  startTicks: number;
}

/** @returns null when there is no such process, or only its exit status is left of it. */
export function identifyProcess(pid: number): ProcessIdentity | null {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  } catch {
    return null;
  }
  // The second field is the command in parentheses and may itself hold spaces and parentheses.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  if (fields[0] === 'Z' || fields[0] === 'X') return null;
  return { pid, startTicks: Number(fields[19]) };
}

export function isAlive(process: ProcessIdentity): boolean {
  return identifyProcess(process.pid)?.startTicks === process.startTicks;
}

/** Every live process inside the named namespaces, by namespace. */
export function processesIn(namespaces: readonly string[]): Map<string, ProcessIdentity[]> {
  const byInode = new Map<string, string>();
  const found = new Map<string, ProcessIdentity[]>();
  for (const namespace of namespaces) {
    found.set(namespace, []);
    try {
      byInode.set(`net:[${statSync(`${NETNS_DIR}/${namespace}`).ino}]`, namespace);
    } catch {
      // Removed meanwhile: nothing can be in it.
    }
  }
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    let namespace: string | undefined;
    try {
      namespace = byInode.get(readlinkSync(`/proc/${entry}/ns/net`));
    } catch {
      continue;
    }
    if (namespace === undefined) continue;
    const identity = identifyProcess(Number(entry));
    if (identity !== null) found.get(namespace)!.push(identity);
  }
  return found;
}

/** Asks processes to end, and after `graceMs` makes them. Returns when all are gone. */
export async function endProcesses(processes: readonly ProcessIdentity[], graceMs: number): Promise<void> {
  let left = processes.filter(isAlive);
  for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
    for (const { pid } of left) {
      try {
        process.kill(pid, signal);
      } catch {
        // Ended between the look and the signal.
      }
    }
    const rounds = graceMs / 10;
    for (let round = 0; round < rounds && left.length > 0; round++) {
      await sleep(10);
      left = left.filter(isAlive);
    }
    if (left.length === 0) return;
  }
}
