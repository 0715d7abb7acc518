/** Objects by something else than their names, kept up as they change. */
import type { KubeObject } from '../object.ts';

/** What an index is of. Each is a constant: the store knows it by its identity. */
export interface IndexOf {
  /** Of one kind's objects; undefined: of all. */
  storage?: string;
  /** What an object is found by; none: not at all. */
  keysOf: (object: KubeObject) => Iterable<string>;
}

export class Index {
  private readonly of: IndexOf;
  private readonly found = new Map<string, Map<string, KubeObject>>();

  constructor(of: IndexOf) {
    this.of = of;
  }

  /** In no order. */
  get(key: string): Iterable<KubeObject> {
    return this.found.get(key)?.values() ?? [];
  }

  /** An object is new, different, or gone: what it was before, and what it is. */
  change(storage: string, place: string, before: KubeObject | undefined, after: KubeObject | undefined): void {
    if (this.of.storage !== undefined && this.of.storage !== storage) return;
    const name = `${storage} ${place}`;
    if (before !== undefined) {
      for (const key of this.of.keysOf(before)) {
        const objects = this.found.get(key);
        objects?.delete(name);
        if (objects?.size === 0) this.found.delete(key);
      }
    }
    if (after === undefined) return;
    for (const key of this.of.keysOf(after)) {
      const objects = this.found.get(key);
      if (objects === undefined) this.found.set(key, new Map([[name, after]]));
      else objects.set(name, after);
    }
  }
}
