/**
 * Packet filters in the words of tcpdump (pcap-filter(7)), the part of them that IPv4 needs:
 *
 *   [src | dst] host A | net P/L | port N | portrange A-B        tcp | udp | icmp | sctp | ip | proto N
 *   less N | greater N                                            not, and, or, ( )
 *
 * `A` alone is `host A`; a keyword may be left out where the one before it says the same (`port 80 or 443`). Compiled to one
 * function of a packet's fields, which is called only while somebody looks.
 */
import ipaddr from 'ipaddr.js';

/** What a filter sees of a packet; addresses int32, ports as in Packet. */
export interface Filtered {
  src: number;
  dst: number;
  srcPort: number;
  dstPort: number;
  protocol: number;
  len: number;
}

export type Filter = (p: Filtered) => boolean;

/** The text is no filter; the message says where, and what was expected. */
export class FilterError extends Error {
  override name = 'FilterError';
  readonly exitCode = 2;
}

const PROTOCOLS: Readonly<Record<string, number>> = { icmp: 1, ipip: 4, tcp: 6, udp: 17, gre: 47, sctp: 132 };
const MAX_LENGTH = 4096;
const MAX_DEPTH = 64;

/** @throws FilterError */
export function compileFilter(text: string): Filter {
  if (text.length > MAX_LENGTH)
    throw new FilterError(`filter of ${text.length} characters, expected ${MAX_LENGTH} at most`);
  if (text.trim() === '') return () => true;
  return new Parser(text).parse();
}

type Side = 'src' | 'dst' | 'any';
type Kind = 'host' | 'net' | 'port' | 'portrange';

class Parser {
  private readonly tokens: { text: string; at: number }[] = [];
  private readonly length: number;
  private next = 0;
  private depth = 0;
  /** For `port 80 or 443`. */
  private last: { side: Side; kind: Kind; protocol: number } = { side: 'any', kind: 'host', protocol: -1 };

  constructor(text: string) {
    this.length = text.length;
    for (const match of text.matchAll(/\(|\)|!(?!=)|&&|\|\||[^\s()!&|]+|\S/g)) {
      this.tokens.push({ text: match[0].toLowerCase(), at: match.index });
    }
  }

  parse(): Filter {
    const filter = this.or();
    if (this.next < this.tokens.length) throw this.expected('and, or, or the end');
    return filter;
  }

  private or(): Filter {
    let left = this.and();
    while (this.take('or') || this.take('||')) {
      const [a, b] = [left, this.and()];
      left = p => a(p) || b(p);
    }
    return left;
  }

  private and(): Filter {
    let left = this.not();
    while (this.take('and') || this.take('&&')) {
      const [a, b] = [left, this.not()];
      left = p => a(p) && b(p);
    }
    return left;
  }

  private not(): Filter {
    if (++this.depth > MAX_DEPTH) throw this.expected(`${MAX_DEPTH} parentheses and negations at most`);
    try {
      if (this.take('not') || this.take('!')) {
        const inner = this.not();
        return p => !inner(p);
      }
      if (this.take('(')) {
        const inner = this.or();
        if (!this.take(')')) throw this.expected(')');
        return inner;
      }
      return this.primitive();
    } finally {
      this.depth--;
    }
  }

  private primitive(): Filter {
    const token = this.tokens[this.next];
    if (token === undefined) throw this.expected('a condition');
    if (this.take('ip')) return () => true;
    if (this.take('less')) {
      const most = this.number('a length', 65535);
      return p => p.len <= most;
    }
    if (this.take('greater')) {
      const least = this.number('a length', 65535);
      return p => p.len >= least;
    }
    if (this.take('proto')) {
      const named = PROTOCOLS[this.tokens[this.next]?.text ?? ''];
      const protocol = named ?? this.number('a protocol', 255);
      if (named !== undefined) this.next++;
      return p => p.protocol === protocol;
    }
    const protocol = PROTOCOLS[token.text];
    if (protocol !== undefined) {
      this.next++;
      // `tcp port 80`, `udp src port 53`: one condition.
      if (!/^(src|dst|port|portrange)$/.test(this.tokens[this.next]?.text ?? '')) return p => p.protocol === protocol;
      return this.qualified(protocol);
    }
    return this.qualified(-1);
  }

  private qualified(protocol: number): Filter {
    const side: Side | null = this.take('src') ? 'src' : this.take('dst') ? 'dst' : null;
    const kind = (['host', 'net', 'port', 'portrange'] as const).find(word => this.take(word));
    const isPlain = side === null && kind === undefined && protocol < 0;
    const wanted = isPlain ? this.last : { side: side ?? ('any' as const), kind: kind ?? this.kindOfNext(), protocol };
    const test = this.value(wanted.side, wanted.kind);
    this.last = wanted;
    if (wanted.protocol < 0) return test;
    return p => p.protocol === wanted.protocol && test(p);
  }

  /** After `src` or `dst` alone: an address or a network. */
  private kindOfNext(): Kind {
    return this.tokens[this.next]?.text.includes('/') === true ? 'net' : 'host';
  }

  private value(side: Side, kind: Kind): Filter {
    if (kind === 'port') {
      const port = this.number('a port', 65535);
      return ports(side, port, port);
    }
    if (kind === 'portrange') {
      const match = /^(\d+)-(\d+)$/.exec(this.tokens[this.next]?.text ?? '');
      const [from, to] = [Number(match?.[1]), Number(match?.[2])];
      if (match === null || from > to || to > 65535) throw this.expected('a range of ports, 8000-8080');
      this.next++;
      return ports(side, from, to);
    }
    return this.network(side);
  }

  private network(side: Side): Filter {
    const text = this.tokens[this.next]?.text ?? '';
    const [address, length = '32'] = text.split('/');
    const isAddress = ipaddr.IPv4.isValidFourPartDecimal(address);
    if (!isAddress || !/^\d+$/.test(length) || Number(length) > 32) throw this.expected('an IPv4 address or network');
    this.next++;
    const mask = Number(length) === 0 ? 0 : -1 << (32 - Number(length));
    const bytes = ipaddr.IPv4.parse(address).octets;
    const prefix = ((bytes[0] << 24) | (bytes[1] << 16) | (bytes[2] << 8) | bytes[3]) & mask;
    if (side === 'src') return p => (p.src & mask) === prefix;
    if (side === 'dst') return p => (p.dst & mask) === prefix;
    return p => (p.src & mask) === prefix || (p.dst & mask) === prefix;
  }

  private number(what: string, most: number): number {
    const text = this.tokens[this.next]?.text ?? '';
    if (!/^\d{1,5}$/.test(text) || Number(text) > most) throw this.expected(`${what} from 0 to ${most}`);
    this.next++;
    return Number(text);
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

function ports(side: Side, from: number, to: number): Filter {
  const has = (p: Filtered) =>
    p.protocol === PROTOCOLS.tcp || p.protocol === PROTOCOLS.udp || p.protocol === PROTOCOLS.sctp;
  if (side === 'src') return p => has(p) && p.srcPort >= from && p.srcPort <= to;
  if (side === 'dst') return p => has(p) && p.dstPort >= from && p.dstPort <= to;
  return p => has(p) && ((p.srcPort >= from && p.srcPort <= to) || (p.dstPort >= from && p.dstPort <= to));
}
