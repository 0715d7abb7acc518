/**
 * Would the host's own firewall let a packet through? A rule set is read from `nft -j list ruleset` or `iptables-save` and
 * asked about one packet. What a rule tests that is not known here (marks, sets by name, limits, modules) may match or
 * may not: then the answer is `unknown`, never a guess. Pure.
 */
import { type Cidr, contains, parseAddress, parseCidr } from '../control/address.ts';

export interface FirewallPacket {
  /** Interface that it comes in by. */
  input: string;
  /** Interface that it leaves by, where it is forwarded. */
  output?: string;
  /** udp, or ipip for protocol 4. */
  protocol: 'udp' | 'ipip';
  /** UDP destination port. */
  port?: number;
  source: string;
  destination: string;
}

export interface Judgement {
  outcome: 'accept' | 'drop' | 'unknown';
  /** The chain that drops it, or that cannot be told, as "inet filter input". */
  chain?: string;
}

/** true, false, or null: that depends on what is not known here. */
type Truth = boolean | null;
type Test = (packet: FirewallPacket) => Truth;

interface Rule {
  tests: Test[];
  /** accept, drop, return, or the chain to jump to; undefined goes on behind it. */
  action?: 'accept' | 'drop' | 'return' | { jump: string };
}

interface Chain {
  /** "inet filter input". */
  name: string;
  /** Of a base chain; undefined for one that is only jumped to. */
  hook?: string;
  device?: string;
  policy: 'accept' | 'drop';
  rules: Rule[];
}

export interface Ruleset {
  chains: Map<string, Chain>;
}

/** Every chain of these hooks must let it pass. `hooks` in nft's words: ingress, prerouting, input, forward. */
export function judge({ chains }: Ruleset, packet: FirewallPacket, hooks: readonly string[]): Judgement {
  let unsure: string | undefined;
  for (const chain of chains.values()) {
    if (chain.hook === undefined || !hooks.includes(chain.hook)) continue;
    if (chain.device !== undefined && chain.device !== packet.input) continue;
    const ends = walk(chains, chain, packet, 0);
    if (ends.delete('return')) ends.add(chain.policy);
    if (!ends.has('drop')) continue;
    // nft 1.0 does not say in JSON which device such a chain is of.
    const isOurs = chain.device !== undefined || !chain.name.startsWith('netdev ');
    if (!ends.has('accept') && isOurs) return { outcome: 'drop', chain: chain.name };
    unsure ??= chain.name;
  }
  return unsure === undefined ? { outcome: 'accept' } : { outcome: 'unknown', chain: unsure };
}

type End = 'accept' | 'drop' | 'return';

/** nft refuses rule sets that jump deeper (NFT_JUMP_STACK_SIZE). */
const MAX_DEPTH = 16;

/** All ways that a packet can leave a chain. */
function walk(chains: Map<string, Chain>, chain: Chain, packet: FirewallPacket, depth: number): Set<End> {
  const ends = new Set<End>();
  for (const { tests, action } of chain.rules) {
    const truths = tests.map(test => test(packet));
    if (action === undefined || truths.includes(false)) continue;
    const surely = !truths.includes(null);
    if (typeof action === 'string') {
      ends.add(action);
      if (surely) return ends;
      continue;
    }
    const target = chains.get(action.jump);
    if (target === undefined || depth === MAX_DEPTH) continue;
    const inner = walk(chains, target, packet, depth + 1);
    const comesBack = inner.delete('return');
    for (const end of inner) ends.add(end);
    if (surely && !comesBack) return ends;
  }
  return ends.add('return');
}

/** Both kinds of rules of one host. iptables may be a front end of nft: what it says itself is then said better. */
export function combine(nft: Ruleset, iptables: Ruleset | null): Ruleset {
  if (iptables === null || iptables.chains.size === 0) return nft;
  const own = [...nft.chains].filter(([name]) => !/^ip (filter|nat|mangle|raw|security) [^a-z]/.test(name));
  return { chains: new Map([...own, ...iptables.chains]) };
}

// ---- tests ----------------------------------------------------------------------------------------------------------

const unknown: Test = () => null;
const never: Test = () => false;
const PROTOCOLS: Record<string, string> = { udp: 'udp', '17': 'udp', ipip: 'ipip', ipencap: 'ipip', '4': 'ipip' };

/** A name of an interface; a trailing mark means any that begins so. */
function sameInterface(pattern: string, mark: '*' | '+', name: string | undefined): boolean {
  if (name === undefined) return false;
  return pattern.endsWith(mark) ? name.startsWith(pattern.slice(0, -1)) : pattern === name;
}

function within(network: string, address: string): boolean {
  const cidr: Cidr | undefined = parseCidr(network.includes('/') ? network : `${network}/32`);
  const value = parseAddress(address);
  return cidr !== undefined && value !== undefined && contains(cidr, value);
}

const not = (truth: Truth): Truth => (truth === null ? null : !truth);

// ---- nft ------------------------------------------------------------------------------------------------------------

type Json = Record<string, unknown>;
/** Right side of a match: a value, a set, a range, a prefix. */
type Operand = unknown;

/** @param document what `nft -j list ruleset` printed */
export function parseNft(document: { nftables: Json[] }): Ruleset {
  const chains = new Map<string, Chain>();
  for (const item of document.nftables) {
    const chain = item.chain as (Record<'family' | 'table' | 'name', string> & Json) | undefined;
    const rule = item.rule as (Record<'family' | 'table' | 'chain', string> & { expr: Json[] }) | undefined;
    if (chain !== undefined && ['ip', 'inet', 'netdev'].includes(chain.family)) {
      const name = `${chain.family} ${chain.table} ${chain.name}`;
      chains.set(name, {
        name,
        hook: chain.hook as string | undefined,
        device: chain.dev as string | undefined,
        policy: chain.policy === 'drop' ? 'drop' : 'accept',
        rules: [],
      });
    }
    if (rule !== undefined) {
      const table = `${rule.family} ${rule.table}`;
      chains.get(`${table} ${rule.chain}`)?.rules.push(...nftRules(rule.expr, table));
    }
  }
  return { chains };
}

/** One rule; a verdict map is as many rules as it has elements. */
function nftRules(expressions: Json[], table: string): Rule[] {
  const tests: Test[] = [];
  for (const expression of expressions) {
    const [name, value] = Object.entries(expression)[0] as [string, never];
    const action = nftAction(expression, table);
    if (action !== undefined) return [{ tests, action }];
    if (name === 'vmap') return verdictMap(value, tests, table);
    if (name === 'match') tests.push(nftMatch(value));
    else if (!['counter', 'log', 'comment', 'mangle'].includes(name)) tests.push(unknown);
  }
  return [];
}

function nftAction(expression: Json, table: string): Rule['action'] {
  const [name, value] = Object.entries(expression)[0] as [string, Json];
  if (name === 'accept' || name === 'return') return name;
  if (name === 'drop' || name === 'reject') return 'drop';
  if (name === 'jump' || name === 'goto') return { jump: `${table} ${value.target}` };
  return undefined;
}

function verdictMap({ key, data }: { key: Json; data: Operand }, tests: Test[], table: string): Rule[] {
  const { set } = data as { set?: [unknown, Json][] };
  const actions = (set ?? []).map(([right, verdict]) => ({ right, action: nftAction(verdict, table) }));
  // One by name: its elements come and go, and so do their verdicts.
  if (set === undefined) return (['accept', 'drop'] as const).map(action => ({ tests: [...tests, unknown], action }));
  return actions.map(({ right, action }) => ({ tests: [...tests, nftMatch({ op: '==', left: key, right })], action }));
}

function nftMatch({ op, left, right }: { op: string; left: Json; right: Operand }): Test {
  const value = nftField(left);
  if (value === undefined) return unknown;
  return packet => {
    const field = value(packet);
    if (field === undefined) return false;
    const found = includes(right, field);
    return op === '!=' ? not(found) : op === '==' || op === 'in' ? found : null;
  };
}

/** What a packet has there: undefined if it has no such field, so that the rule does not match. */
function nftField(left: Json): ((packet: FirewallPacket) => string | undefined) | undefined {
  const { meta, payload, ct } = left as { meta?: Json; payload?: Json; ct?: Json };
  if (ct?.key === 'state') return () => 'new';
  switch (meta?.key) {
    case 'iifname':
    case 'iif':
      return packet => packet.input;
    case 'oifname':
    case 'oif':
      return packet => packet.output;
    case 'l4proto':
      return packet => packet.protocol;
    case 'nfproto':
      return () => 'ipv4';
  }
  switch (`${payload?.protocol} ${payload?.field}`) {
    case 'ip protocol':
      return packet => packet.protocol;
    case 'ip saddr':
      return packet => packet.source;
    case 'ip daddr':
      return packet => packet.destination;
    case 'udp dport':
    case 'th dport':
      return packet => packet.port?.toString();
  }
  if (['tcp', 'icmp', 'icmpv6', 'ip6', 'sctp'].includes(String(payload?.protocol))) return () => undefined;
  return undefined;
}

/** Is `field` the value, or one of the set, the range or the prefix? */
function includes(right: Operand, field: string): Truth {
  if (Array.isArray(right)) {
    const truths = right.map(item => includes(item, field));
    return truths.includes(true) ? true : truths.includes(null) ? null : false;
  }
  if (typeof right === 'string' && right.startsWith('@')) return null; // a named set: its elements come and go
  if (typeof right === 'string' || typeof right === 'number') {
    const text = String(right);
    return (
      text === field || (PROTOCOLS[text] ?? text) === field || (text.endsWith('*') && sameInterface(text, '*', field))
    );
  }
  const { set, range, prefix } = right as { set?: unknown[]; range?: [number, number]; prefix?: Json };
  if (set !== undefined) return includes(set, field);
  if (prefix !== undefined) return within(`${prefix.addr}/${prefix.len}`, field);
  if (range !== undefined && typeof range[0] === 'number') {
    return range[0] <= Number(field) && Number(field) <= range[1];
  }
  return null;
}

// ---- iptables -------------------------------------------------------------------------------------------------------

const IPTABLES_HOOKS: Record<string, string> = { PREROUTING: 'prerouting', INPUT: 'input', FORWARD: 'forward' };

/** @param text what `iptables-save` printed */
export function parseIptables(text: string): Ruleset {
  const chains = new Map<string, Chain>();
  let table = '';
  for (const line of text.split('\n')) {
    if (line.startsWith('*')) table = line.slice(1).trim();
    const declared = /^:(\S+) (\S+)/.exec(line);
    if (declared !== null) {
      const name = `iptables ${table} ${declared[1]}`;
      const hook = IPTABLES_HOOKS[declared[1]];
      chains.set(name, { name, hook, policy: declared[2] === 'DROP' ? 'drop' : 'accept', rules: [] });
    }
    const appended = /^-A (\S+) ?(.*)$/.exec(line);
    if (appended === null) continue;
    chains.get(`iptables ${table} ${appended[1]}`)?.rules.push(iptablesRule(appended[2], `iptables ${table}`));
  }
  return { chains };
}

/** Options that test nothing. */
const IPTABLES_SILENT = new Set(['--comment', '--reject-with', '--log-prefix', '--log-level', '--set-xmark']);

function iptablesRule(text: string, table: string): Rule {
  const rule: Rule = { tests: [] };
  const words = text.match(/"(?:[^"\\]|\\.)*"|\S+/g) ?? [];
  let negated = false;
  const test = (truth: (packet: FirewallPacket) => Truth) => {
    const inverted = negated;
    negated = false;
    rule.tests.push(inverted ? packet => not(truth(packet)) : truth);
  };
  for (let i = 0; i < words.length; i++) {
    const word = words[i];
    if (word === '!') {
      negated = true;
      continue;
    }
    const value = words[++i] ?? '';
    switch (word) {
      case '-i':
        test(packet => sameInterface(value, '+', packet.input));
        break;
      case '-o':
        test(packet => sameInterface(value, '+', packet.output));
        break;
      case '-p':
        test(packet => (PROTOCOLS[value] ?? value) === packet.protocol || value === 'all');
        break;
      case '-s':
        test(packet => within(value, packet.source));
        break;
      case '-d':
        test(packet => within(value, packet.destination));
        break;
      case '--dport':
      case '--dports':
        test(packet => packet.port !== undefined && inPorts(value, packet.port));
        break;
      case '--ctstate':
      case '--state':
        test(() => value.split(',').includes('NEW'));
        break;
      case '-m':
        if (!['comment', 'conntrack', 'state', 'udp', 'tcp', 'multiport'].includes(value)) test(unknown);
        break;
      case '-j':
      case '-g':
        if (value === 'ACCEPT') rule.action = 'accept';
        else if (value === 'DROP' || value === 'REJECT') rule.action = 'drop';
        else if (value === 'RETURN') rule.action = 'return';
        else rule.action = { jump: `${table} ${value}` };
        break;
      default:
        if (IPTABLES_SILENT.has(word)) break;
        test(word.startsWith('--') && word.startsWith('--tcp') ? never : unknown);
        // A flag without a value: what follows is the next option.
        if (value.startsWith('-') || value === '!') i--;
    }
  }
  return rule;
}

/** "53", "8000:9000", or several of these with commas. */
function inPorts(text: string, port: number): boolean {
  return text.split(',').some(part => {
    const [low, high] = part.split(':').map(Number);
    return low <= port && port <= (high ?? low);
  });
}
