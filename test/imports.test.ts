/**
 * The directions of the code: a room may import only what stands below it, and nothing goes in a circle. Types count, too:
 * who knows another's types cannot be read without it.
 */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';

const ROOT = path.join(import.meta.dirname, '../../datapath');

/** Rooms, and files beside them, bottom up. Those of one line do not import each other, but for what is said below. */
const FLOORS: readonly (readonly string[])[] = [
  ['wire', 'verdict.ts', 'random.ts', 'clock.ts', 'inlining.ts', 'flattened.ts'],
  ['counters.ts', 'memory'],
  ['packet'],
  ['io', 'flow', 'nat', 'policy', 'route', 'tunnel', 'mtu', 'segment', 'profile.ts'],
  ['port.ts'],
  ['path'],
  ['forward.ts'],
  ['program', 'watch'],
  ['control', 'drive', 'loop.ts'],
  ['conformance', 'mtu-prove', 'observe', 'host', 'api'],
  ['lab'],
  ['ui'],
  ['cli', 'library.ts'],
];

/** What neighbours on a floor may import of each other. */
const BESIDE: readonly (readonly [from: string, to: string])[] = [
  ['nat', 'flow'],
  ['mtu', 'tunnel'],
  // How systems differ, as a table: it is made of the rooms' own words, and tunnels are made by it.
  ['profile.ts', 'flow'],
  ['profile.ts', 'nat'],
  ['profile.ts', 'mtu'],
  ['nat', 'profile.ts'],
  ['tunnel', 'profile.ts'],
  ['segment', 'io'],
  ['io', 'segment'],
  ['loop.ts', 'drive'],
  ['control', 'drive'],
  ['control', 'loop.ts'],
];

/** The one upward direction: a program is compiled from a configuration's words. */
const UPWARDS: readonly (readonly [from: string, to: string])[] = [
  ['program', 'control'],
  ['drive', 'control'],
];

/** Programs of their own, which a lab runs in its pods: they print for whoever started them. */
const PROGRAMS = [
  'lab/api-process.ts',
  'lab/dns-server.ts',
  'lab/pods/image-server.ts',
  'lab/probe-agent.ts',
  'lab/whoami.ts',
];

interface Module {
  file: string;
  text: string;
  imports: string[];
}

function modules(): Module[] {
  const files = (readdirSync(ROOT, { recursive: true }) as string[]).filter(file => file.endsWith('.ts')).sort();
  return files.map(file => {
    const text = readFileSync(path.join(ROOT, file), 'utf8');
    return { file, text, imports: importsOf(file, text) };
  });
}

/** Files that a module imports, from ROOT. */
function importsOf(file: string, text: string): string[] {
  const found = text.matchAll(
    /^(?:import|export)\b[^;'"]*?from '(\.[^']+)'|^import '(\.[^']+)'|\bimport\('(\.[^']+)'\)/gm,
  );
  return Array.from(found, ([, a, b, c]) => path.join(path.dirname(file), a ?? b ?? c)).filter(
    to => !to.startsWith('..'),
  );
}

const roomOf = (file: string) => file.split(path.sep)[0];
const floorOf = (room: string) => FLOORS.findIndex(floor => floor.includes(room));
const has = (list: typeof BESIDE, from: string, to: string) => list.some(([a, b]) => a === from && b === to);

/** Imports that go upwards or to a neighbour, as text. */
function wrongWays(all: readonly Module[]): string[] {
  const wrong: string[] = [];
  for (const { file, imports } of all) {
    const from = roomOf(file);
    if (floorOf(from) < 0) wrong.push(`${file}: ${from} has no floor`);
    for (const target of imports) {
      const to = roomOf(target);
      if (from === to || floorOf(to) < floorOf(from) || has(BESIDE, from, to) || has(UPWARDS, from, to)) continue;
      wrong.push(`${file} imports ${target}`);
    }
  }
  return wrong;
}

/** Circles of files (Tarjan's strongly connected components with more than one member). */
function circles(all: readonly Module[]): string[][] {
  const byFile = new Map(all.map(one => [one.file, one]));
  const number = new Map<string, number>();
  const low = new Map<string, number>();
  const stack: string[] = [];
  const found: string[][] = [];
  const visit = (file: string) => {
    number.set(file, number.size);
    low.set(file, number.get(file)!);
    stack.push(file);
    for (const to of byFile.get(file)!.imports) {
      if (!byFile.has(to)) continue;
      if (!number.has(to)) visit(to);
      if (stack.includes(to)) low.set(file, Math.min(low.get(file)!, low.get(to)!));
    }
    if (low.get(file) !== number.get(file)) return;
    const members = stack.splice(stack.indexOf(file));
    if (members.length > 1) found.push(members);
  };
  for (const { file } of all) if (!number.has(file)) visit(file);
  return found;
}

const made = (imports: Record<string, string[]>): Module[] =>
  Object.entries(imports).map(([file, list]) => ({ file, text: '', imports: list }));

describe('imports', () => {
  it('go downwards only', () => {
    const all = modules();
    assert.ok(all.length > 100 && all.some(one => one.imports.length > 10), 'the code has been found');
    assert.deepEqual(wrongWays(all), []);
  });

  it('make no circle', () => assert.deepEqual(circles(modules()), []));

  it('of control/ lead to no lab, and nothing outside cli/ prints', () => {
    const all = modules().filter(one => roomOf(one.file) !== 'cli' && !PROGRAMS.includes(one.file));
    const prints = all.filter(one => /\bconsole\.\w+\(|\bprocess\.(stdout|stderr)\.write\(/.test(one.text));
    assert.deepEqual(
      prints.map(one => one.file),
      [],
    );
    const leads = all.filter(one => roomOf(one.file) === 'control' && one.imports.some(to => roomOf(to) === 'lab'));
    assert.deepEqual(
      leads.map(one => one.file),
      [],
    );
  });

  it('would be found if they were forbidden', () => {
    assert.deepEqual(
      importsOf('flow/flows.ts', "import type { Nat } from '../nat/nat.ts';\nimport '../wire/tcp.ts';\n"),
      ['nat/nat.ts', 'wire/tcp.ts'],
    );
    assert.deepEqual(
      importsOf('nat/a.ts', "export {\n  one,\n  two,\n} from './b.ts';\nconst c = await import('../c.ts');\n"),
      ['nat/b.ts', 'c.ts'],
    );
    assert.deepEqual(wrongWays(made({ 'flow/flows.ts': ['nat/nat.ts'] })), ['flow/flows.ts imports nat/nat.ts']);
    assert.deepEqual(wrongWays(made({ 'control/a.ts': ['lab/b.ts'] })), ['control/a.ts imports lab/b.ts']);
    assert.deepEqual(wrongWays(made({ 'wire/ipv4.ts': ['verdict.ts'] })), ['wire/ipv4.ts imports verdict.ts']);
    assert.deepEqual(wrongWays(made({ 'new/a.ts': [] })), ['new/a.ts: new has no floor']);
    assert.deepEqual(circles(made({ 'a.ts': ['b.ts'], 'b.ts': ['c.ts'], 'c.ts': ['b.ts'] })), [['b.ts', 'c.ts']]);
  });
});
