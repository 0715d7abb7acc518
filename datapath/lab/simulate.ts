/**
 * A large cluster in memory: nodes on one Ethernet, pods that answer by themselves (io/memory-pod.ts), and who reaches whom.
 * Virtual time, no device, no root.
 *
 * Node n, from 1 on, is host n of 10.0.0.0/16; its pods are 10.128.n.10 and on, and pod k of every node has the label
 * `app: kK`. Service k, 10.96.0.(1 + k), leads to pods k of ten nodes. With policies, only pods k1 reach pods k0.
 */
import { formatAddress, formatMac } from '../control/address.ts';
import { defaultVtepMac } from '../control/config.ts';
import { loadConfig } from '../control/load-config.ts';
import { type ResolvedConfig, resolveSegment, withUplink } from '../control/resolved.ts';
import { MAX_PORTS } from '../counters.ts';
import { Sim } from '../drive/sim.ts';
import { MemoryPod } from '../io/memory-pod.ts';
import { LabError } from './lab-error.ts';
import type { Mode } from './modes.ts';

export interface SimulateOptions {
  nodes: number;
  /** Of each node. */
  pods: number;
  mode: Mode;
  /** Only pods k1 may reach pods k0. */
  policies: boolean;
  /** Every pod to every pod; else every node to every node, each time from and to other pods. */
  everyPod: boolean;
  seed: number;
}

/** What was tried, and what came of it. */
export interface Probe {
  what: 'pods' | 'services';
  tried: number;
  answered: number;
  /** Those that are to be answered were, once; those that policies deny were not. */
  right: number;
}

/** What is not as it should be. */
export interface Wrong {
  from: string;
  to: string;
  expected: 'an answer' | 'none';
  answers: number;
}

export interface Simulation {
  nodes: number;
  pods: number;
  mode: Mode;
  upMs: number;
  probeMs: number;
  /** Virtual time that has passed. */
  clockMs: number;
  probes: Probe[];
  /** The first few. */
  wrong: Wrong[];
  /** By reason, of all nodes. */
  drops: { name: string; packets: number }[];
}

const SEGMENT = 'lan';
/** First two bytes of the nodes' MACs; the others are their numbers. */
const MAC_HI = 0x0200;
const NODE_NET = 0x0a000000;
const POD_NET = 0x0a800000;
const SERVICE_NET = 0x0a600000;
const FIRST_POD = 10;
const MAX_PODS = 200;
/** Of a service. */
const BACKENDS = 10;
const WEB_PORT = 80;
const GUARDED = 0;
const ADMITTED = 1;
const POLICY = {
  name: 'guard',
  namespace: 'default',
  podSelector: { matchLabels: { app: `k${GUARDED}` } },
  ingress: [{ from: [{ podSelector: { matchLabels: { app: `k${ADMITTED}` } } }] }],
};

/** A burst of each node, what is on its way, and the copies of a broadcast. */
const SLOTS = 8192;
const SLOTS_PER_NODE = 64;
/** Places in each flow table, and rounds between which it does not forget: a round is two flows for every other node. */
const FLOWS = 4096;
const ROUNDS_REMEMBERED = 6;
/** Asked at once. */
const BATCH = 512;
/** Virtual time to wait for an answer: past repetitions of ARP. */
const PATIENCE_MS = 5000;
/** Virtual time after which conntrack has forgotten an echo. */
const FORGET_MS = 60_000;
const MAX_WRONG = 20;
/** Number of the first question: an identifier of ICMP, or a port to connect from. */
const FIRST_ID = 1024;

const textOf = formatAddress;
const nodeAddress = (n: number) => textOf(NODE_NET + n);
const nodeName = (n: number) => `n${n}`;
const podAddress = (n: number, k: number) => POD_NET + 256 * n + FIRST_POD + k;
const serviceAddress = (k: number) => SERVICE_NET + 1 + k;
const podName = (n: number, k: number) => `default/n${n}-k${k}`;
/** All are in one subnet. */
const isOverlay = (mode: Mode) => mode !== 'native' && mode !== 'crosssubnet';

function checkSize({ nodes, pods, policies }: SimulateOptions): void {
  const expect = (flag: string, value: number, least: number, most: number, why: string) => {
    if (Number.isInteger(value) && value >= least && value <= most) return;
    throw new LabError(`${flag} ${value}: expected ${least} to ${most}${why}`, { usage: true });
  };
  expect('--nodes', nodes, 2, MAX_PORTS - 1, ', the ports of a segment');
  expect('--pods', pods, policies ? 2 : 1, MAX_PODS, ', of each node');
}

/** A file for node 1, checked as any other, for the others to differ from. */
function template(options: SimulateOptions): ResolvedConfig {
  const { nodes, pods, mode, policies } = options;
  const apps = upTo(pods);
  const document = {
    apiVersion: 'tunpath.dev/v1',
    kind: 'NodeConfig',
    metadata: { name: 'n1' },
    spec: {
      uplink: { kind: 'segment', segment: SEGMENT, mac: '02:00:00:00:00:01', address: `${nodeAddress(1)}/16` },
      pods: [{ name: podName(1, 0), netns: 'none', device: 'eth0', address: textOf(podAddress(1, 0)) }],
      tunnel: isOverlay(mode) ? { protocol: mode, peers: [{ address: nodeAddress(2) }] } : { protocol: 'none' },
      routes: [{ to: '10.255.0.0/24', via: nodeAddress(2), ...(isOverlay(mode) ? { encap: true } : {}) }],
      services: apps.map(k => ({
        name: `default/k${k}`,
        addresses: [textOf(serviceAddress(k))],
        ports: [{ port: WEB_PORT }],
        endpoints: backendsOf(k, nodes).map(n => ({ address: textOf(podAddress(n, k)) })),
      })),
      ...(policies ? { policies: [POLICY] } : {}),
      conntrack: { size: FLOWS },
    },
  };
  const { config, problems } = loadConfig(JSON.stringify(document), 'simulation');
  if (config === undefined) throw new Error(problems.map(({ path, message }) => `${path}: ${message}`).join('; '));
  const { uplink } = config.spec;
  if (uplink.kind !== 'segment') throw new Error('got another uplink, expected a segment');
  return withUplink(config, resolveSegment(uplink));
}

/** The nodes whose pod k is behind service k: a few, others for each service. */
function backendsOf(k: number, nodes: number): number[] {
  const count = Math.min(nodes, BACKENDS);
  return upTo(count).map(i => ((k + Math.floor((i * nodes) / count)) % nodes) + 1);
}

type RemotePod = ResolvedConfig['spec']['remotePods'][number];

/** All pods, node by node, as policies know those of other nodes. */
function everyoneOf({ nodes, pods, policies }: SimulateOptions): RemotePod[] {
  if (!policies) return [];
  return upTo(nodes * pods).map(i => {
    const [n, k] = [Math.floor(i / pods) + 1, i % pods];
    return { name: podName(n, k), address: textOf(podAddress(n, k)), labels: { app: `k${k}` }, ports: [] };
  });
}

/** What the template says, for node n. */
function configOf(
  base: ResolvedConfig,
  everyone: readonly RemotePod[],
  n: number,
  { nodes, pods }: SimulateOptions,
): ResolvedConfig {
  const { spec } = base;
  const others = upTo(nodes).flatMap(i => (i + 1 === n ? [] : [i + 1]));
  const [pod] = spec.pods;
  const [route] = spec.routes;
  const labels = (k: number) => ({ app: `k${k}` });
  return {
    ...base,
    metadata: { name: nodeName(n) },
    spec: {
      ...spec,
      uplink: { ...spec.uplink, mac: formatMac(MAC_HI, n), address: `${nodeAddress(n)}/16` },
      pods: upTo(pods).map(k => ({
        ...pod,
        name: podName(n, k),
        address: textOf(podAddress(n, k)),
        labels: labels(k),
      })),
      tunnels: spec.tunnels.map(tunnel => ({
        ...tunnel,
        ...(tunnel.mac === undefined ? {} : { mac: vtepMac(n) }),
        peers: others.map(other => ({ address: nodeAddress(other), mac: vtepMac(other) })),
      })) as ResolvedConfig['spec']['tunnels'],
      routes: others.map(other => ({
        ...route,
        to: `${textOf(podAddress(other, 0) & ~0xff)}/24`,
        via: nodeAddress(other),
      })),
      remotePods: everyone.filter((_, i) => Math.floor(i / pods) !== n - 1),
    },
  };
}

/** Brings the cluster up, asks everything of it, and takes it down. @throws LabError for a size that cannot be */
export function simulate(options: SimulateOptions): Simulation {
  checkSize(options);
  const { nodes, pods: perNode, mode, seed } = options;
  const began = performance.now();
  const sim = new Sim({ slots: SLOTS + SLOTS_PER_NODE * nodes, seed });
  try {
    sim.addSegment(SEGMENT);
    const base = template(options);
    const everyone = everyoneOf(options);
    const pods: MemoryPod[][] = [];
    for (let n = 1; n <= nodes; n++) {
      const own: MemoryPod[] = [];
      sim.addNode(configOf(base, everyone, n, options), {
        pods: (name, mtu) => {
          const pod = new MemoryPod(sim.pool, { name, address: podAddress(n, own.length), app: 'http', mtu });
          own.push(pod);
          return pod;
        },
      });
      pods.push(own);
    }
    introduce(sim, nodes);
    const up = performance.now();
    const prober = new Prober(sim, pods.flat());
    const probes = [askPods(prober, pods, options), askServices(prober, pods, options)];
    return {
      nodes,
      pods: nodes * perNode,
      mode,
      upMs: Math.round(up - began),
      probeMs: Math.round(performance.now() - up),
      clockMs: Math.round(sim.now),
      probes,
      wrong: prober.wrong,
      drops: dropsOf(sim),
    };
  } finally {
    sim.close();
  }
}

/**
 * Everybody knows everybody's MAC, and the switch knows where everybody is: to find out, 200 nodes would get four million ARP
 * requests from each other.
 */
function introduce(sim: Sim, nodes: number): void {
  for (const { datapath, name } of sim.nodes.values()) {
    for (let n = 1; n <= nodes; n++) {
      if (name !== nodeName(n)) datapath.neighbors.addPermanent(NODE_NET + n, MAC_HI, n);
    }
    datapath.neighbors.announce(datapath.underlay.address);
    datapath.flush();
    sim.settle();
  }
}

/** Every pair of nodes, each time from and to other pods; or every pair of pods. */
function askPods(
  prober: Prober,
  pods: readonly MemoryPod[][],
  { pods: perNode, policies, everyPod }: SimulateOptions,
): Probe {
  const begun = prober.tally('pods');
  const rounds = everyPod ? perNode * perNode : 1;
  for (let round = 0; round < rounds; round++) {
    pods.forEach((from, i) => {
      pods.forEach((to, j) => {
        const k = everyPod ? Math.floor(round / perNode) : j % perNode;
        const l = everyPod ? round % perNode : i % perNode;
        if (i === j && k === l) return;
        prober.ping(from[k], to[l], isAllowed(policies, k, l));
        if (prober.waiting >= BATCH) prober.carryOn();
      });
    });
    prober.carryOn();
    if ((round + 1) % ROUNDS_REMEMBERED === 0) prober.forget();
  }
  return prober.tally('pods', begun);
}

/** Every service from every node. */
function askServices(
  prober: Prober,
  pods: readonly MemoryPod[][],
  { pods: perNode, policies }: SimulateOptions,
): Probe {
  const begun = prober.tally('services');
  for (const [i, own] of pods.entries()) {
    for (let service = 0; service < perNode; service++) {
      const k = (i + service) % perNode;
      // A pod that is its own backend reaches itself, whatever a policy says.
      if (policies && k === service && k === GUARDED) continue;
      prober.connect(own[k], serviceAddress(service), `service k${service}`, isAllowed(policies, k, service));
      if (prober.waiting >= BATCH) prober.carryOn();
    }
  }
  prober.carryOn();
  return prober.tally('services', begun);
}

/** What is asked at the same time, by number. */
class Prober {
  readonly wrong: Wrong[] = [];
  private readonly sim: Sim;
  private readonly asked: { from: MemoryPod; to: number; name: string; allowed: boolean; answers: number }[] = [];
  private tried = 0;
  private answered = 0;
  private right = 0;
  private unanswered = 0;

  constructor(sim: Sim, pods: readonly MemoryPod[]) {
    this.sim = sim;
    for (const pod of pods) pod.onAnswer = (_, from, id) => this.take(pod, from, id);
  }

  get waiting(): number {
    return this.asked.length;
  }

  ping(from: MemoryPod, to: MemoryPod, allowed: boolean): void {
    const id = this.ask(from, to.address, to.name, allowed);
    if (!from.ping(to.address, id)) throw new Error(`${from.name} has no room for a ping`);
  }

  connect(from: MemoryPod, to: number, name: string, allowed: boolean): void {
    const id = this.ask(from, to, name, allowed);
    if (!from.connect(to, WEB_PORT, id)) throw new Error(`${from.name} has no room for a connection`);
  }

  /** Until nothing moves, and for what has no answer then as long as somebody would wait. */
  carryOn(): void {
    this.sim.settle();
    if (this.unanswered > 0) this.sim.run(PATIENCE_MS);
    for (const { from, name, allowed, answers } of this.asked) {
      this.tried++;
      if (answers > 0) this.answered++;
      if (answers === (allowed ? 1 : 0)) this.right++;
      else if (this.wrong.length < MAX_WRONG) {
        this.wrong.push({ from: from.name, to: name, expected: allowed ? 'an answer' : 'none', answers });
      }
    }
    this.asked.length = 0;
    this.unanswered = 0;
  }

  /** Lets the flow tables forget what has been. */
  forget(): void {
    this.sim.run(FORGET_MS);
  }

  /** What has been since `from`; without it, since the beginning. */
  tally(what: Probe['what'], from?: Probe): Probe {
    return {
      what,
      tried: this.tried - (from?.tried ?? 0),
      answered: this.answered - (from?.answered ?? 0),
      right: this.right - (from?.right ?? 0),
    };
  }

  private ask(from: MemoryPod, to: number, name: string, allowed: boolean): number {
    this.asked.push({ from, to, name, allowed, answers: 0 });
    if (allowed) this.unanswered++;
    return FIRST_ID + this.asked.length - 1;
  }

  private take(pod: MemoryPod, from: number, id: number): void {
    const asked = this.asked[id - FIRST_ID];
    if (asked === undefined || asked.from !== pod || asked.to !== from) return;
    if (asked.allowed && asked.answers === 0) this.unanswered--;
    asked.answers++;
  }
}

function isAllowed(policies: boolean, from: number, to: number): boolean {
  return !policies || to !== GUARDED || from === ADMITTED;
}

function dropsOf(sim: Sim): Simulation['drops'] {
  const sums = new Map<string, number>();
  for (const { counters } of [...sim.nodes.values(), ...sim.segments.values()]) {
    for (const { name, packets, bytes } of counters.snapshot()) {
      if (bytes !== undefined && packets > 0) sums.set(name, (sums.get(name) ?? 0) + packets);
    }
  }
  return Array.from(sums, ([name, packets]) => ({ name, packets })).sort((a, b) => b.packets - a.packets);
}

function upTo(count: number): number[] {
  return Array.from({ length: count }, (_, i) => i);
}

function vtepMac(n: number): string {
  return defaultVtepMac(NODE_NET + n);
}
