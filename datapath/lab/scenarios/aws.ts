/** Article 003: pods with addresses of the VPC, and a network load balancer in front of nodes or of pods. */

import type { CapturePoint, Scenario, ScenarioContext } from '../scenario.ts';
import { addressOf, routerOf, routerWebAddress } from '../topology.ts';
import { TOPOLOGIES } from '../topology-file.ts';
import { checkChecksums, checkPing } from './checks.ts';
import { distinct, type Frame, innerOf, readFrames } from './frames.ts';
import { ask, bothWays, CURL_TIMEOUT, checkRefused, nodeOf, pairsOf, podOf, rowsOf, seenBy } from './requests.ts';

const topology = TOPOLOGIES.aws!;
const article = '003';

const native: Scenario = {
  name: 'aws-native',
  article,
  shows:
    "pods own addresses of the nodes' subnets and talk with them, without a header more; outside the VPC their node's address is seen",
  topology,
  mode: 'native',
  async run(context) {
    const client = podOf(context, 'netshoot');
    const node = nodeOf(context, client.node);
    const router = routerOf(context.lab.topology);

    for (const pod of context.lab.topology.pods) {
      const shown = await context.exec(pod.name, ['ip', '-br', '-4', 'addr', 'show', 'eth0']);
      const address = /(\d+\.\d+\.\d+)\.\d+\/32/.exec(shown.stdout)?.[1];
      const { cidr } = topology.subnets.find(({ name }) => name === nodeOf(context, pod.node).subnet)!;
      context.check(`${pod.name}: its address is in the subnet of ${pod.node}`, cidr, `${address}.0/24`);
    }

    // One in the same subnet, one in another: the VPC's route table knows where it is.
    for (const [name, ttl] of [
      ['echo1', 62],
      ['echo3', 61],
    ] as const) {
      const peer = podOf(context, name);
      const files = await context.capture(
        { wire: [node.name, `host ${client.address}`], far: [peer.node, `host ${client.address}`] },
        async () => {
          await checkPing(context, client.name, peer.address, ttl);
          const answers = await ask(context, client.name, `http://${peer.address}:8080/`);
          context.check(`${client.name} asks ${name}`, [`${name} saw ${client.address}`], seenBy(answers));
        },
      );
      const [wire, far] = await Promise.all([readFrames(files.wire), readFrames(files.far)]);
      for (const [where, frames] of [
        [node.name, wire],
        [peer.node, far],
      ] as const) {
        context.check(
          `${where}: addresses on the wire, ${name}`,
          bothWays(client.address, peer.address),
          pairsOf(frames),
        );
        context.check(
          `${where}: IPv4 headers in a frame, ${name}`,
          1,
          distinct(frames, frame => frame.ip.length),
        );
      }
      checkChecksums(context, `what ${client.name} and ${name} say`, wire);
    }

    // A host of the VPC sees the pod, one outside of it the node.
    const inVpc = addressOf(router.legs[0]!.address);
    const outside = routerWebAddress(topology);
    const files = await context.capture({ wire: [node.name, 'tcp port 80'] }, async () => {
      for (const [where, address, seen] of [
        ['in the VPC', inVpc, client.address],
        ['outside', outside, addressOf(node.address)],
      ] as const) {
        const answers = await ask(context, client.name, `http://${address}/`);
        context.check(`${client.name} asks ${address}, ${where}`, [`${router.name} saw ${seen}`], seenBy(answers));
      }
    });
    const frames = await readFrames(files.wire);
    context.check(
      `${node.name}: addresses on the wire`,
      [...bothWays(client.address, inVpc), ...bothWays(addressOf(node.address), outside)].sort(),
      pairsOf(frames),
    );
    checkChecksums(context, 'what leaves', frames);
  },
};

/** The client's host, behind the router's exit, and the TTL it sends with. */
const CLIENT = 'away';
const CLIENT_TTL = 64;
/** The load balancer's address for the world, that for the VPC, and the one it has in the first subnet. */
const PUBLIC = '10.0.2.15';
const INTERNAL = '192.168.30.10';
const BALANCER = '192.168.10.200';

/**
 * Makes the router a network load balancer with one target, in place of the one it was.
 * @param target    address and port
 * @param preserve  whether the target sees the client's address; else it sees the balancer's
 */
async function balance(context: ScenarioContext, target: string, preserve: boolean): Promise<void> {
  const [address, port] = target.split(':');
  const ruleset = [
    'table ip nlb',
    'delete table ip nlb',
    'table ip nlb {',
    '  chain listener {',
    '    type nat hook prerouting priority dstnat',
    `    ip daddr { ${PUBLIC}, ${INTERNAL} } tcp dport 80 dnat to ${target}`,
    '  }',
    '  chain target {',
    '    type nat hook postrouting priority srcnat',
    ...(preserve ? [] : [`    ip daddr ${address} tcp dport ${port} ct status dnat masquerade`]),
    '  }',
    '}',
  ];
  const router = routerOf(context.lab.topology);
  const loaded = await context.exec(router.name, ['nft', ruleset.join('\n')]);
  context.check(
    `the balancer sends to ${target}, ${preserve ? 'client address kept' : 'from its own address'}`,
    0,
    loaded.exitCode,
  );
}

interface Way {
  /** Target of the balancer. */
  target: string;
  preserve: boolean;
  /** Pods that answer: whom each sees, and how often somebody has forwarded the request before it is there. */
  pods: Record<string, { remote: string; hops: number }>;
  /** Different addresses that the request has on the wire of each node. */
  wires: Record<string, string[]>;
}

/** Enough requests for both pods of the service to be met, where the balancer does not choose: all but once in 2048. */
const REQUESTS = 12;

/** Requests through the balancer: who answered, whom he saw, and every place that they came through. */
async function checkWay(context: ScenarioContext, kind: string, way: Way): Promise<void> {
  const { target, preserve, pods, wires } = way;
  await balance(context, target, preserve);
  const names = Object.keys(pods);
  const points = [...Object.keys(wires), ...names].map(name => [name, [name, 'tcp']] as const);
  const times = names.length === 1 ? 1 : REQUESTS;
  const files = await context.capture(Object.fromEntries(points) as Record<string, CapturePoint>, async () => {
    const answers = await ask(context, CLIENT, `http://${PUBLIC}/`, times);
    context.check(`${kind}: requests answered`, times, answers.length);
    context.check(
      `${kind}: who answers, and whom he saw`,
      names.map(name => `${name} saw ${pods[name]!.remote}`),
      seenBy(answers),
    );
  });
  const frames = new Map(
    await Promise.all(points.map(async ([name]) => [name, await readFrames(files[name]!)] as const)),
  );
  for (const [node, addresses] of Object.entries(wires)) {
    context.check(`${kind}: the request on ${node}'s wire`, addresses, pairsOf(frames.get(node)!.filter(isSyn)));
  }
  for (const name of names) {
    const received = frames.get(name)!;
    context.check(
      `${kind}: hops from the client to ${name}`,
      pods[name]!.hops,
      distinct(received.filter(isSyn), frame => CLIENT_TTL - innerOf(frame).ttl),
    );
    checkChecksums(context, `${kind}, at ${name}`, received);
  }
}

function isSyn(frame: Frame): boolean {
  return frame.tcp?.flags === 0x002;
}

/** A target that is its own client through the balancer. */
async function checkHairpin(context: ScenarioContext): Promise<void> {
  const pod = podOf(context, 'echo1');
  const url = `http://${INTERNAL}/`;
  await balance(context, `${pod.address}:8080`, true);
  const files = await context.capture({ wire: [pod.node, 'tcp'], pod: [pod.name, 'tcp'] }, async () => {
    const before = await martians(context, pod.node);
    await checkRefused(context, pod.name, url, CURL_TIMEOUT);
    context.checkThat(
      `hairpin, client address kept: ${pod.node} refuses, for nobody outside may have the pod's address`,
      'drop-martian-source counts',
      `${(await martians(context, pod.node)) - before} packets`,
      (await martians(context, pod.node)) > before,
    );
  });
  context.check(
    `hairpin, client address kept: on ${pod.node}'s wire, from the pod to the balancer and back as from the pod to itself`,
    [`${pod.address} > ${pod.address}`, `${pod.address} > ${INTERNAL}`],
    pairsOf(await readFrames(files.wire)),
  );
  context.check(
    `hairpin, client address kept: ${pod.name} only asks`,
    [`${pod.address} > ${INTERNAL}`],
    pairsOf(await readFrames(files.pod)),
  );
  await balance(context, `${pod.address}:8080`, false);
  const answers = await ask(context, pod.name, url);
  context.check("hairpin, from the balancer's address", [`${pod.name} saw ${BALANCER}`], seenBy(answers));
}

/** Packets that a node has dropped because they came in with an address of its own. */
async function martians(context: ScenarioContext, node: string): Promise<number> {
  const rows = await rowsOf<{ name: string; packets: number }>(context, node, 'counters');
  return rows.find(row => row.name === 'drop-martian-source')?.packets ?? 0;
}

const targets: Scenario = {
  name: 'aws-nlb-targets',
  article,
  shows:
    'an NLB with instance targets goes through a node port, where both addresses are rewritten; with ip targets straight to the pod, in fewer hops',
  topology,
  mode: 'native',
  async run(context) {
    const client = routerOf(topology).exit!.gateway;
    const [node1, node2] = ['node1', 'node2'].map(name => addressOf(nodeOf(context, name).address)) as [string, string];
    const [echo1, echo3] = ['echo1', 'echo3'].map(name => podOf(context, name).address) as [string, string];

    // node2 has no pod of the service: whichever it chooses is behind another hop, and behind the router one more.
    await checkWay(context, 'instance target', {
      target: `${node2}:31080`,
      preserve: true,
      pods: { echo1: { remote: node2, hops: 3 }, echo3: { remote: node2, hops: 4 } },
      wires: {
        node2: [`${client} > ${node2}`, `${node2} > ${echo1}`, `${node2} > ${echo3}`],
        node1: [`${node2} > ${echo1}`],
      },
    });
    await checkWay(context, 'instance target, externalTrafficPolicy Local', {
      target: `${node1}:31081`,
      preserve: true,
      pods: { echo1: { remote: client, hops: 2 } },
      wires: { node1: [`${client} > ${node1}`] },
    });
    await checkWay(context, 'ip target', {
      target: `${echo1}:8080`,
      preserve: false,
      pods: { echo1: { remote: BALANCER, hops: 2 } },
      wires: { node1: [`${BALANCER} > ${echo1}`], node2: [] },
    });
    await checkWay(context, 'ip target, client address kept', {
      target: `${echo1}:8080`,
      preserve: true,
      pods: { echo1: { remote: client, hops: 2 } },
      wires: { node1: [`${client} > ${echo1}`], node2: [] },
    });
    await checkHairpin(context);
  },
};

export const awsScenarios: readonly Scenario[] = [native, targets];
