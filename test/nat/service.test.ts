import assert from 'node:assert/strict';
import { type MasqueradeRule, MasqueradeRules, type Prefix } from '../../datapath/nat/masquerade.ts';
import { MAGLEV_SIZES, maglevTable, Selection } from '../../datapath/nat/select.ts';
import { FROM_NODE, FROM_OUTSIDE, FROM_POD, type Service, Services } from '../../datapath/nat/service.ts';
import type { Packet } from '../../datapath/packet/packet.ts';
import { parseIpv4 } from '../../datapath/packet/parse.ts';
import { Pool } from '../../datapath/packet/pool.ts';
import { Random } from '../../datapath/random.ts';
import { CONTINUE, DROP_CLUSTER_ADDRESS_FROM_OUTSIDE, VERDICT_NAMES } from '../../datapath/verdict.ts';
import { dotted, icmpEcho, ip, load, tcp4 } from '../fixtures/packets.ts';
import { endpoint, service } from './box.ts';

/** flannel's FLANNEL-POSTRTG chain (trafficmngr/iptables) for a cluster network and this node's pod network. */
function flannelRules(cluster: Prefix, pods: Prefix): MasqueradeRule[] {
  const multicast = { address: 0xe0000000 | 0, length: 4 };
  return [
    // kube-proxy's mark: it has seen to this packet. Without the mark match this rule would return everything.
    { mark: { value: 0x4000, mask: 0x4000 }, action: 'RETURN' },
    { from: [pods], to: [cluster], action: 'RETURN' },
    { from: [cluster], to: [pods], action: 'RETURN' },
    { notFrom: [cluster], to: [pods], action: 'RETURN' },
    { from: [cluster], notTo: [multicast], action: 'MASQUERADE', randomFully: true },
    { notFrom: [cluster], to: [cluster], action: 'MASQUERADE', randomFully: true },
  ];
}

const pool = new Pool(2);
const VIP = '10.96.0.10';
const POD = '10.244.1.10';
const STRANGER = '203.0.113.9';

function packet(src: string, dst: string, dport = 80, sport = 40000): Packet {
  const p = load(pool, tcp4({ src, dst, sport, dport }));
  parseIpv4(pool.view, p);
  pool.release(p);
  return p;
}

/** What select says: the backend as text, or the verdict's name. */
function ask(services: Services, src: string, dst: string, dport = 80, external = 0, now = 0, sport = 40000): string {
  const p = packet(src, dst, dport, sport);
  const verdict = services.select(p, external, now);
  if (verdict !== 0) return VERDICT_NAMES[verdict];
  return p.backend === 0 ? 'none' : `${dotted(p.backendAddress)}:${p.backendPort}`;
}

function make(...list: Service[]): Services {
  const services = new Services(new Random(3));
  for (const s of list) services.set(s);
  return services;
}

function distribution(services: Services, n: number, src = (i: number) => dotted(ip('10.1.0.0') + i)): number[] {
  const counts = new Map<string, number>();
  for (let i = 0; i < n; i++) {
    const backend = ask(services, src(i), VIP);
    counts.set(backend, (counts.get(backend) ?? 0) + 1);
  }
  return [...counts].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, count]) => count);
}

const THREE = ['10.244.2.1:8080', '10.244.2.2:8080', '10.244.2.3:8080'];

describe('Services', () => {
  it('knows its frontends, and what is none', () => {
    const services = make(service());
    assert.equal(ask(services, POD, VIP), '10.244.2.20:8080');
    assert.equal(ask(services, POD, VIP, 81), 'drop-unknown-service-port');
    assert.equal(ask(services, POD, '10.96.0.11'), 'none');
    services.remove('default/web');
    assert.equal(ask(services, POD, VIP), 'none');
    assert.equal(ask(services, POD, VIP, 81), 'none');
    assert.equal(services.remove('default/web'), false);
  });

  it('rejects unknown ports of cluster addresses alone: others may be a machine’s', () => {
    const services = make(
      service({ externalAddresses: [ip('192.168.10.2')], loadBalancerAddresses: [ip('192.168.10.211')] }),
    );
    assert.equal(ask(services, POD, VIP, 81), 'drop-unknown-service-port');
    for (const address of ['192.168.10.2', '192.168.10.211']) {
      assert.equal(ask(services, POD, address), '10.244.2.20:8080');
      assert.equal(ask(services, POD, address, 22), 'none');
    }
    services.set(service({ clusterAddresses: [], externalAddresses: [ip(VIP)] }));
    assert.equal(ask(services, POD, VIP, 81), 'none', 'it is no cluster address any more');
  });

  it('refuses what is for the service network and no service, as kube-proxy drops and rejects it', () => {
    const services = make(service());
    services.setNetworks([{ address: ip('10.96.0.0'), length: 12 }]);
    assert.equal(ask(services, POD, '10.96.0.11'), 'drop-unallocated-service-address');
    assert.equal(ask(services, POD, '10.111.255.255'), 'drop-unallocated-service-address');
    assert.equal(ask(services, POD, '10.112.0.0'), 'none');
    assert.equal(ask(services, POD, VIP), '10.244.2.20:8080');
    const ping = (dst: string) => {
      const p = load(pool, icmpEcho({ src: POD, dst }));
      parseIpv4(pool.view, p);
      pool.release(p);
      return VERDICT_NAMES[services.select(p, 0, 0)];
    };
    assert.equal(ping('10.96.0.11'), 'drop-unallocated-service-address');
    assert.equal(ping(VIP), 'drop-unknown-service-port');
    services.setNetworks([]);
    assert.equal(ping(VIP), 'continue');
    assert.equal(ask(services, POD, '10.96.0.11'), 'none');
  });

  it('prefers near endpoints while one of them is ready', () => {
    const near = (text: string) => ({ ...endpoint(text), near: true });
    const of = (...endpoints: ReturnType<typeof endpoint>[]) => {
      const services = make(service({ ports: [{ protocol: 6, port: 80, endpoints }] }));
      return [...new Set(Array.from({ length: 60 }, () => ask(services, POD, VIP)))].sort();
    };
    assert.deepEqual(of(endpoint('10.0.0.1:1'), near('10.0.0.2:1'), near('10.0.0.3:1')), ['10.0.0.2:1', '10.0.0.3:1']);
    assert.deepEqual(of(endpoint('10.0.0.1:1'), near('10.0.0.2:1!')), ['10.0.0.1:1']);
    assert.deepEqual(of(endpoint('10.0.0.1:1'), endpoint('10.0.0.2:1')), ['10.0.0.1:1', '10.0.0.2:1']);
  });

  it('answers node ports at node addresses, and leaves the node its other ports', () => {
    const services = make(
      service({ ports: [{ protocol: 6, port: 80, nodePort: 30080, endpoints: [endpoint('10.244.2.1:8080')] }] }),
    );
    services.setNodeAddresses([ip('192.168.10.1')]);
    assert.equal(ask(services, STRANGER, '192.168.10.1', 30080, 1), '10.244.2.1:8080');
    assert.equal(ask(services, STRANGER, '192.168.10.1', 22, 1), 'none');
    assert.equal(ask(services, STRANGER, '192.168.10.2', 30080, 1), 'none');
    services.setNodeAddresses([ip('192.168.10.2')]);
    assert.equal(ask(services, STRANGER, '192.168.10.1', 30080, 1), 'none');
    assert.equal(ask(services, STRANGER, '192.168.10.2', 30080, 1), '10.244.2.1:8080');
  });

  it('chooses the ready, else those that serve while they terminate, else rejects', () => {
    const rows: [string[], string][] = [
      [['10.0.0.1:1', '10.0.0.2:1~', '10.0.0.3:1!'], '10.0.0.1:1'],
      [['10.0.0.2:1~', '10.0.0.3:1!'], '10.0.0.2:1'],
      [['10.0.0.3:1!~'], 'drop-no-service-endpoint'],
      [[], 'drop-no-service-endpoint'],
    ];
    for (const [endpoints, wanted] of rows) {
      const services = make(service({}, endpoints));
      for (let i = 0; i < 5; i++) assert.equal(ask(services, POD, VIP), wanted);
    }
  });

  it('keeps to this node where the policy says so, and says why it drops', () => {
    const lb = { loadBalancerAddresses: [ip('192.168.10.211')] };
    const mixed = ['10.0.0.1:1', '10.0.0.2:1@'];
    const internal = make(service({ internalTrafficPolicy: 'Local' }, mixed));
    for (let i = 0; i < 10; i++) assert.equal(ask(internal, POD, VIP), '10.0.0.2:1');
    const external = make(service({ ...lb, externalTrafficPolicy: 'Local' }, mixed));
    for (let i = 0; i < 10; i++) {
      const p = packet(STRANGER, '192.168.10.211');
      assert.equal(external.select(p, 1, 0), 0);
      assert.equal(dotted(p.backendAddress), '10.0.0.2');
      assert.equal(p.masquerade, 0, 'the client address is kept');
    }
    const seen = new Set(Array.from({ length: 40 }, () => ask(external, POD, '192.168.10.211')));
    assert.equal(seen.size, 2, 'from inside the whole cluster answers');
    const remote = make(service({ ...lb, externalTrafficPolicy: 'Local' }, ['10.0.0.1:1']));
    assert.equal(ask(remote, STRANGER, '192.168.10.211', 80, 1), 'drop-no-local-service-endpoint');
    // Local and Cluster are decided separately: local ones only terminate, remote ones are ready.
    const leaving = make(service({ ...lb, externalTrafficPolicy: 'Local' }, ['10.0.0.1:1', '10.0.0.2:1~@']));
    assert.equal(ask(leaving, STRANGER, '192.168.10.211', 80, 1), '10.0.0.2:1');
  });

  it('masquerades as kube-proxy or as Cilium does: who asks, where, and under which policy', () => {
    const LB = '192.168.10.211';
    const POD2 = '10.244.1.99';
    /** By policy: Cluster, Local. */
    type Wanted = [number, number];
    const rows: [src: string, client: number, dst: string, kubeProxy: Wanted, cilium: Wanted][] = [
      [STRANGER, FROM_OUTSIDE, VIP, [1, 1], [1, 1]],
      [STRANGER, FROM_OUTSIDE, LB, [1, 0], [1, 0]],
      [POD2, FROM_POD, VIP, [0, 0], [0, 0]],
      [POD2, FROM_POD, LB, [1, 0], [0, 0]],
      [POD, FROM_POD, VIP, [1, 1], [1, 1]], // to itself
      ['10.244.1.1', FROM_NODE, VIP, [1, 1], [1, 1]],
      ['10.244.1.1', FROM_NODE, LB, [1, 1], [1, 1]],
    ];
    for (const [i, externalTrafficPolicy] of (['Cluster', 'Local'] as const).entries()) {
      for (const [src, client, dst, kubeProxy, cilium] of rows) {
        for (const [masqueradePods, wanted] of [
          [true, kubeProxy[i]],
          [false, cilium[i]],
        ] as const) {
          const services = new Services(new Random(3), masqueradePods);
          services.set(service({ loadBalancerAddresses: [ip(LB)], externalTrafficPolicy }, [`${POD}:1@`]));
          const p = packet(src, dst);
          assert.equal(services.select(p, client, 0), CONTINUE);
          assert.equal(p.masquerade, wanted, `${src} to ${dst}, ${externalTrafficPolicy}, ${masqueradePods}`);
        }
      }
    }
  });

  it('refuses a cluster address from outside where the profile does, and no other address', () => {
    const LB = '192.168.10.211';
    const rows: [src: string, client: number, dst: string, verdict: number][] = [
      [STRANGER, FROM_OUTSIDE, VIP, DROP_CLUSTER_ADDRESS_FROM_OUTSIDE],
      [STRANGER, FROM_OUTSIDE, LB, CONTINUE],
      [POD, FROM_POD, VIP, CONTINUE],
      ['10.244.1.1', FROM_NODE, VIP, CONTINUE],
    ];
    for (const servesOutside of [false, true]) {
      const services = make(service({ loadBalancerAddresses: [ip(LB)] }, [`${POD}:1@`]));
      services.servesOutside = servesOutside;
      for (const [src, client, dst, verdict] of rows) {
        const wanted = servesOutside ? CONTINUE : verdict;
        assert.equal(services.select(packet(src, dst), client, 0), wanted, `${src} to ${dst}, ${servesOutside}`);
      }
    }
  });

  it('judges source ranges before anything else, for load balancer addresses only', () => {
    const services = make(
      service(
        {
          loadBalancerAddresses: [ip('192.168.10.211')],
          externalAddresses: [ip('192.168.10.99')],
          sourceRanges: [{ address: ip('198.51.100.0'), length: 24 }],
        },
        [],
      ),
    );
    assert.equal(ask(services, STRANGER, '192.168.10.211', 80, 1), 'drop-service-source-range');
    assert.equal(ask(services, '198.51.100.7', '192.168.10.211', 80, 1), 'drop-no-service-endpoint');
    assert.equal(ask(services, STRANGER, '192.168.10.99', 80, 1), 'drop-no-service-endpoint');
  });

  it('replaces one service and no other', () => {
    const services = make(service(), service({ name: 'b', clusterAddresses: [ip('10.96.0.11')] }, ['10.244.9.9:1']));
    services.set(
      service({
        clusterAddresses: [ip('10.96.0.12')],
        ports: [{ protocol: 6, port: 8, endpoints: [endpoint('10.0.0.1:1')] }],
      }),
    );
    assert.equal(ask(services, POD, VIP), 'none');
    assert.equal(ask(services, POD, '10.96.0.12', 8), '10.0.0.1:1');
    assert.equal(ask(services, POD, '10.96.0.11'), '10.244.9.9:1');
    assert.equal(services.isBackend(ip('10.244.2.20'), 8080, 6), false);
    assert.equal(services.isBackend(ip('10.0.0.1'), 1, 6), true);
  });

  it('gives an address and port that two services claim to the first', () => {
    const services = make(service(), service({ name: 'b' }, ['10.9.9.9:1']));
    assert.equal(ask(services, POD, VIP), '10.244.2.20:8080');
    services.remove('b');
    assert.equal(ask(services, POD, VIP), '10.244.2.20:8080');
  });

  describe('with session affinity', () => {
    const sticky = (change: Partial<Service> = {}, endpoints = THREE) =>
      service({ affinitySeconds: 100, ...change }, endpoints);

    it('leads a client to the same backend until it has been away too long', () => {
      const services = make(sticky());
      const first = ask(services, POD, VIP, 80, 0, 0);
      for (let now = 0; now < 900_000; now += 90_000)
        assert.equal(ask(services, POD, VIP, 80, 0, now, now & 0xffff), first);
      const later = new Set(
        Array.from({ length: 20 }, (_, i) => ask(services, POD, VIP, 80, 0, 2_000_000 + i * 200_000)),
      );
      assert.ok(later.size > 1);
      const clients = new Set(Array.from({ length: 30 }, (_, i) => ask(services, `10.1.1.${i}`, VIP)));
      assert.equal(clients.size, 3);
    });

    it('forgets a backend that is no longer to be chosen', () => {
      const services = make(sticky());
      const first = ask(services, POD, VIP);
      services.set(
        sticky(
          {},
          THREE.map(e => (e === first ? `${e}~` : e)),
        ),
      );
      assert.notEqual(ask(services, POD, VIP), first);
    });

    it('forgets clients that stay away, a few at a time', () => {
      const services = make(sticky());
      for (let i = 0; i < 100; i++) ask(services, `10.1.1.${i}`, VIP);
      const size = () => (services as unknown as { affinity: { size: number } }).affinity.size;
      assert.equal(size(), 100);
      for (let i = 0; i < 600; i++) services.tick(99_000);
      assert.equal(size(), 100);
      for (let i = 0; i < 600; i++) services.tick(101_000);
      assert.equal(size(), 0);
    });

    it('lets maglev look at the client only', () => {
      const services = make(sticky({ selector: 'maglev', maglevSize: 251 }));
      const first = ask(services, POD, VIP, 80, 0, 0, 1);
      for (let i = 0; i < 20; i++) assert.equal(ask(services, POD, VIP, 80, 0, 200_000 * i, 2000 + i), first);
    });
  });

  it('chooses evenly at random: chi squared under 5.99 for 3 backends (p = 0.05)', () => {
    const counts = distribution(make(service({}, THREE)), 3000);
    const chi2 = counts.reduce((sum, c) => sum + (c - 1000) ** 2 / 1000, 0);
    assert.ok(chi2 < 5.99, `${counts} gives ${chi2}`);
  });

  it('goes round robin exactly', () => {
    assert.deepEqual(distribution(make(service({ selector: 'round-robin' }, THREE)), 300), [100, 100, 100]);
  });

  it('follows weights', () => {
    const ports = [
      { protocol: 6, port: 80, endpoints: [1, 2, 5, 0].map((weight, i) => ({ ...endpoint(`10.0.0.${i}:1`), weight })) },
    ];
    const counts = distribution(make(service({ selector: 'weighted', ports })), 8000);
    assert.equal(counts.length, 3, 'weight 0 gets nothing');
    [1000, 2000, 5000].forEach((wanted, i) => {
      assert.ok(Math.abs(counts[i] - wanted) < 200, `${counts}`);
    });
  });

  it('holds 10,000 services with 100,000 endpoints, and changes one in far less than 50 ms', () => {
    const many = (i: number, shift = 0): Service =>
      service(
        { name: `s${i}`, clusterAddresses: [ip('10.96.0.0') + i] },
        Array.from({ length: 10 }, (_, k) => `${dotted(ip('10.128.0.0') + i * 10 + k + shift)}:8080`),
      );
    const services = new Services(new Random(3));
    for (let i = 0; i < 10_000; i++) services.set(many(i));
    assert.match(ask(services, POD, dotted(ip('10.96.0.0') + 9999)), /^10\.12.*:8080$/);
    const times: number[] = [];
    for (let i = 0; i < 50; i++) {
      const start = performance.now();
      services.set(many(i * 100, 5));
      times.push(performance.now() - start);
    }
    times.sort((a, b) => a - b);
    assert.ok(times[25] < 5, `median ${times[25]} ms`);
  }).timeout(30_000);
});

describe('Maglev', () => {
  const candidates = (n: number, without = -1) =>
    Array.from({ length: n }, (_, i) => ({ backend: i + 1, address: ip('10.0.0.0') + i, port: 80, weight: 1 })).filter(
      (_, i) => i !== without,
    );

  it('fills every place, as evenly as the paper says', () => {
    const table = maglevTable(candidates(10), 16381, 7);
    const counts = new Array(10).fill(0);
    for (const i of table) counts[i]++;
    assert.equal(table.length, 16381);
    assert.ok(Math.max(...counts) - Math.min(...counts) <= 1, `${counts}`);
  });

  it('has prime sizes', () => {
    for (const size of MAGLEV_SIZES) for (let d = 2; d * d <= size; d++) assert.notEqual(size % d, 0);
  });

  it('is even to 1 % with M > 100 N', () => {
    const counts = new Array(100).fill(0);
    for (const i of maglevTable(candidates(100), 16381, 7)) counts[i]++;
    assert.ok((Math.max(...counts) - Math.min(...counts)) / (16381 / 100) <= 0.01, `${counts}`);
  });

  for (const [size, n, bound] of [
    [16381, 10, 0.01],
    [16381, 100, 0.015],
    [65521, 100, 0.007],
  ]) {
    it(`moves at most ${bound * 100} % of the flows of the others when one of ${n} backends goes (M ${size})`, () => {
      const before = maglevTable(candidates(n), size, 7);
      for (const gone of [0, n / 2, n - 1]) {
        const list = candidates(n, gone);
        const after = maglevTable(list, size, 7);
        let moved = 0;
        let kept = 0;
        for (let i = 0; i < size; i++) {
          if (before[i] === gone) continue;
          if (list[after[i]].backend === before[i] + 1) kept++;
          else moved++;
        }
        assert.ok(moved / (moved + kept) <= bound, `${moved} of ${moved + kept}`);
      }
    });
  }

  it('does not depend on the order in which backends are learnt', () => {
    const list = candidates(20);
    const shuffled = [...list].reverse();
    const a = maglevTable(list, 1021, 7);
    const b = maglevTable(shuffled, 1021, 7);
    for (let i = 0; i < 1021; i++) assert.equal(list[a[i]].backend, shuffled[b[i]].backend);
  });

  it('follows weights, and ignores them when all are 0', () => {
    const list = [1, 3, 0].map((weight, i) => ({ backend: i + 1, address: i, port: 1, weight }));
    const counts = [0, 0, 0];
    for (const i of maglevTable(list, 4093, 7)) counts[i]++;
    assert.equal(counts[2], 0);
    assert.ok(Math.abs(counts[1] / counts[0] - 3) < 0.05, `${counts}`);
    const even = [0, 0];
    for (const i of maglevTable(
      list.slice(0, 2).map(c => ({ ...c, weight: 0 })),
      4093,
      7,
    ))
      even[i]++;
    assert.ok(Math.abs(even[0] - even[1]) <= 1);
  });

  it('has one backend for everything, or none', () => {
    assert.equal(new Selection('maglev', candidates(1), 7, 251).pick(12345, new Random(1)), 1);
    assert.equal(new Selection('maglev', [], 7, 251).pick(12345, new Random(1)), 0);
    assert.equal(new Selection('weighted', [{ ...candidates(1)[0], weight: 0 }], 7).pick(0, new Random(1)), 0);
  });
});

describe('MasqueradeRules', () => {
  const prefix = (text: string) => {
    const [address, length] = text.split('/');
    return { address: ip(address), length: Number(length) };
  };

  it("is flannel's chain, rule by rule", () => {
    const rules = new MasqueradeRules(flannelRules(prefix('10.244.0.0/16'), prefix('10.244.1.0/24')));
    const rows: [string, string, number, number][] = [
      ['10.244.1.5', '8.8.8.8', 0x4000, -1], // kube-proxy has marked it
      ['10.244.1.5', '10.244.2.9', 0, -2],
      ['10.244.2.9', '10.244.1.5', 0, -3],
      ['192.168.1.1', '10.244.1.5', 0, -4],
      ['10.244.1.5', '8.8.8.8', 0, 5],
      ['10.244.1.5', '224.0.0.251', 0, 0],
      ['192.168.1.1', '10.244.2.9', 0, 6],
      ['192.168.1.1', '8.8.8.8', 0, 0],
    ];
    for (const [src, dst, mark, wanted] of rows) {
      const matched = rules.match(ip(src), ip(dst), 6, mark);
      rules.countHit(matched);
      assert.equal(matched, wanted, `${src} > ${dst}`);
    }
    assert.equal(rules.hits[5], 1);
    assert.equal(rules.hits[0], 2);
  });

  it('would masquerade nothing if the first rule lost its mark, as the article prints it', () => {
    const [first, ...rest] = flannelRules(prefix('10.244.0.0/16'), prefix('10.244.1.0/24'));
    const printed = new MasqueradeRules([{ action: first.action }, ...rest]);
    assert.equal(printed.match(ip('10.244.1.5'), ip('8.8.8.8'), 6, 0), -1);
  });

  it('takes any of several prefixes, none of the excepted, and the bits outside the mask for nothing', () => {
    const rules = new MasqueradeRules([
      {
        from: [prefix('10.1.2.3/8'), prefix('172.16.0.0/12')],
        notFrom: [prefix('10.9.0.0/16')],
        notTo: [prefix('10.0.0.0/8'), prefix('0.0.0.0/32')],
        protocol: 17,
        action: 'MASQUERADE',
        source: ip('192.0.2.1'),
        ports: [5000, 6000],
      },
      { mark: { value: 2, mask: 2 }, action: 'MASQUERADE', randomFully: true },
      { to: [prefix('0.0.0.0/0')], action: 'RETURN' },
    ]);
    const match = (src: string, dst: string, protocol = 17, mark = 0) => rules.match(ip(src), ip(dst), protocol, mark);
    const given = (n: number) => [rules.source(n), rules.keepsPort(n), rules.minPort(n), rules.maxPort(n)];
    assert.equal(match('10.200.0.1', '8.8.8.8'), 1);
    assert.deepEqual(given(1), [ip('192.0.2.1'), true, 5000, 6000]);
    assert.equal(match('172.31.255.255', '8.8.8.8'), 1);
    assert.equal(match('172.32.0.0', '8.8.8.8'), -3);
    assert.equal(match('10.9.1.1', '8.8.8.8'), -3);
    assert.equal(match('10.200.0.1', '10.1.1.1'), -3);
    assert.equal(match('10.200.0.1', '8.8.8.8', 6), -3);
    assert.equal(match('1.1.1.1', '8.8.8.8', 6, 0xff), 2);
    assert.deepEqual(given(2), [0, false, 0, 0]);
  });

  it('has nothing to say without rules', () => {
    assert.equal(new MasqueradeRules([]).match(1, 2, 6, 0), 0);
  });
});
