/**
 * Builds what NodeConfig and Underlay documents describe, as `tunpath mtu prove` reads them: nodes and pods in namespaces, routers of
 * the kernel, wires, and the kernel's own VXLAN where a link is carried by one.
 *
 *   a -- TAP in r1 ----- veth ----- TAP in r2 -- b          links of layer 3: routers
 *   a -- TAP on a bridge === vxlan === bridge with a TAP -- b   a link of layer 2 with a carrier
 *   a -- TAP on a bridge with a TAP -- b                        no link at all
 */
import { strict as assert } from 'node:assert';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseAllDocuments } from 'yaml';
import type { LinkConfig } from '../../datapath/control/underlay.ts';
import type { ProbeEnd } from '../../datapath/lab/probe.ts';
import type { Inputs } from '../../datapath/mtu-prove/load.ts';
import type { Rig } from './rig.ts';

/**
 * A bridge and the VXLAN device behind it pass frames that are 4 bytes longer than their MTU: room for a VLAN tag
 * (__is_skb_forwardable in include/linux/netdevice.h). A port with 4 less takes exactly what the documents say.
 */
const VLAN_HLEN = 4;

const SWITCH = 'sw';
const VNI = 99;

type Config = Inputs['configs'][number];

/**
 * Builds what the documents in `directory` describe, and returns once packets flow.
 * @param inputs of the same directory
 * @returns the pods by name
 */
export async function buildUnderlay(
  rig: Rig,
  directory: string,
  { configs, underlays }: Inputs,
): Promise<Map<string, ProbeEnd>> {
  const links = underlays.flatMap(({ spec }) => spec.links);
  const pods = new Map<string, ProbeEnd>();
  for (const config of configs) {
    await rig.namespace(config.metadata.name, ...config.spec.pods.map(({ netns }) => netns));
    for (const { name, netns, address } of config.spec.pods) pods.set(name, { netns: rig.full(netns), address });
  }
  const written = writtenSpecs(directory);
  await Promise.all(configs.map(({ metadata }) => startNode(rig, metadata.name, written.get(metadata.name)!)));
  const carried = links.find(({ carriedBy }) => carriedBy !== undefined);
  if (links.length === 0) await joinBySwitch(rig, configs);
  else if (carried !== undefined) await joinByVxlan(rig, configs, carried);
  else await joinByRouters(rig, configs, links);
  return pods;
}

interface WrittenSpec {
  pods: { netns: string }[];
}

/** Every NodeConfig of a directory as it was written: what defaults have been filled into is no configuration any more. */
function writtenSpecs(directory: string): Map<string, WrittenSpec> {
  const specs = new Map<string, WrittenSpec>();
  for (const file of readdirSync(directory)) {
    for (const document of parseAllDocuments(readFileSync(join(directory, file), 'utf8'))) {
      const { kind, metadata, spec } = document.toJS() as {
        kind: string;
        metadata: { name: string };
        spec: WrittenSpec;
      };
      if (kind === 'NodeConfig') specs.set(metadata.name, spec);
    }
  }
  return specs;
}

async function startNode(rig: Rig, name: string, spec: WrittenSpec): Promise<void> {
  await rig.node(name, { ...spec, pods: spec.pods.map(pod => ({ ...pod, netns: rig.full(pod.netns) })) });
}

/**
 * A bridge that cuts nothing. Where br_netfilter is loaded (Docker and Kubernetes want it), Linux cuts packets without DF on its bridges
 * (br_nf_dev_queue_xmit in net/bridge/br_netfilter_hooks.c), which no switch does.
 */
async function makeSwitch(rig: Rig, name: string): Promise<void> {
  await rig.bridge(name);
  const setting = 'net/bridge/bridge-nf-call-iptables';
  if (existsSync(`/proc/sys/${setting}`)) await rig.ip(name, [], { [setting]: 0 });
}

/**
 * Each port takes what its node's interface would. Not the node's own TAP, whose MTU the node follows: behind it stands a wire
 * of a bridge of its own.
 */
async function joinBySwitch(rig: Rig, configs: readonly Config[]): Promise<void> {
  await makeSwitch(rig, SWITCH);
  for (const { metadata, spec } of configs) {
    const { name } = metadata;
    const mtu = spec.uplink.mtu - VLAN_HLEN;
    await rig.plug(name, spec.uplink.device, SWITCH, `up-${name}`);
    await rig.ip(SWITCH, [
      `link add br-${name} type bridge mcast_snooping 0`,
      `link set br-${name} up`,
      `link add in-${name} mtu ${mtu} type veth peer name out-${name} mtu ${mtu}`,
      `link set up-${name} master br-${name}`,
      `link set in-${name} master br-${name} up`,
      `link set out-${name} master br0 up`,
    ]);
  }
}

async function joinByVxlan(rig: Rig, configs: readonly Config[], link: LinkConfig): Promise<void> {
  assert.equal(link.layer, 2);
  const hosts = configs.map(({ metadata }) => `host-${metadata.name}`);
  for (const host of hosts) await makeSwitch(rig, host);
  const [here, there] = hosts;
  await rig.ip(here, [`link add wire mtu ${link.mtu} type veth peer name wire netns ${rig.full(there)}`]);
  for (const [i, host] of hosts.entries()) {
    const { metadata, spec } = configs[i];
    await rig.plug(metadata.name, spec.uplink.device, host, 'node');
    await rig.ip(host, [
      `addr add 172.31.0.${i + 1}/24 dev wire`,
      `link set wire mtu ${link.mtu} up`,
      `link add vx0 mtu ${link.mtu - link.carriedBy!.overhead - VLAN_HLEN} type vxlan id ${VNI} local 172.31.0.${i + 1} remote 172.31.0.${2 - i} dstport 4789 dev wire`,
      'link set vx0 master br0 up',
    ]);
  }
}

/** A chain: each router has a node's TAP as its own interface, or a wire to the next router. */
async function joinByRouters(rig: Rig, configs: readonly Config[], links: readonly LinkConfig[]): Promise<void> {
  const nodes = new Map(configs.map(config => [config.metadata.name, config]));
  const routers = [...new Set(links.flatMap(({ between }) => between))].filter(name => !nodes.has(name));
  await rig.namespace(...routers);
  for (const router of routers) await rig.ip(router, [], { 'net/ipv4/ip_forward': 1 });
  for (const [i, { between, mtu, icmp }] of links.entries()) {
    const [a, b] = between;
    const node = nodes.get(a) ?? nodes.get(b);
    if (node !== undefined) {
      const { name } = node.metadata;
      const router = a === name ? b : a;
      const { device, gateway, address } = node.spec.uplink;
      await rig.ip(name, [`link set ${device} netns ${rig.full(router)} name leg${i}`]);
      const length = address.slice(address.indexOf('/'));
      await rig.ip(router, [`link set leg${i} mtu ${mtu} up`, `addr add ${gateway}${length} dev leg${i}`]);
      if (icmp === 'filtered') await filterIcmp(rig, router, `leg${i}`);
    } else {
      await rig.ip(a, [`link add leg${i} mtu ${mtu} type veth peer name leg${i} netns ${rig.full(b)}`]);
      for (const [end, router] of between.entries()) {
        await rig.ip(router, [`link set leg${i} mtu ${mtu} up`, `addr add 172.30.${i}.${end + 1}/30 dev leg${i}`]);
      }
      for (const [end, router] of between.entries()) {
        await rig.ip(router, [`route add default via 172.30.${i}.${2 - end}`]);
      }
    }
  }
}

/** As a firewall in front of the node does that knows no better. */
async function filterIcmp(rig: Rig, router: string, device: string): Promise<void> {
  for (const line of [
    'add table ip mtu',
    'add chain ip mtu out { type filter hook output priority 0 ; }',
    `add rule ip mtu out oifname ${device} icmp type destination-unreachable drop`,
  ]) {
    await rig.run(router, 'nft', line);
  }
}
