/** Article 001: Cilium in native routing, with VXLAN and with GENEVE. */

import type { Scenario, ScenarioContext } from '../scenario.ts';
import { addressOf, routerWebAddress } from '../topology.ts';
import { TOPOLOGIES } from '../topology-file.ts';
import {
  addressesOf,
  checkBlackHole,
  checkChecksums,
  checkHandshake,
  checkHttpLengths,
  checkMtu,
  checkPing,
  describeIcmp,
  describeRouted,
  endsOf,
  type HttpLengths,
  type Pair,
} from './checks.ts';
import { distinct, innerOf, outerOf, readFrames } from './frames.ts';
import { checkSourcePorts, checkTunnel, checkUnknownPeer, type Outer } from './tunnel.ts';

const topology = TOPOLOGIES.cilium!;
const article = '001';

/** curl-pod on k8s-ctr and the webpod on k8s-w0, behind the router. */
const ACROSS: Pair = { client: 'curl-pod', server: 'webpod-w0', vni: [21500, 17081] };
/** The webpod on k8s-w1, in the same subnet. */
const BESIDE: Pair = { client: 'curl-pod', server: 'webpod-w1' };

/** In a tunnel only the node that delivers takes one off; the article's pings say ttl=63. */
const TUNNEL_TTL = 63;
/** Without one both nodes route. Not printed in the article. */
const NATIVE_TTL = 62;

/** As the article's tshark prints them, under the cooked header of `tcpdump -i any`. */
const HTTP_LENGTHS: HttpLengths = { syn: 130, synAck: 130, ack: 122, request: 192, response: 441, fin: 122 };

const vxlan: Outer = {
  filter: 'udp port 8472',
  protocol: 'vxlan',
  overhead: 50,
  ttl: 64,
  df: 0,
  udp: { port: 8472, checksum: 'zero', sourcePorts: [32768, 60999] },
};

const geneve: Outer = {
  filter: 'udp port 6081',
  protocol: 'geneve',
  // Source ports are any, and tshark goes by the lower port of the two: 53 would make DNS of it, 4789 VXLAN.
  decodeAs: ['udp.port==1-8472,geneve'],
  overhead: 50,
  ttl: 64,
  df: 0,
  udp: { port: 6081, checksum: 'zero', sourcePorts: [1, 65535] },
};

/** `curl webpod`. The name and the agent are the article's, so that the request has its length. */
function curlWebpod(address: string): string[] {
  return ['curl', '-s', '-A', 'curl/8.14.1', '--resolve', `webpod:80:${address}`, 'http://webpod/'];
}

/** What the article's router sees of a ping and of a request, and how long each frame is. */
async function checkOnRouter(context: ScenarioContext, outer: Outer): Promise<void> {
  const { client, server, clientNode, serverNode } = endsOf(context, ACROSS);
  const [here, there] = [addressOf(clientNode.address), addressOf(serverNode.address)];

  const ping = await context.capture({ tunnel: ['router', outer.filter], plain: ['router', 'icmp'] }, () =>
    checkPing(context, client.name, server.address, TUNNEL_TTL),
  );
  const request = `${here} > ${there}, vni ${ACROSS.vni![0]}: ${client.address} > ${server.address} echo request`;
  const reply = `${there} > ${here}, vni ${ACROSS.vni![1]}: ${server.address} > ${client.address} echo reply`;
  context.check(
    `router: tcpdump ${outer.filter}`,
    [`eth1 In ${request}`, `eth2 Out ${request}`, `eth2 In ${reply}`, `eth1 Out ${reply}`],
    await describeRouted(context, await readFrames(ping.tunnel, 'ip', outer.decodeAs), frame => {
      return `${addressesOf(outerOf(frame))}, vni ${frame.vni}: ${describeIcmp(frame)}`;
    }),
  );
  context.check('router: tcpdump icmp', [], (await readFrames(ping.plain)).map(describeIcmp));

  const http = await context.capture({ tunnel: ['router', outer.filter] }, async () => {
    const page = await context.exec(client.name, curlWebpod(server.address));
    context.check('curl webpod', `Hostname: ${server.hostname}`, page.stdout.split('\n')[0]!);
  });
  const frames = await readFrames(http.tunnel, 'ip', outer.decodeAs);
  checkHttpLengths(context, frames, HTTP_LENGTHS, client.address);
  checkHandshake(context, ACROSS, frames, 1410);
  context.check('frames that the router took in, and sent on', frames.length / 2, frames.filter(f => f.sent).length);
  checkChecksums(context, 'curl webpod', frames);
}

async function checkOverlay(context: ScenarioContext, outer: Outer): Promise<void> {
  await checkOnRouter(context, outer);
  await checkTunnel(context, ACROSS, outer, TUNNEL_TTL);
  await checkSourcePorts(context, ACROSS, outer);
  await checkMtu(context, ACROSS, 1450, [1472]);
}

const native: Scenario = {
  name: 'cilium-native',
  article,
  shows:
    'between nodes of one subnet pods talk with their own addresses and full MTU; nodes reach the other subnet in two hops',
  topology,
  mode: 'native',
  async run(context) {
    const { client, server, clientNode, serverNode } = endsOf(context, BESIDE);
    await checkPing(context, clientNode.name, routerWebAddress(topology), 64);
    await checkPing(context, clientNode.name, '192.168.20.100', 63);
    const trace = await context.exec(clientNode.name, ['tracepath', '-n', '192.168.20.100']);
    context.check(
      'tracepath -n 192.168.20.100',
      'pmtu 1500 hops 2 back 2',
      /pmtu \d+ hops \d+ back \d+/.exec(trace.stdout)?.[0] ?? trace.stdout,
    );
    const hops = [...trace.stdout.matchAll(/^ *(\d+): +([\d.]+) /gm)].map(match => `${match[1]} ${match[2]}`);
    context.check('tracepath: hops', ['1 192.168.10.200', '2 192.168.20.100'], [...new Set(hops)]);

    const files = await context.capture({ wire: [clientNode.name, `host ${server.address}`] }, async () => {
      await checkPing(context, client.name, server.address, NATIVE_TTL);
      const page = await context.exec(client.name, curlWebpod(server.address));
      context.check('curl webpod', `Hostname: ${server.hostname}`, page.stdout.split('\n')[0]!);
    });
    const frames = await readFrames(files.wire);
    context.check(
      `${clientNode.name}: addresses on the wire`,
      [`${client.address} > ${server.address}`, `${server.address} > ${client.address}`],
      distinct(frames, frame => addressesOf(outerOf(frame))),
    );
    context.check(
      `${clientNode.name}: IPv4 headers in a frame`,
      1,
      distinct(frames, frame => frame.ip.length),
    );
    context.check(
      `${clientNode.name}: Ethernet, straight to the other node`,
      [`${clientNode.mac} > ${serverNode.mac}`],
      distinct(
        frames.filter(frame => innerOf(frame).src === client.address),
        frame => addressesOf(frame.ethernet[0]),
      ),
    );
    checkHandshake(context, BESIDE, frames, 1460);
    checkChecksums(context, 'curl webpod', frames);
    await checkMtu(context, BESIDE, 1500);
  },
};

const blackhole: Scenario = {
  name: 'cilium-native-blackhole',
  article,
  shows: 'the router has no route to pods: it sends what is for them out of its own default route, and nobody answers',
  topology,
  mode: 'native',
  run: context => checkBlackHole(context, ACROSS, '172.20.2.36'),
};

const overVxlan: Scenario = {
  name: 'cilium-vxlan',
  article,
  shows:
    "UDP 8472 between the nodes, the VNI is the sender's identity, 50 bytes more, MSS 1410, no plain ICMP on the router",
  topology,
  mode: 'vxlan',
  async run(context) {
    await checkOverlay(context, vxlan);
    await checkUnknownPeer(context, ACROSS, vxlan);
  },
};

const overGeneve: Scenario = {
  name: 'cilium-geneve',
  article,
  shows: 'UDP 6081 between the nodes, vni 0x53fc and 0x42b9, the same frame lengths as with VXLAN',
  topology,
  mode: 'geneve',
  run: context => checkOverlay(context, geneve),
};

const mtu: Scenario = {
  name: 'cilium-mtu',
  article,
  shows:
    "ping -M do -s 1472 is refused where it is sent, 'Message too large', and 1422 passes; without DF it goes in pieces",
  topology,
  mode: 'vxlan',
  async run(context) {
    const { client, server, clientNode } = endsOf(context, ACROSS);
    const route = await context.exec(client.name, ['ip', 'route', 'get', server.address]);
    context.check("the pod's route", 'mtu 1450', /mtu \d+/.exec(route.stdout)?.[0] ?? 'no mtu');
    await checkMtu(context, ACROSS, 1450, [1472]);

    const files = await context.capture({ wire: [clientNode.name, 'udp port 8472'] }, async () => {
      const ping = ['ping', '-M', 'dont', '-c', '1', '-W', '1', '-s', '1472', server.address];
      const { stdout } = await context.exec(client.name, ping);
      context.check('ping -M dont -s 1472', '1 received', /\d+ received/.exec(stdout)?.[0] ?? stdout);
    });
    const frames = await readFrames(files.wire);
    // The sender's kernel cuts its 1500 bytes to 1444 and 76, the tunnel adds 50 to each; the answer likewise.
    context.check('tunnel packets, there and back', 4, frames.length);
    context.check(
      'their lengths',
      ['126', '1494'],
      distinct(frames, frame => outerOf(frame).length),
    );
  },
};

export const ciliumScenarios: readonly Scenario[] = [native, blackhole, overVxlan, overGeneve, mtu];
