/** What there is of labs on this machine, whole or left behind, and how it is removed. */
import { existsSync, readdirSync, rmdirSync, rmSync } from 'node:fs';
import { RUN_DIR } from '../control/client.ts';
import { ipBatch } from '../control/ip.ts';
import { LabError } from './lab-error.ts';
import { removeNameFiles } from './name-files.ts';
import { apiDirOf, NETNS_DIR, namespacePrefix, stateDirOf } from './names.ts';
import { END_GRACE_MS, endProcesses, inodesOf, processesOf } from './processes.ts';

const DOWN_ROUNDS = 10;

/** Network namespaces of a lab, by name. */
export function namespacesOf(lab: string): string[] {
  return listDir(NETNS_DIR).filter(entry => entry.startsWith(namespacePrefix(lab)));
}

/** Whether anything of that name is there. */
export function labExists(name: string): boolean {
  return existsSync(stateDirOf(name)) || namespacesOf(name).length > 0;
}

/** Names of all labs that are up or left behind. */
export function labNames(): string[] {
  const names = new Set<string>();
  for (const entry of listDir(NETNS_DIR)) {
    const match = /^tp-([a-z0-9]+)-/.exec(entry);
    if (match !== null) names.add(match[1]!);
  }
  for (const entry of listDir(RUN_DIR)) {
    const match = /^lab-([a-z0-9]+)$/.exec(entry);
    if (match !== null) names.add(match[1]!);
  }
  return [...names].sort();
}

/**
 * Ends the processes in a lab's namespaces, and removes the namespaces and the files.
 * @returns whether there was anything to remove
 * @throws LabError when something does not go away
 */
export async function removeLab(name: string): Promise<boolean> {
  if (!labExists(name)) return false;
  // Usually one round. What a killed maker had begun may still have been making namespaces during the first look.
  for (let round = 1; ; round++) {
    const namespaces = namespacesOf(name);
    const inodes = inodesOf(namespaces);
    await endProcesses(processesOf(name, inodes), END_GRACE_MS);
    await ipBatch(namespaces.map(namespace => `netns del ${namespace}`));
    const left = [...namespacesOf(name), ...processesOf(name, inodes).map(({ pid }) => `process ${pid}`)];
    if (left.length === 0) break;
    if (round === DOWN_ROUNDS) throw new LabError(`lab '${name}' does not go away: ${left.join(', ')}`);
  }
  // A killed node leaves its socket.
  for (const entry of listDir(RUN_DIR)) {
    if (entry.startsWith(namespacePrefix(name))) rmSync(`${RUN_DIR}/${entry}`, { force: true });
  }
  removeNameFiles(name);
  rmSync(stateDirOf(name), { recursive: true, force: true });
  rmSync(apiDirOf(name), { recursive: true, force: true });
  try {
    rmdirSync(RUN_DIR);
  } catch {
    // Other labs or nodes are in it.
  }
  return true;
}

function listDir(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}
