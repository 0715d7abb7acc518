/** What a change does to the flows of a running node, in words: the answer of `tunpath apply`. */
import { isDeepStrictEqual } from 'node:util';
import type { Change } from '../program/diff.ts';
import { mtusOf, podMtuOf } from '../program/mtus.ts';
import type { PolicyConfig } from './policy-config.ts';
import type { ResolvedConfig } from './resolved.ts';

export interface Effect {
  /** profile, timeouts, flow history, pods, host, tunnels, mtu, routes, services, masquerade. */
  what: string;
  /** added, removed, readdressed... */
  change: string;
  /** How many of them. */
  count: number;
  /** The first of them, by name. */
  names: string;
  /** What it means for flows that are under way, and for new ones. */
  flows: string;
}

const NAMES_SHOWN = 4;

const NONE = 'none is touched';

/** In the order in which a reader looks for them. */
export function describeChanges(from: ResolvedConfig, to: ResolvedConfig, changes: readonly Change[]): Effect[] {
  const effects: Effect[] = [];
  const add = (what: string, change: string, names: string[], flows: string) => {
    if (names.length === 0) return;
    const shown = names.slice(0, NAMES_SHOWN).join(', ');
    effects.push({
      what,
      change,
      count: names.length,
      names: names.length > NAMES_SHOWN ? `${shown}...` : shown,
      flows,
    });
  };
  if (from.spec.profile !== to.spec.profile) {
    add(
      'profile',
      'changed',
      [to.spec.profile],
      'go on; outer headers, TTLs and timeouts follow it from the next packet on',
    );
  }
  if (!isDeepStrictEqual(from.spec.conntrack, to.spec.conntrack)) {
    add('timeouts', 'changed', ['conntrack'], 'follow them from their next packet on');
  }
  if (from.spec.flowHistory !== to.spec.flowHistory) {
    add('flow history', 'changed', [String(to.spec.flowHistory)], NONE);
  }
  describePods(from, to, add);
  describeHost(from, to, add);
  describeTunnels(changes, add);
  describeRoutes(from, to, add);
  describeServices(from, to, add);
  if (changes.some(({ kind }) => kind === 'addresses')) {
    add('services', 'networks', ['node ports and service networks'], 'new flows follow them');
  }
  if (!isDeepStrictEqual(from.spec.masquerade, to.spec.masquerade)) {
    add('masquerade', 'changed', ['rules'], 'those under way keep the translation and the rule that they began with');
  }
  const policies = namesOfChanged(from.spec.policies, to.spec.policies);
  add(
    'policies',
    'changed',
    policies,
    'each is judged again by its next packet; one that no rule allows any more is cut',
  );
  return effects;
}

/** Policies that are new, gone or different, by namespace and name. */
function namesOfChanged(from: readonly PolicyConfig[], to: readonly PolicyConfig[]): string[] {
  const key = ({ namespace, name }: PolicyConfig) => `${namespace}/${name}`;
  const old = new Map(from.map(policy => [key(policy), policy]));
  const changed = to.filter(policy => !isDeepStrictEqual(policy, old.get(key(policy)))).map(key);
  const kept = new Set(to.map(key));
  return [...changed, ...[...old.keys()].filter(name => !kept.has(name))];
}

type Add = (what: string, change: string, names: string[], flows: string) => void;

function describePods(from: ResolvedConfig, to: ResolvedConfig, add: Add): void {
  const { gone, added, both } = compare(from.spec.pods, to.spec.pods);
  const changed = (differs: (a: (typeof both)[number][0], b: (typeof both)[number][1]) => boolean) =>
    both.filter(([a, b]) => differs(a, b)).map(([, { name }]) => name);
  add('pods', 'added', added, NONE);
  add('pods', 'removed', gone, 'theirs end: what is sent to them is answered as unreachable or follows another route');
  add(
    'pods',
    'moved',
    changed((a, b) => a.netns !== b.netns || a.device !== b.device),
    'theirs go on if the new device has sockets with the same addresses',
  );
  add(
    'pods',
    'readdressed',
    changed((a, b) => a.address !== b.address),
    'those of the old address end: it is no source of theirs any more',
  );
  add(
    'pods',
    'identity',
    changed((a, b) => a.identity !== b.identity),
    'go on; packets carry the new identity from now on',
  );
  add(
    'pods',
    'marked',
    changed((a, b) => a.mark !== b.mark),
    'keep the rule that they have; new ones meet the rules with the new mark',
  );
  add(
    'pods',
    'relabelled',
    changed((a, b) => !isDeepStrictEqual(a.labels, b.labels)),
    NONE,
  );
  const [was, is] = [mtusOf(from), mtusOf(to)];
  const text = (mtu: { device: number; route: number }) => `${mtu.route > 0 ? mtu.route : mtu.device}`;
  const resized = both.filter(([a, b]) => !isDeepStrictEqual(podMtuOf(a, was), podMtuOf(b, is)));
  add(
    'mtu',
    resized.length === 0 ? '' : `${text(podMtuOf(resized[0][0], was))} to ${text(podMtuOf(resized[0][1], is))}`,
    resized.map(([, { name }]) => name),
    'go on; connections keep their segment size until they hear of a smaller MTU',
  );
}

function describeHost(from: ResolvedConfig, to: ResolvedConfig, add: Add): void {
  const [was, is] = [from.spec.host, to.spec.host];
  if (isDeepStrictEqual(was, is)) return;
  if (was === undefined) add('host', 'added', [is!.device], NONE);
  else if (is === undefined) add('host', 'removed', [was.device], "those of the node's own processes end");
  else if (was.device !== is.device) add('host', 'moved', [is.device], "those of the node's own processes go on by it");
  else
    add(
      'host',
      'readdressed',
      [is.device],
      "those of the old address end; the node's masquerade of pods has the new one",
    );
}

function describeTunnels(changes: readonly Change[], add: Add): void {
  const tunnels = changes.flatMap(change => (change.kind === 'tunnel' ? [change] : []));
  const names = (choose: (change: (typeof tunnels)[number]) => boolean) =>
    tunnels.filter(choose).map(({ name }) => name);
  add(
    'tunnels',
    'added',
    names(({ was }) => was === 'new'),
    `${NONE}: what comes by them is accepted from now on`,
  );
  add(
    'tunnels',
    'changed',
    names(({ was }) => was === 'other headers'),
    'go on with the new headers; packets under way with others are dropped where they do not match',
  );
  const peers = new Set(names(({ was, tunnel }) => was === 'same headers' && tunnel !== null));
  add('tunnels', 'peers', [...peers], 'with peers that stay go on; what a peer sends that is gone is dropped');
  add(
    'tunnels',
    'removed',
    names(({ tunnel }) => tunnel === null),
    'go on where their routes lead now; what still comes by them is dropped',
  );
}

function describeRoutes(from: ResolvedConfig, to: ResolvedConfig, add: Add): void {
  const named = (routes: ResolvedConfig['spec']['routes']) => routes.map(route => ({ ...route, name: route.to }));
  const { gone, added, both } = compare(named(from.spec.routes), named(to.spec.routes));
  add('routes', 'added', added, 'follow them from the next packet on');
  add(
    'routes',
    'changed',
    both.filter(([a, b]) => !isDeepStrictEqual(a, b)).map(([, { name }]) => name),
    'follow them from the next packet on',
  );
  add('routes', 'removed', gone, 'follow a shorter prefix, or their senders hear that there is no route');
}

function describeServices(from: ResolvedConfig, to: ResolvedConfig, add: Add): void {
  const { gone, added, both } = compare(from.spec.services, to.spec.services);
  add('services', 'added', added, 'new flows find them');
  add(
    'services',
    'changed',
    both.filter(([a, b]) => !isDeepStrictEqual(a, b)).map(([, { name }]) => name),
    'TCP stays with its backend; UDP leaves one that is gone with its next packet',
  );
  add('services', 'removed', gone, 'TCP stays with its backend; UDP ends');
}

/** Names that only one side has, and the pairs of what both have. */
function compare<A extends { name: string }>(
  from: readonly A[],
  to: readonly A[],
): { gone: string[]; added: string[]; both: [A, A][] } {
  const old = new Map(from.map(item => [item.name, item]));
  const added: string[] = [];
  const both: [A, A][] = [];
  for (const item of to) {
    const before = old.get(item.name);
    old.delete(item.name);
    if (before === undefined) added.push(item.name);
    else both.push([before, item]);
  }
  return { gone: [...old.keys()], added, both };
}
