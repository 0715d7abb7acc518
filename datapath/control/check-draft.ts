/** What the checks across the values of a configuration share: the configuration as far as the schema took it. */
import { type Cidr, parseAddress } from './address.ts';
import type { UplinkConfig, WrittenConfig } from './config.ts';

export type Path = (string | number)[];

/** Something of which any part may be missing, because the schema refused it. */
export type Draft<T> = T extends (infer E)[]
  ? (Draft<E> | undefined)[]
  : T extends object
    ? { [K in keyof T]?: Draft<T[K]> }
    : T;

/** Says that the value at `path` is not as `expected`. */
export type Report = (path: Path, expected: string) => void;

export type Spec = Draft<WrittenConfig['spec']>;

export interface Check {
  spec: Spec;
  kind: UplinkConfig['kind'] | undefined;
  report: Report;
  /** As report, of what may be meant: the text says what comes of it. */
  warn: Report;
  /** True if the schema refused the value at this path, or a part of it. */
  refused: (...path: Path) => boolean;
  /** The uplink's own address and subnet; undefined if refused, or if the interface brings its own. */
  subnet: Cidr | undefined;
  gateway: number | undefined;
}

/** int32 address -> whose it is, as a path from the root. */
export type Owners = Map<number, string>;

/** Index and item of each item that was not refused. */
export function entries<T>(list: (T | undefined)[] | undefined): [number, T][] {
  const result: [number, T][] = [];
  list?.forEach((item, i) => {
    if (item !== undefined) result.push([i, item]);
  });
  return result;
}

export function addressOf(text: string | undefined): number | undefined {
  return text === undefined ? undefined : parseAddress(text);
}

/** A function that reports each value it has been given before (in the same `scope`), naming the place of the first. */
export function uniqueNames(report: Report, expected: string) {
  const first = new Map<string, Path>();
  return (value: string | number | undefined, path: Path, scope = '') => {
    if (value === undefined) return;
    const key = scope + value;
    const before = first.get(key);
    if (before === undefined) first.set(key, path);
    else report(path, `${expected} (${formatPath(['spec', ...before])} has it)`);
  };
}

/** `spec.pods[0].labels["app.kubernetes.io/name"]`: the way to a value, as the messages print it. */
export function formatPath(path: readonly PropertyKey[]): string {
  let out = '';
  for (const key of path) {
    if (typeof key === 'number') out += `[${key}]`;
    else if (/^[\w-]+$/.test(String(key))) out += out === '' ? String(key) : `.${String(key)}`;
    else out += `[${JSON.stringify(String(key))}]`;
  }
  return out;
}

/** True for the path of an address that is on this node. */
export function isLocal(owner: string | undefined): boolean {
  return owner !== undefined && owner !== 'spec.uplink.gateway';
}
