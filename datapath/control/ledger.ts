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

/** Each is looked through for every packet on the uplink. */
const MOST_NETWORKS = 4096;

/** @throws Error with the place of what is wrong */
export function ledgerProgram(params: Record<string, unknown>): LedgerProgram {
  const { own, peers } = params as Partial<LedgerRequest>;
  const program = {
    own: networksOf(own, 'own'),
    peers: listOf(peers, 'peers').map((peer, i) => {
      const { name, networks } = (peer ?? {}) as { name?: unknown; networks?: unknown };
      if (typeof name !== 'string') throw expected(`peers[${i}].name`, name, 'a name');
      return { name, networks: networksOf(networks, `peers[${i}].networks`) };
    }),
  };
  const count = program.peers.reduce((sum, { networks }) => sum + networks.length, program.own.length);
  if (count > MOST_NETWORKS) throw new Error(`keep-ledger: got ${count} networks, expected at most ${MOST_NETWORKS}`);
  return program;
}

function networksOf(list: unknown, path: string): LedgerNetwork[] {
  return listOf(list, path).map((text, i) => {
    const cidr = typeof text === 'string' ? parseCidr(text) : undefined;
    if (cidr === undefined) throw expected(`${path}[${i}]`, text, 'a network of IPv4');
    return { prefix: cidr.prefix, length: cidr.length };
  });
}

function listOf(value: unknown, path: string): unknown[] {
  if (!Array.isArray(value)) throw expected(path, value, 'a list');
  return value;
}

function expected(path: string, got: unknown, what: string): Error {
  return new Error(
    `keep-ledger: ${path}: got ${got === undefined ? 'nothing' : JSON.stringify(got)}, expected ${what}`,
  );
}
