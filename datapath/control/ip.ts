/** iproute2 in batches: one process per namespace instead of one per command. */

import { spawn } from 'node:child_process';
import { inNamespace } from './netns.ts';

/** What `ip` would not do, for people to read. */
export class IpError extends Error {
  override name = 'IpError';
  /** Of the process that it ends. */
  readonly exitCode = 1;
}

/**
 * Runs `ip` commands in order and stops at the first that fails.
 * @param lines    commands without the leading `ip`, such as `link set lo up`
 * @param options.netns    namespace to run in, by name; default the caller's own
 * @param options.env      environment, default the caller's own
 * @param options.sysctls  written first, in the same namespace: `net/ipv4/ip_forward` -> value
 * @throws IpError with the failing command and what `ip` said about it
 */
export async function ipBatch(
  lines: readonly string[],
  options: { netns?: string; sysctls?: Readonly<Record<string, string | number>>; env?: NodeJS.ProcessEnv } = {},
): Promise<void> {
  const writes = Object.entries(options.sysctls ?? {}).map(([key, value]) => `echo ${value} > /proc/sys/${key}`);
  // Only a process inside the namespace sees its /proc/sys/net, hence the shell.
  const script = [...writes, 'exec ip -batch -'].join(' && ');
  const start = () => spawn('sh', ['-c', script], { stdio: ['pipe', 'ignore', 'pipe'], env: options.env });
  // A child is born in the namespace of the thread that makes it. (`ip netns exec` would also mount, which a service may not.)
  let child: ReturnType<typeof start>;
  try {
    child = options.netns === undefined ? start() : inNamespace(options.netns, start);
  } catch (error) {
    throw new IpError((error as Error).message);
  }
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', chunk => {
    stderr += chunk;
  });
  // `ip` closes the pipe when it stops early; its exit status tells the same.
  child.stdin.on('error', () => {});
  child.stdin.end(`${lines.join('\n')}\n`);

  const status = await new Promise<number | null>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', resolve);
  });
  if (status === 0) return;

  const where = options.netns === undefined ? '' : ` in ${options.netns}`;
  const failed = /Command failed -:(\d+)/.exec(stderr);
  const said = stderr
    .split('\n')
    .filter(line => line !== '' && !line.startsWith('Command failed'))
    .join('; ');
  const command = failed === null ? 'setting up' : `'ip ${lines[Number(failed[1]) - 1]}'`;
  throw new IpError(`${command}${where} failed: ${said || `exit status ${status}`}`);
}
