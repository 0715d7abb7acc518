/**
 * The virtio-net header that a TUN or TAP with IFF_VNET_HDR puts in front of every packet (virtio 1.3 section 5.1.6;
 * Linux include/uapi/linux/virtio_net.h). Little endian, unlike everything else here. All its offsets count from the
 * first byte of the packet behind it, the Ethernet header included.
 */

export const FLAGS = 0;
export const GSO_TYPE = 1;
export const HDR_LEN = 2;
export const GSO_SIZE = 4;
export const CSUM_START = 6;
export const CSUM_OFFSET = 8;
export const NUM_BUFFERS = 10;
export const HEADER_LEN = 12;
/** Of a packet socket: without NUM_BUFFERS. */
export const LEGACY_HEADER_LEN = 10;
export const OUTER_TH_OFFSET = 20; // with tunnel offload only
export const INNER_NH_OFFSET = 22;
export const TUNNEL_HEADER_LEN = 24;

export const FLAG_NEEDS_CSUM = 1;
export const FLAG_DATA_VALID = 2;
export const FLAG_UDP_TUNNEL_CSUM = 8;

export const GSO_NONE = 0;
export const GSO_TCPV4 = 1;
export const GSO_TCPV6 = 4;
export const GSO_UDP_L4 = 5;
export const GSO_UDP_TUNNEL_IPV4 = 0x20;
export const GSO_UDP_TUNNEL_IPV6 = 0x40;
export const GSO_ECN = 0x80;
