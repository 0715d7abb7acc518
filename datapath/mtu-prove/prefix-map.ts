/** Longest prefix match as it is defined: one map for each length. For planning; the loop has lpm.ts. */
import { prefixMask } from '../control/address.ts';

export class PrefixMap<T> {
  /** By length, those without an entry left out, the longest first. */
  private readonly maps: { length: number; mask: number; values: Map<number, T> }[] = [];

  /** A later entry replaces an earlier one to the same prefix. */
  set(prefix: number, length: number, value: T): void {
    let map = this.maps.find(candidate => candidate.length === length);
    if (map === undefined) {
      map = { length, mask: prefixMask(length), values: new Map() };
      this.maps.push(map);
      this.maps.sort((a, b) => b.length - a.length);
    }
    map.values.set(prefix & map.mask, value);
  }

  lookup(address: number): T | undefined {
    for (const { mask, values } of this.maps) {
      const value = values.get(address & mask);
      if (value !== undefined) return value;
    }
    return undefined;
  }
}
