/**
 * Policies as packets meet them: nine pods on three nodes, and for every pair of them, protocol and port a packet that is
 * sent, and answered where it has arrived. The nodes are real ones on a segment in memory.
 */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { formatProblems, loadConfig } from '../../datapath/control/load-config.ts';
import { type ResolvedConfig, resolveSegment, withUplink } from '../../datapath/control/resolved.ts';
import { Sim, type SimNode } from '../../datapath/drive/sim.ts';
import { sctp4, tcp4, udp4 } from '../fixtures/packets.ts';
import { type Cluster, isAllowed, type ModelPod, type NetworkPolicy } from '../model/policy.ts';
import { netpolCases } from './netpol-cases.ts';
import { labels, named, namespaces as namespaceLabels, policy } from './random-cluster.ts';

const NAMESPACES = ['x', 'y', 'z'];
/** One of each namespace on each node. */
const NAMES = ['a', 'b', 'c'];
const PORTS = [80, 81];
const PROTOCOLS = ['tcp', 'udp', 'sctp'] as const;
type Protocol = (typeof PROTOCOLS)[number];
const SYN = 2;
const SYN_ACK = 0x12;

function addressOf(pod: string): string {
  const [namespace, name] = pod.split('/');
  return `10.244.${NAMES.indexOf(name!) + 1}.${10 * (NAMESPACES.indexOf(namespace!) + 1)}`;
}

const PODS = NAMESPACES.flatMap(namespace => NAMES.map(name => `${namespace}/${name}`));
/** A pod and itself are never kept apart: that is between the two of them, and no packet of it comes here. */
const CELLS = PODS.flatMap(from =>
  PODS.filter(to => to !== from).flatMap(to =>
    PROTOCOLS.flatMap(protocol => PORTS.map(port => ({ from, to, protocol, port }))),
  ),
);
type Cell = (typeof CELLS)[number];

function textOf({ from, to, protocol, port }: Cell): string {
  return `${from} -> ${to} ${protocol}/${port}`;
}

/** What policies are about, but for the addresses. */
interface World {
  policies: readonly NetworkPolicy[];
  namespaces: Record<string, Record<string, string>>;
  /** By pod. */
  labels: Record<string, Record<string, string>>;
}

const SERVED = PROTOCOLS.flatMap(protocol =>
  PORTS.map(port => ({
    name: `serve-${port}-${protocol}`,
    containerPort: port,
    protocol: protocol.toUpperCase() as 'TCP' | 'UDP' | 'SCTP',
  })),
);

function configOf(n: number, world: World): ResolvedConfig {
  const others = [1, 2, 3].filter(other => other !== n);
  const pods = PODS.map(pod => ({ name: pod, address: addressOf(pod), labels: world.labels[pod], ports: SERVED }));
  const isHere = ({ name }: { name: string }): boolean => name.endsWith(`/${NAMES[n - 1]}`);
  const document = {
    apiVersion: 'tunpath.dev/v1',
    kind: 'NodeConfig',
    metadata: { name: `n${n}` },
    spec: {
      uplink: { kind: 'segment', segment: 'lan', mac: `02:00:00:00:00:0${n}`, address: `192.168.10.${n}/24` },
      pods: pods.filter(isHere).map(pod => ({ ...pod, netns: pod.name.replace('/', '-'), device: 'eth0' })),
      remotePods: pods.filter(pod => !isHere(pod)),
      namespaces: NAMESPACES.map(name => ({ name, labels: world.namespaces[name] ?? {} })),
      policies: world.policies,
      tunnel: { protocol: 'vxlan', peers: others.map(other => ({ address: `192.168.10.${other}` })) },
      routes: others.map(other => ({ to: `10.244.${other}.0/24`, via: `192.168.10.${other}`, encap: true })),
      conntrack: { size: 65536 },
    },
  };
  const { config, problems } = loadConfig(JSON.stringify(document), 'test');
  assert.ok(config !== undefined, formatProblems(problems ?? []));
  assert.ok(config.spec.uplink.kind === 'segment');
  return withUplink(config, resolveSegment(config.spec.uplink));
}

class Three {
  private readonly sim = new Sim();
  private readonly nodes: SimNode[];
  /** Another for every round: no flow of before is met again. */
  private sourcePort = 10_000;

  constructor(world: World) {
    this.sim.addSegment('lan');
    this.nodes = [1, 2, 3].map(n => this.sim.addNode(configOf(n, world)));
    this.ask(CELLS); // neighbours are known from now on
  }

  follow(world: World): void {
    for (const [i, node] of this.nodes.entries()) node.apply(configOf(i + 1, world));
  }

  private nodeOf(pod: string): SimNode {
    return this.nodes[NAMES.indexOf(pod.split('/')[1]!)]!;
  }

  /** Sends a packet, and takes what comes out at the other pod. */
  private carry(from: string, to: string, protocol: Protocol, sport: number, dport: number, flags: number): boolean {
    const header = { src: addressOf(from), dst: addressOf(to), sport, dport };
    const packet = protocol === 'tcp' ? tcp4({ ...header, flags }) : protocol === 'udp' ? udp4(header) : sctp4(header);
    this.nodeOf(from).inject(from, packet);
    this.sim.run(1);
    const got = this.nodeOf(to).collect(to);
    if (got.length === 0) return false;
    assert.equal(got.length, 1);
    const { bytes } = got[0]!;
    // All but what routers change.
    assert.deepEqual([bytes.slice(12, 20), bytes.slice(20)], [packet.slice(12, 20), packet.slice(20)]);
    return true;
  }

  /** The cells in which a packet arrives. One that has is answered, and the answer has to come back. */
  ask(cells: readonly Cell[]): string[] {
    this.sourcePort++;
    return cells.flatMap(cell => {
      const { from, to, protocol, port } = cell;
      if (!this.carry(from, to, protocol, this.sourcePort, port, SYN)) return [];
      assert.ok(this.carry(to, from, protocol, port, this.sourcePort, SYN_ACK), `${textOf(cell)}: no answer`);
      return [textOf(cell)];
    });
  }

  /** @throws AssertionError where a packet is not accounted for */
  close(): void {
    const { pool } = this.sim;
    this.sim.close();
    assert.equal(pool.available, pool.packets.length, 'slots lost or doubled');
  }
}

/** As `says` of a case has it. */
function wanted(says: readonly string[]): string[] {
  const rules = says.map(line => {
    const match = /^(deny|allow) (\S+) -> (\S+)(?: (\w+\/\d+))?$/.exec(line);
    assert.ok(match !== null, line);
    return { allows: match[1] === 'allow', from: match[2]!, to: match[3]!, port: match[4] };
  });
  const is = (who: string, pod: string): boolean => who === '*' || who === pod || pod.startsWith(`${who}/`);
  return CELLS.filter(({ from, to, protocol, port }) => {
    const last = rules.findLast(
      rule =>
        is(rule.from, from) && is(rule.to, to) && (rule.port === undefined || rule.port === `${protocol}/${port}`),
    );
    return last?.allows ?? true;
  }).map(textOf);
}

function modelled({ policies, namespaces, labels: podLabels }: World): string[] {
  const pods = PODS.map(
    (pod): ModelPod => ({
      namespace: pod.split('/')[0]!,
      address: addressOf(pod),
      labels: podLabels[pod]!,
      ports: SERVED,
    }),
  );
  const cluster: Cluster = { policies: [...policies], namespaces, pods, own: [] };
  return CELLS.filter(({ from, to, protocol, port }) => {
    const flow = { src: addressOf(from), dst: addressOf(to), protocol: protocol.toUpperCase(), port };
    return isAllowed(cluster, 'egress', flow) && isAllowed(cluster, 'ingress', flow);
  }).map(textOf);
}

const podLabels = (more: Record<string, Record<string, string>> = {}): World['labels'] =>
  Object.fromEntries(PODS.map(pod => [pod, { pod: pod.split('/')[1]!, ...more[pod] }]));

describe('policy, cell by cell', function () {
  this.timeout(120_000);
  let three: Three;
  before(() => {
    three = new Three({ policies: [], namespaces: {}, labels: podLabels() });
  });
  after(() => three.close());

  for (const { name, steps } of netpolCases(addressOf)) {
    it(name, () => {
      for (const [i, { policies, labels: more, says }] of steps.entries()) {
        const world = { policies, namespaces: more ?? {}, labels: podLabels(more) };
        three.follow(world);
        assert.deepEqual(three.ask(CELLS), wanted(says), `step ${i + 1}`);
        assert.deepEqual(modelled(world), wanted(says), `step ${i + 1}, by the words of the API`);
      }
    });
  }

  it('random policies let through what the words of the API allow', () => {
    const blocks = [
      { cidr: '10.244.0.0/16', except: ['10.244.2.0/24'] },
      { cidr: '10.244.1.10/31' },
      { cidr: '0.0.0.0/0', except: ['10.244.3.30/32', '10.244.1.0/24'] },
    ];
    const world = fc.record({
      policies: fc.array(policy(blocks), { minLength: 1, maxLength: 5 }).map(named),
      namespaces: namespaceLabels,
      labels: fc
        .array(labels, { minLength: PODS.length, maxLength: PODS.length })
        .map(all => Object.fromEntries(PODS.map((pod, i) => [pod, all[i]!]))),
    });
    fc.assert(
      fc.property(world, one => {
        three.follow(one);
        assert.deepEqual(three.ask(CELLS), modelled(one));
      }),
      { numRuns: 20 },
    );
  });
});
