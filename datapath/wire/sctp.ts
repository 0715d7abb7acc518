/** SCTP (RFC 9260 section 3.1): offsets from the first byte of the common header. The checksum is a CRC32c. */

export const SRC_PORT = 0;
export const DST_PORT = 2;
export const VERIFICATION_TAG = 4;
export const CHECKSUM = 8;
export const HEADER_LEN = 12;
