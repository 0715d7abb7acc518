/** Configurations as text: those of test/fixtures/config, with changes, and what is said about them. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import type { NodeConfig } from '../../datapath/control/config.ts';
import { formatProblems, loadConfig } from '../../datapath/control/load-config.ts';

const FIXTURES = new URL('../../../test/fixtures/config/', import.meta.url); // seen from dist/test/control

export function read(name: string): string {
  return readFileSync(new URL(name, FIXTURES), 'utf8');
}

export function names(folder: string): string[] {
  return readdirSync(new URL(folder, FIXTURES)).map(name => `${folder}${name}`);
}

export function accepted(text: string): NodeConfig {
  const { config, problems } = loadConfig(text, 'FILE');
  assert.ok(config !== undefined, `refused: ${formatProblems(problems ?? [])}`);
  return config;
}

/** The problem lines without the file name. */
export function refused(text: string): string[] {
  const { problems } = loadConfig(text, 'FILE');
  assert.ok(problems !== undefined, 'accepted');
  assert.ok(problems.every(problem => problem.file === 'FILE'));
  return problems.map(problem => formatProblems([problem]).slice('FILE:'.length));
}

/** Replaces the first occurrence of each; the text must hold it. */
export function edit(text: string, edits: readonly (readonly [from: string, to: string])[]): string {
  let edited = text;
  for (const [from, to] of edits) {
    assert.ok(edited.includes(from), `nothing to edit: ${from}`);
    edited = edited.replace(from, () => to);
  }
  return edited;
}

export const DESIGN = read('good/design.yaml');
