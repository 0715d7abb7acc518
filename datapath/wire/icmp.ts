/** ICMP for IPv4 (RFC 792, RFC 1191 section 4 for the MTU field): offsets from the first byte of the message. */

export const TYPE = 0;
export const CODE = 1;
export const CHECKSUM = 2;
export const ID = 4; // echo
export const SEQUENCE = 6; // echo
export const NEXT_HOP_MTU = 6; // destination unreachable, code 4
export const HEADER_LEN = 8;

export const ECHO_REPLY = 0;
export const UNREACHABLE = 3;
export const REDIRECT = 5;
export const SOURCE_QUENCH = 4;
export const ECHO = 8;
export const TIME_EXCEEDED = 11;
export const PARAMETER_PROBLEM = 12;
export const TIMESTAMP = 13;
export const ADDRESS_MASK_REPLY = 18; // the last of the queries of RFC 792 and RFC 950

export const CODE_NET_UNREACHABLE = 0;
export const CODE_HOST_UNREACHABLE = 1;
export const CODE_PROTOCOL_UNREACHABLE = 2;
export const CODE_PORT_UNREACHABLE = 3;
export const CODE_FRAG_NEEDED = 4;
export const CODE_ADMIN_PROHIBITED = 13;
export const CODE_TTL_IN_TRANSIT = 0;
export const CODE_REASSEMBLY = 1;

/** True for the messages that quote a packet and must never be answered by another error (RFC 1812 4.3.2.7). */
export function isError(type: number): boolean {
  return (
    type === UNREACHABLE ||
    type === SOURCE_QUENCH ||
    type === REDIRECT ||
    type === TIME_EXCEEDED ||
    type === PARAMETER_PROBLEM
  );
}

/** Echo, timestamp, information and address mask, requests and replies: the messages that carry an identifier at ID. */
export function isQuery(type: number): boolean {
  return type === ECHO || type === ECHO_REPLY || (type >= TIMESTAMP && type <= ADDRESS_MASK_REPLY);
}
