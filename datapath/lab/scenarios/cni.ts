/** Article 002: the seven steps from a pod to a pod of another node, as Calico takes them. */

import { ask, headerOptions, readRunning } from '../../observe/ask.ts';
import { explainText } from '../../observe/explain-text.ts';
import { entryOf } from '../../observe/question.ts';
import { decodeCapture } from '../capture.ts';
import { nodeNameOf } from '../names.ts';
import type { Scenario, ScenarioContext } from '../scenario.ts';
import { addressOf } from '../topology.ts';
import { TOPOLOGIES } from '../topology-file.ts';
import { addressesOf, checkChecksums, checkPing, describeIcmp, endsOf, type Pair } from './checks.ts';
import { distinct, outerOf, readFrames } from './frames.ts';

const topology = TOPOLOGIES.calico!;

const PAIR: Pair = { client: 'pod1', server: 'pod2' };
/** Both nodes forward, each as a Linux router does. */
const TTL = 62;
/** Nobody's address, and the MAC of the side of every pod's device that is Calico's. */
const GATEWAY = '169.254.1.1';
const CALI = 'ee:ee:ee:ee:ee:ee';

/** What the datapath itself says of the way of such a packet, step by step. */
async function checkExplain(context: ScenarioContext): Promise<void> {
  const { client, server, clientNode, serverNode } = endsOf(context, PAIR);
  const names = topology.nodes.map(({ name }) => nodeNameOf(context.lab.name, name));
  context.tell(`$ tunpath explain --from default/${client.name} --to ${server.address} --proto icmp`);
  const subject = await readRunning(names);
  const question = {
    from: `default/${client.name}`,
    to: server.address,
    proto: 'icmp',
    sport: '40000',
    ttl: '64',
    df: true,
  };
  const { there } = ask(subject, entryOf(subject.configs, question, null), 1, false);
  for (const line of explainText(there, 'packet', headerOptions(subject.configs)).trimEnd().split('\n')) {
    context.tell(`    ${line}`);
  }
  const [here, far] = [clientNode, serverNode].map(({ name }) => nodeNameOf(context.lab.name, name));
  context.check(
    'explain: the ways in and out of each node',
    [`${here}: default/${client.name} > uplink`, `${far}: uplink > default/${server.name}`],
    there.visits.map(({ node, port, sent }) => `${node}: ${port} > ${sent.map(one => one.port).join(', ')}`),
  );
  const changes = there.visits.map(({ steps, sent }) =>
    [...steps, ...sent]
      .flatMap(one => one.changes)
      .flatMap(({ what, before, after }) => {
        if (what === 'put in front') return [`+ ${after}`];
        return what === 'taken off' ? [`- ${before}`] : [];
      }),
  );
  const outer = `${addressOf(clientNode.address)} > ${addressOf(serverNode.address)}`;
  context.checkThat(
    `explain: ${here} puts a header in front`,
    `of ${outer}`,
    changes[0] ?? [],
    changes[0]?.some(line => line.startsWith('+ ') && line.includes(outer)) === true,
  );
  context.checkThat(
    `explain: ${far} takes it off`,
    `of ${outer}`,
    changes[1] ?? [],
    changes[1]?.some(line => line.startsWith('- ') && line.includes(outer)) === true,
  );
  context.check('explain: how it ends', 'delivered', there.outcome);
}

const walk: Scenario = {
  name: 'cni-walk',
  article: '002',
  shows:
    'seven steps from pod1 to pod2: it asks for 169.254.1.1, Calico answers by proxy ARP, gets the frame and routes it, IPIP between the nodes, and the other side takes the header off; explain prints them',
  topology,
  mode: 'ipip',
  configure({ spec }) {
    // With a link layer, on which a pod asks by ARP.
    for (const pod of spec.pods) Object.assign(pod, { kind: 'tap' });
  },
  async run(context) {
    const { client, server, clientNode, serverNode } = endsOf(context, PAIR);
    const [here, far] = [clientNode, serverNode].map(({ address }) => addressOf(address)) as [string, string];
    const routes = await context.exec(client.name, ['ip', 'route']);
    context.check(
      `${client.name}: ip route`,
      [`default via ${GATEWAY} dev eth0`, `${GATEWAY} dev eth0 scope link`],
      routes.stdout.split('\n').flatMap(line => /^default via \S+ dev \S+|^\S+ dev eth0 scope link/.exec(line) ?? []),
    );
    await context.exec(client.name, ['ip', 'neigh', 'flush', 'dev', 'eth0']);
    const files = await context.capture(
      {
        pod1: [client.name, 'arp or icmp'],
        node1: [clientNode.name, 'ip proto 4'],
        node2: [serverNode.name, 'ip proto 4'],
        pod2: [server.name, 'icmp'],
      },
      () => checkPing(context, client.name, server.address, TTL),
    );
    const fields = ['arp.opcode', 'arp.src.hw_mac', 'arp.src.proto_ipv4', 'arp.dst.proto_ipv4'];
    const arp = await decodeCapture(
      files.pod1.path,
      fields,
      `arp && (arp.dst.proto_ipv4 == ${GATEWAY} || arp.src.proto_ipv4 == ${GATEWAY})`,
    );
    const [request, reply] = arp.map(row => row.map(cell => cell[0]!));
    context.check(
      '1. (pod1) asks for its gateway by ARP',
      `who has ${GATEWAY}? tell ${client.address}`,
      request === undefined ? 'nothing' : `who has ${request[3]}? tell ${request[2]}`,
    );
    context.check(
      '2. (calico) proxy ARP: answers with its own MAC',
      `${GATEWAY} is at ${CALI}`,
      reply === undefined ? 'nothing' : `${reply[2]} is at ${reply[1]}`,
    );
    const [pod1, node1, node2, pod2] = await Promise.all([
      readFrames(files.pod1, 'icmp'),
      readFrames(files.node1),
      readFrames(files.node2),
      readFrames(files.pod2),
    ]);
    const ping = `${client.address} > ${server.address} echo request`;
    const requests = (frames: typeof pod1) => frames.filter(frame => describeIcmp(frame) === ping);
    context.check(
      '3. (pod1) sends the packet to that MAC',
      CALI,
      distinct(requests(pod1), ({ ethernet }) => ethernet[0]!.dst),
    );
    context.check(
      `4. (calico) routes it: ${clientNode.name} puts it into IPIP`,
      `${here} > ${far}`,
      distinct(requests(node1), frame => addressesOf(outerOf(frame))),
    );
    context.check(
      `5. ${serverNode.name} gets what is for itself`,
      `${serverNode.mac} ${here} > ${far}`,
      distinct(requests(node2), frame => `${frame.ethernet[0]!.dst} ${addressesOf(outerOf(frame))}`),
    );
    context.check(
      '6. its route leads to the device of the pod: from that MAC',
      CALI,
      distinct(requests(pod2), ({ ethernet }) => ethernet[0]!.src),
    );
    context.check(
      '7. (calico) the header is off: IPv4 headers in what pod2 gets',
      1,
      distinct(requests(pod2), ({ ip }) => ip.length),
    );
    context.check('pings that are there', 2, requests(pod2).length);
    checkChecksums(context, 'the pings between the nodes', node1);
    await checkExplain(context);
  },
};

export const cniScenarios: readonly Scenario[] = [walk];
