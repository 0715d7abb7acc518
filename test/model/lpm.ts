/** The obvious longest prefix match: all routes in a list, looked through from the front. */
import type { Route } from '../../datapath/route/lpm.ts';

export class SlowLpm {
  readonly routes: Route[] = [];

  insert(prefix: number, length: number, value: number): void {
    const old = this.find(prefix, length);
    if (old) old.value = value;
    else this.routes.push({ prefix, length, value });
  }

  delete(prefix: number, length: number): boolean {
    const old = this.find(prefix, length);
    if (old) this.routes.splice(this.routes.indexOf(old), 1);
    return old !== undefined;
  }

  get(prefix: number, length: number): number {
    return this.find(prefix, length)?.value ?? 0;
  }

  match(address: number): Route | null {
    let best: Route | null = null;
    for (const route of this.routes) {
      if (holds(route, address) && (best === null || route.length > best.length)) best = route;
    }
    return best;
  }

  lookup(address: number): number {
    return this.match(address)?.value ?? 0;
  }

  /** By address, then by length. */
  entries(): Route[] {
    return [...this.routes].sort((a, b) => (a.prefix >>> 0) - (b.prefix >>> 0) || a.length - b.length);
  }

  private find(prefix: number, length: number): Route | undefined {
    return this.routes.find(route => route.prefix === prefix && route.length === length);
  }
}

/** Whether an address agrees with a route in its first `length` bits. */
function holds(route: Route, address: number): boolean {
  return route.length === 0 || (address ^ route.prefix) >>> (32 - route.length) === 0;
}
