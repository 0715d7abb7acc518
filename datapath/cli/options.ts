/** What many commands of the command line share. */
import { FORMATS, parseFormat } from './format.ts';

export const OUTPUT = ['-o, --output <format>', FORMATS.join(', '), parseFormat, 'table'] as const;
export const NODE = ['--node <name>', 'a running node: NAME, or LAB/NODE; default: the only one'] as const;

export const KUBECONFIG = [
  '--kubeconfig <file>',
  'the cluster of Kubernetes objects; default: KUBECONFIG, or the only lab',
] as const;

/** Parses an option that may be repeated, or have several values: all of them. */
export const MANY = (value: string, before: string[] = []): string[] => [...before, value];

/** Makes a command's result the exit code of the process. */
export function ends<A extends unknown[]>(run: (...args: A) => Promise<number>): (...args: A) => Promise<void> {
  return async (...args) => {
    process.exitCode = await run(...args);
  };
}
