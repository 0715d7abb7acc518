/** UDP (RFC 768): offsets from the first byte of the header. */

export const SRC_PORT = 0;
export const DST_PORT = 2;
export const LENGTH = 4;
export const CHECKSUM = 6; // 0: the sender computed none
export const HEADER_LEN = 8;
