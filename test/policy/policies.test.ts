/** Compiled policies against the API's words, on random clusters; and what a policy means, case by case. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { parseAddress } from '../../datapath/control/address.ts';
import { formatProblems, loadConfig } from '../../datapath/control/load-config.ts';
import { DENIED, Policies } from '../../datapath/policy/policies.ts';
import { compilePolicy } from '../../datapath/program/compile-policy.ts';
import { Random } from '../../datapath/random.ts';
import { type Cluster, isAllowed, type ModelPod, type NetworkPolicy } from '../model/policy.ts';
import { named, namespaces, PORTS, pod, policy as policyOf } from './random-cluster.ts';

const PROTOCOLS: Record<string, number> = { TCP: 6, UDP: 17, SCTP: 132, ICMP: 1 };
/** Pods, the node, and strangers. */
const ADDRESSES = [
  '10.0.0.1',
  '10.0.0.2',
  '10.0.0.3',
  '10.0.1.1',
  '10.0.1.2',
  '10.0.2.1',
  '10.0.0.254',
  '192.0.2.7',
  '255.255.255.255',
];
const OWN = ['10.0.0.254'];

/** As a configuration is read, so that defaults are filled in. */
function policiesOf(cluster: Cluster, localCount = cluster.pods.length): Policies {
  const pods = cluster.pods.map(({ namespace, address, labels, ports }, i) => ({
    name: `${namespace}/p${i}`,
    address,
    labels,
    ports,
  }));
  const { config, problems } = loadConfig(
    JSON.stringify({
      apiVersion: 'tunpath.dev/v1',
      kind: 'NodeConfig',
      metadata: { name: 'a' },
      spec: {
        uplink: { kind: 'tap', device: 'ul0', mac: '02:00:00:00:00:01', address: '192.168.10.1/24' },
        pods: pods.slice(0, localCount).map((pod, i) => ({ ...pod, netns: `n${i}`, device: 'eth0' })),
        remotePods: pods.slice(localCount),
        namespaces: Object.entries(cluster.namespaces).map(([name, labels]) => ({ name, labels })),
        policies: cluster.policies,
      },
    }),
    'test',
  );
  assert.ok(config !== undefined, formatProblems(problems ?? []));
  const { spec } = config;
  const program = compilePolicy({ ...spec, own: cluster.own.map(address => parseAddress(address)!) });
  assert.ok(program !== null);
  return new Policies(program, new Random(1), 1);
}

const policy = policyOf([
  { cidr: '0.0.0.0/0' },
  { cidr: '0.0.0.0/0', except: ['10.0.0.0/24', '192.0.2.0/24'] },
  { cidr: '10.0.0.0/16', except: ['10.0.0.2/32', '10.0.1.0/24'] },
  { cidr: '10.0.1.0/24', except: ['10.0.1.0/31', '10.0.1.1/32'] },
  { cidr: '128.0.0.0/1' },
  { cidr: '255.255.255.255/32' },
]);

const cluster: fc.Arbitrary<Cluster> = fc
  .record({
    policies: fc.array(policy, { minLength: 1, maxLength: 4 }),
    namespaces,
    pods: fc.array(pod, { minLength: 1, maxLength: 6 }),
  })
  .map(({ policies, namespaces, pods }) => ({
    policies: named(policies),
    namespaces,
    pods: pods.map((one, i): ModelPod => ({ ...one, address: ADDRESSES[i] })),
    own: OWN,
  }));

type Allows = (direction: 'egress' | 'ingress', src: string, dst: string, protocol: string, port: number) => boolean;

/** Everything between everybody, in both directions: what is allowed, as text. */
function table(allows: Allows): string[] {
  const rows: string[] = [];
  for (const src of ADDRESSES) {
    for (const dst of ADDRESSES) {
      for (const name of Object.keys(PROTOCOLS)) {
        for (const number of name === 'ICMP' ? [8] : PORTS) {
          for (const direction of ['egress', 'ingress'] as const) {
            if (allows(direction, src, dst, name, number)) rows.push(`${direction} ${src} ${dst} ${name} ${number}`);
          }
        }
      }
    }
  }
  return rows;
}

describe('policy', () => {
  it('compiled tables say what the objects say, for every pair, protocol and port of random clusters', function () {
    this.timeout(120_000);
    fc.assert(
      fc.property(cluster, one => {
        const policies = policiesOf(one);
        const compiled = table((direction, src, dst, name, number) => {
          const from = parseAddress(src)!;
          const to = parseAddress(dst)!;
          const judged =
            direction === 'egress'
              ? policies.judgeEgress(from, to, PROTOCOLS[name], number)
              : policies.judgeIngress(from, to, PROTOCOLS[name], number);
          return judged !== DENIED;
        });
        const wanted = table((direction, src, dst, name, number) =>
          isAllowed(one, direction, { src, dst, protocol: name, port: number }),
        );
        assert.deepEqual(compiled, wanted);
      }),
      { numRuns: 100 },
    );
  });

  it('a named port behind an address block is that of the pod which has the address', () => {
    const http = [{ name: 'http', containerPort: 80, protocol: 'TCP' }];
    const policies = policiesOf({
      policies: [
        {
          name: 'named',
          namespace: 'x',
          podSelector: {},
          policyTypes: ['Egress'],
          egress: [{ to: [{ ipBlock: { cidr: '10.0.0.0/24' } }], ports: [{ port: 'http' }] }],
        },
      ],
      namespaces: {},
      pods: [
        { namespace: 'x', address: '10.0.0.1', labels: {}, ports: [] },
        { namespace: 'y', address: '10.0.0.2', labels: {}, ports: http },
        { namespace: 'y', address: '10.0.1.2', labels: {}, ports: http },
      ],
      own: OWN,
    });
    const judge = (dst: string, port: number) =>
      policies.judgeEgress(parseAddress('10.0.0.1')!, parseAddress(dst)!, PROTOCOLS.TCP, port) !== DENIED;
    assert.deepEqual(
      [judge('10.0.0.2', 80), judge('10.0.0.2', 81), judge('10.0.0.3', 80), judge('10.0.1.2', 80)],
      [true, false, false, false],
    );
  });

  it('judges only pods of this node, whatever the others are', () => {
    const one: Cluster = {
      policies: [{ name: 'none', namespace: 'x', podSelector: {}, policyTypes: ['Ingress', 'Egress'] }],
      namespaces: {},
      pods: [
        { namespace: 'x', address: '10.0.0.1', labels: {}, ports: [] },
        { namespace: 'x', address: '10.0.1.1', labels: {}, ports: [] },
      ],
      own: OWN,
    };
    const policies = policiesOf(one, 1);
    const [here, there] = ['10.0.0.1', '10.0.1.1'].map(address => parseAddress(address)!);
    assert.equal(policies.judgeEgress(here, there, 6, 80), DENIED);
    assert.equal(policies.judgeIngress(here, there, 6, 80), 0, 'the other node judges that');
    assert.equal(policies.judgeIngress(there, here, 6, 80), DENIED);
  });

  it('says which policy and rule allows, the first by name', () => {
    const allow = (name: string, allowed: { port: number }[]): NetworkPolicy => ({
      name,
      namespace: 'x',
      podSelector: {},
      ingress: [{ from: [{ ipBlock: { cidr: '192.0.2.0/24' } }] }, { ports: allowed }],
    });
    const policies = policiesOf({
      policies: [allow('b', [{ port: 80 }]), allow('a', [{ port: 443 }])],
      namespaces: {},
      pods: [{ namespace: 'x', address: '10.0.0.1', labels: {}, ports: [] }],
      own: OWN,
    });
    const why = (src: string, number: number) => {
      const allowed = policies.judgeIngress(parseAddress(src)!, parseAddress('10.0.0.1')!, 6, number);
      if (allowed === DENIED) return 'none';
      const { policy: name, direction, rule } = policies.program.rules[allowed];
      return `${name} ${direction} ${rule}`;
    };
    assert.equal(why('10.9.9.9', 80), 'x/b ingress 1');
    assert.equal(why('10.9.9.9', 443), 'x/a ingress 1');
    assert.equal(why('192.0.2.1', 80), 'x/a ingress 0');
    assert.equal(why('10.9.9.9', 81), 'none');
  });

  it('a thousand policies are as many steps as one: rows that say the same are one', function () {
    this.timeout(60_000);
    const pods = Array.from({ length: 200 }, (_, i): ModelPod => {
      return { namespace: 'x', address: `10.1.0.${i + 1}`, labels: { app: `a${i}` }, ports: [] };
    });
    const many = Array.from({ length: 1000 }, (_, i): NetworkPolicy => {
      const from = [{ podSelector: { matchLabels: { app: `a${i % 200}` } } }];
      return { name: `p${i}`, namespace: 'x', podSelector: {}, ingress: [{ from, ports: [{ port: 1000 + i }] }] };
    });
    const { program } = policiesOf({ policies: many, namespaces: {}, pods, own: OWN });
    assert.equal(program.rules.length, 1001);
    assert.equal(program.identityRows.length, program.identityCount, 'one table for all pods');
    assert.ok(program.rows.length / program.portClassCount <= 201);
  });
});
