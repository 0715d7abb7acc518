/** Article 000: Calico's pools with IPIP always, never, across subnets only, and with VXLAN. */

import type { SegmentState } from '../../control/loops.ts';
import { nodeNameOf } from '../names.ts';
import type { Scenario, ScenarioContext } from '../scenario.ts';
import { addressOf } from '../topology.ts';
import { TOPOLOGIES } from '../topology-file.ts';
import {
  addressesOf,
  checkBlackHole,
  checkChecksums,
  checkHandshake,
  checkMtu,
  checkPing,
  describeIcmp,
  endsOf,
  type Pair,
  title,
} from './checks.ts';
import { distinct, outerOf, readFrames } from './frames.ts';
import { checkSourcePorts, checkTunnel, checkUnknownPeer, type Outer } from './tunnel.ts';

const topology = TOPOLOGIES.calico!;
const article = '000';

/** pod1 on k8s-w1 and pod2 on k8s-w2, one subnet. */
const BESIDE: Pair = { client: 'pod1', server: 'pod2', vni: [4096, 4096] };
/** pod1 and pod3 on k8s-w0, behind the router. */
const ACROSS: Pair = { client: 'pod1', server: 'pod3', vni: [4096, 4096] };

/** Both nodes forward, each as a Linux router does. */
const TTL = 62;

/** tunl0 as Calico makes it. */
const ipip: Outer = { filter: 'ip proto 4', protocol: 'ipip', overhead: 20, ttl: 'inherit', df: 'inherit' };

/** vxlan.calico. */
const vxlan: Outer = {
  filter: 'udp port 4789',
  protocol: 'vxlan',
  overhead: 50,
  ttl: 64,
  df: 0,
  udp: { port: 4789, checksum: 'computed', sourcePorts: [32768, 60999] },
};

/** One request from pod to pod: how many IPv4 headers its frames have on the client's wire, and the MSS. */
async function checkRequest(context: ScenarioContext, pair: Pair, headers: number, mss: number): Promise<void> {
  const { client, server, clientNode, serverNode } = endsOf(context, pair);
  const files = await context.capture(
    { wire: [clientNode.name, `host ${addressOf(serverNode.address)} or host ${server.address}`] },
    async () => {
      const page = await context.exec(client.name, ['curl', '-s', '-m', '5', `http://${server.address}/`]);
      context.check(`${client.name} asks ${server.name}`, `Hostname: ${server.name}`, page.stdout.split('\n')[0]!);
    },
  );
  const frames = await readFrames(files.wire);
  context.check(
    `${title(pair)}: IPv4 headers in a frame`,
    headers,
    distinct(frames, frame => frame.ip.length),
  );
  checkHandshake(context, pair, frames, mss);
  checkChecksums(context, `the request, ${title(pair)}`, frames);
}

/** Pings without a tunnel: the pods' own addresses between the MACs of the two nodes. */
async function checkDirect(context: ScenarioContext, pair: Pair): Promise<void> {
  const { client, server, clientNode, serverNode } = endsOf(context, pair);
  const files = await context.capture({ wire: [clientNode.name, 'ip'] }, () =>
    checkPing(context, client.name, server.address, TTL),
  );
  const frames = await readFrames(files.wire);
  context.check(
    `${clientNode.name}: what is on the wire`,
    [`${client.address} > ${server.address} echo request`, `${server.address} > ${client.address} echo reply`],
    distinct(frames, describeIcmp),
  );
  context.check(
    `${clientNode.name}: Ethernet, straight to the other node`,
    `${clientNode.mac} > ${serverNode.mac}`,
    distinct(
      frames.filter(frame => outerOf(frame).src === client.address),
      frame => addressesOf(frame.ethernet[0]),
    ),
  );
  checkChecksums(context, `the pings, ${title(pair)}`, frames);
}

const always: Scenario = {
  name: 'calico-ipip',
  article,
  shows: 'ipipMode Always, the default: every pod of another node is behind tunl0, one more IP header, MTU 1480',
  topology,
  mode: 'ipip',
  async run(context) {
    await checkTunnel(context, ACROSS, ipip, TTL);
    await checkTunnel(context, BESIDE, ipip, TTL);
    await checkRequest(context, ACROSS, 2, 1440);
    await checkMtu(context, ACROSS, 1480);
    await checkUnknownPeer(context, ACROSS, ipip);
  },
};

const never: Scenario = {
  name: 'calico-direct',
  article,
  shows:
    'ipipMode Never: pods in the same subnet reach each other without a tunnel, pods in another subnet do not, for the router knows no pods',
  topology,
  mode: 'native',
  async run(context) {
    await checkDirect(context, BESIDE);
    await checkRequest(context, BESIDE, 1, 1460);
    await checkMtu(context, BESIDE, 1500);
    await checkBlackHole(context, ACROSS, '172.16.34.1');
  },
};

const crossSubnet: Scenario = {
  name: 'calico-crosssubnet',
  article,
  shows: 'ipipMode CrossSubnet: 172.16.158.3 reaches 172.16.34.1 through tunl0 and 172.16.184.4 directly',
  topology,
  mode: 'crosssubnet',
  async run(context) {
    await checkDirect(context, BESIDE);
    await checkTunnel(context, ACROSS, ipip, TTL);
    // Pods have one MTU for both ways, the smaller.
    await checkRequest(context, BESIDE, 1, 1440);
    await checkRequest(context, ACROSS, 2, 1440);
    await checkMtu(context, BESIDE, 1480);
    await checkMtu(context, ACROSS, 1480);
  },
};

const overVxlan: Scenario = {
  name: 'calico-vxlan',
  article,
  shows: 'VXLAN as the third mode; Calico gives it UDP 4789, VNI 4096 and MTU 1450',
  topology,
  mode: 'vxlan',
  async run(context) {
    await checkTunnel(context, ACROSS, vxlan, TTL);
    await checkTunnel(context, BESIDE, vxlan, TTL);
    await checkRequest(context, ACROSS, 2, 1410);
    await checkSourcePorts(context, ACROSS, vxlan);
    await checkMtu(context, ACROSS, 1450);
  },
};

/** Turns the fabric's source/destination check on or off, at the NICs of all nodes. */
async function setCheck(context: ScenarioContext, isOn: boolean): Promise<void> {
  for (const node of topology.nodes) {
    const addresses = isOn ? addressOf(node.address) : 'off';
    const name = nodeNameOf(context.lab.name, node.name);
    for (const direction of ['from', 'to'] as const) {
      context.tell(`$ tunpath segment set ${node.subnet} --${direction} ${name} --source-dest-check ${addresses}`);
      const spot = { segment: node.subnet, port: { name, direction } };
      await context.lab.control(node.name, 'impair', { spot, impairments: { sourceDestCheck: addresses } });
    }
  }
}

/** Packets that the check has dropped on a segment. */
async function checkDrops(context: ScenarioContext, subnet: string): Promise<number> {
  const segments = (await context.lab.control(topology.nodes[0]!.name, 'segments')) as SegmentState[];
  const { drops } = segments.find(({ name }) => name === subnet)!;
  return drops.find(({ name }) => name === 'drop-wire-source-dest-check')?.packets ?? 0;
}

const srcDstCheck: Scenario = {
  name: 'calico-src-dst-check',
  article,
  shows:
    "with the NIC's SRC/DST check on, Direct fails even in one subnet, for the fabric knows no pod's address; a tunnel passes; with the check off both do",
  topology,
  mode: 'crosssubnet',
  async run(context) {
    const { client, server, clientNode, serverNode } = endsOf(context, BESIDE);
    const ping = ['ping', '-c', '2', '-i', '0.2', '-W', '1', server.address];
    await setCheck(context, true);
    await checkPing(context, clientNode.name, addressOf(serverNode.address), 64);
    await checkTunnel(context, ACROSS, ipip, TTL);
    const before = await checkDrops(context, clientNode.subnet);
    const files = await context.capture(
      { here: [clientNode.name, 'icmp'], there: [serverNode.name, 'icmp'] },
      async () => {
        const { stdout } = await context.exec(client.name, ping);
        context.check(`check on: ${client.name} pings ${server.name}`, '0 received', receivedIn(stdout));
      },
    );
    const [here, there] = await Promise.all([readFrames(files.here), readFrames(files.there)]);
    const request = `${client.address} > ${server.address} echo request`;
    context.check(`${clientNode.name}: what it gives the fabric`, [request], distinct(here, describeIcmp));
    context.check(`${serverNode.name}: what arrives`, [], there.map(describeIcmp));
    context.check(
      `${clientNode.subnet}: drop-wire-source-dest-check counts`,
      2,
      (await checkDrops(context, clientNode.subnet)) - before,
    );

    await setCheck(context, false);
    await checkDirect(context, BESIDE);
    await checkPing(context, ACROSS.client, endsOf(context, ACROSS).server.address, TTL);
  },
};

function receivedIn(ping: string): string {
  return /\d+ received/.exec(ping)?.[0] ?? ping;
}

export const calicoScenarios: readonly Scenario[] = [always, never, crossSubnet, overVxlan, srcDstCheck];
