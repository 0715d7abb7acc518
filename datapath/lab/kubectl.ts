/** kubectl against the API of a lab: the machine's own, or where it has none a client of ours. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { execa } from 'execa';
import type { ExecResult, Lab } from './lab.ts';
import { kubeconfigOf, stateDirOf } from './names.ts';
import { runOwnClient } from './own-client.ts';

const TIMEOUT_MS = 30_000;

/**
 * Runs one command line of kubectl's to its end; its failure is in the exit code.
 * @param program as findKubectl() says; undefined: our own client
 * @param argv without `kubectl` itself
 * @param input what it reads
 */
export async function runKubectl(
  lab: Lab,
  program: string | undefined,
  argv: readonly string[],
  input = '',
): Promise<ExecResult> {
  if (program === undefined) {
    const end = argv.indexOf('--');
    const pod = argv.slice(1, end).find(word => !word.startsWith('-'));
    // Pods that come with a lab are its hosts.
    if (argv[0] === 'exec') return lab.exec(pod!, argv.slice(end + 1), { timeoutMs: TIMEOUT_MS });
    return runOwnClient(kubeconfigOf(lab.name), argv, input);
  }
  // A home of its own: kubectl keeps there what it has discovered.
  const home = join(stateDirOf(lab.name), 'home');
  mkdirSync(home, { recursive: true });
  const result = await execa(program, argv, {
    env: { HOME: home, KUBECONFIG: kubeconfigOf(lab.name) },
    input,
    reject: false,
    stripFinalNewline: false,
    timeout: TIMEOUT_MS,
  });
  return { stdout: String(result.stdout), stderr: String(result.stderr), exitCode: result.exitCode ?? 143 };
}
