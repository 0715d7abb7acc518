/** LB-IPAM with many services and pools, against rules that say plainly what it may do. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { type Allocation, allocate } from '../../datapath/api/controllers/load-balancers.ts';
import { type Json, type KubeObject, placeOf } from '../../datapath/api/object.ts';
import { formatAddress } from '../../datapath/control/address.ts';
import { slowAddresses, slowConflicts, slowMayShare, slowNumber, slowSelects } from '../model/slow-lbipam.ts';

const BASE = slowNumber('10.0.0.0');
const text = (offset: number) => formatAddress((BASE + offset) | 0);
const created = (n: number) => new Date(Date.UTC(2026, 0, 1) + n * 1000).toISOString();

const team = fc.constantFrom('red', 'blue');

const block = fc.oneof(
  fc.record({ start: fc.nat(2000), size: fc.integer({ min: 1, max: 200 }) }).map(({ start, size }) => ({
    start: text(start),
    stop: text(start + size - 1),
  })),
  fc.record({ at: fc.nat(2000), length: fc.integer({ min: 24, max: 32 }) }).map(({ at, length }) => ({
    cidr: `${text(at)}/${length}`,
  })),
);

const pool = fc.record({
  blocks: fc.array(block, { minLength: 1, maxLength: 2 }),
  team: fc.option(team, { nil: undefined }),
  disabled: fc.oneof({ arbitrary: fc.constant(false), weight: 5 }, fc.constant(true)),
  allowFirstLastIPs: fc.constantFrom('Yes', 'No', undefined),
});

const service = fc.record({
  team,
  namespace: fc.constantFrom('one', 'two'),
  ports: fc.uniqueArray(fc.integer({ min: 80, max: 90 }), { minLength: 1, maxLength: 3 }),
  key: fc.option(fc.constantFrom('k1', 'k2', 'k3'), { nil: undefined, freq: 3 }),
  asks: fc.option(fc.nat(2200), { nil: undefined, freq: 4 }),
  by: fc.constantFrom('annotation', 'field'),
});

function poolObject(spec: Json, n: number): KubeObject {
  const { blocks, team: label, disabled, allowFirstLastIPs } = spec;
  return {
    apiVersion: 'cilium.io/v2',
    kind: 'CiliumLoadBalancerIPPool',
    metadata: { name: `pool${n}`, creationTimestamp: created(n) },
    spec: {
      blocks,
      disabled,
      ...(allowFirstLastIPs === undefined ? {} : { allowFirstLastIPs }),
      ...(label === undefined ? {} : { serviceSelector: { matchLabels: { team: label } } }),
    },
  };
}

function serviceObject({ team: label, namespace, ports, key, asks, by }: Json, n: number): KubeObject {
  const annotations: Record<string, string> = {};
  if (key !== undefined) annotations['lbipam.cilium.io/sharing-key'] = key;
  if (asks !== undefined && by === 'annotation') annotations['lbipam.cilium.io/ips'] = text(asks);
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: `s${n}`, namespace, labels: { team: label }, annotations, creationTimestamp: created(n) },
    spec: {
      type: 'LoadBalancer',
      ports: ports.map((port: number) => ({ protocol: 'TCP', port })),
      ...(asks !== undefined && by === 'field' ? { loadBalancerIP: text(asks) } : {}),
    },
  };
}

/** Services with what they have been given, as their status says it. */
function withStatus(services: readonly KubeObject[], { addresses }: Allocation): KubeObject[] {
  return services.map(one => {
    const given = addresses.get(placeOf(one)) ?? [];
    return { ...one, status: given.length === 0 ? {} : { loadBalancer: { ingress: given.map(ip => ({ ip })) } } };
  });
}

function check(pools: readonly KubeObject[], services: readonly KubeObject[], given: Allocation): void {
  const wrong = slowConflicts(pools);
  assert.deepEqual(
    new Set(given.pools.filter(({ conflict }) => conflict !== undefined).map(({ object }) => object.metadata.name)),
    wrong,
  );
  const usable = pools.filter(one => !wrong.has(one.metadata.name) && one.spec.disabled !== true);
  const addressesOf = new Map(pools.map(one => [one, new Set(slowAddresses(one))]));
  const owners = new Map<number, KubeObject[]>();
  for (const one of services) {
    const list = given.addresses.get(placeOf(one)) ?? [];
    const asks = one.metadata.annotations?.['lbipam.cilium.io/ips'] ?? one.spec.loadBalancerIP;
    assert.ok(list.length <= 1);
    assert.equal(given.faults.has(placeOf(one)), list.length === 0, 'who has none is told why');
    for (const ip of list) {
      if (asks !== undefined) assert.equal(ip, asks);
      const number = slowNumber(ip);
      assert.ok(
        usable.some(candidate => addressesOf.get(candidate)!.has(number) && slowSelects(candidate, one)),
        'of a pool that is for it',
      );
      owners.set(number, [...(owners.get(number) ?? []), one]);
    }
  }
  for (const list of owners.values()) {
    list.forEach((a, i) => {
      for (const b of list.slice(i + 1)) assert.ok(slowMayShare(a, b), `${placeOf(a)} and ${placeOf(b)}`);
    });
  }
  // Nobody goes without where something is left that nobody has.
  for (const one of services) {
    if (given.addresses.has(placeOf(one))) continue;
    const asks = one.metadata.annotations?.['lbipam.cilium.io/ips'] ?? one.spec.loadBalancerIP;
    const left = usable
      .filter(candidate => slowSelects(candidate, one))
      .flatMap(candidate => [...addressesOf.get(candidate)!])
      .find(number => !owners.has(number) && (asks === undefined || number === slowNumber(asks)));
    assert.equal(left, undefined, `${placeOf(one)} could have had ${left}`);
  }
  for (const { object, total, used, available } of given.pools) {
    const all = addressesOf.get(object)!;
    const taken = [...owners.keys()].filter(number => all.has(number)).length;
    if (!wrong.has(object.metadata.name)) assert.deepEqual([used, available], [taken, total - taken]);
  }
}

describe('LB-IPAM', function () {
  this.timeout(120_000);

  it('ten pools and up to a thousand services: nothing twice, nothing for nobody, and the same after a restart', () => {
    fc.assert(
      fc.property(
        fc.array(pool, { minLength: 1, maxLength: 10 }),
        fc.array(service, { minLength: 1, maxLength: 1000, size: 'max' }),
        fc.array(fc.nat(999), { maxLength: 20 }),
        (poolSpecs, serviceSpecs, gone) => {
          const pools = poolSpecs.map(poolObject);
          let services = serviceSpecs.map(serviceObject);
          const first = allocate(pools, services);
          check(pools, services, first);
          services = withStatus(services, first);
          // Started again, also with its objects in another order: who has an address has it still.
          const again = allocate(pools, [...services].reverse());
          assert.deepEqual(new Map([...again.addresses].sort()), new Map([...first.addresses].sort()));
          // Some go, and others get what they had; who had something keeps it.
          const left = services.filter((_, i) => !gone.includes(i));
          const later = allocate(pools, left);
          check(pools, left, later);
          for (const one of left) {
            const had = first.addresses.get(placeOf(one));
            if (had !== undefined) assert.deepEqual(later.addresses.get(placeOf(one)), had, placeOf(one));
          }
        },
      ),
      { numRuns: 15 },
    );
  });
});
