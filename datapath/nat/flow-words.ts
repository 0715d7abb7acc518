/** What translation keeps in a flow's entry: words and flags that flow/table.ts leaves to the flow's client. */
import {
  ATTACHED,
  ATTACHED_FAR,
  CLIENT_FLAG_A,
  CLIENT_FLAG_B,
  CLIENT_WORD,
  CLIENT_WORD_FAR,
  CLIENT_WORD_MORE,
} from '../flow/table.ts';

/** Checksum change of the original direction: addresses << 16 | ports (rewrite.ts). */
export const DELTA = CLIENT_WORD;
/** Backend number, 0 for none. */
export const BACKEND = ATTACHED;
/** Number of the masquerade rule that matched, 0 for none. */
export const RULE = CLIENT_WORD_MORE;
/** Endpoint-independent mapping, 0 for none. */
export const MAPPING = ATTACHED_FAR;
/** Handle of the port group (ports.ts), 0 for none. */
export const EXTERNAL = CLIENT_WORD_FAR;

/** The source (of the original direction) is rewritten. */
export const FLAG_SNAT = CLIENT_FLAG_A;
/** The destination is rewritten. */
export const FLAG_DNAT = CLIENT_FLAG_B;
export const FLAGS_NAT = FLAG_SNAT | FLAG_DNAT;
