/** Article 004: flannel's VXLAN. */

import type { Scenario } from '../scenario.ts';
import { TOPOLOGIES } from '../topology-file.ts';
import { checkHandshake, checkMtu, endsOf, type Pair } from './checks.ts';
import { readFrames } from './frames.ts';
import { checkSourcePorts, checkTunnel, type Outer } from './tunnel.ts';

const topology = TOPOLOGIES.flannel!;

/** The article's direction: from worker2 to worker1; and the other way round. */
const THERE: Pair = { client: 'busybox2', server: 'busybox1', vni: [1, 1] };
const BACK: Pair = { client: 'busybox1', server: 'busybox2', vni: [1, 1] };

/** Both nodes forward, each as a Linux router does. */
const TTL = 62;

/** flannel.1 */
const vxlan: Outer = {
  filter: 'udp port 8472',
  protocol: 'vxlan',
  overhead: 50,
  ttl: 64,
  df: 0,
  udp: { port: 8472, checksum: 'computed', sourcePorts: [32768, 60999] },
};

const overVxlan: Scenario = {
  name: 'flannel-vxlan',
  article: '004',
  shows: 'pods of worker1 and worker2 ping each other through flannel.1; tcpdump sees UDP 8472 between the workers',
  topology,
  mode: 'vxlan',
  async run(context) {
    await checkTunnel(context, THERE, vxlan, TTL);
    await checkTunnel(context, BACK, vxlan, TTL);

    // Peers' VTEPs are permanent neighbours: nobody asks on the wire for an address of the pod network.
    const { client, server, clientNode } = endsOf(context, THERE);
    const files = await context.capture(
      { http: [clientNode.name, vxlan.filter], arp: [clientNode.name, `arp and net ${topology.clusterCidr}`] },
      async () => {
        const page = await context.exec(client.name, ['curl', '-s', '-m', '5', `http://${server.address}/`]);
        context.check(`${client.name} asks ${server.name}`, `Hostname: ${server.name}`, page.stdout.split('\n')[0]!);
      },
    );
    checkHandshake(context, THERE, await readFrames(files.http), 1410);
    context.check(`${clientNode.name}: ARP for pod addresses`, 0, files.arp.packets);
    await checkSourcePorts(context, THERE, vxlan);
    await checkMtu(context, THERE, 1450);
  },
};

export const flannelScenarios: readonly Scenario[] = [overVxlan];
