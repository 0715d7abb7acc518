/** Runs commands of ours, or of others, with the terminal's own streams. */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { flattened } from '../../flattened.ts';
import { machineTool } from '../../lab/terminal-files.ts';
import { ToolError } from './desk.ts';

const MAIN = fileURLToPath(flattened(new URL('../main.js', import.meta.url)));
const SIGNALS = { SIGHUP: 1, SIGINT: 2, SIGKILL: 9, SIGTERM: 15 } as Partial<Record<NodeJS.Signals, number>>;

export function runTunpath(argv: readonly string[]): Promise<number> {
  return runProgram(process.execPath, [MAIN, ...argv]);
}

/** The machine's own tool of a name. */
export function real(name: string, argv: readonly string[]): Promise<number> {
  return runProgram(realPath(name), argv);
}

/** @throws ToolError where the machine has none */
export function realPath(name: string): string {
  const path = machineTool(name);
  if (path === undefined) throw new ToolError(`this machine has no ${name}`);
  return path;
}

/** @returns its exit code, as a shell says it */
export function runProgram(program: string, argv: readonly string[], env = process.env): Promise<number> {
  const child = spawn(program, argv, { stdio: 'inherit', env });
  for (const signal of ['SIGTERM', 'SIGHUP'] as const) process.on(signal, () => child.kill(signal));
  // The terminal sends this one to all of its processes.
  process.on('SIGINT', () => {});
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => resolve(code ?? 128 + (SIGNALS[signal ?? 'SIGTERM'] ?? 15)));
  });
}
