/**
 * Experiments of the articles: the same addresses and commands in a lab, and checks that what is seen is what the article
 * shows. A scenario brings its own lab up and down; it says what it does and sees line by line, and collects checks.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import { IpError } from '../control/ip.ts';
import type { Capture, CaptureSummary } from './capture.ts';
import { findKubectl } from './find-kubectl.ts';
import { runKubectl } from './kubectl.ts';
import { type ExecResult, Lab } from './lab.ts';
import { LabError } from './lab-error.ts';
import type { LabNodeConfig, Mode } from './modes.ts';
import { SWITCH } from './names.ts';
import { routerOf, type Topology } from './topology.ts';

/** One thing looked at. All text, so that people and programs read the same. */
export interface Check {
  what: string;
  expected: string;
  seen: string;
  pass: boolean;
}

export interface ScenarioResult {
  name: string;
  article: string;
  /** Every check passed, and there was at least one. */
  pass: boolean;
  checks: Check[];
}

export interface Scenario {
  name: string;
  /** Number of the article, `001`. */
  article: string;
  /** What the article shows, in a sentence. */
  shows: string;
  topology: Topology;
  mode: Mode;
  /** Whether the article's commands are kubectl's, so that the lab has its API. */
  api?: true;
  /** Whether each node has a process of its own, which may be stopped and killed. */
  processes?: true;
  /** What each node's configuration has besides its mode. */
  configure?: (config: LabNodeConfig) => void;
  /** Does the experiment on a lab that is up. What it throws becomes a failed check. */
  run(context: ScenarioContext): Promise<void>;
}

export interface RunOptions {
  /** Of the lab; none of that name may be up. */
  labName: string;
  /** Called with each line of what is done and seen. */
  tell?: (line: string) => void;
  /** Changes each node's configuration: how a test breaks the datapath on purpose. */
  adjust?: (config: LabNodeConfig) => void;
}

/** A capture to make: where, as `Lab.capture` takes it, and a pcap filter. */
export type CapturePoint = readonly [point: string, filter: string];

/** Of every node in a scenario's lab, so that a run shows what the one before showed. Not chosen for its results. */
export const SEED = 1;

/** Patience with what is to come about. */
const SETTLE_MS = 20_000;
const SETTLE_PAUSE_MS = 50;

/** Lines shown of a command's or a capture's output. */
const SHOWN_LINES = 8;

/** What a scenario works with. */
export class ScenarioContext {
  readonly lab: Lab;
  private readonly checks: Check[];
  private readonly listener: ((line: string) => void) | undefined;
  private readonly kubectlPath = findKubectl();
  private hasSaidWhich = false;

  /** @param checks  where they are recorded */
  constructor(lab: Lab, checks: Check[], tell?: (line: string) => void) {
    this.lab = lab;
    this.checks = checks;
    this.listener = tell;
  }

  /** Runs a command on a host and shows both. */
  async exec(host: string, argv: readonly string[]): Promise<ExecResult> {
    this.tell(`[${host}] $ ${argv.map(quote).join(' ')}`);
    const result = await this.lab.exec(host, argv, { timeoutMs: 30_000 });
    this.show(result.stdout + result.stderr);
    return result;
  }

  /**
   * Runs one command line of kubectl's and shows both.
   * @param argv without `kubectl` itself
   * @param input what it reads, as `apply -f -` does
   */
  async kubectl(argv: readonly string[], input?: string): Promise<ExecResult> {
    this.tellKubectl(argv, input);
    const result = await runKubectl(this.lab, this.kubectlPath, argv, input);
    this.show(result.stdout + result.stderr);
    return result;
  }

  /** Runs it until what it prints is as it is to become, as settle() does, and shows the last time. */
  async kubectlUntil(argv: readonly string[], isDone: (stdout: string) => boolean): Promise<ExecResult> {
    this.tellKubectl(argv);
    const result = await this.settle(
      () => runKubectl(this.lab, this.kubectlPath, argv),
      ({ stdout }) => isDone(stdout),
    );
    this.show(result.stdout + result.stderr);
    return result;
  }

  private tellKubectl(argv: readonly string[], input?: string): void {
    if (this.kubectlPath === undefined && !this.hasSaidWhich) {
      this.tell('(there is no kubectl here: its lines are carried out by a client of our own)');
    }
    this.hasSaidWhich = true;
    this.tell(`$ ${['kubectl', ...argv].map(quote).join(' ')}`);
    if (input !== undefined) for (const line of input.trim().split('\n')) this.tell(`  | ${line}`);
  }

  /**
   * Looks again and again, in silence, until something is as it is to become: controllers and nodes take their time.
   * What it is in the end, or when patience is over, is the caller's to check.
   */
  async settle<T>(look: () => Promise<T>, isDone: (seen: T) => boolean): Promise<T> {
    for (const deadline = performance.now() + SETTLE_MS; ; await sleep(SETTLE_PAUSE_MS)) {
      const seen = await look();
      if (isDone(seen) || performance.now() > deadline) return seen;
    }
  }

  /**
   * Captures at several points at once while something happens, and shows what tcpdump says of each.
   * @returns one file per point
   * @throws LabError when a capture lost packets: it would prove nothing
   */
  async capture<K extends string>(
    points: Readonly<Record<K, CapturePoint>>,
    during: () => Promise<void>,
  ): Promise<Record<K, CaptureSummary>> {
    const entries = Object.entries<CapturePoint>(points) as [K, CapturePoint][];
    const captures = await Promise.allSettled(
      entries.map(([, [point, filter]]) => this.lab.capture(point, { filter })),
    );
    const running = captures.flatMap(result => (result.status === 'fulfilled' ? [result.value] : []));
    let caught: CaptureSummary[] = [];
    try {
      if (running.length === captures.length) await during();
    } finally {
      caught = await Promise.all(running.map(stopCapture));
    }
    const failed = captures.find(result => result.status === 'rejected');
    if (failed !== undefined) throw failed.reason;
    const files = {} as Record<K, CaptureSummary>;
    for (const [i, [key, [point, filter]]] of entries.entries()) {
      files[key] = caught[i]!;
      await this.showCapture(point, filter, files[key]);
    }
    return files;
  }

  /** Records whether two values are the same; lists are compared as they print. */
  check(what: string, expected: string | number | readonly string[], seen: string | number | readonly string[]): void {
    this.record(what, print(expected), print(seen), print(expected) === print(seen));
  }

  /** Records a judgement that is no comparison of two values. @param expected  in words */
  checkThat(what: string, expected: string, seen: string | number | readonly string[], pass: boolean): void {
    this.record(what, expected, print(seen), pass);
  }

  /** Shows a line of what is done. */
  tell(line: string): void {
    this.listener?.(line);
  }

  private record(what: string, expected: string, seen: string, pass: boolean): void {
    this.checks.push({ what, expected, seen, pass });
    this.tell(
      pass
        ? `  ok    ${what}: ${seen}`
        : `  FAIL  ${what}\n          expected  ${expected}\n          seen      ${seen}`,
    );
  }

  private async showCapture(point: string, filter: string, file: CaptureSummary): Promise<void> {
    if (this.listener === undefined) return;
    const { nodes } = this.lab.topology;
    const router = routerOf(this.lab.topology);
    const isNode = nodes.some(node => node.name === point);
    const device = isNode ? point : point === router.name ? 'any' : 'eth0';
    const command = ['tcpdump', '-i', device, '-nn', /[[\]()]/.test(filter) ? quote(filter) : filter];
    this.tell(`[${isNode ? SWITCH : point}] $ ${command.join(' ').trimEnd()}`);
    if (file.packets === 0) return this.show('');
    // On the router: what it caught names interfaces by number, and only there do the numbers mean something.
    const { stdout } = await this.lab.exec(router.name, ['tcpdump', '-nn', '-t', '-r', file.path]);
    this.show(stdout);
  }

  private show(output: string): void {
    const lines = output.split('\n').filter(line => line.trim() !== '');
    if (lines.length === 0) this.tell('    (nothing)');
    for (const line of lines.slice(0, SHOWN_LINES)) this.tell(`    ${line}`);
    if (lines.length > SHOWN_LINES) this.tell(`    ... ${lines.length - SHOWN_LINES} more lines`);
  }
}

/**
 * Runs one scenario in a lab of its own. Every byte on every device is final there (no offload), so that captures can be
 * held against the article's.
 */
export async function runScenario(scenario: Scenario, options: RunOptions): Promise<ScenarioResult> {
  const tell = options.tell ?? (() => {});
  const { name, article, topology, mode } = scenario;
  tell(`${name}: article ${article}, topology ${topology.name}, mode ${mode}`);
  tell(`The article shows: ${scenario.shows}`);
  const checks: Check[] = [];
  try {
    const lab = await Lab.up({
      name: options.labName,
      topology,
      mode,
      offload: 'none',
      seed: SEED,
      api: scenario.api,
      processes: scenario.processes,
      adjust: config => {
        scenario.configure?.(config);
        options.adjust?.(config);
      },
    });
    try {
      await scenario.run(new ScenarioContext(lab, checks, options.tell));
    } finally {
      await lab.down();
    }
    if (checks.length === 0) throw new LabError('the scenario checked nothing');
  } catch (error) {
    if (!(error instanceof LabError || error instanceof IpError)) throw error;
    checks.push({ what: 'the experiment runs to its end', expected: 'yes', seen: error.message, pass: false });
    tell(`  FAIL  ${error.message}`);
  }
  const failed = checks.filter(check => !check.pass).length;
  tell(`${name}: ${failed === 0 ? 'pass' : 'FAIL'}, ${checks.length - failed} of ${checks.length} checks\n`);
  return { name, article, pass: failed === 0, checks };
}

async function stopCapture(capture: Capture): Promise<CaptureSummary> {
  const file = await capture.stop();
  if (file.dropped > 0) throw new LabError(`${file.path}: the kernel dropped ${file.dropped} packets of the capture`);
  return file;
}

function print(value: string | number | readonly string[]): string {
  if (typeof value === 'object') return value.length === 0 ? 'nothing' : value.join(', ');
  return String(value);
}

function quote(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
