/**
 * Which processes are a lab's: those that live in its namespaces or were started by it. No command's name and no recorded
 * pid is trusted for killing.
 */

import { readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { MEMBER_VARIABLE, NETNS_DIR } from './names.ts';

/** Between asking a process to end and ending it. */
export const END_GRACE_MS = 2000;

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

/** Inode numbers of named namespaces: what a namespace still is after its name is gone. */
export function inodesOf(namespaces: readonly string[]): Set<number> {
  const inodes = new Set<number>();
  for (const namespace of namespaces) {
    try {
      inodes.add(statSync(`${NETNS_DIR}/${namespace}`).ino);
    } catch {
      // Removed meanwhile.
    }
  }
  return inodes;
}

/**
 * Every live process of a lab but the caller: those inside the network namespaces with these inodes, and those that the
 * lab started and that are still on their way there.
 */
export function processesOf(lab: string, inodes: ReadonlySet<number>): ProcessIdentity[] {
  return liveProcesses(pid => isInside(pid, inodes) || isMember(pid, lab));
}

/** Every live process but the caller inside the network namespaces with these inodes. */
export function processesInside(inodes: ReadonlySet<number>): ProcessIdentity[] {
  return liveProcesses(pid => isInside(pid, inodes));
}

function liveProcesses(isMeant: (pid: string) => boolean): ProcessIdentity[] {
  const found: ProcessIdentity[] = [];
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry) || Number(entry) === process.pid || !isMeant(entry)) continue;
    const identity = identifyProcess(Number(entry));
    if (identity !== null) found.push(identity);
  }
  return found;
}

function isInside(pid: string, inodes: ReadonlySet<number>): boolean {
  try {
    return inodes.has(Number(/^net:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/ns/net`))?.[1]));
  } catch {
    return false;
  }
}

function isMember(pid: string, lab: string): boolean {
  try {
    return `\0${readFileSync(`/proc/${pid}/environ`, 'latin1')}`.includes(`\0${MEMBER_VARIABLE}=${lab}\0`);
  } catch {
    return false;
  }
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
