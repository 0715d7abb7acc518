/** The path of a packet, step by step, over memory. */
import { strict as assert } from 'node:assert';
import { ethernet, fragment, hex, icmpError, ipip, patch, pattern, udp4 } from './fixtures/packets.ts';
import { fromWire, GATEWAY, HOST, NODE, NODE_MAC, PEER, PEER_MAC, POD, POD2, REMOTE, TestNode } from './forward-rig.ts';
import {
  back,
  DF,
  dropsSince,
  geneve,
  OUTSIDE,
  ofLength,
  onWire,
  outputOf,
  podEcho,
  type Row,
  vxlan,
} from './forward-text.ts';

const SOURCE: Row[] = [
  {
    what: 'its own address passes',
    into: 'p1',
    packet: podEcho(),
    out: [onWire(`${POD} > ${REMOTE} icmp 8/0 ttl=63 len=84`)],
  },
  {
    what: "another pod's address does not",
    into: 'p1',
    packet: podEcho({ src: POD2 }),
    drops: ['drop-invalid-source'],
  },
  { what: "the host's does not", into: 'p1', packet: podEcho({ src: HOST }), drops: ['drop-invalid-source'] },
  { what: '0.0.0.0 does not', into: 'p1', packet: podEcho({ src: '0.0.0.0' }), drops: ['drop-invalid-source'] },
  {
    what: 'the host may send from any',
    into: 'tp0',
    packet: podEcho({ src: NODE, dst: POD }),
    out: [`p1: ${NODE} > ${POD} icmp 8/0 ttl=64 len=84`],
  },
  {
    what: 'IPv6 is refused, and is no malformed IPv4',
    into: 'p1',
    packet: hex(`6000000000083aff ${'00'.repeat(32)} 8500000000000000`),
    drops: ['drop-not-ipv4'],
  },
  { what: 'less than a header', into: 'p1', packet: podEcho().subarray(0, 19), drops: ['drop-malformed-ipv4'] },
  { what: 'less than it says', into: 'p1', packet: podEcho().subarray(0, 83), drops: ['drop-truncated'] },
  { what: 'a wrong header checksum', into: 'p1', packet: patch(podEcho(), 8, 9), drops: ['drop-ipv4-checksum'] },
  {
    what: "the tunnel's protocol towards a node",
    into: 'p1',
    packet: udp4({ src: POD, dst: PEER, dport: 8472 }),
    drops: ['drop-encap-from-workload'],
  },
  {
    what: 'the same port towards anybody else is nothing special',
    into: 'p1',
    packet: udp4({ src: POD, dst: POD2, dport: 8472 }),
    out: [`p2: ${POD} > ${POD2} udp 8472 ttl=63 len=28`],
  },
  {
    what: 'IPIP towards a node',
    node: { protocol: 'ipip' },
    into: 'p1',
    packet: ipip(podEcho(), { src: POD, dst: NODE }),
    drops: ['drop-encap-from-workload'],
  },
];

const ROUTES: Row[] = [
  {
    what: 'to a pod here',
    into: 'p1',
    packet: podEcho({ dst: POD2 }),
    out: [`p2: ${POD} > ${POD2} icmp 8/0 ttl=63 len=84`],
  },
  { what: 'to itself', into: 'p1', packet: podEcho({ dst: POD }), out: [`p1: ${POD} > ${POD} icmp 8/0 ttl=63 len=84`] },
  {
    what: 'to the host port',
    into: 'p1',
    packet: podEcho({ dst: HOST }),
    out: [`tp0: ${POD} > ${HOST} icmp 8/0 ttl=64 len=84`],
  },
  {
    what: "to the node's address on the underlay",
    into: 'p1',
    packet: podEcho({ dst: NODE }),
    out: [`tp0: ${POD} > ${NODE} icmp 8/0 ttl=64 len=84`],
  },
  {
    what: 'to the gateway by the default route',
    into: 'p1',
    packet: podEcho({ dst: OUTSIDE }),
    out: [`ul0: ${POD} > ${OUTSIDE} icmp 8/0 ttl=63 len=84`],
  },
  {
    what: 'to the subnet itself, on link',
    into: 'p1',
    packet: podEcho({ dst: PEER }),
    out: [`ul0: ${POD} > ${PEER} icmp 8/0 ttl=63 len=84`],
  },
  {
    what: 'to loopback is refused, and said',
    into: 'p1',
    packet: podEcho({ dst: '127.0.0.1' }),
    out: [`p1: ${HOST} > ${POD} icmp 3/1 ttl=64 len=112`],
    drops: ['drop-route-refused'],
  },
  {
    what: "to the subnet's broadcast is refused",
    into: 'p1',
    packet: podEcho({ dst: '192.168.10.255' }),
    out: [`p1: ${HOST} > ${POD} icmp 3/1 ttl=64 len=112`],
    drops: ['drop-route-refused'],
  },
  {
    what: 'to a group is not answered',
    into: 'p1',
    packet: podEcho({ dst: '224.0.0.251' }),
    drops: ['drop-multicast'],
  },
  {
    what: 'to everybody is not answered',
    into: 'p1',
    packet: podEcho({ dst: '255.255.255.255' }),
    drops: ['drop-multicast'],
  },
  {
    what: 'a packet of the host for the host goes round in no circle',
    into: 'tp0',
    packet: podEcho({ src: HOST, dst: NODE }),
    drops: ['drop-route-loop'],
  },
  {
    what: 'without a host port, ping of the node is answered by the datapath',
    node: { withHost: false },
    into: 'p1',
    packet: podEcho({ dst: NODE }),
    out: [`p1: ${NODE} > ${POD} icmp 0/0 ttl=64 len=84`],
  },
  {
    what: 'and anything else has no taker',
    node: { withHost: false },
    into: 'p1',
    packet: udp4({ src: POD, dst: NODE }),
    drops: ['drop-no-host-port'],
  },
  {
    what: 'not even a fragment of a ping',
    node: { withHost: false },
    into: 'p1',
    packet: fragment(podEcho({ dst: NODE, payload: pattern(100) }), 0, 64),
    drops: ['drop-no-host-port'],
  },
];

const UPLINK: Row[] = [
  {
    what: 'for a pod, without a tunnel',
    into: 'ul0',
    packet: back(),
    out: [`p1: ${REMOTE} > ${POD} icmp 0/0 ttl=63 len=84`],
  },
  {
    what: 'for the host',
    into: 'ul0',
    packet: back({ src: PEER, dst: NODE }),
    out: [`tp0: ${PEER} > ${NODE} icmp 0/0 ttl=64 len=84`],
  },
  {
    what: 'Ethernet padding is cut off',
    into: 'ul0',
    packet: Uint8Array.from([...back({ payload: pattern(4) }), ...new Uint8Array(14)]),
    out: [`p1: ${REMOTE} > ${POD} icmp 0/0 ttl=63 len=32`],
  },
  {
    what: 'a runt',
    into: 'ul0',
    frame: true,
    packet: fromWire(back()).subarray(0, 13),
    drops: ['drop-malformed-ethernet'],
  },
  {
    what: 'for another station',
    into: 'ul0',
    frame: true,
    packet: ethernet(back(), { src: PEER_MAC, dst: '02:00:00:00:00:99' }),
    drops: ['drop-other-mac'],
  },
  {
    what: 'IP to all stations',
    into: 'ul0',
    frame: true,
    packet: ethernet(back(), { src: PEER_MAC, dst: 'ff:ff:ff:ff:ff:ff' }),
    drops: ['drop-multicast'],
  },
  {
    what: 'another protocol',
    into: 'ul0',
    frame: true,
    packet: ethernet(back(), { src: PEER_MAC, dst: NODE_MAC, type: 0x86dd }),
    drops: ['drop-not-ipv4'],
  },
  { what: 'from loopback', into: 'ul0', packet: back({ src: '127.0.0.1' }), drops: ['drop-martian-source'] },
  { what: 'from a group', into: 'ul0', packet: back({ src: '224.0.0.1' }), drops: ['drop-martian-source'] },
  {
    what: "from the subnet's broadcast address, by RFC 1812",
    node: { profile: 'rfc' },
    into: 'ul0',
    packet: back({ src: '192.168.10.255' }),
    drops: ['drop-martian-source'],
  },
  { what: 'from our own address', into: 'ul0', packet: back({ src: NODE }), drops: ['drop-martian-source'] },
  { what: 'from a pod of ours', into: 'ul0', packet: back({ src: POD2 }), drops: ['drop-martian-source'] },
  { what: 'from our host port', into: 'ul0', packet: back({ src: HOST }), drops: ['drop-martian-source'] },
  {
    what: 'for others by the default route is refused: this node is no open router',
    into: 'ul0',
    packet: back({ dst: OUTSIDE }),
    drops: ['drop-not-routed'],
  },
  {
    what: 'for others on the subnet, too',
    into: 'ul0',
    packet: back({ dst: '192.168.10.9' }),
    drops: ['drop-not-routed'],
  },
  {
    what: 'for others by an explicit route passes',
    into: 'ul0',
    packet: back({ src: OUTSIDE, dst: REMOTE }),
    out: [onWire(`${OUTSIDE} > ${REMOTE} icmp 0/0 ttl=63 len=84`)],
  },
];

const TUNNELS: Row[] = [
  {
    what: 'IPIP out',
    node: { protocol: 'ipip' },
    into: 'p1',
    packet: podEcho(),
    out: [`ul0: ${NODE} > ${PEER} ttl=63 ipip [${POD} > ${REMOTE} icmp 8/0 ttl=63 len=84]`],
  },
  {
    what: 'IPIP in',
    node: { protocol: 'ipip' },
    into: 'ul0',
    packet: ipip(back(), { src: PEER, dst: NODE }),
    out: [`p1: ${REMOTE} > ${POD} icmp 0/0 ttl=63 len=84`],
  },
  {
    what: 'VXLAN in',
    into: 'ul0',
    packet: vxlan(back()),
    out: [`p1: ${REMOTE} > ${POD} icmp 0/0 ttl=63 len=84`],
  },
  {
    what: 'GENEVE out',
    node: { protocol: 'geneve' },
    into: 'p1',
    packet: podEcho(),
    out: [`ul0: ${NODE} > ${PEER} ttl=64 geneve 7 [${POD} > ${REMOTE} icmp 8/0 ttl=63 len=84]`],
  },
  {
    what: 'GENEVE in',
    node: { protocol: 'geneve' },
    into: 'ul0',
    packet: geneve(back()),
    out: [`p1: ${REMOTE} > ${POD} icmp 0/0 ttl=63 len=84`],
  },
  {
    what: 'no tunnel',
    node: { protocol: 'none' },
    into: 'p1',
    packet: podEcho(),
    out: [`ul0: ${POD} > ${REMOTE} icmp 8/0 ttl=63 len=84`],
  },
  {
    what: "Cilium's VNI is the sender's identity",
    node: { profile: 'cilium', vni: 'identity' },
    into: 'p2',
    packet: podEcho({ src: POD2 }),
    out: [`ul0: ${NODE} > ${PEER} ttl=64 vxlan 102 [${POD2} > ${REMOTE} icmp 8/0 ttl=64 len=84]`],
  },
  {
    what: "a node's own packets travel as remote-node",
    node: { profile: 'cilium', vni: 'identity' },
    into: 'tp0',
    packet: podEcho({ src: HOST }),
    out: [`ul0: ${NODE} > ${PEER} ttl=64 vxlan 6 [${HOST} > ${REMOTE} icmp 8/0 ttl=64 len=84]`],
  },
  {
    what: 'and so do the errors that it sends',
    node: { profile: 'cilium', vni: 'identity' },
    into: 'ul0',
    packet: vxlan(podEcho({ src: REMOTE, dst: POD, ttl: 1 }), { vni: 201 }),
    out: [`ul0: ${NODE} > ${PEER} ttl=64 vxlan 6 [${HOST} > ${REMOTE} icmp 11/0 ttl=64 len=112]`],
    drops: ['drop-ttl-exceeded'],
  },
  {
    what: "and its answers to ping, where it has no host port's",
    node: { profile: 'cilium', vni: 'identity', withHost: false },
    into: 'ul0',
    packet: vxlan(podEcho({ src: REMOTE, dst: NODE }), { vni: 201 }),
    out: [`ul0: ${NODE} > ${PEER} ttl=64 vxlan 6 [${NODE} > ${REMOTE} icmp 0/0 ttl=64 len=84]`],
  },
  {
    what: 'what comes from outside is the world',
    node: { profile: 'cilium', vni: 'identity' },
    into: 'ul0',
    packet: back({ src: OUTSIDE, dst: REMOTE }),
    out: [`ul0: ${NODE} > ${PEER} ttl=64 vxlan 2 [${OUTSIDE} > ${REMOTE} icmp 0/0 ttl=63 len=84]`],
  },
  {
    what: 'from a stranger',
    into: 'ul0',
    packet: vxlan(back(), { src: GATEWAY }),
    drops: ['drop-encap-unknown-peer'],
  },
  { what: 'another VNI', into: 'ul0', packet: vxlan(back(), { vni: 8 }), drops: ['drop-tunnel-unknown-vni'] },
  { what: 'no I flag', into: 'ul0', packet: vxlan(back(), { flags: 0 }), drops: ['drop-vxlan-flags'] },
  { what: 'IPv6 inside', into: 'ul0', packet: vxlan(back(), { innerType: 0x86dd }), drops: ['drop-tunnel-inner-type'] },
  {
    what: 'a tunnel packet for us inside: it would be taken for our own',
    into: 'ul0',
    packet: vxlan(udp4({ src: REMOTE, dst: NODE, dport: 8472, payload: pattern(60) })),
    drops: ['drop-encap-from-workload'],
  },
  {
    what: 'a tunnel packet for another node inside',
    into: 'ul0',
    packet: vxlan(udp4({ src: REMOTE, dst: PEER, dport: 8472, payload: pattern(60) })),
    drops: ['drop-encap-from-workload'],
  },
  {
    what: 'IPIP in IPIP, for another node',
    node: { protocol: 'ipip' },
    into: 'ul0',
    packet: ipip(ipip(back(), { src: REMOTE, dst: PEER }), { src: PEER, dst: NODE }),
    drops: ['drop-encap-from-workload'],
  },
  {
    what: 'a pod of ours as the inner source',
    into: 'ul0',
    packet: vxlan(back({ src: POD2 })),
    drops: ['drop-martian-source'],
  },
  { what: 'a broken inner header', into: 'ul0', packet: vxlan(patch(back(), 8, 1)), drops: ['drop-ipv4-checksum'] },
  {
    what: "another tunnel's packet is for the host",
    into: 'ul0',
    packet: ipip(back(), { src: PEER, dst: NODE }),
    out: [`tp0: ${PEER} > ${NODE} ttl=64 ipip [${REMOTE} > ${POD} icmp 0/0 ttl=64 len=84]`],
  },
  {
    what: 'a tunnel packet for another address of ours is no tunnel packet',
    into: 'ul0',
    packet: udp4({ src: PEER, dst: POD, dport: 9999, payload: pattern(40) }),
    out: [`p1: ${PEER} > ${POD} udp 9999 ttl=63 len=68`],
  },
];

const TTL_AND_MTU: Row[] = [
  {
    what: 'TTL 1 from a pod',
    into: 'p1',
    packet: podEcho({ ttl: 1 }),
    out: [`p1: ${HOST} > ${POD} icmp 11/0 ttl=64 len=112`],
    drops: ['drop-ttl-exceeded'],
  },
  {
    what: 'TTL 2 passes',
    into: 'p1',
    packet: podEcho({ ttl: 2 }),
    out: [onWire(`${POD} > ${REMOTE} icmp 8/0 ttl=1 len=84`)],
  },
  {
    what: "TTL 1 in Cilium's tunnel passes: it is decremented at delivery",
    node: { profile: 'cilium' },
    into: 'p1',
    packet: podEcho({ ttl: 1 }),
    out: [onWire(`${POD} > ${REMOTE} icmp 8/0 ttl=1 len=84`)],
  },
  {
    what: 'there the delivering node says so, through the tunnel',
    node: { profile: 'cilium', vni: 7 },
    into: 'ul0',
    packet: vxlan(podEcho({ src: REMOTE, dst: POD, ttl: 1 })),
    out: [onWire(`${HOST} > ${REMOTE} icmp 11/0 ttl=64 len=112`)],
    drops: ['drop-ttl-exceeded'],
  },
  {
    what: 'TTL 1 for the host itself is no matter',
    into: 'p1',
    packet: podEcho({ dst: HOST, ttl: 1 }),
    out: [`tp0: ${POD} > ${HOST} icmp 8/0 ttl=1 len=84`],
  },
  {
    what: 'TTL 1 of the host itself neither',
    into: 'tp0',
    packet: podEcho({ src: HOST, dst: POD, ttl: 1 }),
    out: [`p1: ${HOST} > ${POD} icmp 8/0 ttl=1 len=84`],
  },
  {
    what: 'TTL 1 from outside is told by the underlay address',
    into: 'ul0',
    packet: podEcho({ src: PEER, dst: POD, ttl: 1 }),
    out: [`ul0: ${NODE} > ${PEER} icmp 11/0 ttl=64 len=112`],
    drops: ['drop-ttl-exceeded'],
  },
  {
    what: 'an ICMP error is not answered by another',
    into: 'p1',
    packet: icmpError(3, 3, podEcho().subarray(0, 28), { src: POD, dst: REMOTE, ttl: 1 }),
    drops: ['drop-ttl-exceeded'],
  },
  {
    what: 'nor is a later fragment',
    into: 'p1',
    packet: fragment(podEcho({ payload: pattern(200), ttl: 1 }), 64, 64),
    drops: ['drop-ttl-exceeded'],
  },
  {
    what: 'the first fragment is',
    into: 'p1',
    packet: fragment(podEcho({ payload: pattern(200), ttl: 1 }), 0, 64),
    out: [`p1: ${HOST} > ${POD} icmp 11/0 ttl=64 len=112`],
    drops: ['drop-ttl-exceeded'],
  },
  {
    what: 'a long packet is quoted up to 576 bytes',
    into: 'p1',
    packet: ofLength(1400, { ttl: 1 }),
    out: [`p1: ${HOST} > ${POD} icmp 11/0 ttl=64 len=576`],
    drops: ['drop-ttl-exceeded'],
  },
  {
    what: 'exactly the MTU of the tunnel, DF',
    into: 'p1',
    packet: ofLength(1450, { fragment: DF }),
    out: [onWire(`${POD} > ${REMOTE} udp 53 ttl=63 len=1450`)],
  },
  {
    what: 'one byte more, DF',
    into: 'p1',
    packet: ofLength(1451, { fragment: DF }),
    out: [`p1: ${HOST} > ${POD} icmp 3/4 mtu=1450 ttl=64 len=576`],
    drops: ['drop-over-mtu-dont-fragment'],
  },
  {
    what: 'one byte more, without DF',
    into: 'p1',
    packet: ofLength(1451),
    out: [onWire(`${POD} > ${REMOTE} frag 0+ ttl=63 len=1444`), onWire(`${POD} > ${REMOTE} frag 1424 ttl=63 len=27`)],
  },
  {
    what: 'IPIP leaves 1480',
    node: { protocol: 'ipip' },
    into: 'p1',
    packet: ofLength(1481, { fragment: DF }),
    out: [`p1: ${HOST} > ${POD} icmp 3/4 mtu=1480 ttl=64 len=576`],
    drops: ['drop-over-mtu-dont-fragment'],
  },
  {
    what: 'from outside to a pod with a smaller MTU',
    into: 'ul0',
    packet: udp4({ src: PEER, dst: POD, payload: pattern(1472), fragment: DF }),
    out: [`ul0: ${NODE} > ${PEER} icmp 3/4 mtu=1450 ttl=64 len=576`],
    drops: ['drop-over-mtu-dont-fragment'],
  },
  {
    what: "a route's own MTU",
    node: { routes: [{ to: '10.9.0.0/16', via: GATEWAY, mtu: 1400 }] },
    into: 'p1',
    packet: ofLength(1401, { dst: '10.9.1.1', fragment: DF }),
    out: [`p1: ${HOST} > ${POD} icmp 3/4 mtu=1400 ttl=64 len=576`],
    drops: ['drop-over-mtu-dont-fragment'],
  },
];

describe('the path of a packet', () => {
  const steps: [string, Row[]][] = [
    ['source check and validation', SOURCE],
    ['route', ROUTES],
    ['from the uplink', UPLINK],
    ['tunnels', TUNNELS],
    ['TTL and MTU', TTL_AND_MTU],
  ];
  for (const [step, rows] of steps) {
    describe(step, () => {
      for (const row of rows) {
        it(row.what, () => {
          const node = new TestNode(row.node);
          node.meetNeighbors();
          const since = node.counters.values.slice();
          node.send(row.into, row.into === 'ul0' && row.frame !== true ? fromWire(row.packet) : row.packet);
          assert.deepEqual(outputOf(node), row.out ?? []);
          assert.deepEqual(dropsSince(node, since), row.drops ?? []);
          assert.equal(node.balance, 0, 'packets in, packets out');
          assert.equal(node.leaked, 0, 'packets of the pool');
        });
      }
    });
  }
});
