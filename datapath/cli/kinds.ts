/** The kinds of `tunpath get`, under all the names that people know them by. */
import { KINDS } from '../control/kinds.ts';
import { nearest } from '../control/nearest.ts';
import { UsageError } from './exit.ts';
import { kindElsewhere } from './other-tools.ts';

export type KindName = (typeof KINDS)[number];

export interface Kind {
  name: KindName;
  /** Singular, short names, and what other tools call it. */
  aliases: readonly string[];
  /** Fields by which NAME finds a row; a table without names has none. */
  keys: readonly string[];
  /** Shown only with `-o wide`: they say what few change, and the rest then fits a terminal. */
  wide: readonly string[];
  /** What a narrow terminal does without, the first of them first. */
  spared: readonly string[];
}

const DETAILS: Record<KindName, Omit<Kind, 'name'>> = {
  routes: { aliases: ['route', 'ro'], keys: ['to'], wide: ['pathMtu'], spared: ['tooBig', 'underlayVia', 'kind'] },
  services: {
    aliases: ['service', 'svc'],
    keys: ['name', 'address'],
    wide: ['affinitySeconds', 'internalTrafficPolicy', 'externalTrafficPolicy'],
    spared: ['selector'],
  },
  endpoints: {
    aliases: ['endpoint', 'ep', 'backends', 'backend'],
    keys: ['service', 'address'],
    wide: [],
    spared: ['id', 'weight', 'serving', 'terminating', 'local'],
  },
  conntrack: { aliases: ['ct', 'flows', 'flow', 'connections'], keys: [], wide: [], spared: ['number', 'rule', 'age'] },
  nat: { aliases: ['snat', 'nat-ports'], keys: ['address', 'destination'], wide: [], spared: ['exhaustedInSeconds'] },
  masquerade: {
    aliases: ['masq', 'masquerades', 'rules', 'rule'],
    keys: ['rule'],
    wide: [],
    spared: ['mark', 'randomFully'],
  },
  policies: {
    aliases: ['policy', 'networkpolicies', 'networkpolicy', 'netpol'],
    keys: ['policy'],
    wide: [],
    spared: ['ingressRules', 'egressRules'],
  },
  ports: {
    aliases: ['port', 'interfaces', 'interface', 'links', 'link', 'addresses', 'address', 'addr', 'pods', 'pod', 'po'],
    keys: ['name', 'device'],
    wide: ['number'],
    spared: ['identity', 'rxBytes', 'txBytes', 'kind', 'addresses'],
  },
  neighbors: {
    aliases: ['neighbor', 'neighbours', 'neighbour', 'neigh', 'arp'],
    keys: ['address'],
    wide: [],
    spared: ['device'],
  },
  'l2-announce': {
    aliases: ['l2announce', 'l2-announcements'],
    keys: ['ip'],
    wide: [],
    spared: [],
  },
  pmtu: { aliases: ['pmtus', 'path-mtu', 'pathmtu'], keys: ['peer'], wide: [], spared: [] },
  counters: { aliases: ['counter', 'drops', 'drop', 'stats'], keys: ['name'], wide: [], spared: ['bytes'] },
};

/** What is not known better is shown as it comes. */
const PLAIN: Omit<Kind, 'name'> = { aliases: [], keys: ['name'], wide: [], spared: [] };

export const ALL_KINDS: readonly Kind[] = KINDS.map(name => ({ name, ...(DETAILS[name] ?? PLAIN) }));

/** A kind by any of its names, in upper or lower case. @throws UsageError that says what was probably meant */
export function findKind(text: string): Kind {
  const word = text.toLowerCase();
  const found = kindCalled(word);
  if (found !== undefined) return found;
  const meant = nearest(word, [...KINDS, ...ALL_KINDS.flatMap(({ aliases }) => aliases)]);
  const elsewhere = kindElsewhere(word);
  const hint = elsewhere !== undefined ? ` (${elsewhere})` : meant === undefined ? '' : ` (did you mean ${meant}?)`;
  throw new UsageError(`no kind '${text}'${hint}: expected one of ${KINDS.join(', ')}`);
}

/** Whether a word, in lower case, is a name of one. */
export function isNodeKind(word: string): boolean {
  return kindCalled(word) !== undefined;
}

function kindCalled(word: string): Kind | undefined {
  return ALL_KINDS.find(({ name, aliases }) => name === word || aliases.includes(word));
}

/** For help texts: "services (service, svc), ...". */
export function kindsText(): string {
  return ALL_KINDS.map(({ name, aliases }) => (aliases.length === 0 ? name : `${name} (${aliases.join(', ')})`)).join(
    '\n  ',
  );
}
