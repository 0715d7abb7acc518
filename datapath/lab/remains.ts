/** What there is of labs on this machine, whole or left behind, and how it is removed. */
import { appendFileSync, existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, rmSync } from 'node:fs';
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
 * A directory of the machine's that a lab's commands mount something over, made where it is not there. With the last lab that
 * has borrowed it, it goes again.
 */
export function borrowDirectory(lab: string, path: string): void {
  const isBorrowed = labNames().some(name => borrowed(name).includes(path));
  if (existsSync(path) && !isBorrowed) return;
  // First of all: whoever is killed in between leaves no directory that nobody knows of.
  if (!borrowed(lab).includes(path)) appendFileSync(borrowedFile(lab), `${path}\n`);
  mkdirSync(path, { recursive: true });
}

function borrowedFile(lab: string): string {
  return `${stateDirOf(lab)}/borrowed`;
}

function borrowed(lab: string): string[] {
  try {
    return readFileSync(borrowedFile(lab), 'utf8').split('\n').slice(0, -1);
  } catch {
    return [];
  }
}

function returnDirectories(lab: string): void {
  const others = new Set(
    labNames()
      .filter(name => name !== lab)
      .flatMap(borrowed),
  );
  for (const path of borrowed(lab)) if (!others.has(path)) removeEmpty(path);
}

/** What somebody else has put into it stays. */
function removeEmpty(path: string): void {
  try {
    rmdirSync(path);
  } catch {
    // It is not empty, or somebody uses it.
  }
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
  returnDirectories(name);
  rmSync(stateDirOf(name), { recursive: true, force: true });
  rmSync(apiDirOf(name), { recursive: true, force: true });
  // Other labs or nodes may be in it.
  removeEmpty(RUN_DIR);
  return true;
}

function listDir(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}
