/**
 * Packet filters in the words of tcpdump (pcap-filter(7)), the part of them that IPv4 needs:
 *
 *   [ip | arp] [src | dst | src or dst | src and dst] host A | net P/L | net P mask M
 *   [tcp | udp | sctp] [src | dst | ...] port N | portrange A-B
 *   ip | arp | rarp | ip6 | icmp | tcp | udp | sctp | [ip] proto N | ether proto N | ip multicast
 *   less N | greater N | tcp[tcpflags] & tcp-syn != 0, with ip, arp, icmp, tcp, udp and sctp, and len
 *   not, and, or, ( ): and binds no closer than or, as in libpcap
 *
 * `A` alone is `host A`; a keyword may be left out where the one before it says the same (`port 80 or 443`, `port (80 or
 * 443)`). Compiled to one function of a packet, which is called only while somebody looks. As in libpcap, a packet that ends
 * before a byte that is asked for passes no filter.
 */
import ipaddr from 'ipaddr.js';
import { ETHER_TYPES, FIELDS, PORTS, PROTOCOLS } from './filter-words.ts';

/** What a filter sees of a packet; addresses int32, ports as in Packet. */
export interface Filtered {
  /** 0 where none is known. */
  etherType: number;
  /** Of IPv4, or who an ARP packet is from and about. */
  src: number;
  dst: number;
  /** False for a later fragment, too. */
  hasPorts: boolean;
  srcPort: number;
  dstPort: number;
  /** Of IPv4; 0 for what is none. */
  protocol: number;
  /** Bytes, with the link header where there is one. */
  len: number;
  view: DataView;
  /** Positions in `view`: behind the link header; behind the IPv4 header, -1 in a later fragment; behind the packet. */
  network: number;
  transport: number;
  end: number;
  /** Set by the filter, where it asked for bytes that are not there. */
  isCut: boolean;
}

export type Filter = (p: Filtered) => boolean;
type Value = (p: Filtered) => number;

/** The text is no filter; the message says where, and what was expected. */
export class FilterError extends Error {
  override name = 'FilterError';
  readonly exitCode = 2;
}

const MAX_LENGTH = 4096;
const MAX_DEPTH = 64;
const TOKEN = /&&|\|\||<<|>>|[<>=!]=|\\?[a-z0-9_.]+(?:-[a-z0-9_.]+)*|\S/g;
const MULTICAST = 0xe0;

/** @throws FilterError */
export function compileFilter(text: string): Filter {
  if (text.length > MAX_LENGTH)
    throw new FilterError(`filter of ${text.length} characters, expected ${MAX_LENGTH} at most`);
  if (text.trim() === '') return () => true;
  const filter = new Parser(text).parse();
  return p => {
    p.isCut = false;
    return filter(p) && !p.isCut;
  };
}

type Side = 'src' | 'dst' | 'any' | 'both';
type Kind = 'host' | 'net' | 'port' | 'portrange';
/** What stands before a value: `ip src host`, `tcp port`. */
interface Qualifiers {
  side: Side;
  kind: Kind;
  /** ip, arp, tcp...; '' for none. */
  protocol: string;
}

class Parser {
  private readonly tokens: { text: string; at: number }[] = [];
  private readonly length: number;
  private next = 0;
  private depth = 0;
  /** For `port 80 or 443`. */
  private last: Qualifiers = { side: 'any', kind: 'host', protocol: '' };

  constructor(text: string) {
    this.length = text.length;
    for (const match of text.toLowerCase().matchAll(TOKEN)) {
      this.tokens.push({ text: match[0].replace(/^\\/, ''), at: match.index });
    }
  }

  parse(): Filter {
    const filter = this.terms(() => this.primitive());
    if (this.next < this.tokens.length) throw this.expected('and, or, or the end');
    return filter;
  }

  /** Joined by `and` and `or`, from left to right. */
  private terms(one: () => Filter): Filter {
    let left = this.not(one);
    for (;;) {
      const a = left;
      if (this.take('or') || this.take('||')) {
        const b = this.not(one);
        left = p => a(p) || b(p);
      } else if (this.take('and') || this.take('&&')) {
        const b = this.not(one);
        left = p => a(p) && b(p);
      } else return left;
    }
  }

  private not(one: () => Filter): Filter {
    return this.deeper(() => {
      if (this.take('not') || this.take('!')) {
        const inner = this.not(one);
        return p => !inner(p);
      }
      if (this.isArithmetic() || !this.take('(')) return one();
      return this.closed(this.terms(one));
    });
  }

  private deeper<T>(what: () => T): T {
    if (++this.depth > MAX_DEPTH) throw this.expected(`${MAX_DEPTH} parentheses and negations at most`);
    try {
      return what();
    } finally {
      this.depth--;
    }
  }

  private closed<T>(inner: T): T {
    if (!this.take(')')) throw this.expected(')');
    return inner;
  }

  private primitive(): Filter {
    if (this.next >= this.tokens.length) throw this.expected('a condition');
    if (this.isArithmetic()) return this.relation();
    if (this.take('less')) {
      const most = this.number('a length', 65535);
      return p => p.len <= most;
    }
    if (this.take('greater')) {
      const least = this.number('a length', 65535);
      return p => p.len >= least;
    }
    if (this.take('proto')) return this.protocol();
    if (this.take('ether')) {
      if (!this.take('proto')) throw this.expected('proto');
      const type = this.named(ETHER_TYPES) ?? this.number('an EtherType', 65535);
      return p => p.etherType === type;
    }
    const { text } = this.tokens[this.next];
    if (!Object.hasOwn(ETHER_TYPES, text) && !Object.hasOwn(PROTOCOLS, text)) return this.qualified('');
    this.next++;
    if (text === 'ip' && this.take('proto')) return this.protocol();
    if (text === 'ip' && this.take('multicast'))
      return p => p.etherType === ETHER_TYPES.ip && p.dst >>> 24 >= MULTICAST;
    // `tcp port 80`, `arp host 10.0.0.1`: one condition.
    return /^(src|dst|host|net|port|portrange)$/.test(this.peek()) ? this.qualified(text) : isOf(text);
  }

  private protocol(): Filter {
    const protocol = this.named(PROTOCOLS) ?? this.number('a protocol', 255);
    return p => p.etherType === ETHER_TYPES.ip && p.protocol === protocol;
  }

  private qualified(protocol: string): Filter {
    const side = this.side();
    const kind = (['host', 'net', 'port', 'portrange'] as const).find(word => this.take(word));
    const isPlain = side === null && kind === undefined && protocol === '';
    const wanted = isPlain ? this.last : { side: side ?? ('any' as const), kind: kind ?? this.kindOfNext(), protocol };
    this.last = wanted;
    const value = () => this.value(wanted);
    return !isPlain && this.take('(') ? this.closed(this.terms(value)) : value();
  }

  private side(): Side | null {
    const first = (['src', 'dst'] as const).find(word => this.take(word));
    if (first === undefined) return null;
    const other = first === 'src' ? 'dst' : 'src';
    const [joint, second] = [this.peek(), this.peek(1)];
    if ((joint !== 'or' && joint !== 'and') || second !== other) return first;
    this.next += 2;
    return joint === 'or' ? 'any' : 'both';
  }

  /** After `src` or `dst` alone: an address or a network. */
  private kindOfNext(): Kind {
    return addressOf(this.peek()) === undefined || this.peek(1) === '/' ? 'net' : 'host';
  }

  private value({ side, kind, protocol }: Qualifiers): Filter {
    if (kind === 'port') {
      const port = this.port();
      return ports(side, port, port, protocol);
    }
    if (kind === 'portrange') {
      const match = /^(\d+)-(\d+)$/.exec(this.peek());
      const [from, to] = [Number(match?.[1]), Number(match?.[2])];
      if (match === null || from > to || to > 65535) throw this.expected('a range of ports, 8000-8080');
      this.next++;
      return ports(side, from, to, protocol);
    }
    const isAddress = this.network(side, kind);
    if (protocol !== '') return both(isOf(protocol), isAddress);
    const { ip, arp, rarp } = ETHER_TYPES;
    return p => (p.etherType === ip || p.etherType === arp || p.etherType === rarp) && isAddress(p);
  }

  private port(): number {
    return this.named(PORTS) ?? this.number('a port', 65535);
  }

  private network(side: Side, kind: Kind): Filter {
    const address = this.peek();
    const parts = address.split('.').length;
    // `net 10.244` is 10.244.0.0/16.
    const value = addressOf(kind === 'net' ? address + '.0'.repeat(4 - Math.min(4, parts)) : address);
    if (value === undefined) throw this.expected('an IPv4 address or network');
    this.next++;
    const length = this.take('/') ? this.number('a prefix length', 32) : 8 * parts;
    let mask = length === 0 ? 0 : -1 << (32 - length);
    if (this.take('mask')) {
      const bits = addressOf(this.peek());
      if (bits === undefined) throw this.expected('a mask such as 255.255.255.0');
      this.next++;
      mask = bits;
    }
    const prefix = value & mask;
    return sided(
      side,
      p => (p.src & mask) === prefix,
      p => (p.dst & mask) === prefix,
    );
  }

  // ---- Bytes of the packet

  /** Whether a value stands next, which is compared with another. */
  private isArithmetic(): boolean {
    const text = this.peek();
    if (text === 'len' || this.peek(1) === '[') return true;
    if (text !== '(') {
      // `net 10 or 11/8` goes on with a network.
      const isNetwork = this.peek(1) === '/' && /^\d+$/.test(this.peek(2)) && !isOperator(this.peek(3));
      return (/^\d/.test(text) || Object.hasOwn(FIELDS, text)) && isOperator(this.peek(1)) && !isNetwork;
    }
    let open = 0;
    for (let i = 0; this.next + i < this.tokens.length; i++) {
      if (this.peek(i) === '(') open++;
      if (this.peek(i) === ')' && --open === 0) return isOperator(this.peek(i + 1));
    }
    return false;
  }

  private relation(): Filter {
    const checks: Filter[] = [];
    const left = this.bits(checks);
    const operator = this.peek();
    if (!Object.hasOwn(RELATIONS, operator)) throw this.expected('=, !=, <, >, <= or >=');
    const compare = RELATIONS[operator];
    this.next++;
    const right = this.bits(checks);
    const isThere = checks.reduce<Filter>(both, () => true);
    return p => isThere(p) && compare(left(p) >>> 0, right(p) >>> 0);
  }

  /** As in C, | binds loosest. @param checks gets what the packet must be for the bytes to be there */
  private bits(checks: Filter[], level = 0): Value {
    if (level === LEVELS.length) return this.operand(checks);
    let left = this.bits(checks, level + 1);
    for (;;) {
      const operator = this.peek();
      if (!Object.hasOwn(LEVELS[level], operator)) return left;
      const operate = LEVELS[level][operator];
      this.next++;
      const [a, b] = [left, this.bits(checks, level + 1)];
      left = p => operate(a(p), b(p), p) >>> 0;
    }
  }

  private operand(checks: Filter[]): Value {
    return this.deeper(() => {
      if (this.take('(')) return this.closed(this.bits(checks));
      if (this.take('-')) {
        const inner = this.operand(checks);
        return p => -inner(p) >>> 0;
      }
      if (this.take('len')) return p => p.len;
      if (this.peek(1) === '[') return this.bytes(checks);
      const number = this.named(FIELDS) ?? this.number('a number, or bytes such as tcp[13]', 0xffffffff);
      return () => number;
    });
  }

  /** `tcp[12]`, `ip[2:2]`. */
  private bytes(checks: Filter[]): Value {
    const name = this.peek();
    const isLink = Object.hasOwn(ETHER_TYPES, name);
    if (!isLink && !['icmp', 'tcp', 'udp', 'sctp'].includes(name))
      throw this.expected('ip, arp, icmp, tcp, udp or sctp');
    this.next += 2;
    const offset = this.bits(checks);
    let size = 1;
    if (this.take(':')) {
      size = this.number('1, 2 or 4', 4);
      if (size !== 1 && size !== 2 && size !== 4) {
        this.next--;
        throw this.expected('1, 2 or 4');
      }
    }
    if (!this.take(']')) throw this.expected(']');
    checks.push(isLink ? isOf(name) : both(isOf(name), p => p.transport >= 0));
    return p => load(p, (isLink ? p.network : p.transport) + offset(p), size);
  }

  // ---- Words

  private named(names: Readonly<Record<string, number>>): number | undefined {
    const text = this.peek();
    if (!Object.hasOwn(names, text)) return undefined;
    this.next++;
    return names[text];
  }

  private number(what: string, most: number): number {
    const text = this.peek();
    const isNumber = /^(0x[0-9a-f]+|0[0-7]*|[1-9]\d*)$/.test(text);
    const value = /^0\d/.test(text) ? Number.parseInt(text, 8) : Number(text);
    if (!isNumber || value > most) throw this.expected(`${what} from 0 to ${most}`);
    this.next++;
    return value;
  }

  private peek(ahead = 0): string {
    return this.tokens[this.next + ahead]?.text ?? '';
  }

  private take(word: string): boolean {
    if (this.tokens[this.next]?.text !== word) return false;
    this.next++;
    return true;
  }

  private expected(what: string): FilterError {
    const token = this.tokens[this.next];
    const got = token === undefined ? 'the end' : `"${token.text}"`;
    return new FilterError(`filter: character ${(token?.at ?? this.length) + 1}: got ${got}, expected ${what}`);
  }
}

const RELATIONS: Readonly<Record<string, (a: number, b: number) => boolean>> = {
  '=': (a, b) => a === b,
  '==': (a, b) => a === b,
  '!=': (a, b) => a !== b,
  '<': (a, b) => a < b,
  '>': (a, b) => a > b,
  '<=': (a, b) => a <= b,
  '>=': (a, b) => a >= b,
};

type Operate = (a: number, b: number, p: Filtered) => number;
/** Of 32 bits without a sign; from the loosest to the closest. */
const LEVELS: readonly Readonly<Record<string, Operate>>[] = [
  { '|': (a, b) => a | b },
  { '^': (a, b) => a ^ b },
  { '&': (a, b) => a & b },
  { '<<': (a, b) => (b > 31 ? 0 : a << b), '>>': (a, b) => (b > 31 ? 0 : a >>> b) },
  { '+': (a, b) => a + b, '-': (a, b) => a - b },
  {
    '*': (a, b) => Math.imul(a, b),
    '/': (a, b, p) => (b === 0 ? cut(p) : Math.trunc(a / b)),
    '%': (a, b, p) => (b === 0 ? cut(p) : a % b),
  },
];

function isOperator(text: string): boolean {
  return Object.hasOwn(RELATIONS, text) || LEVELS.some(level => Object.hasOwn(level, text));
}

function cut(p: Filtered): number {
  p.isCut = true;
  return 0;
}

function load(p: Filtered, at: number, size: number): number {
  if (at + size > p.end) return cut(p);
  return size === 1 ? p.view.getUint8(at) : size === 2 ? p.view.getUint16(at) : p.view.getUint32(at);
}

/** A packet of this name: ip, arp, tcp... */
function isOf(name: string): Filter {
  if (Object.hasOwn(ETHER_TYPES, name)) {
    const type = ETHER_TYPES[name];
    return p => p.etherType === type;
  }
  const protocol = PROTOCOLS[name];
  return p => p.etherType === ETHER_TYPES.ip && p.protocol === protocol;
}

/** `10.0.0.1` as an int32. */
function addressOf(text: string): number | undefined {
  if (!ipaddr.IPv4.isValidFourPartDecimal(text)) return undefined;
  const bytes = ipaddr.IPv4.parse(text).octets;
  return (bytes[0] << 24) | (bytes[1] << 16) | (bytes[2] << 8) | bytes[3];
}

function ports(side: Side, from: number, to: number, protocol: string): Filter {
  const isIn = sided(
    side,
    p => p.srcPort >= from && p.srcPort <= to,
    p => p.dstPort >= from && p.dstPort <= to,
  );
  return both(protocol === '' ? p => p.hasPorts : both(isOf(protocol), p => p.hasPorts), isIn);
}

function sided(side: Side, src: Filter, dst: Filter): Filter {
  if (side === 'src') return src;
  if (side === 'dst') return dst;
  return side === 'both' ? both(src, dst) : p => src(p) || dst(p);
}

function both(a: Filter, b: Filter): Filter {
  return p => a(p) && b(p);
}
