/**
 * What was made last of some lists of objects. Neither objects of the API nor lists of them are changed, a change is another
 * list; so the same lists make the same, and many nodes of one process share it.
 */
export class Memo<T> {
  private readonly known = new WeakMap<object, { made: T; of: readonly unknown[] }>();

  /** @param key forgets it when it is gone itself @param of all that `make` looks at besides */
  get(key: object, of: readonly unknown[], make: () => T): T {
    const before = this.known.get(key);
    if (before?.of.length === of.length && before.of.every((one, i) => one === of[i])) return before.made;
    const made = make();
    this.known.set(key, { made, of });
    return made;
  }
}
