/** Whom a node keeps account with, as it is asked for on the control socket. */
import type { LedgerNetwork, LedgerProgram } from '../path/ledger.ts';
import { parseCidr } from './address.ts';

/** Whom to keep account with: pod networks as text. */
export interface LedgerRequest {
  own: string[];
  peers: { name: string; networks: string[] }[];
}

/** What a node says of its account. */
export interface LedgerAnswer {
  /** When its counts began, as text: another node of the same name has another. */
  since: string;
  rows: LedgerCount[];
}

export interface LedgerCount {
  peer: string;
  /** By its name; '': none. */
  tunnel: string;
  sent: number;
  received: number;
}

/** @throws Error for what is no such request */
export function ledgerProgram(params: Record<string, unknown>): LedgerProgram {
  const { own, peers } = params as Partial<LedgerRequest>;
  if (!Array.isArray(own) || !Array.isArray(peers)) throw new Error('keep-ledger needs own and peers, lists');
  return {
    own: networksOf(own),
    peers: peers.map(({ name, networks }) => ({ name: String(name), networks: networksOf(networks) })),
  };
}

function networksOf(list: unknown): LedgerNetwork[] {
  if (!Array.isArray(list)) throw new Error('keep-ledger: expected a list of networks');
  return list.map(text => {
    const cidr = parseCidr(String(text));
    if (cidr === undefined) throw new Error(`keep-ledger: got ${JSON.stringify(text)}, expected a network of IPv4`);
    return { prefix: cidr.prefix, length: cidr.length };
  });
}
