/** What one configuration has that another has not, place by place. Pure. */
import { isDeepStrictEqual } from 'node:util';

export interface Difference {
  /** `spec.services[default/web].ports[0].port`: an item of a list by what names it, else by its place. */
  path: string;
  /** Absent: it is new. */
  before?: unknown;
  /** Absent: it is gone. */
  after?: unknown;
}

/** What tells the items of a list from one another. */
const NAMES = ['name', 'to', 'address'];

export function diffSpecs(before: unknown, after: unknown): Difference[] {
  return [...compare('spec', before, after)];
}

/** Lines as `diff -u` marks them. */
export function formatDifference({ path, before, after }: Difference): string {
  const lines = [
    ...(before === undefined ? [] : [`-${path}: ${flow(before)}\n`]),
    ...(after === undefined ? [] : [`+${path}: ${flow(after)}\n`]),
  ];
  return lines.join('');
}

function* compare(path: string, before: unknown, after: unknown): Generator<Difference> {
  if (isDeepStrictEqual(before, after)) return;
  if (Array.isArray(before) && Array.isArray(after)) yield* compareLists(path, before, after);
  else if (isMap(before) && isMap(after)) {
    for (const key of new Set([...Object.keys(before), ...Object.keys(after)])) {
      yield* compare(`${path}.${key}`, before[key], after[key]);
    }
  } else yield { path, before, after };
}

function* compareLists(path: string, before: unknown[], after: unknown[]): Generator<Difference> {
  const key = NAMES.find(name => isNamedBy(before, name) && isNamedBy(after, name));
  if (key === undefined) {
    if (!before.some(isMap) && !after.some(isMap)) {
      yield { path, before, after };
      return;
    }
    for (let i = 0; i < Math.max(before.length, after.length); i++) {
      yield* compare(`${path}[${i}]`, before[i], after[i]);
    }
    return;
  }
  const byName = (items: unknown[]) =>
    new Map(items.map(item => [String((item as Record<string, unknown>)[key]), item]));
  const [old, now] = [byName(before), byName(after)];
  let order = false;
  for (const name of new Set([...old.keys(), ...now.keys()])) {
    const differences = [...compare(`${path}[${name}]`, old.get(name), now.get(name))];
    order ||= differences.length > 0;
    yield* differences;
  }
  if (!order) yield { path: `${path} (order)`, before: [...old.keys()], after: [...now.keys()] };
}

/** Every item has this field, and no two the same. */
function isNamedBy(items: unknown[], key: string): boolean {
  return (
    items.every(item => isMap(item) && item[key] !== undefined) &&
    new Set(items.map(item => (item as Record<string, unknown>)[key])).size === items.length
  );
}

function isMap(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** A value in one line, as YAML's flow style has it. */
function flow(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(flow).join(', ')}]`;
  if (isMap(value)) {
    const fields = Object.entries(value).filter(([, inner]) => inner !== undefined);
    return fields.length === 0 ? '{}' : `{ ${fields.map(([key, inner]) => `${key}: ${flow(inner)}`).join(', ')} }`;
  }
  return typeof value === 'string' && !/^[\w./:-]+$/.test(value) ? JSON.stringify(value) : String(value);
}
