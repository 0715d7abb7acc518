/** What the tunnel tests share: two ends of a tunnel, and packets to send through it. */
import { Counters } from '../../datapath/counters.ts';
import type { Packet } from '../../datapath/packet/packet.ts';
import { parseIpv4 } from '../../datapath/packet/parse.ts';
import { Pool } from '../../datapath/packet/pool.ts';
import type { Profile } from '../../datapath/profile.ts';
import { PROFILES } from '../../datapath/profile.ts';
import { Random } from '../../datapath/random.ts';
import type { TunnelSpec } from '../../datapath/tunnel/tunnel.ts';
import { Tunnel } from '../../datapath/tunnel/tunnel.ts';
import { CONTINUE, VERDICT_NAMES } from '../../datapath/verdict.ts';
import { ip, load } from '../fixtures/packets.ts';

export const NAMES = ['ipip', 'vxlan', 'geneve'] as const;
export type TunnelName = (typeof NAMES)[number];
/** The TUNNEL_* number. */
export const protocolOf = (name: TunnelName) => NAMES.indexOf(name) + 1;

export const NODE_A = '192.168.10.1';
export const NODE_B = '192.168.10.2';
export const MAC_A = { macHi: 0x0242, macLo: 0x0af40100 };
export const MAC_B = { macHi: 0x0242, macLo: 0x0af40200 };
export const MAC_A_BYTES = [0x02, 0x42, 0x0a, 0xf4, 0x01, 0x00];
export const MAC_B_BYTES = [0x02, 0x42, 0x0a, 0xf4, 0x02, 0x00];

/** The spec of A's end, towards B. */
export function specA(name: TunnelName, o: Partial<TunnelSpec> = {}): TunnelSpec {
  return {
    protocol: protocolOf(name),
    port: name === 'geneve' ? 6081 : 8472,
    vni: -1,
    localAddress: ip(NODE_A),
    localMacHi: MAC_A.macHi,
    localMacLo: MAC_A.macLo,
    peers: [{ address: ip(NODE_B), ...MAC_B }],
    acceptAny: false,
    ...o,
  };
}

/** The spec of B's end, towards A. */
export function specB(name: TunnelName, o: Partial<TunnelSpec> = {}): TunnelSpec {
  return specA(name, {
    localAddress: ip(NODE_B),
    localMacHi: MAC_B.macHi,
    localMacLo: MAC_B.macLo,
    peers: [{ address: ip(NODE_A), ...MAC_A }],
    ...o,
  });
}

/** One pool, and both ends of a tunnel over it. */
export class Rig {
  readonly pool = new Pool(2);
  readonly counters = new Counters();
  readonly a: Tunnel;
  readonly b: Tunnel;

  constructor(name: TunnelName, o: { profile?: Profile; a?: Partial<TunnelSpec>; b?: Partial<TunnelSpec> } = {}) {
    const profile = o.profile ?? PROFILES.linux;
    this.a = new Tunnel(specA(name, o.a), profile, this.pool.view, this.counters, new Random(7));
    this.b = new Tunnel(specB(name, o.b), profile, this.pool.view, this.counters, new Random(8));
  }

  /** `bytes` as a parsed packet. The caller releases it. */
  parsed(bytes: Uint8Array): Packet {
    const p = load(this.pool, bytes);
    this.parse(p);
    return p;
  }

  parse(p: Packet): void {
    const verdict = parseIpv4(this.pool.view, p);
    if (verdict !== CONTINUE) throw new Error(`the packet does not parse: ${VERDICT_NAMES[verdict]}`);
  }

  /** A copy of the packet as it lies, its slot given back. */
  take(p: Packet): Uint8Array {
    const bytes = new Uint8Array(this.pool.bytes.subarray(p.off, p.off + p.len));
    this.pool.release(p);
    return bytes;
  }

  /** What A sends to B for `inner`. */
  encap(inner: Uint8Array, identity = 21500): Uint8Array {
    const p = this.parsed(inner);
    p.identity = identity;
    this.a.encap(p, 0);
    return this.take(p);
  }

  /** What B makes of `outer`. */
  decap(outer: Uint8Array): { verdict: number; inner: Uint8Array; identity: number; tunnelSource: number } {
    const p = this.parsed(outer);
    const verdict = this.b.decap(p);
    const { identity, tunnelSource } = p;
    return { verdict, inner: this.take(p), identity, tunnelSource };
  }
}
