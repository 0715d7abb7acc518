/**
 * Does `bench compare --build` keep its promise? On demand, on a machine that has nothing better to do:
 *
 *   node dist/bench/guard.js [RUNS]
 *
 * A copy of this build whose encapsulation takes 5 % longer must be found slower, and a plain copy must not be told from
 * it, RUNS times out of RUNS (10). Exit 1 when it does not hold. About a minute a run.
 */
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { compareBuilds } from './builds.ts';
import type { Comparison } from './compare.ts';
import { isMainModule } from './main-module.ts';
import { PLANS } from './micro/cases.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const TUNNELS = ['ipip', 'vxlan', 'geneve'];
const SLOWDOWN = 0.05;
const METHOD = /^( *)encap\(p, peer\w*\) \{\n/m;

/**
 * Makes every packet wait for a chain of multiplications. Without a loop and without a branch: those alone change how V8
 * compiles the loop around the encapsulation, which costs more than 5 %.
 */
export function slowDown(worker: string, length: number): string {
  if (!METHOD.test(worker)) throw new Error('the encapsulation is not where it was looked for');
  const extra = 'guardKept = Math.imul(guardKept ^ p.srcPort, 0x9e3779b1);\n'.repeat(length);
  return `var guardKept = 1;\n${worker.replace(METHOD, found => found + extra)}`;
}

/** A copy of this build. @param length of the chain; 0 for a plain copy */
function copyBuild(directory: string, length: number): string {
  cpSync(path.join(ROOT, 'dist'), path.join(directory, 'dist'), { recursive: true, preserveTimestamps: true });
  cpSync(path.join(ROOT, 'package.json'), path.join(directory, 'package.json'));
  symlinkSync(path.join(ROOT, 'node_modules'), path.join(directory, 'node_modules'));
  if (length > 0) {
    const file = path.join(directory, 'dist/bench/builds/worker.flat.js');
    writeFileSync(file, slowDown(readFileSync(file, 'utf8'), length));
  }
  return directory;
}

/** Encapsulation of small packets, alone. */
function contestants(): number[] {
  return PLANS.flatMap(({ group, make }, plan) => {
    if (group !== 'encap') return [];
    const { name, params } = make();
    return name === 'encap' && params.size === 64 && TUNNELS.includes(String(params.tunnel)) ? [plan] : [];
  });
}

async function main(runs: number): Promise<boolean> {
  const directory = mkdtempSync(path.join(tmpdir(), 'tunpath-guard-'));
  const say = (text: string) => process.stdout.write(`${text}\n`);
  const controller = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => controller.abort());
  const { signal } = controller;
  const show = (rows: readonly Comparison[]) =>
    rows
      .map(
        ({ params, change, ratio }) =>
          `${params.tunnel} ${change} ${ratio?.estimate.toFixed(3)} [${ratio?.low.toFixed(3)}, ${ratio?.high.toFixed(3)}]`,
      )
      .join('; ');
  const build = (name: string, length: number) => copyBuild(path.join(directory, name), length);
  const plans = contestants();
  try {
    const base = build('base', 0);
    const vxlan = plans.slice(1, 2);
    const measure = async (name: string, length: number): Promise<number> => {
      const { rows } = await compareBuilds(base, build(name, length), { plans: vxlan, signal });
      say(`a chain of ${length}: ${show(rows)}`);
      return (rows[0]?.ratio?.estimate ?? Number.NaN) - 1;
    };
    // What the chain costs grows with its length, from what keeping its end costs.
    const [least, most] = [1, 8];
    const from = await measure('least', least);
    const slope = ((await measure('most', most)) - from) / (most - least);
    const length = Math.max(least, Math.round(least + (SLOWDOWN - from) / slope));
    say(`so 5 % are a chain of ${length}`);
    const slow = build('slow', length);
    const same = build('same', 0);
    let held = true;
    for (let run = 1; run <= runs && !signal.aborted; run++) {
      const equal = (await compareBuilds(base, same, { plans, signal })).rows;
      const wrong = equal.some(row => row.change !== 'no difference');
      say(`run ${run}, the same: ${show(equal)}${wrong ? '  WRONG' : ''}`);
      const slower = (await compareBuilds(base, slow, { plans: vxlan, signal })).rows;
      const missed = slower.some(row => row.change !== 'slower');
      say(`run ${run}, 5 % slower: ${show(slower)}${missed ? '  MISSED' : ''}`);
      held &&= !wrong && !missed;
    }
    return held && !signal.aborted;
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

if (isMainModule(import.meta.url)) process.exitCode = (await main(Number(process.argv[2] ?? 10))) ? 0 : 1;
