/**
 * TCP connection tracking: states and sequence windows as Linux's nf_conntrack_proto_tcp.c has them (6.x), after van
 * Rooij, "Real Stateful TCP Packet Filtering in IP Filter".
 *
 * Per direction an entry holds, in sequence numbers:
 *   end      highest seq + len that this side has sent
 *   maxend   highest ack + window that the other side has offered it: how far it may send
 *   maxwin   largest window it has offered
 *   maxack   highest ack it has sent
 * A segment of the sender is in the window if
 *   I   seq      <= sender.maxend
 *   II  seq+len  >= sender.end - receiver.maxwin
 *   III ack      <= receiver.end
 *   IV  ack      >= receiver.end - max(66000, sender.maxwin)
 * where ack is the right edge of the highest SACK block if there is one.
 */
import type { Packet } from '../packet/packet.ts';
import {
  CONTINUE,
  DROP_CT_INVALID_TCP_ACK_HIGH,
  DROP_CT_INVALID_TCP_FLAGS,
  DROP_CT_INVALID_TCP_NEW,
  DROP_CT_INVALID_TCP_RST,
  DROP_CT_INVALID_TCP_SEQ_HIGH,
  DROP_CT_INVALID_TCP_STATE,
} from '../verdict.ts';
import { FLAG_MF } from '../wire/ipv4.ts';
import * as tcp from '../wire/tcp.ts';
import {
  FLAG_ASSURED,
  FLAG_SEEN_REPLY,
  GENERATION,
  META,
  ORIGINAL,
  REPLY,
  STATE_MASK,
  STATE_SHIFT,
  TCP_FLAGS,
  TCP_LAST,
  TCP_LAST_ACK_SEQ,
  TCP_LAST_END,
  TCP_LAST_SEQ,
  TCP_SEEN,
} from './table.ts';
import {
  TCP_CLOSE,
  TCP_ESTABLISHED,
  TCP_FIN_WAIT,
  TCP_LAST_ACK,
  TCP_RETRANS,
  TCP_SYN_RECV,
  TCP_SYN_SENT,
  TCP_SYN_SENT2,
  TCP_TIME_WAIT,
  TCP_UNACK,
} from './timeouts.ts';

/** Beside verdicts, `track` answers: forget the flow and take the packet as the first of a new one (port reuse). */
export const REOPEN = -1;
/** The packet may pass, and the flow ends with it. */
export const LAST_PACKET = -2;

/** Linux's nf_ct_tcp_* switches. */
export interface TcpOptions {
  /** Pick up connections in the middle. */
  loose?: boolean;
  /** Out-of-window packets are valid; only RSTs are judged. */
  liberal?: boolean;
  maxRetransmissions?: number;
  /** A RST ends a flow that has not been answered at once, as in Linux; else it is closed like any other. Default: true. */
  forgetReset?: boolean;
  /** Out-of-window RSTs do not make a packet invalid. */
  ignoreInvalidRst?: boolean;
}

// What kind of segment it is: get_conntrack_index.
const SYN = 0;
const SYN_ACK = 1;
const FIN = 2;
const ACK = 3;
const RST = 4;
const NONE = 5;

/** Kind by the low five flag bits (FIN 1, SYN 2, RST 4, PSH 8, ACK 16): RST beats SYN beats FIN beats ACK. */
const KIND = Uint8Array.from({ length: 32 }, (_, flags) => {
  if (flags & tcp.RST) return RST;
  if (flags & tcp.SYN) return flags & tcp.ACK_FLAG ? SYN_ACK : SYN;
  if (flags & tcp.FIN) return FIN;
  return flags & tcp.ACK_FLAG ? ACK : NONE;
});

/** 1 for the flag combinations that TCP may send; PSH, ECE and CWR do not matter. */
const VALID_FLAGS = Uint8Array.from({ length: 64 }, (_, bits) => {
  const flags = bits & ~tcp.PSH;
  const urgent = flags & tcp.URG;
  const rest = flags & ~tcp.URG;
  if (rest === tcp.SYN || rest === tcp.ACK_FLAG || rest === (tcp.FIN | tcp.ACK_FLAG)) return 1;
  if (urgent !== 0) return 0;
  return rest === (tcp.SYN | tcp.ACK_FLAG) || rest === tcp.RST || rest === (tcp.RST | tcp.ACK_FLAG) ? 1 : 0;
});

// Transitions. Digits are states as in timeouts.ts, i ignored, v invalid. Columns: the old state,
//    NO SS SR ES FW CW LA TW CL S2
const IGNORED = 10;
const INVALID = 11;
const TRANSITIONS: Uint8Array = (() => {
  const rows = [
    '1 1 i i i i i 1 1 9', // original: SYN
    'v v 2 v v v v v v 2', //   SYN ACK
    'v v 4 4 6 6 6 7 8 v', //   FIN
    '3 v 3 3 5 5 7 7 8 v', //   ACK
    'v 8 8 8 8 8 8 8 8 8', //   RST
    'v v v v v v v v v v', //   none
    'v 9 v v v v v 1 v 9', // reply: SYN
    'v 2 i i i i i i i 2', //   SYN ACK
    'v v 4 4 6 6 6 7 8 v', //   FIN
    'v i 2 3 5 5 7 7 8 i', //   ACK
    'v 8 8 8 8 8 8 8 8 8', //   RST
    'v v v v v v v v v v', //   none
  ];
  const table = new Uint8Array(2 * 8 * 16);
  for (let row = 0; row < 12; row++) {
    const cells = rows[row].split(' ');
    for (let state = 0; state < 10; state++) {
      const cell = cells[state];
      const at = (((row < 6 ? 0 : 8) + (row % 6)) << 4) | state;
      table[at] = cell === 'i' ? IGNORED : cell === 'v' ? INVALID : Number(cell);
    }
  }
  return table;
})();

// Offsets of one direction's words behind TCP_SEEN + 4 * direction.
const END = 0;
const MAX_END = 1;
const MAX_WIN = 2;
const MAX_ACK = 3;

// TCP_FLAGS: for direction d, SEEN_* bits at 8 d, window scale at 16 + 8 d.
const WINDOW_SCALE = 1;
const SACK_PERMITTED = 2;
const CLOSE_INIT = 4;
const BE_LIBERAL = 8;
const UNACKNOWLEDGED = 16;
const MAX_ACK_SET = 32;
/** Of a connection that is met in the middle: its window scale is unknown, so nothing can be called out of window. */
export const PICKED_UP = (SACK_PERMITTED | BE_LIBERAL) * 0x101;

// TCP_LAST: kind in bits 0-2, direction 3, window scale of an ignored SYN 4-7, LAST_* 8-11, retransmissions 16-23.
const LAST_KIND = 7;
const LAST_DIRECTION = 8;
const LAST_SCALE_SHIFT = 4;
const LAST_SCALE_OPTION = 1 << 8;
const LAST_SACK_OPTION = 1 << 9;
const LAST_EXPECT_CHALLENGE = 1 << 10;
const LAST_SIMULTANEOUS = 1 << 11;
const RETRANS_ONE = 1 << 16;
const RETRANS_MASK = 0xff << 16;

const MAX_ACK_WINDOW = 66000;

const SKIP_WINDOW = 1 << 8;

// What the window check says.
const ACCEPT = 0;
const IGNORE = 1;

/** a < b in sequence space. */
function before(a: number, b: number): boolean {
  return ((a - b) | 0) < 0;
}

/** a > b in sequence space. */
function after(a: number, b: number): boolean {
  return ((b - a) | 0) < 0;
}

export class TcpTracker {
  readonly loose: boolean;
  readonly liberal: boolean;
  forgetReset: boolean;
  readonly ignoreInvalidRst: boolean;
  readonly maxRetransmissions: number;
  /** Milliseconds by state (timeouts.ts). */
  readonly timeouts: Int32Array;

  /** Packets let through that could not be judged. */
  ignored = 0;

  // The segment under judgement; set by read().
  private kind = 0;
  private seq = 0;
  private ack = 0;
  private end = 0;
  private window = 0;
  private flags = 0;
  private fragmented = false;

  constructor(timeouts: Int32Array, options: TcpOptions = {}) {
    this.timeouts = timeouts;
    this.loose = options.loose ?? true;
    this.liberal = options.liberal ?? false;
    this.forgetReset = options.forgetReset ?? true;
    this.ignoreInvalidRst = options.ignoreInvalidRst ?? false;
    this.maxRetransmissions = options.maxRetransmissions ?? 3;
  }

  /**
   * Writes the state of a new flow into the entry at `base` (word offset) of `words`, from its first packet.
   * @returns CONTINUE, or why this packet cannot begin a flow
   */
  open(words: Int32Array, base: number, view: DataView, p: Packet): number {
    const verdict = this.read(view, p);
    if (verdict !== CONTINUE) return verdict;
    const state = TRANSITIONS[(this.kind << 4) | 0];
    if (state >= IGNORED) return DROP_CT_INVALID_TCP_NEW;
    if (state !== TCP_SYN_SENT && !this.loose) return DROP_CT_INVALID_TCP_NEW;

    for (let i = TCP_SEEN; i < TCP_SEEN + 8; i++) words[base + i] = 0;
    words[base + TCP_FLAGS] = 0;
    words[base + TCP_LAST] = NONE;
    words[base + TCP_LAST_SEQ] = 0;
    words[base + TCP_LAST_ACK_SEQ] = 0;
    words[base + TCP_LAST_END] = 0;
    words[base + GENERATION] &= ~0xffff;
    words[base + TCP_SEEN + END] = this.end;
    const window = this.window === 0 ? 1 : this.window;
    words[base + TCP_SEEN + MAX_WIN] = window;
    if (state === TCP_SYN_SENT) {
      words[base + TCP_SEEN + MAX_END] = this.end;
      words[base + TCP_FLAGS] = readOptions(view, p.l4);
    } else {
      words[base + TCP_SEEN + MAX_END] = (this.end + window) | 0;
      words[base + TCP_FLAGS] = PICKED_UP;
    }
    if (this.fragmented) words[base + TCP_FLAGS] |= BE_LIBERAL * 0x101;
    // The first packet then passes the machine as every other; from state NONE it cannot be refused.
    words[base + META] = words[base + META] & ~(STATE_MASK << STATE_SHIFT);
    return this.judge(words, base, view, p, ORIGINAL);
  }

  /**
   * Judges a packet of a known flow and moves the flow's state.
   * @returns CONTINUE, DROP_CT_INVALID_TCP_*, REOPEN or LAST_PACKET; `p.timeout` is set
   */
  track(words: Int32Array, base: number, view: DataView, p: Packet, direction: number): number {
    const verdict = this.read(view, p);
    if (verdict !== CONTINUE) {
      p.timeout = -1;
      return verdict;
    }
    return this.judge(words, base, view, p, direction);
  }

  /** Reads the segment. parseIpv4 has checked that the header with its options is there. */
  private read(view: DataView, p: Packet): number {
    const l4 = p.l4;
    const word3 = view.getInt32(l4 + tcp.DATA_OFFSET); // data offset, flags, window
    const flags = (word3 >>> 16) & 0xff;
    if (VALID_FLAGS[flags & 63] === 0) return DROP_CT_INVALID_TCP_FLAGS;
    const kind = KIND[flags & 31];
    const headerLen = (word3 >>> 28) << 2;
    const extra = ((flags & tcp.SYN) >>> 1) + (flags & tcp.FIN);
    const seq = view.getInt32(l4 + tcp.SEQ);
    this.flags = flags;
    this.kind = kind;
    this.seq = seq;
    this.ack = view.getInt32(l4 + tcp.ACK);
    this.window = word3 & 0xffff;
    this.end = (seq + (p.off + p.len - l4 - headerLen) + extra) | 0;
    this.fragmented = (p.fragment & FLAG_MF) !== 0;
    return CONTINUE;
  }

  private judge(words: Int32Array, base: number, view: DataView, p: Packet, direction: number): number {
    const kind = this.kind;
    const meta = words[base + META];
    let oldState = (meta >>> STATE_SHIFT) & STATE_MASK;
    let newState = TRANSITIONS[(direction << 7) | (kind << 4) | oldState];
    let checkWindow = true;
    p.timeout = -1;

    // The rest of a fragmented segment is not seen here, so the peer's acknowledgement of it must not be invalid.
    if (this.fragmented) words[base + TCP_FLAGS] |= BE_LIBERAL * 0x101;

    // Plain data and acknowledgements of an established connection need none of what follows.
    if (newState !== TCP_ESTABLISHED) {
      if (newState === INVALID) return DROP_CT_INVALID_TCP_STATE;
      const last = words[base + TCP_LAST];
      const lastKind = last & LAST_KIND;
      const lastDirection = (last & LAST_DIRECTION) >>> 3;
      if (newState === TCP_SYN_SENT && oldState >= TCP_TIME_WAIT) {
        // RFC 1122 section 4.2.2.13: a SYN may reopen a closed connection.
        const closeInit = (words[base + TCP_FLAGS] & (CLOSE_INIT * 0x101)) !== 0;
        if (closeInit || (lastDirection === direction && lastKind === RST)) return REOPEN;
        newState = IGNORED;
      }
      if (newState === IGNORED) {
        const resync =
          kind === SYN_ACK &&
          lastKind === SYN &&
          lastDirection !== direction &&
          this.ack === words[base + TCP_LAST_END];
        if (!resync) return this.ignore(words, base, view, p, direction, oldState);
        // The SYN that was ignored is answered: both ends agree, so believe them.
        this.adoptIgnoredSyn(words, base, direction);
        oldState = TCP_SYN_SENT;
        newState = TCP_SYN_RECV;
      } else if (newState === TCP_TIME_WAIT) {
        if (
          oldState === TCP_LAST_ACK &&
          kind === ACK &&
          lastDirection !== direction &&
          lastKind === SYN &&
          (last & LAST_EXPECT_CHALLENGE) !== 0
        ) {
          // RFC 5961 section 4: the answer to a stray SYN, not to the FIN.
          words[base + TCP_LAST] = last & ~LAST_EXPECT_CHALLENGE;
          this.ignored++;
          return CONTINUE;
        }
      } else if (newState === TCP_SYN_SENT2) {
        words[base + TCP_LAST] = last | LAST_SIMULTANEOUS;
      } else if (newState === TCP_SYN_RECV) {
        if (direction === REPLY && kind === ACK && (last & LAST_SIMULTANEOUS) !== 0) newState = TCP_ESTABLISHED;
      } else if (newState === TCP_CLOSE && kind === RST) {
        if (oldState >= TCP_FIN_WAIT && oldState <= TCP_CLOSE) {
          checkWindow = false; // on its way out anyway
        } else {
          const judged = this.judgeRst(words, base, direction, oldState);
          if (judged === DROP_CT_INVALID_TCP_RST) return judged;
          newState = judged & STATE_MASK;
          checkWindow = (judged & SKIP_WINDOW) === 0;
        }
      }
    }

    if (checkWindow) {
      const verdict = this.inWindow(words, base, view, p, direction, oldState);
      if (verdict === IGNORE) {
        this.ignored++;
        return CONTINUE;
      }
      if (verdict !== ACCEPT) {
        this.noteInvalid(words, base, p, direction);
        return verdict;
      }
    }

    const timeouts = this.timeouts;
    const last = (words[base + TCP_LAST] & ~(LAST_KIND | LAST_DIRECTION)) | kind | (direction << 3);
    words[base + TCP_LAST] = last;
    if (oldState !== newState) {
      if (newState === TCP_FIN_WAIT) words[base + TCP_FLAGS] |= CLOSE_INIT << (direction << 3);
    }
    let timeout = timeouts[newState];
    if ((last & RETRANS_MASK) >>> 16 >= this.maxRetransmissions && timeout > timeouts[TCP_RETRANS]) {
      timeout = timeouts[TCP_RETRANS];
    } else if (kind === RST) {
      timeout = timeouts[TCP_CLOSE];
    } else if ((words[base + TCP_FLAGS] & (UNACKNOWLEDGED * 0x101)) !== 0) {
      if (timeout > timeouts[TCP_UNACK]) timeout = timeouts[TCP_UNACK];
    } else if ((words[base + GENERATION] & 0xffff) === 0 && timeout > timeouts[TCP_RETRANS]) {
      timeout = timeouts[TCP_RETRANS]; // zero window
    }

    words[base + META] = (meta & ~(STATE_MASK << STATE_SHIFT)) | (newState << STATE_SHIFT);
    // The caller sets FLAG_SEEN_REPLY, after this: to its first reply a flow is still unanswered.
    if ((meta & FLAG_SEEN_REPLY) === 0) {
      if (kind === RST && this.forgetReset) return LAST_PACKET;
      // A client that only repeats its SYN must not keep the entry, and the port, for ever.
      if (kind === SYN && oldState === TCP_SYN_SENT) return CONTINUE;
      if (newState === TCP_ESTABLISHED && timeout > timeouts[TCP_UNACK]) timeout = timeouts[TCP_UNACK];
    } else if (
      (meta & FLAG_ASSURED) === 0 &&
      (oldState === TCP_SYN_RECV || oldState === TCP_ESTABLISHED) &&
      newState === TCP_ESTABLISHED
    ) {
      words[base + META] |= FLAG_ASSURED;
    }
    p.timeout = timeout;
    return CONTINUE;
  }

  /**
   * A RST on a connection that is not closing (RFC 5961 section 3 seen from the middle).
   * @returns the new state, with SKIP_WINDOW if it is believed without a look at the window; or DROP_CT_INVALID_TCP_RST
   */
  private judgeRst(words: Int32Array, base: number, direction: number, oldState: number): number {
    const last = words[base + TCP_LAST];
    const lastKind = last & LAST_KIND;
    const lastDirection = (last & LAST_DIRECTION) >>> 3;
    const other = 1 - direction;
    const flags = words[base + TCP_FLAGS] >>> (other << 3);
    const { seq } = this;
    let state = TCP_CLOSE;
    if ((flags & MAX_ACK_SET) !== 0 && lastKind !== SYN) {
      // Linux: nf_conntrack_tcp_established.
      const established = oldState === TCP_ESTABLISHED && (words[base + META] & FLAG_ASSURED) !== 0;
      if (seq === 0 && !established) return TCP_CLOSE;
      const maxAck = words[base + TCP_SEEN + (other << 2) + MAX_ACK];
      if (before(seq, maxAck) && !this.ignoreInvalidRst) return DROP_CT_INVALID_TCP_RST;
      if (!established || seq === maxAck) return TCP_CLOSE;
      // The end of a train of segments.
      if (lastKind === ACK && lastDirection === direction && seq === words[base + TCP_LAST_END]) return TCP_CLOSE;
      // In the window but not exact: the receiver will ask with a challenge ACK.
      state = oldState;
    }
    const meta = words[base + META];
    const answersIgnored =
      ((meta & FLAG_SEEN_REPLY) !== 0 && lastKind === SYN) || ((meta & FLAG_ASSURED) === 0 && lastKind === ACK);
    if (answersIgnored && lastDirection !== direction && this.ack === words[base + TCP_LAST_END])
      return state | SKIP_WINDOW;
    if (
      oldState === TCP_SYN_SENT &&
      lastKind === ACK &&
      lastDirection === REPLY &&
      seq === words[base + TCP_LAST_ACK_SEQ]
    ) {
      return state | SKIP_WINDOW; // the answer to a challenge ACK
    }
    return state;
  }

  /** Lets a packet through that may mean that the ends know better, and remembers it. */
  private ignore(
    words: Int32Array,
    base: number,
    view: DataView,
    p: Packet,
    direction: number,
    oldState: number,
  ): number {
    let last = (words[base + TCP_LAST] & ~(LAST_KIND | LAST_DIRECTION)) | this.kind | (direction << 3);
    words[base + TCP_LAST_SEQ] = this.seq;
    words[base + TCP_LAST_END] = this.end;
    words[base + GENERATION] = (words[base + GENERATION] & ~0xffff) | this.window;
    if (this.kind === SYN && direction === ORIGINAL) {
      const options = readOptions(view, p.l4);
      last &= ~(0xff << LAST_SCALE_SHIFT);
      if ((options & WINDOW_SCALE) !== 0) {
        last |= LAST_SCALE_OPTION | (((options >>> 16) & 15) << LAST_SCALE_SHIFT);
      }
      if ((options & SACK_PERMITTED) !== 0) last |= LAST_SACK_OPTION;
      if (oldState === TCP_LAST_ACK) last |= LAST_EXPECT_CHALLENGE;
    }
    words[base + TCP_LAST] = last;
    if (oldState === TCP_SYN_SENT && this.kind === ACK && direction === REPLY) {
      words[base + TCP_LAST_ACK_SEQ] = this.ack;
    }
    this.ignored++;
    return CONTINUE;
  }

  /** Takes the values of the SYN that was ignored, for the direction opposite to `direction`; this one starts empty. */
  private adoptIgnoredSyn(words: Int32Array, base: number, direction: number): void {
    const other = 1 - direction;
    const last = words[base + TCP_LAST];
    const window = words[base + GENERATION] & 0xffff;
    const seen = base + TCP_SEEN + (other << 2);
    words[seen + END] = words[base + TCP_LAST_END];
    words[seen + MAX_END] = words[base + TCP_LAST_END];
    words[seen + MAX_WIN] = window === 0 ? 1 : window;
    const mine = base + TCP_SEEN + (direction << 2);
    for (let i = 0; i < 4; i++) words[mine + i] = 0;
    let otherFlags = 0;
    if ((last & LAST_SCALE_OPTION) !== 0) otherFlags |= WINDOW_SCALE;
    if ((last & LAST_SACK_OPTION) !== 0) otherFlags |= SACK_PERMITTED;
    const liberal = words[base + TCP_FLAGS] & (BE_LIBERAL << (direction << 3));
    const scale = (last >>> LAST_SCALE_SHIFT) & 15;
    words[base + TCP_FLAGS] = liberal | (otherFlags << (other << 3)) | (scale << (16 + (other << 3)));
    words[base + TCP_LAST] = last & ~LAST_EXPECT_CHALLENGE;
  }

  /** Starts a direction from a SYN or SYN ACK. */
  private startSender(words: Int32Array, base: number, view: DataView, p: Packet, direction: number): void {
    const seen = base + TCP_SEEN + (direction << 2);
    words[seen + END] = this.end;
    words[seen + MAX_END] = this.end;
    words[seen + MAX_WIN] = this.window === 0 ? 1 : this.window;
    const shift = direction << 3;
    let flags = words[base + TCP_FLAGS];
    if (tcp.headerLen(view, p.l4) > tcp.HEADER_LEN) {
      const options = readOptions(view, p.l4);
      flags &= ~((0x00ff00ff & ~BE_LIBERAL) << shift);
      flags |= ((options & 0xff) << shift) | (((options >>> 16) & 15) << (16 + shift));
    }
    // RFC 7323 section 2.2: scaling only if both offer it.
    if (direction === REPLY && (flags & (WINDOW_SCALE * 0x101)) !== WINDOW_SCALE * 0x101) flags &= 0xffff;
    words[base + TCP_FLAGS] = flags;
  }

  /** @returns ACCEPT, IGNORE, or DROP_CT_INVALID_TCP_SEQ_HIGH / ACK_HIGH */
  private inWindow(
    words: Int32Array,
    base: number,
    view: DataView,
    p: Packet,
    direction: number,
    oldState: number,
  ): number {
    const sender = base + TCP_SEEN + (direction << 2);
    const receiver = base + TCP_SEEN + ((1 - direction) << 2);
    const shift = direction << 3;
    const otherShift = 8 - shift;
    const { flags } = this;
    let { seq, end, ack } = this;
    let window = this.window;
    let sack = ack;
    if (((words[base + TCP_FLAGS] >>> otherShift) & SACK_PERMITTED) !== 0) sack = highestSack(view, p.l4, ack);

    if (words[sender + MAX_WIN] === 0) {
      if ((flags & tcp.SYN) !== 0) {
        this.startSender(words, base, view, p, direction);
        if ((flags & tcp.ACK_FLAG) === 0) return ACCEPT; // simultaneous open
      } else {
        // Picked up in the middle: learn from the packet.
        const scaled = window << ((words[base + TCP_FLAGS] >>> (16 + shift)) & 15);
        const maxWin = scaled === 0 ? 1 : scaled;
        words[sender + END] = end;
        words[sender + MAX_WIN] = maxWin;
        words[sender + MAX_END] = (end + maxWin) | 0;
        if (words[receiver + MAX_WIN] === 0) {
          words[receiver + END] = sack;
          words[receiver + MAX_END] = sack;
        } else if (sack === ((words[receiver + END] + 1) | 0)) {
          words[receiver + END] = sack; // the answer to a keepalive
        }
      }
    } else if (
      (flags & tcp.SYN) !== 0 &&
      after(end, words[sender + END]) &&
      (oldState === TCP_SYN_SENT || oldState === TCP_SYN_RECV)
    ) {
      this.startSender(words, base, view, p, direction);
      if (direction === REPLY && (flags & tcp.ACK_FLAG) === 0) return ACCEPT;
    }

    const receiverEnd = words[receiver + END];
    // No ACK, or a RST that forgot it: take it as right.
    if ((flags & tcp.ACK_FLAG) === 0 || ((flags & tcp.RST) !== 0 && ack === 0)) {
      ack = receiverEnd;
      sack = receiverEnd;
    }
    const senderEnd = words[sender + END];
    if ((flags & tcp.RST) !== 0 && seq === 0 && oldState === TCP_SYN_SENT) {
      seq = senderEnd;
      end = senderEnd;
    }

    const senderMaxEnd = words[sender + MAX_END];
    const senderMaxWin = words[sender + MAX_WIN];
    const receiverMaxWin = words[receiver + MAX_WIN];
    const ackWindow = Math.max(senderMaxWin, MAX_ACK_WINDOW);
    const inReceiveWindow = receiverMaxWin === 0 || after(end, senderEnd - receiverMaxWin - 1);
    if (!before(seq, senderMaxEnd + 1)) {
      const overshot = (end - senderMaxEnd + 1) >>> 0;
      if (
        receiverMaxWin !== 0 &&
        inReceiveWindow &&
        after(sack, receiverEnd - ackWindow - 1) &&
        overshot <= receiverMaxWin &&
        before(sack, receiverEnd + 1)
      ) {
        // Somebody sends a little more than the window allows: expect the acknowledgement of it.
        words[sender + END] = end;
        words[base + TCP_FLAGS] |= UNACKNOWLEDGED << shift;
        return this.lenient(words, base, shift) ? ACCEPT : IGNORE;
      }
      return this.lenient(words, base, shift) ? ACCEPT : DROP_CT_INVALID_TCP_SEQ_HIGH;
    }
    if (!before(sack, receiverEnd + 1)) {
      return this.lenient(words, base, shift) ? ACCEPT : DROP_CT_INVALID_TCP_ACK_HIGH;
    }
    if (!inReceiveWindow || !after(sack, receiverEnd - ackWindow - 1)) {
      return this.lenient(words, base, shift) ? ACCEPT : IGNORE; // old data or an old ACK, repeated
    }

    if ((flags & tcp.SYN) === 0) window <<= (words[base + TCP_FLAGS] >>> (16 + shift)) & 15;
    const offered = window + ((sack - ack) | 0);
    if (senderMaxWin < offered) words[sender + MAX_WIN] = offered;
    if (after(end, senderEnd)) {
      words[sender + END] = end;
      words[base + TCP_FLAGS] |= UNACKNOWLEDGED << shift;
    }
    if ((flags & tcp.ACK_FLAG) !== 0) {
      if ((words[base + TCP_FLAGS] & (MAX_ACK_SET << shift)) === 0) {
        words[sender + MAX_ACK] = ack;
        words[base + TCP_FLAGS] |= MAX_ACK_SET << shift;
      } else if (after(ack, words[sender + MAX_ACK])) words[sender + MAX_ACK] = ack;
    }
    if (receiverMaxWin !== 0 && after(end, senderMaxEnd)) {
      words[receiver + MAX_WIN] = (receiverMaxWin + end - senderMaxEnd) | 0;
    }
    const edge = (sack + window) | 0;
    if (after(edge, words[receiver + MAX_END] - 1)) words[receiver + MAX_END] = window === 0 ? (edge + 1) | 0 : edge;
    if (ack === receiverEnd) words[base + TCP_FLAGS] &= ~(UNACKNOWLEDGED << otherShift);

    if (this.kind === ACK) this.countRetransmission(words, base, direction, seq, ack, end);
    return ACCEPT;
  }

  private countRetransmission(
    words: Int32Array,
    base: number,
    direction: number,
    seq: number,
    ack: number,
    end: number,
  ): void {
    const last = words[base + TCP_LAST];
    const generation = words[base + GENERATION];
    if (
      (last & LAST_DIRECTION) >>> 3 === direction &&
      words[base + TCP_LAST_SEQ] === seq &&
      words[base + TCP_LAST_ACK_SEQ] === ack &&
      words[base + TCP_LAST_END] === end &&
      (generation & 0xffff) === this.window
    ) {
      if ((last & RETRANS_MASK) !== RETRANS_MASK) words[base + TCP_LAST] = last + RETRANS_ONE;
      return;
    }
    words[base + TCP_LAST_SEQ] = seq;
    words[base + TCP_LAST_ACK_SEQ] = ack;
    words[base + TCP_LAST_END] = end;
    words[base + GENERATION] = (generation & ~0xffff) | this.window;
    words[base + TCP_LAST] = (last & ~(RETRANS_MASK | LAST_DIRECTION)) | (direction << 3);
  }

  private lenient(words: Int32Array, base: number, shift: number): boolean {
    return this.liberal || (words[base + TCP_FLAGS] & (BE_LIBERAL << shift)) !== 0;
  }

  /**
   * Two FINs or RSTs out of window, one from each side, mean that the connection is over and we have lost track: it
   * shall not stay for days. The timeout is only ever lowered; the caller does that.
   */
  private noteInvalid(words: Int32Array, base: number, p: Packet, direction: number): void {
    if ((words[base + META] & FLAG_ASSURED) === 0 || (this.kind !== RST && this.kind !== FIN)) return;
    const last = words[base + TCP_LAST];
    const lastKind = last & LAST_KIND;
    if ((last & LAST_DIRECTION) >>> 3 !== direction && (lastKind === FIN || lastKind === RST)) {
      p.timeout = this.timeouts[TCP_UNACK];
    } else {
      words[base + TCP_LAST] = (last & ~(LAST_KIND | LAST_DIRECTION)) | this.kind | (direction << 3);
    }
  }
}

/**
 * SYN options that matter here: WINDOW_SCALE and SACK_PERMITTED bits, the scale (at most 14, RFC 7323 section 2.3) << 16.
 */
function readOptions(view: DataView, l4: number): number {
  const end = l4 + tcp.headerLen(view, l4);
  let result = 0;
  for (let at = tcp.nextOption(view, l4 + tcp.HEADER_LEN, end); at < end; ) {
    const kind = view.getUint8(at);
    const length = view.getUint8(at + 1);
    if (kind === tcp.OPT_SACK_PERMITTED && length === 2) result |= SACK_PERMITTED;
    else if (kind === tcp.OPT_WINDOW_SCALE && length === 3) {
      const scale = view.getUint8(at + 2);
      result = (result & 0xffff) | WINDOW_SCALE | (Math.min(scale, 14) << 16);
    }
    at = tcp.nextOption(view, at + length, end);
  }
  return result;
}

/** The highest right edge of a SACK block (RFC 2018), at least `ack`. */
function highestSack(view: DataView, l4: number, ack: number): number {
  let at = l4 + tcp.HEADER_LEN;
  const end = l4 + tcp.headerLen(view, l4);
  if (at === end) return ack;
  // Timestamps alone, as every stack lays them out.
  if (end - at === 12 && view.getInt32(at) === 0x0101080a) return ack;
  let highest = ack;
  for (at = tcp.nextOption(view, at, end); at < end; ) {
    const kind = view.getUint8(at);
    const length = view.getUint8(at + 1);
    if (kind === tcp.OPT_SACK && length >= 10 && (length - 2) % 8 === 0) {
      for (let block = at + 2; block < at + length; block += 8) {
        const edge = view.getInt32(block + 4);
        if (after(edge, highest)) highest = edge;
      }
      break;
    }
    at = tcp.nextOption(view, at + length, end);
  }
  return highest;
}
