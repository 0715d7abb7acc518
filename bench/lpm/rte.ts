/**
 * DPDK's rte_lpm with the same table and the same addresses: a small C program (bench/rte-lpm/), compiled when it is
 * asked for, which takes turns with ours. Debian: apt-get install gcc libdpdk-dev.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { Table } from '../prefixes.ts';

const SOURCE = fileURLToPath(new URL('../../../bench/rte-lpm/rte-lpm.c', import.meta.url));
const LIBRARIES = ['-lrte_lpm', '-lrte_eal', '-lrte_hash', '-lrte_rcu', '-lrte_ring'];
const MEGABYTES = 1024;
const START_MS = 60_000;

/** one: a lookup at a time, as ours. bulk, x4: 32 and 4 at a time. chain: each waits for the one before. */
export type RteWay = 'one' | 'bulk' | 'x4' | 'chain';

/** It is not installed, or did not do as told. */
export class RteError extends Error {
  override name = 'RteError';
  readonly exitCode = 1;
}

export class Rte {
  /** Of the memory of its table: `2 MiB` or `4 KiB`. */
  readonly pages: string;
  private readonly child: ChildProcess;
  private readonly lines: AsyncIterator<string>;
  private readonly directory: string;

  private constructor(child: ChildProcess, lines: AsyncIterator<string>, directory: string, pages: string) {
    this.child = child;
    this.lines = lines;
    this.directory = directory;
    this.pages = pages;
  }

  /**
   * Compiles and starts it.
   * @param addresses  files of addresses, which lookup() names by their position
   * @throws RteError
   */
  static async start(routes: Table, addresses: readonly Int32Array[], signal: AbortSignal): Promise<Rte> {
    const directory = mkdtempSync(join(tmpdir(), `tb${process.pid}-rte-`));
    let child: ChildProcess | undefined;
    try {
      const program = compile(directory);
      const words = new Int32Array(3 * routes.prefixes.length);
      for (let i = 0; i < routes.prefixes.length; i++) {
        words.set([routes.prefixes[i], routes.lengths[i], routes.values[i]], 3 * i);
      }
      const files = [words, ...addresses].map((array, i) => {
        const file = join(directory, `${i}.bin`);
        writeFileSync(file, array);
        return file;
      });
      const anyCore = `--lcores=0@(0-${availableParallelism() - 1})`;
      const eal = ['--no-huge', '--no-pci', '--no-shconf', '--no-telemetry', '--log-level=error', anyCore];
      const argv = [...files, '--', ...eal, '-m', String(MEGABYTES)];
      child = spawn(program, argv, { stdio: ['pipe', 'pipe', 'pipe'], detached: true });
      let said = '';
      child.stderr!.setEncoding('utf8').on('data', chunk => {
        said += chunk;
      });
      const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
      const kill = setTimeout(() => child?.kill('SIGKILL'), START_MS);
      signal.addEventListener('abort', () => child?.kill('SIGKILL'), { once: true });
      const first = await nextLine(lines);
      clearTimeout(kill);
      const pages = /^ready (.*)/.exec(first)?.[1];
      if (pages === undefined) throw new RteError(`rte_lpm did not start: ${said.trim() || 'it said nothing'}`);
      return new Rte(child, lines, directory, pages);
    } catch (error) {
      child?.kill('SIGKILL');
      rmSync(directory, { recursive: true, force: true });
      throw error;
    }
  }

  /** Looks all addresses of a file up. @returns ns of CPU time, and the sum of the values, 0 for no route */
  async lookup(way: RteWay, file: number): Promise<{ ns: number; sum: number }> {
    this.child.stdin!.write(`${way} ${file}\n`);
    const line = await nextLine(this.lines);
    const [ns, sum] = line.split(' ').map(Number);
    if (!(ns > 0)) throw new RteError('rte_lpm ended in the middle of it');
    return { ns, sum };
  }

  async stop(): Promise<void> {
    const { child } = this;
    if (child.exitCode === null && child.signalCode === null) {
      child.kill('SIGKILL');
      await once(child, 'exit');
    }
    rmSync(this.directory, { recursive: true, force: true });
  }
}

async function nextLine(lines: AsyncIterator<string>): Promise<string> {
  const { value, done } = await lines.next();
  return done ? '' : value;
}

function compile(directory: string): string {
  if (!existsSync(SOURCE)) throw new RteError(`${SOURCE}: not there; rte_lpm can be measured from a checkout only`);
  const program = join(directory, 'rte-lpm');
  const run = (command: string, argv: string[]): string => {
    try {
      return execFileSync(command, argv, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
    } catch (error) {
      const { code, stderr } = error as { code?: string; stderr?: string };
      const why = code === 'ENOENT' ? `there is no ${command}` : (stderr ?? String(error)).trim().split('\n')[0];
      throw new RteError(`--rte: ${why}. Install DPDK and a compiler: apt-get install gcc pkg-config libdpdk-dev`);
    }
  };
  const flags = run('pkg-config', ['--cflags', 'libdpdk']).trim().split(/\s+/);
  run('cc', ['-O3', '-march=native', '-o', program, SOURCE, ...flags, '-march=native', ...LIBRARIES]);
  return program;
}
