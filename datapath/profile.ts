/**
 * How the real systems differ, as one table: every rule on which Linux, Cilium, Calico, flannel and the RFCs disagree is
 * a field of `Profile`, and `PROFILES` gives each system's value. The datapath asks the table and never the name.
 *
 * Where the values come from (Linux 6.18 unless said otherwise):
 * - VXLAN UDP checksum is ON by default: vxlan_nl2conf sets VXLAN_F_UDP_ZERO_CSUM_TX only when IFLA_VXLAN_UDP_CSUM is
 *   present and 0, and `ip -d link` of a fresh device shows `udpcsum`. flannel and Calico create their device through
 *   vishvananda/netlink, which sends the attribute only when it asks for the checksum; neither does, so theirs is on too.
 * - GENEVE UDP checksum over IPv4 is OFF by default: geneve_nl2info sets IP_TUNNEL_CSUM_BIT only when IFLA_GENEVE_UDP_CSUM
 *   is present and 1 (drivers/net/geneve.c). It is on by default over IPv6 only.
 * - Source ports: udp_flow_src_port (include/net/udp.h). VXLAN passes 0, 0, which means ip_local_port_range; GENEVE passes
 *   1, 65535. Its formula never yields the last port of the range, nor do we.
 * - Outer DSCP and ECN: INET_ECN_encapsulate and INET_ECN_decapsulate (include/net/inet_ecn.h); the latter propagates
 *   ECT(1) since Linux 5.8, so that it differs from RFC 6040 only in what it reports.
 * - IPIP: tunl0 (Calico) is made with all parameters 0, which means inherit TTL, nopmtudisc; flannel's backend asks for the
 *   same (PMtuDisc 0). With nopmtudisc the outer DF is the inner one (ip_tunnel_xmit, net/ipv4/ip_tunnel.c).
 * - Cilium: collect_md devices, bpf_skb_set_tunnel_key with TTL 64, TOS 0 and BPF_F_ZERO_CSUM_TX.
 * - Path MTU: ip_rt_min_pmtu (net/ipv4/route.c) is 512 + 20 + 20; a smaller MTU, 0 included, becomes that. Fragments:
 *   IP_FRAG_TIME (include/net/ip.h) is 30 s.
 * - ICMP errors about tunnel packets: vxlan_err_lookup and geneve_udp_encap_err_lookup (since Linux 4.20). Martian sources:
 *   ip_route_input_slow, and fib_validate_source with rp_filter 0 (the kernel's default; 1 and 2 also refuse broadcasts).
 * - TCP in fragments: nf_defrag_ipv4 comes before conntrack; Cilium's ct_lookup4 (bpf/lib/conntrack.h) drops what has no
 *   flags. IPv4 options: ip_forward_options; Cilium's programs redirect past it.
 * - NAT: nf_nat_core.c maps each flow by itself and never touches the identification; a full table loses an unassured flow
 *   (early_drop), Cilium's maps the one unused longest.
 * - What all agree on is no field: an outer identification of its own for every packet, VNI and version checked, GENEVE's
 *   reserved bits ignored, a wrong outer UDP checksum refused, a right one or 0 accepted.
 * - VXLAN reserved bits: vxlan_rcv drops what is left after the I flag, the byte behind the VNI included, and says in a
 *   comment that it diverges from RFC 7348 on purpose.
 */

import type { FullPolicy } from './flow/table.ts';
import type { TimeoutProfile } from './flow/timeouts.ts';
import { LINUX_MIN_PMTU, MIN_MTU } from './mtu/path-mtu.ts';
import type { Filtering } from './nat/mapping.ts';
import type { PortProfile } from './nat/ports.ts';

/** The outer header of one tunnel protocol, as the sender builds it. */
export interface OuterHeader {
  /** Outer TTL, or the inner one copied. */
  readonly ttl: number | 'inherit';
  /**
   * Outer DSCP (6 bits), or the inner one copied. ECN has its own rule. With a number, and with 'inherit', what becomes of
   * the outer DSCP on the way ends with the tunnel: the pipe model of RFC 2983 section 3. 'uniform' is its other model:
   * copied on the way in, and back on the way out.
   */
  readonly dscp: number | 'inherit' | 'uniform';
  readonly df: 0 | 1 | 'inherit';
  /** False: the outer UDP checksum is sent as 0. */
  readonly udpChecksum: boolean;
  /** Smallest source port, and the one behind the greatest. Without meaning for IPIP, which has no ports. */
  readonly sourcePorts: readonly [from: number, to: number];
}

export interface Profile {
  readonly name: ProfileName;
  readonly ipip: OuterHeader;
  readonly vxlan: OuterHeader;
  readonly geneve: OuterHeader;

  /** Outer ECN: 'linux' turns an inner CE into ECT(0) (RFC 3168 section 9.1.1), 'rfc6040' copies all (section 4.1). */
  readonly ecnEncap: EcnVariant;
  /** Both follow RFC 6040 section 4.2; they differ in which odd combinations are counted. */
  readonly ecnDecap: EcnVariant;

  /** UDP destination port of VXLAN, where the configuration names none. GENEVE's is 6081 everywhere. */
  readonly vxlanPort: number;
  /** VNI, where the configuration names none; 'identity': the sender's security identity. */
  readonly vni: number | 'identity';

  /** VXLAN reserved bits that are not 0 on receipt. RFC 7348 section 5 says ignore. */
  readonly vxlanReserved: 'drop' | 'ignore';
  /** GENEVE C bit without an option that is critical. Linux drops by the bit alone; RFC 8926 section 3.4 lets a reader of the options decide by them. */
  readonly geneveCriticalBit: 'drop' | 'by-options';
  /** GENEVE protocol types accepted: Ethernet only (0x6558), or IPv4 without Ethernet (0x0800) as well. */
  readonly genevePayload: 'ethernet' | 'ethernet-or-ipv4';
  /** Inner destination MAC of VXLAN and GENEVE: ours or a group address, or whatever it says. */
  readonly innerDestinationMac: 'own-or-group' | 'any';

  /**
   * A packet whose source is the exit of the tunnel that it is to enter. RFC 2003 section 3.2 discards it, as it must have
   * come out there; Linux looks only at the device.
   */
  readonly fromTunnelExit: 'tunnel' | 'drop';
  /**
   * ICMP errors of the underlay about tunnel packets, beside "fragmentation needed". RFC 2003 section 4 has some of them
   * relayed to the inner sender; Linux tells nobody where the device has no fixed remote.
   */
  readonly tunnelErrors: 'ignore' | 'relay';
  /**
   * An ICMP error about a VXLAN or GENEVE packet whose quote ends before the VNI: 8 bytes of the UDP header are all that
   * routers of RFC 792 quote, and easily forged. Linux believes only a tunnel header with a VNI that it knows.
   */
  readonly shortTunnelQuotes: 'refuse' | 'believe';
  /**
   * Sources from outside that no host can have. 'linux': 0.0.0.0, loopback, groups, the limited broadcast and the node's own.
   * RFC 1812 section 5.3.7 also refuses the rest of network 0, class E, and the broadcast address of the node's subnet.
   */
  readonly martianSources: 'linux' | 'rfc1812';
  /** No "fragmentation needed" lowers the MTU of a path below this: net.ipv4.route.min_pmtu, or RFC 1191 section 3. */
  readonly minPathMtu: number;
  /** Its next-hop MTU is 0, from a router older than RFC 1191: down to minPathMtu, or to the next plateau of section 7. */
  readonly pathMtuOfOldRouters: 'minimum' | 'plateau';
  /**
   * How much of its TCP header the first fragment of a datagram must hold. 'whole-header': all, and no other fragment begins
   * in it (RFC 1858, RFC 3128). 'flags': what conntrack reads of it. 'any': the datagram is put together before anybody looks.
   */
  readonly firstTcpFragment: 'whole-header' | 'flags' | 'any';
  /** Whether the node that forwards writes itself into Record Route and Timestamp options (RFC 1812 section 5.3.13). */
  readonly recordRoute: 'fill' | 'ignore';
  /** Seconds that an incomplete datagram is kept: net.ipv4.ipfrag_time, or RFC 1122 section 3.3.2. */
  readonly fragmentSeconds: number;
  /** So many fragments of one source may come between two of a datagram before that is given up: net.ipv4.ipfrag_max_dist. */
  readonly fragmentDistance: number;

  /** Which timeouts flows have (flow/timeouts.ts), and which ports they get (nat/ports.ts). */
  readonly timeouts: TimeoutProfile;
  readonly ports: PortProfile;
  /** Endpoint-independent mapping (RFC 4787 REQ-1) and who may use a mapping from outside; or a mapping for each flow. */
  readonly natMapping: Filtering | 'per-flow';
  /** Identification of translated datagrams that may be fragmented: kept, or fresh (RFC 6864 section 5.3.1). */
  readonly natIdentification: 'keep' | 'fresh';
  /** Whether the header checksum of the packet that an ICMP error quotes must be right (RFC 5508 REQ-3a). */
  readonly quotedChecksum: 'ignore' | 'verify';
  /** A RST ends the flow that nobody has answered: at once, or after the timeout of closed ones (RFC 7857 section 2.2). */
  readonly unansweredReset: 'forget' | 'keep';
  /** A new flow finds the table full (flow/table.ts). RFC 5508 section 6 discourages taking a place from another. */
  readonly tableFull: FullPolicy;

  /**
   * Where the inner TTL goes down. 'every-node': on each node that forwards, so that a packet from pod to pod over two
   * nodes arrives with 62 of 64. 'delivery': once, by the node that delivers: 63.
   */
  readonly ttlDecrement: 'every-node' | 'delivery';
  /**
   * Where the tunnel's overhead is taken off. 'device': the pod's device has MTU uplink - overhead. 'route': the device
   * has the uplink's MTU, and routes into the tunnel carry the smaller one.
   */
  readonly mtuAt: 'device' | 'route';
  /**
   * Source of a flow to a node port, a load balancer or an external address, where its policy is Cluster. kube-proxy
   * masquerades all of them; Cilium keeps a pod's address, and an outside client's for a backend on the node that was asked.
   */
  readonly externalService: 'always-masquerade' | 'keep-for-local-backend';
  /**
   * A cluster address asked by who comes by the uplink and no tunnel. kube-proxy's rules do not look where a packet comes
   * from; Cilium drops it (bpf/lib/nodeport.h, lb4_svc_is_routable), unless bpf.lbExternalClusterIP is set.
   */
  readonly clusterAddressFromOutside: 'serve' | 'drop';
}

export type EcnVariant = 'linux' | 'rfc6040';
export type ProfileName = 'linux' | 'cilium' | 'calico' | 'flannel' | 'rfc';

/** net.ipv4.ip_local_port_range as the kernel sets it. */
const LOCAL_PORTS = [32768, 60999] as const;
/** drivers/net/geneve.c: port_min 1, port_max USHRT_MAX. */
const ANY_PORT = [1, 65535] as const;
/** RFC 7348 section 5: the dynamic ports. */
const DYNAMIC_PORTS = [49152, 65536] as const;
const NO_PORTS = [0, 0] as const;

const linux: Profile = {
  name: 'linux',
  //        TTL             DSCP       DF             UDP checksum        source ports
  ipip: { ttl: 'inherit', dscp: 0, df: 'inherit', udpChecksum: false, sourcePorts: NO_PORTS },
  vxlan: { ttl: 64, dscp: 0, df: 0, udpChecksum: true, sourcePorts: LOCAL_PORTS },
  geneve: { ttl: 64, dscp: 0, df: 0, udpChecksum: false, sourcePorts: ANY_PORT },
  ecnEncap: 'linux',
  ecnDecap: 'linux',
  vxlanPort: 8472,
  vni: 1,
  vxlanReserved: 'drop',
  geneveCriticalBit: 'drop',
  genevePayload: 'ethernet',
  innerDestinationMac: 'own-or-group',
  fromTunnelExit: 'tunnel',
  tunnelErrors: 'ignore',
  shortTunnelQuotes: 'refuse',
  martianSources: 'linux',
  minPathMtu: LINUX_MIN_PMTU,
  pathMtuOfOldRouters: 'minimum',
  firstTcpFragment: 'any',
  recordRoute: 'fill',
  fragmentSeconds: 30,
  fragmentDistance: 64,
  timeouts: 'linux',
  ports: 'linux',
  natMapping: 'per-flow',
  natIdentification: 'keep',
  quotedChecksum: 'ignore',
  unansweredReset: 'forget',
  tableFull: 'evict-unassured-first',
  ttlDecrement: 'every-node',
  mtuAt: 'device',
  externalService: 'always-masquerade',
  clusterAddressFromOutside: 'serve',
};

const cilium: Profile = {
  ...linux,
  name: 'cilium',
  ipip: { ttl: 64, dscp: 0, df: 0, udpChecksum: false, sourcePorts: NO_PORTS },
  vxlan: { ttl: 64, dscp: 0, df: 0, udpChecksum: false, sourcePorts: LOCAL_PORTS },
  geneve: { ttl: 64, dscp: 0, df: 0, udpChecksum: false, sourcePorts: ANY_PORT },
  vni: 'identity',
  timeouts: 'cilium',
  ports: 'cilium',
  tableFull: 'lru',
  firstTcpFragment: 'flags',
  recordRoute: 'ignore',
  // A collect_md device leaves the options to the BPF program.
  geneveCriticalBit: 'by-options',
  innerDestinationMac: 'any',
  ttlDecrement: 'delivery',
  mtuAt: 'route',
  externalService: 'keep-for-local-backend',
  clusterAddressFromOutside: 'drop',
};

/** What the RFCs recommend where they leave a choice. */
const rfc: Profile = {
  name: 'rfc',
  // RFC 2003 section 3.1 copies the TOS, RFC 2983 lets an ingress do so in either model; DF with path MTU discovery is
  // RFC 2003 section 5.1 and RFC 8926 section 4.4.1. RFC 7348 section 5 wants the VXLAN checksum 0, RFC 8926 section 3.3
  // wants GENEVE's computed.
  ipip: { ttl: 64, dscp: 'inherit', df: 1, udpChecksum: false, sourcePorts: NO_PORTS },
  vxlan: { ttl: 64, dscp: 'inherit', df: 1, udpChecksum: false, sourcePorts: DYNAMIC_PORTS },
  geneve: { ttl: 64, dscp: 'inherit', df: 1, udpChecksum: true, sourcePorts: DYNAMIC_PORTS },
  ecnEncap: 'rfc6040',
  ecnDecap: 'rfc6040',
  vxlanPort: 4789,
  vni: 1,
  vxlanReserved: 'ignore',
  geneveCriticalBit: 'by-options',
  genevePayload: 'ethernet-or-ipv4',
  innerDestinationMac: 'own-or-group',
  fromTunnelExit: 'drop',
  tunnelErrors: 'relay',
  shortTunnelQuotes: 'believe',
  martianSources: 'rfc1812',
  minPathMtu: MIN_MTU,
  pathMtuOfOldRouters: 'plateau',
  firstTcpFragment: 'whole-header',
  recordRoute: 'fill',
  fragmentSeconds: 60,
  fragmentDistance: Number.POSITIVE_INFINITY,
  timeouts: 'rfc',
  ports: 'linux',
  // RFC 4787 REQ-8 leaves the choice: endpoint-independent for transparency, this for security.
  natMapping: 'address-dependent',
  natIdentification: 'fresh',
  quotedChecksum: 'verify',
  unansweredReset: 'keep',
  tableFull: 'drop-new',
  ttlDecrement: 'every-node',
  mtuAt: 'device',
  externalService: 'always-masquerade',
  clusterAddressFromOutside: 'serve',
};

export const PROFILES: Readonly<Record<ProfileName, Profile>> = {
  linux,
  cilium,
  // Both use the kernel's devices with its defaults, and kube-proxy with its own timeouts; neither has GENEVE.
  calico: { ...linux, name: 'calico', vxlanPort: 4789, vni: 4096, timeouts: 'kube-proxy' },
  flannel: { ...linux, name: 'flannel', timeouts: 'kube-proxy' },
  rfc,
};
