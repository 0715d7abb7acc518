/**
 * Every end that a packet can come to. A verdict is a small integer; names and numbers are stable: they appear in
 * `get counters`, traces and tests, and are never reused for another meaning.
 */

/** The step is done and the packet goes on. */
export const CONTINUE = 0;
/** Somebody else owns the packet now: it was sent, queued or held. */
export const TAKEN = 1;
/** It was for the node itself (ARP, an error about the tunnel), which has what it wanted. */
export const DONE = 2;
/** Between two steps: it may go on, but not in one piece. */
export const MUST_CUT = 3;

// Malformed, by the first header that does not hold.
export const DROP_MALFORMED_ETHERNET = 10;
export const DROP_MALFORMED_ARP = 11;
export const DROP_MALFORMED_IPV4 = 12;
export const DROP_IPV4_CHECKSUM = 13;
export const DROP_MALFORMED_L4 = 14;
export const DROP_MALFORMED_VNET_HEADER = 15;
export const DROP_TRUNCATED = 16;

// Not for us, or not from whom it says.
export const DROP_OTHER_MAC = 20;
export const DROP_NOT_IPV4 = 21;
export const DROP_INVALID_SOURCE = 22;
export const DROP_MARTIAN_SOURCE = 23;
export const DROP_NOT_ROUTED = 24;
export const DROP_MULTICAST = 25;
export const DROP_ENCAP_FROM_WORKLOAD = 26;
/** ARP: another station uses an address of ours. */
export const DROP_ADDRESS_CONFLICT = 28;

// Tunnels.
export const DROP_TUNNEL_UNKNOWN_PEER = 30;
export const DROP_TUNNEL_MALFORMED = 31;
export const DROP_VXLAN_FLAGS = 32;
export const DROP_TUNNEL_UNKNOWN_VNI = 33;
export const DROP_GENEVE_VERSION = 34;
export const DROP_GENEVE_CRITICAL_OPTION = 35;
export const DROP_TUNNEL_INNER_TYPE = 36;
export const DROP_TUNNEL_INNER_MAC = 37;
export const DROP_TUNNEL_OWN_MAC = 38;
export const DROP_TUNNEL_CHECKSUM = 39;
export const DROP_TUNNEL_ECN = 40;
export const DROP_TUNNEL_FRAGMENT = 41;
export const DROP_TUNNEL_CONTROL = 42;
export const DROP_GENEVE_OPTION_LENGTH = 43;
export const DROP_TUNNEL_COALESCED = 45;

// Routing and neighbours.
export const DROP_NO_ROUTE = 50;
export const DROP_ROUTE_REFUSED = 51;
export const DROP_TTL_EXCEEDED = 52;
export const DROP_OVER_MTU_DONT_FRAGMENT = 53;
export const DROP_NEIGHBOR_UNREACHABLE = 55;
export const DROP_NEIGHBOR_QUEUE_FULL = 56;
export const DROP_NO_TUNNEL_PEER = 57;
export const DROP_NO_HOST_PORT = 58;
export const DROP_SOURCE_ROUTE = 59;
export const DROP_ROUTE_LOOP = 60;
export const DROP_NEIGHBOR_TABLE_FULL = 61;

// The node's own limits.
export const DROP_NO_BUFFER = 70;
export const DROP_DEVICE_QUEUE_FULL = 71;
export const DROP_DEVICE_DOWN = 72;
export const DROP_DEVICE_REFUSED = 73;
export const DROP_ICMP_RATE_LIMIT = 74;
export const DROP_NO_PORT = 75;
/** The device of the port that it leads to is not there. */
export const DROP_PORT_GONE = 76;

// Connection tracking, 80-99. "invalid" has Linux's meaning: no flow that it can belong to, or not a step that flow can take.
export const DROP_CT_INVALID_TCP_FLAGS = 80;
export const DROP_CT_INVALID_TCP_NEW = 81;
export const DROP_CT_INVALID_TCP_STATE = 82;
export const DROP_CT_INVALID_TCP_SEQ_HIGH = 83;
export const DROP_CT_INVALID_TCP_ACK_HIGH = 84;
export const DROP_CT_INVALID_TCP_RST = 85;
export const DROP_CT_INVALID_ICMP_TYPE = 86;
export const DROP_CT_INVALID_ICMP_REPLY = 87;
export const DROP_CT_INVALID_ICMP_QUOTE = 88;
export const DROP_CT_ICMP_NO_FLOW = 89;
export const DROP_CT_ICMP_CHECKSUM = 90;
export const DROP_CT_TABLE_FULL = 91;
export const DROP_CT_SOURCE_QUOTA = 92;
export const DROP_CT_TUPLE_TAKEN = 93;
export const DROP_CT_FRAGMENT = 94;
export const DROP_CT_INVALID_SCTP = 95;
export const DROP_CT_BACKEND_PICKUP = 96;

// NAT and services, 100-119.
export const DROP_NAT_PORTS_EXHAUSTED = 100;
export const DROP_NAT_CANNOT_REWRITE = 101;
export const DROP_NAT_FILTERED = 102;
/** Cilium's DROP_IS_CLUSTER_IP. */
export const DROP_CLUSTER_ADDRESS_FROM_OUTSIDE = 104;
export const DROP_NO_SERVICE_ENDPOINT = 105;
export const DROP_NO_LOCAL_SERVICE_ENDPOINT = 106;
export const DROP_UNKNOWN_SERVICE_PORT = 107;
export const DROP_SERVICE_SOURCE_RANGE = 108;
/** Of the service network, and no service's. */
export const DROP_UNALLOCATED_SERVICE_ADDRESS = 109;

// Network policy, 110-119.
/** No rule of the policies that select the sender allows it. */
export const DROP_POLICY_DENIED_EGRESS = 110;
/** No rule of the policies that select the receiver allows it. */
export const DROP_POLICY_DENIED_INGRESS = 111;

// Fragments and path MTU, 120-129.
export const DROP_FRAGMENT_OVERLAP = 120;
/** Its datagram would end in two places, or be longer than 65535 bytes. */
export const DROP_FRAGMENT_MALFORMED = 121;
export const DROP_FRAGMENT_DUPLICATE = 122;
export const DROP_FRAGMENT_QUEUE_FULL = 123;
export const DROP_FRAGMENT_TIMEOUT = 124;
export const DROP_FRAGMENT_ECN = 125;
/** An ICMP error about a tunnel packet that we cannot have sent. */
export const DROP_TUNNEL_ERROR_QUOTE = 126;
export const DROP_TUNNEL_ERROR_CHECKSUM = 127;
/** An ICMP error about one of the tunnel's packets that says nothing of its size. */
export const DROP_TUNNEL_ERROR = 128;
/** Too long for an underlay that was to have room for everything (RFC 4459 section 3.3). */
export const DROP_UNDERLAY_TOO_SMALL = 129;

// A segment in the process and its impairments, 150-159.
/** Lost, as its impairments say. */
export const DROP_WIRE_LOSS = 150;
export const DROP_WIRE_QUEUE_FULL = 151;
export const DROP_WIRE_MTU = 152;
export const DROP_WIRE_ICMP_FILTERED = 153;
/** For a station behind the port that it came by. */
export const DROP_WIRE_SAME_PORT = 154;
/** A superpacket that a wire would carry in pieces, but nothing says where to cut it. */
export const DROP_WIRE_CANNOT_CUT = 155;
/** Its port was closed, or the segment was. */
export const DROP_WIRE_CLOSED = 156;
/** Not from, or not for, an address that the fabric has given the port. */
export const DROP_WIRE_SOURCE_DEST_CHECK = 157;
/** The ring to the loop of its port, or of its segment, had no room. */
export const DROP_WIRE_RING_FULL = 158;

/** Numbers below this are reserved for verdicts and drop reasons; counters are laid out by it. */
export const VERDICTS = 160;

/** name by number; the number's spelling in counters, traces and JSON. */
export const VERDICT_NAMES: readonly string[] = (() => {
  const names: string[] = new Array(VERDICTS).fill('');
  const set = (n: number, name: string) => {
    if (names[n] !== '') throw new Error(`verdict ${n} is named twice: ${names[n]}, ${name}`);
    names[n] = name;
  };
  set(CONTINUE, 'continue');
  set(TAKEN, 'taken');
  set(DONE, 'done');
  set(MUST_CUT, 'must-cut');
  set(DROP_MALFORMED_ETHERNET, 'drop-malformed-ethernet');
  set(DROP_MALFORMED_ARP, 'drop-malformed-arp');
  set(DROP_MALFORMED_IPV4, 'drop-malformed-ipv4');
  set(DROP_IPV4_CHECKSUM, 'drop-ipv4-checksum');
  set(DROP_MALFORMED_L4, 'drop-malformed-l4');
  set(DROP_MALFORMED_VNET_HEADER, 'drop-malformed-vnet-header');
  set(DROP_TRUNCATED, 'drop-truncated');
  set(DROP_OTHER_MAC, 'drop-other-mac');
  set(DROP_NOT_IPV4, 'drop-not-ipv4');
  set(DROP_INVALID_SOURCE, 'drop-invalid-source');
  set(DROP_MARTIAN_SOURCE, 'drop-martian-source');
  set(DROP_NOT_ROUTED, 'drop-not-routed');
  set(DROP_MULTICAST, 'drop-multicast');
  set(DROP_ENCAP_FROM_WORKLOAD, 'drop-encap-from-workload');
  set(DROP_ADDRESS_CONFLICT, 'drop-address-conflict');
  set(DROP_TUNNEL_UNKNOWN_PEER, 'drop-encap-unknown-peer');
  set(DROP_TUNNEL_MALFORMED, 'drop-tunnel-malformed');
  set(DROP_VXLAN_FLAGS, 'drop-vxlan-flags');
  set(DROP_TUNNEL_UNKNOWN_VNI, 'drop-tunnel-unknown-vni');
  set(DROP_GENEVE_VERSION, 'drop-geneve-version');
  set(DROP_GENEVE_CRITICAL_OPTION, 'drop-geneve-critical-option');
  set(DROP_TUNNEL_INNER_TYPE, 'drop-tunnel-inner-type');
  set(DROP_TUNNEL_INNER_MAC, 'drop-tunnel-inner-mac');
  set(DROP_TUNNEL_OWN_MAC, 'drop-tunnel-own-mac');
  set(DROP_TUNNEL_CHECKSUM, 'drop-tunnel-checksum');
  set(DROP_TUNNEL_ECN, 'drop-tunnel-ecn');
  set(DROP_TUNNEL_FRAGMENT, 'drop-tunnel-fragment');
  set(DROP_TUNNEL_CONTROL, 'drop-tunnel-control');
  set(DROP_GENEVE_OPTION_LENGTH, 'drop-geneve-option-length');
  set(DROP_TUNNEL_COALESCED, 'drop-tunnel-coalesced');
  set(DROP_NO_ROUTE, 'drop-no-route');
  set(DROP_ROUTE_REFUSED, 'drop-route-refused');
  set(DROP_TTL_EXCEEDED, 'drop-ttl-exceeded');
  set(DROP_OVER_MTU_DONT_FRAGMENT, 'drop-over-mtu-dont-fragment');
  set(DROP_NEIGHBOR_UNREACHABLE, 'drop-neighbor-unreachable');
  set(DROP_NEIGHBOR_QUEUE_FULL, 'drop-neighbor-queue-full');
  set(DROP_NO_TUNNEL_PEER, 'drop-no-tunnel-peer');
  set(DROP_NO_HOST_PORT, 'drop-no-host-port');
  set(DROP_SOURCE_ROUTE, 'drop-source-route');
  set(DROP_ROUTE_LOOP, 'drop-route-loop');
  set(DROP_NEIGHBOR_TABLE_FULL, 'drop-neighbor-table-full');
  set(DROP_NO_BUFFER, 'drop-no-buffer');
  set(DROP_DEVICE_QUEUE_FULL, 'drop-device-queue-full');
  set(DROP_DEVICE_DOWN, 'drop-device-down');
  set(DROP_DEVICE_REFUSED, 'drop-device-refused');
  set(DROP_ICMP_RATE_LIMIT, 'drop-icmp-rate-limit');
  set(DROP_NO_PORT, 'drop-no-port');
  set(DROP_PORT_GONE, 'drop-port-gone');
  set(DROP_CT_INVALID_TCP_FLAGS, 'drop-ct-invalid-tcp-flags');
  set(DROP_CT_INVALID_TCP_NEW, 'drop-ct-invalid-tcp-new');
  set(DROP_CT_INVALID_TCP_STATE, 'drop-ct-invalid-tcp-state');
  set(DROP_CT_INVALID_TCP_SEQ_HIGH, 'drop-ct-invalid-tcp-seq-high');
  set(DROP_CT_INVALID_TCP_ACK_HIGH, 'drop-ct-invalid-tcp-ack-high');
  set(DROP_CT_INVALID_TCP_RST, 'drop-ct-invalid-tcp-rst');
  set(DROP_CT_INVALID_ICMP_TYPE, 'drop-ct-invalid-icmp-type');
  set(DROP_CT_INVALID_ICMP_REPLY, 'drop-ct-invalid-icmp-reply');
  set(DROP_CT_INVALID_ICMP_QUOTE, 'drop-ct-invalid-icmp-quote');
  set(DROP_CT_ICMP_NO_FLOW, 'drop-ct-icmp-no-flow');
  set(DROP_CT_ICMP_CHECKSUM, 'drop-ct-icmp-checksum');
  set(DROP_CT_TABLE_FULL, 'drop-ct-table-full');
  set(DROP_CT_SOURCE_QUOTA, 'drop-ct-source-quota');
  set(DROP_CT_TUPLE_TAKEN, 'drop-ct-tuple-taken');
  set(DROP_CT_FRAGMENT, 'drop-ct-fragment');
  set(DROP_CT_INVALID_SCTP, 'drop-ct-invalid-sctp');
  set(DROP_CT_BACKEND_PICKUP, 'drop-ct-backend-pickup');
  set(DROP_NAT_PORTS_EXHAUSTED, 'drop-nat-ports-exhausted');
  set(DROP_NAT_CANNOT_REWRITE, 'drop-nat-cannot-rewrite');
  set(DROP_NAT_FILTERED, 'drop-nat-filtered');
  set(DROP_CLUSTER_ADDRESS_FROM_OUTSIDE, 'drop-cluster-address-from-outside');
  set(DROP_NO_SERVICE_ENDPOINT, 'drop-no-service-endpoint');
  set(DROP_NO_LOCAL_SERVICE_ENDPOINT, 'drop-no-local-service-endpoint');
  set(DROP_UNKNOWN_SERVICE_PORT, 'drop-unknown-service-port');
  set(DROP_SERVICE_SOURCE_RANGE, 'drop-service-source-range');
  set(DROP_UNALLOCATED_SERVICE_ADDRESS, 'drop-unallocated-service-address');
  set(DROP_POLICY_DENIED_EGRESS, 'drop-policy-denied-egress');
  set(DROP_POLICY_DENIED_INGRESS, 'drop-policy-denied-ingress');
  set(DROP_FRAGMENT_OVERLAP, 'drop-fragment-overlap');
  set(DROP_FRAGMENT_MALFORMED, 'drop-fragment-malformed');
  set(DROP_FRAGMENT_DUPLICATE, 'drop-fragment-duplicate');
  set(DROP_FRAGMENT_QUEUE_FULL, 'drop-fragment-queue-full');
  set(DROP_FRAGMENT_TIMEOUT, 'drop-fragment-timeout');
  set(DROP_FRAGMENT_ECN, 'drop-fragment-ecn');
  set(DROP_TUNNEL_ERROR_QUOTE, 'drop-tunnel-error-quote');
  set(DROP_TUNNEL_ERROR_CHECKSUM, 'drop-tunnel-error-checksum');
  set(DROP_TUNNEL_ERROR, 'drop-tunnel-error');
  set(DROP_UNDERLAY_TOO_SMALL, 'drop-underlay-too-small');
  set(DROP_WIRE_LOSS, 'drop-wire-loss');
  set(DROP_WIRE_QUEUE_FULL, 'drop-wire-queue-full');
  set(DROP_WIRE_MTU, 'drop-wire-mtu');
  set(DROP_WIRE_ICMP_FILTERED, 'drop-wire-icmp-filtered');
  set(DROP_WIRE_SAME_PORT, 'drop-wire-same-port');
  set(DROP_WIRE_CANNOT_CUT, 'drop-wire-cannot-cut');
  set(DROP_WIRE_CLOSED, 'drop-wire-closed');
  set(DROP_WIRE_SOURCE_DEST_CHECK, 'drop-wire-source-dest-check');
  set(DROP_WIRE_RING_FULL, 'drop-wire-ring-full');
  return names;
})();

/** True for a verdict that ends the packet here. */
export function isDrop(verdict: number): boolean {
  return verdict >= 10;
}
