/**
 * Types the command lines of articles, in their order, on a lab that is as the article's cluster was before its first line:
 *
 *   node dist/test/articles/typist.js [ARTICLE...]      all, or some; a line each, exit 1 where one prints something else
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { stringify } from 'yaml';
import { isMainModule } from '../../bench/main-module.ts';
import { Lab } from '../../datapath/lab/lab.ts';
import type { Mode, Topology } from '../../datapath/lab/topology.ts';
import { TOPOLOGIES } from '../../datapath/lab/topology-file.ts';
import { kubectlPath } from '../api/kubectl.ts';
import { ARTICLES, type Line, linesOf, MANIFESTS } from './lines.ts';
import { type Running, Terminal } from './terminal.ts';

/** What is printed comes as soon as the cluster is there: looked for so long, on a machine however slow. */
const PATIENCE_MS = 60_000;
/** Until the kernel hands over what it has captured, at the latest, and a little more. */
const BLOCK_MS = 1200;
const AGAIN_MS = 200;

export interface Cluster {
  name: string;
  topology: Topology;
  mode: Mode;
  articles: readonly string[];
}

export const CLUSTERS: readonly Cluster[] = [
  { name: 'calico', topology: bare(TOPOLOGIES.calico!), mode: 'ipip', articles: ['000', '002'] },
  { name: 'cilium', topology: withoutPods(TOPOLOGIES.cilium!), mode: 'native', articles: ['001'] },
  { name: 'aws', topology: bare(TOPOLOGIES.aws!), mode: 'native', articles: ['003'] },
  { name: 'flannel', topology: TOPOLOGIES.flannel!, mode: 'vxlan', articles: ['004'] },
];

/** The pods are the article's, by its own lines. */
function bare(topology: Topology): Topology {
  return { ...topology, pods: [], services: [] };
}

/** The address of its service is printed there, and typed; its port for nodes comes later. */
function withoutPods(topology: Topology): Topology {
  const services = topology.services.map(service => ({
    ...service,
    ports: service.ports.map(({ nodePort: _, ...port }) => port),
  }));
  return { ...topology, pods: [], services };
}

/** A lab, and the terminals on its hosts. */
export class Typist {
  private readonly lab: string;
  private readonly terminals = new Map<string, Terminal>();
  private readonly directory = mkdtempSync(join(tmpdir(), 'tunpath-articles-'));

  private constructor(lab: string) {
    this.lab = lab;
  }

  static async start({ name, topology, mode }: Cluster): Promise<Typist> {
    const lab = `art${name}${process.pid}`.slice(0, 16);
    kubectlPath('1.35'); // which the lab finds
    await Lab.down(lab);
    await Lab.up({ name: lab, topology, mode, api: true });
    return new Typist(lab);
  }

  async stop(): Promise<void> {
    for (const terminal of this.terminals.values()) terminal.close();
    rmSync(this.directory, { recursive: true });
    await Lab.down(this.lab);
  }

  /** @returns what is wrong with what it prints, undefined where nothing is */
  type(article: string, line: Line): Promise<string | undefined> {
    const { host } = ARTICLES.find(one => one.article === article)!;
    return typed(line, this.at(line.on ?? host), this.at(host), this.editor);
  }

  private get editor(): string {
    return join(this.directory, 'editor');
  }

  private at(host: string): Terminal {
    let terminal = this.terminals.get(host);
    if (terminal === undefined) {
      const env = { MANIFESTS, KUBE_EDITOR: `sh '${this.editor}'`, HOME: this.directory, TERM: 'dumb' };
      terminal = new Terminal(this.lab, host, env);
      this.terminals.set(host, terminal);
    }
    return terminal;
  }
}

/** What is typed for a line. */
export function commandOf({ instead, run, check }: Line): string {
  return instead ?? run ?? check!;
}

async function typed(line: Line, here: Terminal, own: Terminal, editor: string): Promise<string | undefined> {
  const command = commandOf(line);
  const { meanwhile, until, edit, exit = [0] } = line;
  const manifest = line.objects?.map(object => stringify(object)).join('---\n');
  if (edit !== undefined) writeEditor(editor, edit);
  const deadline = performance.now() + PATIENCE_MS;
  let tries = 0;
  for (;;) {
    let printed: string;
    let faults: string[];
    if (until || meanwhile !== undefined) {
      const running = await here.start(command);
      const captures = /tcpdump/.test(command);
      // It prints when it ends, but says when it has begun.
      while (captures && !/listening on/.test(running.printed()) && !isOver(running, deadline)) await sleep(AGAIN_MS);
      do {
        if (meanwhile !== undefined) await own.type(meanwhile);
        else await sleep(AGAIN_MS);
      } while (!captures && faultsOf(line, running.printed()).length > 0 && !isOver(running, deadline));
      // What it has not been given by then is lost: the kernel hands packets over by the block, or after a second.
      if (captures) await sleep(BLOCK_MS * ++tries);
      printed = await running.interrupt();
      faults = faultsOf(line, printed);
    } else {
      const heredoc = manifest !== undefined && /<<\s*EOF/.test(command);
      const text = heredoc ? `${command}\n${manifest}EOF` : command;
      const result = await here.type(text, heredoc ? undefined : manifest);
      printed = result.printed;
      faults = faultsOf(line, printed);
      if (!exit.includes(result.exitCode)) faults.push(`exit code ${result.exitCode}, expected ${exit.join(' or ')}`);
    }
    if (faults.length === 0) return undefined;
    if (performance.now() > deadline) return `${faults.join('\n')}\nprinted: ${printed}`;
    await sleep(AGAIN_MS);
  }
}

function faultsOf({ prints = [], absent = [] }: Line, printed: string): string[] {
  return [
    ...prints.filter(pattern => !new RegExp(pattern, 'u').test(printed)).map(pattern => `expected /${pattern}/`),
    ...absent.filter(pattern => new RegExp(pattern, 'u').test(printed)).map(pattern => `expected no /${pattern}/`),
  ];
}

function isOver(running: Running, deadline: number): boolean {
  return running.hasEnded() || performance.now() > deadline;
}

/** Puts lines among the annotations of what kubectl gives it to edit. */
function writeEditor(path: string, lines: readonly string[]): void {
  const text = lines.join('\\n').replaceAll("'", '');
  writeFileSync(path, `sed -i 's|^  annotations:.*|  annotations:\\n${text}|' "$1"\n`);
}

async function main(wanted: readonly string[]): Promise<void> {
  for (const cluster of CLUSTERS) {
    const articles = cluster.articles.filter(article => wanted.length === 0 || wanted.includes(article));
    if (articles.length === 0) continue;
    const typist = await Typist.start(cluster);
    try {
      for (const article of articles) {
        for (const line of linesOf(article)) {
          if (line.differs !== undefined) continue;
          const fault = await typist.type(article, line);
          process.stdout.write(`${fault === undefined ? 'ok  ' : 'no  '} ${article}:${line.line} ${commandOf(line)}\n`);
          if (fault === undefined) continue;
          process.stdout.write(`${fault}\n`);
          process.exitCode = 1;
        }
      }
    } finally {
      await typist.stop();
    }
  }
}

if (isMainModule(import.meta.url)) await main(process.argv.slice(2));
