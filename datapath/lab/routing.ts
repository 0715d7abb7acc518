/** What the routers of a lab know of its networks: the shortest path to each, over subnets and links. Pure. */
import { formatCidr, parseCidr } from '../control/address.ts';
import { addressOf, type LabRouter, type Topology } from './topology.ts';

const DEFAULT = '0.0.0.0/0';

interface Neighbor {
  router: LabRouter;
  /** Its address on what the two share. */
  via: string;
}

/**
 * Routes of a router, as `ip route` takes them, without those to what it is on itself. A router without an exit sends what
 * it does not know to the nearest one that has one.
 */
export function routesOf(topology: Topology, router: LabRouter): { to: string; via: string }[] {
  const routes = new Map(router.routes.map(({ to, via }) => [to, via]));
  const own = new Set(networksOf(topology, router));
  let hasExit = router.exit !== undefined || routes.has(DEFAULT);
  const seen = new Set([router]);
  let frontier: Neighbor[] = [{ router, via: '' }];
  while (frontier.length > 0) {
    const next: Neighbor[] = [];
    for (const { router: at, via } of frontier) {
      for (const neighbor of neighborsOf(topology, at)) {
        if (seen.has(neighbor.router)) continue;
        seen.add(neighbor.router);
        // Through the first router on the path.
        const first = via === '' ? neighbor.via : via;
        next.push({ router: neighbor.router, via: first });
        for (const to of networksOf(topology, neighbor.router)) {
          if (!own.has(to) && !routes.has(to)) routes.set(to, first);
        }
        if (!hasExit && neighbor.router.exit !== undefined) {
          routes.set(DEFAULT, first);
          hasExit = true;
        }
      }
    }
    frontier = next;
  }
  return Array.from(routes, ([to, via]) => ({ to, via }));
}

function networksOf({ subnets, links }: Topology, { name, legs, loops }: LabRouter): string[] {
  return [
    ...legs.map(leg => subnets.find(subnet => subnet.name === leg.subnet)!.cidr),
    ...loops.map(({ address }) => networkOf(address)),
    ...links.flatMap(({ ends }) =>
      ends.filter(({ router }) => router === name).map(({ address }) => networkOf(address)),
    ),
  ];
}

function neighborsOf({ routers, links }: Topology, router: LabRouter): Neighbor[] {
  const overSubnets = routers.flatMap(other =>
    other.legs
      .filter(({ subnet }) => router.legs.some(leg => leg.subnet === subnet))
      .map(({ address }) => ({ router: other, via: addressOf(address) })),
  );
  const overLinks = links.flatMap(({ ends: [a, b] }) =>
    [
      [a, b],
      [b, a],
    ].flatMap(([near, far]) =>
      near!.router === router.name
        ? [{ router: routers.find(({ name }) => name === far!.router)!, via: addressOf(far!.address) }]
        : [],
    ),
  );
  return [...overSubnets, ...overLinks].filter(neighbor => neighbor.router !== router);
}

/** `10.10.1.200/24` -> `10.10.1.0/24` */
function networkOf(address: string): string {
  const { prefix, length } = parseCidr(address)!;
  return formatCidr(prefix, length);
}
