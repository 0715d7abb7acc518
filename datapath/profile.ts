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
 * - VXLAN reserved bits: vxlan_rcv drops what is left after the I flag, the byte behind the VNI included, and says in a
 *   comment that it diverges from RFC 7348 on purpose.
 */

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

  /** VXLAN reserved bits that are not 0 on receipt. RFC 7348 section 5 says ignore. */
  readonly vxlanReserved: 'drop' | 'ignore';
  /** GENEVE C bit without an option that is critical. Linux drops by the bit alone; RFC 8926 section 3.4 lets a reader of the options decide by them. */
  readonly geneveCriticalBit: 'drop' | 'by-options';
  /** GENEVE protocol types accepted: Ethernet only (0x6558), or IPv4 without Ethernet (0x0800) as well. */
  readonly genevePayload: 'ethernet' | 'ethernet-or-ipv4';
  /** Inner destination MAC of VXLAN and GENEVE: ours or a group address, or whatever it says. */
  readonly innerDestinationMac: 'own-or-group' | 'any';

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
   * Source of a flow from outside to a service, where its policy is Cluster. kube-proxy masquerades all of them; Cilium
   * keeps the client's address for a backend on the node that was asked.
   */
  readonly externalService: 'always-masquerade' | 'keep-for-local-backend';
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
  vxlanReserved: 'drop',
  geneveCriticalBit: 'drop',
  genevePayload: 'ethernet',
  innerDestinationMac: 'own-or-group',
  ttlDecrement: 'every-node',
  mtuAt: 'device',
  externalService: 'always-masquerade',
};

const cilium: Profile = {
  ...linux,
  name: 'cilium',
  ipip: { ttl: 64, dscp: 0, df: 0, udpChecksum: false, sourcePorts: NO_PORTS },
  vxlan: { ttl: 64, dscp: 0, df: 0, udpChecksum: false, sourcePorts: LOCAL_PORTS },
  geneve: { ttl: 64, dscp: 0, df: 0, udpChecksum: false, sourcePorts: ANY_PORT },
  // A collect_md device leaves the options to the BPF program.
  geneveCriticalBit: 'by-options',
  innerDestinationMac: 'any',
  ttlDecrement: 'delivery',
  mtuAt: 'route',
  externalService: 'keep-for-local-backend',
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
  vxlanReserved: 'ignore',
  geneveCriticalBit: 'by-options',
  genevePayload: 'ethernet-or-ipv4',
  innerDestinationMac: 'own-or-group',
  ttlDecrement: 'every-node',
  mtuAt: 'device',
  externalService: 'always-masquerade',
};

export const PROFILES: Readonly<Record<ProfileName, Profile>> = {
  linux,
  cilium,
  // Both use the kernel's devices with its defaults; neither has GENEVE.
  calico: { ...linux, name: 'calico' },
  flannel: { ...linux, name: 'flannel' },
  rfc,
};
