/** Network namespaces, by the names that `ip netns` gives them or by the path of a file that stands for one. */
import { closeSync, constants, existsSync, openSync, statSync } from 'node:fs';
import * as libc from '../io/libc.ts';

const DIRECTORY = '/run/netns';

/** Is there a namespace of this name, or at this path? */
export function namespaceExists(name: string): boolean {
  return existsSync(namespacePath(name));
}

/** The file that stands for a namespace. */
export function namespacePath(name: string): string {
  return name.startsWith('/') ? name : `${DIRECTORY}/${name}`;
}

/** What tells a namespace from another of its name; undefined where there is none of that name. */
export function namespaceInode(name: string): number | undefined {
  return namespaceExists(name) ? statSync(namespacePath(name), { throwIfNoEntry: false })?.ino : undefined;
}

/**
 * Runs `work` with the calling thread inside the namespace, and comes back whatever happens. `work` must be synchronous:
 * the namespace belongs to the thread, so anything that ran in between would run there, too.
 */
export function inNamespace<T>(name: string, work: () => T): T {
  const home = openSync('/proc/thread-self/ns/net', constants.O_RDONLY);
  try {
    const target = open(name);
    try {
      enter(target, name);
    } finally {
      closeSync(target);
    }
    try {
      return work();
    } finally {
      enter(home, 'the one we came from');
    }
  } finally {
    closeSync(home);
  }
}

function open(name: string): number {
  try {
    return openSync(namespacePath(name), constants.O_RDONLY);
  } catch (error) {
    throw new Error(`network namespace ${name}: ${(error as NodeJS.ErrnoException).code}`);
  }
}

function enter(fd: number, name: string): void {
  if (libc.setns(fd, libc.CLONE_NEWNET) !== 0) {
    const reason = libc.errnoName(libc.errno());
    throw new Error(`network namespace ${name}: ${reason}${reason === 'EPERM' ? ' (needs CAP_SYS_ADMIN)' : ''}`);
  }
}
