/**
 * A packet is a window on one slab of memory, and all that the path has learnt and decided about it so far.
 *
 * The slab is cut into slots of equal size. A packet keeps its slot for life; encapsulation and decapsulation move `off`
 * back and forth through the headroom and never move the payload:
 *
 *   start          off                 off + len                    start + SLOT_BYTES
 *     |  headroom   |  bytes as they lie now  |  tailroom                 |
 *
 * All packets share one DataView, so wire functions take (view, off). Fields are int32 numbers set at construction,
 * which V8 keeps unboxed; addresses therefore are int32, too.
 */

/**
 * Room for virtio-net (24), Ethernet (14), IPv4 (20), UDP (8), GENEVE with all options (260), Ethernet (14): 340 bytes. And as
 * much as VXLAN takes (64 with Ethernet) before that: what one node has encapsulated lies so when the next node of a segment
 * gets it by reference, and may be encapsulated by that one, too.
 */
export const HEADROOM = 448;
/** 1035 cache lines: not a multiple of 4096, or every slot would fall into the same few sets of the L1 cache. */
export const SLOT_BYTES = 66240;
/** The longest frame that a slot takes: 64 KiB of IP behind an Ethernet header. */
export const MAX_FRAME = 65535 + 14;

/** No IP id: Packet.newId of a packet that leaves with the one it came with. */
export const KEEP_ID = -1;

export class Packet {
  /** First byte of the slot in the slab. */
  readonly start: number;
  /** Position in the pool's array of packets, for tables that remember packets by number. */
  readonly slot: number;

  /** First byte of the packet: Ethernet header on the uplink, IP header everywhere else. Counts from the slab's start. */
  off = 0;
  /** Bytes from `off`. */
  len = 0;

  // What the virtio-net header says or shall say. Offsets are absolute slab positions, so that moving `off` keeps them.
  /** virtio-net flags: NEEDS_CSUM, DATA_VALID, UDP_TUNNEL_CSUM. */
  vnetFlags = 0;
  /** virtio-net gso_type; 0 for a plain packet. */
  gsoType = 0;
  /** Payload bytes of one segment of a superpacket. */
  gsoSize = 0;
  /** Where the checksum that NEEDS_CSUM asks for starts; the checksum field stands `csumOffset` behind it. */
  csumStart = 0;
  csumOffset = 0;
  /** Tunnel superpackets: outer UDP header and inner IP header. The latter of every packet that we have encapsulated. */
  outerTransport = 0;
  innerNetwork = 0;

  /** Port index it came in by. */
  inPort = 0;
  /** Number of the path that read it (Path.id): nodes of one loop share the pool. */
  owner = 0;

  // Filled by parseIpv4 (packet/parse.ts), for the IP header at `off`.
  src = 0;
  dst = 0;
  protocol = 0;
  /** Transport header, absolute. */
  l4 = 0;
  /** TCP/UDP ports, or for ICMP queries the identifier in both; 0 where there are none (other protocols, later fragments). */
  srcPort = 0;
  dstPort = 0;
  /** Bits of FLAGS_FRAGMENT: DF, MF, offset. */
  fragment = 0;

  /** Security identity of the sender; 0 unknown. From the pod port, or from the VNI of the tunnel it came through. */
  identity = 0;
  /** Underlay address of the tunnel peer that it was decapsulated from (int32); 0 if it came by no tunnel. */
  tunnelSource = 0;
  /** 1 if the node itself made it (ICMP errors): no TTL decrement, never answered by another error. */
  local = 0;

  // What the path decides about it, step by step (path/). Every field is written by one step before another reads it.
  /** Index of the next hop. */
  hop = 0;
  /** Its flow (flow/): the entry, ORIGINAL or REPLY; while a new flow is built, the scratch entry that it is built in. */
  flow = 0;
  direction = 0;
  /** 1 if it begins a flow; 1 if it is an ICMP error about one, and `direction` is the one that it travels in. */
  isNew = 0;
  isRelated = 0;
  /** Milliseconds that its flow may idle from now on; -1: the flow's deadline stays. */
  timeout = -1;
  /** The source that it came with (int32): what answers it returns where that leads. */
  sender = 0;
  /** The addresses that it leaves with (int32), and 1 if they are not those that it came with. */
  newSrc = 0;
  newDst = 0;
  translated = 0;
  /** The IP id that it leaves with, or KEEP_ID. Written late: an error about it quotes what its sender knows. */
  newId = KEEP_ID;
  /** Where it was sent, if that was the outside address of a mapping and its sender is inside, too; else 0. */
  hairpin = 0;
  /** Mark (32 bits) that rules match and set; from the port that it came by. */
  mark = 0;
  /** The policy rule that allows its flow, if it begins one and one had to (policy/policies.ts); -1: denied after all. */
  policy = 0;
  /** 1 if its steps are to be reported. */
  trace = 0;
  /** Counts the packets of a path that is watched. */
  number = 0;
  /** 1 if only its decision is asked for: no table remembers it, and nobody hears of it. */
  probe = 0;

  // Of the first packet of a flow to a service: number of the backend (0: to none), its address and port.
  backend = 0;
  backendAddress = 0;
  backendPort = 0;
  /** Number of the service port, and VIA_* of nat/service.ts. */
  servicePort = 0;
  via = 0;
  /** 1 if the flow needs our source, so that its answers come back here: a hairpin, or from outside to anywhere. */
  masquerade = 0;
  /** Number of the masquerade rule that it matched, from 1; negative: the rule says RETURN; 0: none. */
  rule = 0;

  // Of a fragment: its datagram in virtual reassembly, and the generation of its flow's entry.
  datagram = 0;
  generation = 0;

  constructor(start: number, slot: number) {
    this.start = start;
    this.slot = slot;
  }

  /** Makes the packet empty, `headroom` bytes into its slot. */
  reset(headroom: number): void {
    this.off = this.start + headroom;
    this.len = 0;
    this.vnetFlags = 0;
    this.gsoType = 0;
    this.gsoSize = 0;
    this.csumStart = 0;
    this.csumOffset = 0;
    this.outerTransport = 0;
    this.innerNetwork = 0;
    this.forget();
  }

  /** Forgets what a path has learnt about it: for the next node these bytes are new. */
  forget(): void {
    this.identity = 0;
    this.tunnelSource = 0;
    this.local = 0;
    this.mark = 0;
    this.policy = 0;
    this.trace = 0;
    this.probe = 0;
  }

  /** Moves the start `bytes` into the headroom. The caller knows that there is room (HEADROOM covers the worst case). */
  push(bytes: number): void {
    this.off -= bytes;
    this.len += bytes;
  }

  /** Takes `bytes` off the front. */
  pull(bytes: number): void {
    this.off += bytes;
    this.len -= bytes;
  }
}
