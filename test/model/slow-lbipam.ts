/**
 * Who may have which address of load balancers, said as plainly as possible: rules that an allocation keeps, each looked at for
 * every pair. No order of services, no search.
 */
import type { Json, KubeObject } from '../../datapath/api/object.ts';

/** Numbers of all addresses of a pool, one by one. */
export function slowAddresses({ spec }: KubeObject): number[] {
  return (spec.blocks ?? []).flatMap(({ cidr, start, stop }: Json) => {
    if (cidr !== undefined) {
      const [address, length] = cidr.split('/');
      const size = 2 ** (32 - Number(length));
      const first = Math.floor(slowNumber(address) / size) * size;
      const all = Array.from({ length: size }, (_, i) => first + i);
      return spec.allowFirstLastIPs === 'No' && size > 2 ? all.slice(1, -1) : all;
    }
    return Array.from({ length: slowNumber(stop) - slowNumber(start) + 1 }, (_, i) => slowNumber(start) + i);
  });
}

export function slowNumber(address: string): number {
  return address.split('.').reduce((sum, part) => sum * 256 + Number(part), 0);
}

/** Those that have an address twice, or in common with one that came before them and is not wrong itself. */
export function slowConflicts(pools: readonly KubeObject[]): Set<string> {
  const right: KubeObject[] = [];
  const wrong = new Set<string>();
  for (const pool of pools) {
    const taken = new Set(right.flatMap(slowAddresses));
    const own = slowAddresses(pool);
    if (new Set(own).size < own.length || own.some(address => taken.has(address))) wrong.add(pool.metadata.name);
    else right.push(pool);
  }
  return wrong;
}

/** Whether a pool is for a service, by equal labels alone. */
export function slowSelects({ spec }: KubeObject, { metadata }: KubeObject): boolean {
  const wanted: Record<string, string> = spec.serviceSelector?.matchLabels ?? {};
  return Object.entries(wanted).every(([key, value]) => metadata.labels?.[key] === value);
}

/** Whether two services may have one address. */
export function slowMayShare(a: KubeObject, b: KubeObject): boolean {
  const [one, other] = [a, b].map(({ metadata }) => metadata.annotations?.['lbipam.cilium.io/sharing-key']);
  if (one === undefined || one !== other || a.metadata.namespace !== b.metadata.namespace) return false;
  return !a.spec.ports.some((x: Json) =>
    b.spec.ports.some((y: Json) => x.port === y.port && x.protocol === y.protocol),
  );
}
