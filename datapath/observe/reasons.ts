/**
 * Every drop reason in words: what it means, what usually causes it, and what to look at. `docs/drops.md` is made from
 * this table, and what shows a drop links to its heading there.
 */
import { isDrop, VERDICT_NAMES } from '../verdict.ts';

export interface Reason {
  /** What the packet was, or did. */
  meaning: string;
  /** The usual cause. */
  cause: string;
  /** Where to look, or what to do. */
  look: string;
}

const CAPTURE = '`tcpdump` on the device that it came by';
const COUNTERS =
  'a counter that grows with all traffic is a configuration, one that grows now and then an attack or a fault';

/** By the name in verdict.ts. A test holds that none is missing and none is left over. */
export const REASONS: Readonly<Record<string, Reason>> = {
  'drop-malformed-ethernet': {
    meaning: 'A frame shorter than an Ethernet header.',
    cause: 'A broken sender or device on the segment.',
    look: CAPTURE,
  },
  'drop-malformed-arp': {
    meaning: 'An ARP packet that is cut off or not for IPv4 over Ethernet.',
    cause: 'A broken or hostile station on the segment.',
    look: '`tcpdump -e arp` on the segment',
  },
  'drop-malformed-ipv4': {
    meaning: 'Version, header length or total length do not fit the packet.',
    cause: 'A broken sender, or a capture tool that cut what it sends.',
    look: CAPTURE,
  },
  'drop-ipv4-checksum': {
    meaning: 'The IPv4 header checksum is wrong.',
    cause: 'A header changed on the way by something that did not update it.',
    look: `${CAPTURE}, with checksum validation on`,
  },
  'drop-malformed-l4': {
    meaning: 'The TCP, UDP or ICMP header does not fit the packet.',
    cause: 'Port scans with tiny fragments (RFC 1858), or a broken sender.',
    look: CAPTURE,
  },
  'drop-malformed-vnet-header': {
    meaning: 'The virtio-net header describes a packet that the bytes are not.',
    cause: 'A driver fault, or an inner packet that contradicts its tunnel.',
    look: '`tunpath status`: turn offloads off to see whether it stays',
  },
  'drop-truncated': {
    meaning: 'Fewer bytes than the IPv4 header says.',
    cause: 'Replay of a capture with a snap length, or a device that cut the packet.',
    look: 'capture with `-s 0`',
  },
  'drop-other-mac': {
    meaning: 'A frame for another station.',
    cause: 'A hub, a flooding bridge, or a promiscuous port. Harmless.',
    look: 'the forwarding table of the bridge: `bridge fdb`',
  },
  'drop-not-ipv4': {
    meaning: 'Neither IPv4 nor ARP.',
    cause: 'IPv6 neighbour discovery and LLDP of the other stations. Harmless.',
    look: 'nothing, unless you sent it',
  },
  'drop-invalid-source': {
    meaning: 'A pod sent from an address that is not its own.',
    cause: 'A second address inside the pod, a router pod without its range, or spoofing.',
    look: 'the pod’s addresses in the configuration, `ip addr` in its namespace',
  },
  'drop-martian-source': {
    meaning:
      'A source address that cannot come from there: loopback, multicast, broadcast, or one of ours from outside.',
    cause: 'Two nodes with one pod network, a routing loop, or spoofing.',
    look: 'whether another node has the same pod addresses: `tunpath mtu prove -f DIR` compares files',
  },
  'drop-not-routed': {
    meaning: 'Somebody else’s packet for somebody else, and no explicit route says that this node forwards it.',
    cause: 'A router that sends a pod network to the wrong node.',
    look: '`tunpath get routes`, and the routes of the router',
  },
  'drop-multicast': {
    meaning: 'A multicast or broadcast destination; the datapath forwards unicast.',
    cause: 'mDNS, SSDP, DHCP of the pods and the segment. Harmless.',
    look: 'nothing, unless an application needs it',
  },
  'drop-encap-from-workload': {
    meaning: 'A pod, or what came out of a tunnel, speaks the tunnel’s own protocol to a node.',
    cause: 'A nested overlay towards the node’s own port, or an attempt to speak as another pod.',
    look: 'the ports: an overlay of the pods needs another one than the node’s tunnel',
  },
  'drop-address-conflict': {
    meaning: 'Another station says in ARP that it has an address of ours.',
    cause: 'A duplicate address, or a bridge in the node’s own namespace that answers for it.',
    look: 'the log names both MACs; `arping -D ADDRESS`',
  },
  'drop-encap-unknown-peer': {
    meaning: 'A tunnel packet from an address that is no peer.',
    cause: 'A node that is missing from `peers`, or a stranger.',
    look: '`spec.tunnel.peers`; the source address in a capture',
  },
  'drop-tunnel-malformed': {
    meaning: 'The tunnel header or the inner packet is cut off.',
    cause: 'A broken sender.',
    look: CAPTURE,
  },
  'drop-vxlan-flags': {
    meaning: 'A VXLAN header without the I flag, or with reserved bits set (Linux drops those, RFC 7348 ignores them).',
    cause: 'VXLAN-GPE or GBP at the other end.',
    look: 'the profile, and the extensions of the peer’s device',
  },
  'drop-tunnel-unknown-vni': {
    meaning: 'A VNI that this node does not have.',
    cause: 'The two ends are configured with different VNIs.',
    look: '`vni` at both ends; VNI 4096 is Calico’s, 1 flannel’s, Cilium sends identities',
  },
  'drop-geneve-version': {
    meaning: 'A GENEVE version other than 0.',
    cause: 'Something else uses the port.',
    look: CAPTURE,
  },
  'drop-geneve-critical-option': {
    meaning: 'A critical GENEVE option that is not configured here (RFC 8926 section 3.5).',
    cause: 'The peer adds options, Cilium’s DSR for one.',
    look: '`spec.tunnel.options` at both ends',
  },
  'drop-tunnel-inner-type': {
    meaning: 'The tunnel carries something that is not IPv4.',
    cause: 'ARP or IPv6 inside the overlay: peers that learn by flooding.',
    look: 'give the peer permanent neighbours for the VTEPs, as flannel does',
  },
  'drop-tunnel-inner-mac': {
    meaning: 'The inner frame is for another MAC.',
    cause: 'A stale VTEP MAC at the sender.',
    look: 'the MAC of this node in the sender’s peer entry or neighbour table',
  },
  'drop-tunnel-own-mac': {
    meaning: 'The inner frame comes from our own VTEP MAC.',
    cause: 'A loop in the underlay, or two nodes with one VTEP MAC.',
    look: '`spec.tunnel.mac` of all nodes',
  },
  'drop-tunnel-checksum': {
    meaning: 'The outer UDP checksum is wrong.',
    cause: 'A device that broke the checksum of tunnel packets (flannel#1279).',
    look: 'turn off tx checksum offload at the sender',
  },
  'drop-tunnel-ecn': {
    meaning: 'Outer CE, inner Not-ECT: RFC 6040 wants it dropped.',
    cause: 'A congested router in the underlay.',
    look: 'the load of the underlay',
  },
  'drop-tunnel-fragment': {
    meaning: 'A fragment of a tunnel packet where those are not joined.',
    cause: 'The underlay is narrower than the sender believes.',
    look: '`tunpath mtu probe`, the MTU of the pods',
  },
  'drop-tunnel-control': {
    meaning: 'A GENEVE control packet (O flag).',
    cause: 'OAM of the peer.',
    look: 'nothing',
  },
  'drop-geneve-option-length': {
    meaning: 'GENEVE options that do not fit their length.',
    cause: 'A broken sender.',
    look: CAPTURE,
  },
  'drop-tunnel-coalesced': {
    meaning: 'Tunnel packets joined by a device in a way that cannot be taken apart.',
    cause: 'GRO of the NIC.',
    look: '`ethtool -K DEVICE rx-udp-gro-forwarding off gro off`',
  },
  'drop-no-route': {
    meaning: 'No route leads to the destination; the sender got ICMP network unreachable.',
    cause: 'A missing route or gateway.',
    look: '`tunpath get routes`',
  },
  'drop-route-refused': {
    meaning: 'The route says no: loopback, this network, a directed broadcast; the sender got ICMP host unreachable.',
    cause: 'A destination that never leaves a host.',
    look: '`tunpath get routes`',
  },
  'drop-ttl-exceeded': {
    meaning: 'The TTL ran out here; the sender got ICMP time exceeded.',
    cause: '`traceroute`, or a routing loop.',
    look: '`tracepath` to the destination: a loop repeats addresses',
  },
  'drop-over-mtu-dont-fragment': {
    meaning: 'Too long for the next hop and DF set; the sender got ICMP fragmentation needed.',
    cause: 'Path MTU discovery at work. A problem only where the sender does not listen.',
    look: '`tunpath mtu probe`, the MTU of the pod, firewalls that drop ICMP',
  },
  'drop-neighbor-unreachable': {
    meaning: 'The next hop did not answer ARP; the sender got ICMP host unreachable.',
    cause: 'The neighbour is down, in another VLAN, or its address is wrong.',
    look: '`tunpath get neighbors`, `arping` from the segment',
  },
  'drop-neighbor-queue-full': {
    meaning: 'More packets than are kept waited for one ARP answer.',
    cause: 'A burst to a neighbour that is not there yet.',
    look: '`tunpath get neighbors`',
  },
  'drop-no-tunnel-peer': {
    meaning: 'The route leads into a tunnel, and there is no tunnel or peer.',
    cause: 'Routes and tunnels of two different configurations.',
    look: '`tunpath get routes`, `tunpath status`',
  },
  'drop-no-host-port': {
    meaning: 'For the node itself, which has no host port and answers only ping.',
    cause: '`spec.host` is missing.',
    look: 'the configuration',
  },
  'drop-source-route': {
    meaning: 'A source-routed packet; those are refused as Linux does by default.',
    cause: 'A probe, or an attack.',
    look: CAPTURE,
  },
  'drop-route-loop': {
    meaning: 'It would go back to where it came from.',
    cause: 'Two machines whose routes point at each other.',
    look: '`ip route get` on both',
  },
  'drop-neighbor-table-full': {
    meaning: 'The neighbour table has no free place.',
    cause: 'A scan of a large subnet.',
    look: '`tunpath get neighbors`',
  },
  'drop-no-buffer': {
    meaning: 'No free packet buffer.',
    cause: 'Fragments, or packets that wait for ARP, hold the pool.',
    look: 'the table `packets` of `tunpath status`',
  },
  'drop-device-queue-full': {
    meaning: 'The device did not take the packet: its queue is full.',
    cause: 'The receiver is slower than the sender; a TUN never pushes back on UDP.',
    look: 'the rate; `txqueuelen` of the device',
  },
  'drop-device-down': {
    meaning: 'The device is switched off, or has no carrier.',
    cause: '`ip link set down`, in the pod or on the host.',
    look: '`tunpath get ports`: STATE, SINCE and WHY',
  },
  'drop-device-refused': {
    meaning: 'The device refused the packet.',
    cause: 'Longer than its MTU, or an offload that it does not have.',
    look: '`tunpath status`: offloads and MTU of the port',
  },
  'drop-icmp-rate-limit': {
    meaning: 'An ICMP error was not sent: too many to one destination.',
    cause: 'A flood of packets that are refused.',
    look: 'the other drop counters: they say why they are refused',
  },
  'drop-no-port': {
    meaning: 'The next hop leads to a port that is not there.',
    cause: 'A node without an uplink, or a pod that has gone.',
    look: '`tunpath get ports`',
  },
  'drop-port-gone': {
    meaning: 'The device of the port that the packet leads to is gone. Its sender was told "host unreachable".',
    cause: 'A network namespace or a NIC that was deleted; the node attaches what comes back.',
    look: '`tunpath get ports`: STATE, SINCE and WHY',
  },
  'drop-ct-invalid-tcp-flags': {
    meaning: 'TCP flags that no connection sends together.',
    cause: 'A port scan.',
    look: COUNTERS,
  },
  'drop-ct-invalid-tcp-new': {
    meaning: 'A TCP segment of no known connection that cannot begin one.',
    cause: 'A connection older than the node, or one whose entry has run out.',
    look: '`tunpath get conntrack`; the timeouts of the profile',
  },
  'drop-ct-invalid-tcp-state': {
    meaning: 'A TCP segment that the connection’s state does not allow.',
    cause: 'Segments that arrive after the end, or a port used again too early.',
    look: '`tunpath get conntrack`',
  },
  'drop-ct-invalid-tcp-seq-high': {
    meaning: 'A sequence number beyond the receiver’s window.',
    cause: 'Loss of sight (asymmetric routes), or an injected segment.',
    look: 'whether both directions pass this node',
  },
  'drop-ct-invalid-tcp-ack-high': {
    meaning: 'It acknowledges what was never sent.',
    cause: 'Asymmetric routes, or an injected segment.',
    look: 'whether both directions pass this node',
  },
  'drop-ct-invalid-tcp-rst': {
    meaning: 'A reset whose sequence number is not the expected one (RFC 5961).',
    cause: 'An injected reset, or one that was overtaken.',
    look: COUNTERS,
  },
  'drop-ct-invalid-icmp-type': {
    meaning: 'An ICMP message that is neither a query nor an error that NAT knows.',
    cause: 'Router discovery and other messages of the local link.',
    look: CAPTURE,
  },
  'drop-ct-invalid-icmp-reply': {
    meaning: 'An ICMP answer to no question.',
    cause: 'An answer that came after its entry had run out.',
    look: '`tunpath get conntrack -o json`',
  },
  'drop-ct-invalid-icmp-quote': {
    meaning: 'An ICMP error whose quoted packet is cut off, or was not sent by whom it is sent to.',
    cause: 'A router that quotes too little, or a forged error.',
    look: CAPTURE,
  },
  'drop-ct-icmp-no-flow': {
    meaning: 'An ICMP error about a packet of no known flow.',
    cause: 'It came after the flow had ended, or is forged.',
    look: COUNTERS,
  },
  'drop-ct-icmp-checksum': {
    meaning: 'An ICMP error with a wrong checksum.',
    cause: 'A broken router, or one that rewrote the quote and not the checksum.',
    look: CAPTURE,
  },
  'drop-ct-table-full': {
    meaning: 'The flow table has no free entry.',
    cause: 'A flood, or a table too small for the traffic.',
    look: '`spec.conntrack.size`, the table `conntrack` of `tunpath status`',
  },
  'drop-ct-source-quota': {
    meaning: 'The pod has begun as many flows as one may (`conntrack.perSource`).',
    cause: 'A scan or a flood from one pod.',
    look: '`tunpath get conntrack`',
  },
  'drop-ct-tuple-taken': {
    meaning: 'Another flow has the same addresses and ports after translation.',
    cause: 'Two clients behind one address that meet at one backend.',
    look: '`tunpath get conntrack`',
  },
  'drop-ct-fragment': {
    meaning: 'A fragment whose first one has gone.',
    cause: 'Loss, or a first fragment that was refused.',
    look: '`tunpath get counters`: the other fragment reasons',
  },
  'drop-ct-invalid-sctp': {
    meaning: 'An SCTP chunk that the association’s state does not allow.',
    cause: 'An association older than the node.',
    look: '`tunpath get conntrack`',
  },
  'drop-ct-backend-pickup': {
    meaning:
      'The middle of a connection, from a backend: its client knows it under the service’s address, so it cannot pass.',
    cause: 'The node was restarted; without state the connection is lost.',
    look: 'the client opens a new one',
  },
  'drop-nat-ports-exhausted': {
    meaning: 'No free source port towards this destination; the sender got ICMP 3/13.',
    cause: 'Many connections to one destination, or a small `ports` range.',
    look: '`tunpath get nat`',
  },
  'drop-nat-cannot-rewrite': {
    meaning: 'A packet of a translated flow that cannot be rewritten.',
    cause: 'ICMP redirects, and protocols whose checksum covers what NAT changes.',
    look: CAPTURE,
  },
  'drop-nat-filtered': {
    meaning: 'From outside to a mapping that was made for somebody else (RFC 4787 filtering).',
    cause: 'Unsolicited packets.',
    look: 'the profile’s filtering',
  },
  'drop-no-service-endpoint': {
    meaning: 'The service has no endpoint; the sender got ICMP port unreachable.',
    cause: 'No ready pod.',
    look: '`tunpath get endpoints`',
  },
  'drop-no-local-service-endpoint': {
    meaning: 'The traffic policy is Local and this node has no endpoint.',
    cause: 'The client, or the load balancer, asked the wrong node.',
    look: '`tunpath get services -o wide`, `tunpath get endpoints`',
  },
  'drop-unknown-service-port': {
    meaning: 'A cluster address, but a port that no service has there; the sender got ICMP port unreachable.',
    cause: 'A wrong port, or a service that changed.',
    look: '`tunpath get services`',
  },
  'drop-service-source-range': {
    meaning: 'The client is not in the service’s `loadBalancerSourceRanges`.',
    cause: 'As configured.',
    look: '`tunpath get services -o json`',
  },
  'drop-cluster-address-from-outside': {
    meaning:
      'From outside to the cluster address of a service, in profile cilium: silent, as Cilium drops it (DROP_IS_CLUSTER_IP).',
    cause: 'A router or a host outside has a route to the service network.',
    look: 'the node port, load balancer or external address of the service in `tunpath get services`; or another profile',
  },
  'drop-unallocated-service-address': {
    meaning: 'An address of the service network (`serviceCIDR`) that no service has. Silent, as kube-proxy drops it.',
    cause: 'A service that is gone, or a stale DNS answer.',
    look: '`tunpath get services`',
  },
  'drop-policy-denied-egress': {
    meaning: 'A network policy selects the sender for egress, and no rule allows this destination and port.',
    cause: 'A policy that isolates the pod; or one without a rule for DNS.',
    look: '`tunpath get policies`',
  },
  'drop-policy-denied-ingress': {
    meaning: 'A network policy selects the receiver for ingress, and no rule allows this source and port.',
    cause: 'A policy that isolates the pod.',
    look: '`tunpath get policies`',
  },
  'drop-fragment-overlap': {
    meaning: 'Two fragments of one datagram overlap (RFC 5722).',
    cause: 'An attack on what joins fragments.',
    look: CAPTURE,
  },
  'drop-fragment-malformed': {
    meaning: 'Its datagram would end in two places, or be longer than 65535 bytes.',
    cause: 'An attack, or a broken sender.',
    look: CAPTURE,
  },
  'drop-fragment-duplicate': {
    meaning: 'The same fragment twice.',
    cause: 'A network that duplicates packets.',
    look: 'loops in bridges without spanning tree',
  },
  'drop-fragment-queue-full': {
    meaning: 'Too many fragments wait for others.',
    cause: 'Loss of fragments under load, or a flood of them.',
    look: 'the table `fragments` of `tunpath status`; avoid fragments by the MTU of the pods',
  },
  'drop-fragment-timeout': {
    meaning: 'The rest of its datagram never came.',
    cause: 'Loss of one fragment loses the datagram.',
    look: 'where fragments are lost: firewalls often drop later ones',
  },
  'drop-fragment-ecn': {
    meaning: 'Fragments of one datagram with ECN codepoints that do not fit each other (RFC 3168 section 5.3).',
    cause: 'A router that marks some fragments.',
    look: CAPTURE,
  },
  'drop-tunnel-error-quote': {
    meaning: 'An ICMP error about a tunnel packet that we cannot have sent.',
    cause: 'A forged path MTU.',
    look: CAPTURE,
  },
  'drop-tunnel-error-checksum': {
    meaning: 'An ICMP error about a tunnel packet, with a wrong checksum.',
    cause: 'A broken router, or a forged error.',
    look: CAPTURE,
  },
  'drop-tunnel-error': {
    meaning: 'An ICMP error about a tunnel packet that says nothing of its size.',
    cause: 'The peer is unreachable or refuses the port.',
    look: '`tunpath host check`, the firewall of the peer',
  },
  'drop-underlay-too-small': {
    meaning: 'Too long for an underlay that was to have room for everything (`tooBig: larger-underlay`).',
    cause: 'A link with a smaller MTU than configured.',
    look: '`tunpath mtu prove`, `ip link`',
  },
  'drop-wire-loss': {
    meaning: 'Lost on a segment in the process, as its impairments say.',
    cause: '`loss` of the segment or of one of its ports.',
    look: '`tunpath segment list`',
  },
  'drop-wire-queue-full': {
    meaning: 'More waited on a segment than its `limit` lets wait, or than the pool of packets has room for.',
    cause: 'More than the `rate` was sent, or a node that does not keep up.',
    look: '`tunpath segment list`: rate, limit and waiting',
  },
  'drop-wire-mtu': {
    meaning: 'Longer than a segment, or one direction of it, carries; a wire says nothing to the sender.',
    cause: 'An `uplink.mtu` larger than the MTU of the segment.',
    look: '`tunpath mtu prove`, `tunpath segment list`',
  },
  'drop-wire-icmp-filtered': {
    meaning: 'ICMP on a segment where `icmp` is `filtered`.',
    cause: 'The experiment: path MTU discovery without its messages.',
    look: '`tunpath segment list`',
  },
  'drop-wire-same-port': {
    meaning: 'A frame for a station behind the port of the segment that it came by.',
    cause: 'A bridge behind a TAP port that floods. Harmless.',
    look: 'the stations of `tunpath segment list -o json`',
  },
  'drop-wire-cannot-cut': {
    meaning: 'A superpacket that a wire would carry in pieces, without headers that say where to cut it.',
    cause: 'IPv6 from the kernel by a TAP port, on a segment that loses, delays or limits.',
    look: '`ethtool -K DEVICE tso off` on the sender',
  },
  'drop-wire-closed': {
    meaning: 'On its way when its port, or the segment, was closed.',
    cause: 'A node that was stopped.',
    look: '`tunpath segment list`',
  },
  'drop-wire-source-dest-check': {
    meaning:
      'Sent with a source, or for a destination, that is none of the addresses that the fabric has given the port.',
    cause: "Pods' own addresses on a network that knows only its nodes' (EC2's source/destination check).",
    look: '`tunpath segment list`: `sourceDestCheck`; a tunnel between the nodes',
  },
  'drop-wire-ring-full': {
    meaning: 'The ring between two loops, of the node and of its segment, holds as many frames as it can (1024).',
    cause: 'A loop that does not keep up: too many nodes for it, or too few processors for `--loops`.',
    look: '`tunpath segment list`, `top -H`; fewer loops',
  },
};

/** Where the documentation of a reason stands, relative to the repository. */
export function pageOf(name: string): string {
  return `docs/drops.md#${name}`;
}

/** The text of docs/drops.md: one heading for each reason, in the order of their numbers. */
export function dropsPage(): string {
  const parts = [
    '# Why packets are dropped',
    '',
    'Nothing is dropped in silence: `tunpath get counters` counts every packet under one of these names. Names and numbers are',
    'stable. This page is made by `scripts/docs`.',
  ];
  VERDICT_NAMES.forEach((name, number) => {
    if (name === '' || !isDrop(number)) return;
    const { meaning, cause, look } = REASONS[name];
    parts.push(
      '',
      `## ${name}`,
      '',
      `Number ${number}. ${meaning}`,
      '',
      `- Usual cause: ${cause}`,
      `- Look at: ${look}.`,
    );
  });
  return `${parts.join('\n')}\n`;
}
