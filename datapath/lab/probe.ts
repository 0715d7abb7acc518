/** Between two namespaces with real packets: what passes, and by whom and where the next size is refused. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { execa } from 'execa';
import { LabError } from './lab-error.ts';
import { AGENT, type Search } from './probe-agent.ts';

/** One end of a path. */
export interface ProbeEnd {
  netns: string;
  address: string;
}

const TIMEOUT_MS = 60_000;
/** Packets of the size that is lost, to see where: among what else flows they must show. */
const BURST = 16;

/** Runs `work` while something in `to` answers, with the port that it listens on. */
async function withReceiver<T>(to: ProbeEnd, env: NodeJS.ProcessEnv, work: (port: number) => Promise<T>): Promise<T> {
  const child = spawn('ip', ['netns', 'exec', to.netns, process.execPath, AGENT, 'receive'], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env,
  });
  try {
    return await work(await portOf(child, to));
  } finally {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill('SIGKILL');
      await once(child, 'close');
    }
  }
}

function portOf(child: ChildProcess, to: ProbeEnd): Promise<number> {
  return new Promise((resolve, reject) => {
    let errors = '';
    child.stderr?.setEncoding('utf8').on('data', chunk => {
      errors += chunk;
    });
    child.stdout?.setEncoding('utf8').once('data', line => resolve(Number(line)));
    child.once('error', reject);
    child.once('close', () => reject(new LabError(`no receiver in ${to.netns}: ${errors.trim()}`)));
  });
}

async function runAgent(from: ProbeEnd, env: NodeJS.ProcessEnv, ...args: string[]): Promise<string> {
  const argv = ['netns', 'exec', from.netns, process.execPath, AGENT, ...args];
  const result = await execa('ip', argv, { env, reject: false, stdin: 'ignore', timeout: TIMEOUT_MS });
  if (result.exitCode !== 0) throw new LabError(`probe in ${from.netns}: ${result.stderr || result.message}`);
  return result.stdout;
}

/** The largest packet with DF that arrives, one way, and what becomes of one byte more. */
export function probeOneWay(from: ProbeEnd, to: ProbeEnd, env: NodeJS.ProcessEnv = process.env): Promise<Search> {
  return withReceiver(to, env, async port => {
    return JSON.parse(await runAgent(from, env, 'search', to.address, `${port}`)) as Search;
  });
}

/** Sends a burst of packets of a size that is lost. @returns how many were sent, and how many of them arrived all the same */
export function sendLost(
  from: ProbeEnd,
  to: ProbeEnd,
  bytes: number,
  env: NodeJS.ProcessEnv = process.env,
): Promise<{ sent: number; arrived: number }> {
  return withReceiver(to, env, async port => {
    const arrived = await runAgent(from, env, 'burst', to.address, `${port}`, `${bytes}`, `${BURST}`);
    return { sent: BURST, arrived: Number(arrived) };
  });
}
