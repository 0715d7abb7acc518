/** What a check of the conformance table is: one clause of an RFC, and packets that show whether the datapath keeps it. */
import type { ProfileName } from '../profile.ts';
import type { Testbed } from './node.ts';

export type Level = 'MUST' | 'SHOULD' | 'RECOMMENDED' | 'MAY';

/** How one of the real systems behaves where it does not do what the clause says. */
export interface Deviation {
  /** What the check then sees. */
  sees: string;
  /** Whose behaviour it is, and where that is written. */
  by: string;
  /** The profiles that behave so; absent: all that stand for Linux, which is all but rfc. */
  profiles?: readonly ProfileName[];
}

/** Text of the clauses, section numbers included, has been compared with the RFCs as published. */
export interface Check {
  rfc: number;
  /** Section or requirement: '§5', 'REQ-1'. */
  clause: string;
  level: Level;
  /** In our words, short enough for a table. */
  requirement: string;
  /** The words of the RFC that it stands on, or the nearest to them that fit. */
  quote: string;
  /** What the check sees where the clause is kept; several, where it leaves a choice. */
  expect: string | readonly string[];
  deviations?: readonly Deviation[];
  /** Why the clause asks nothing of a profile's datapath, where it does not. */
  exempt?: Partial<Record<ProfileName, string>>;
  /**
   * Sends packets through a datapath and says in a few words what came out. Sees packets only: never the profile's table.
   * @throws Error where something came out that no words were made for; that is a fail
   */
  run(bed: Testbed): string;
}

/** A clause that asks nothing of this datapath, whatever the profile. */
export interface Inapplicable {
  rfc: number;
  clause: string;
  level: Level;
  requirement: string;
  quote: string;
  reason: string;
}

export type Clause = Check | Inapplicable;

export type Result = 'pass' | 'as Linux' | 'fail' | 'not applicable';

export interface Row {
  /** '7348 §5' */
  clause: string;
  level: Level;
  requirement: string;
  quote: string;
  profile: ProfileName;
  result: Result;
  /** What came out; '' where nothing was sent. */
  seen: string;
  /** pass: ''; as Linux: by which function; fail: what was expected; not applicable: why. */
  note: string;
  /** Packets in and out, as lines of text. */
  packets: string[];
}

/** The profiles that stand for the kernel as it is. */
export const KERNEL: readonly ProfileName[] = ['linux', 'calico', 'flannel'];

/** Neither has GENEVE, so there is nobody to behave like. */
export const NO_GENEVE = {
  calico: 'Calico has no GENEVE',
  flannel: 'flannel has no GENEVE',
} as const;

/** The profile that has no IPIP. */
export const NO_IPIP = { cilium: 'Cilium has no IPIP mode between nodes' } as const;
