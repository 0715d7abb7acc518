/**
 * Network policies in words to the tables of policy/policies.ts. Pods with the same namespace, labels and ports are one
 * identity; a policy is worked out once for each of them, however many pods there are.
 */
import type {
  NamespaceConfig,
  PeerConfig,
  PodPortConfig,
  PolicyConfig,
  PolicyPortConfig,
  SelectorConfig,
} from '../control/policy-config.ts';
import { parseAddress, parseCidr } from '../control/validated.ts';
import type { Direction, PolicyProgram, PolicyRule } from '../policy/policies.ts';

const PORTS = 65536;
const PROTOCOLS = ['TCP', 'UDP', 'SCTP'] as const;
/** A label that the API gives every namespace. */
const NAMESPACE_NAME = 'kubernetes.io/metadata.name';

interface Pod {
  /** namespace/name; without a namespace it is in "default". */
  name: string;
  address: string;
  labels: Readonly<Record<string, string>>;
  ports: readonly PodPortConfig[];
}

export interface PolicySources {
  policies: readonly PolicyConfig[];
  namespaces: readonly NamespaceConfig[];
  /** This node's. */
  pods: readonly Pod[];
  remotePods: readonly Pod[];
  /** Addresses of the node itself (int32). */
  own: readonly number[];
}

interface Identity {
  namespace: string;
  namespaceLabels: Readonly<Record<string, string>>;
  labels: Readonly<Record<string, string>>;
  ports: readonly PodPortConfig[];
}

/** A rule, with who it is about. */
interface Rule {
  id: number;
  ports: readonly PolicyPortConfig[];
  /** By identity, [0] what is no pod; null: everybody. */
  identities: boolean[] | null;
  /** [first, last] as uint32, of the ipBlocks less what they except. */
  blocks: [number, number][];
}

/** An end of a range of ports. */
interface PortRange {
  protocol: number;
  first: number;
  last: number;
}

/** @returns null where there is no policy */
export function compilePolicy(sources: PolicySources): PolicyProgram | null {
  if (sources.policies.length === 0) return null;
  const { pods, remotePods } = sources;
  const namespaces = new Map(sources.namespaces.map(({ name, labels }) => [name, labels]));
  const identities = new Identities(namespaces);
  const all = [...pods, ...remotePods];
  const numbers = all.map(pod => identities.numberOf(pod));
  const { list } = identities;

  const ruleNames: PolicyRule[] = [{ policy: '', direction: 'ingress', rule: -1 }];
  const policies = [...sources.policies].sort((a, b) => (fullName(a) < fullName(b) ? -1 : 1));
  const compiled = policies.map(policy => {
    const rulesOf = (direction: Direction): Rule[] => {
      const rules =
        direction === 'ingress'
          ? policy.ingress.map(({ from, ports }) => ({ peers: from, ports }))
          : policy.egress.map(({ to, ports }) => ({ peers: to, ports }));
      return rules.map(({ peers, ports }, rule) => {
        const id = ruleNames.push({ policy: fullName(policy), direction, rule }) - 1;
        return { id, ports, ...compilePeers(peers, policy.namespace, list) };
      });
    };
    const types = typesOf(policy);
    return {
      policy,
      ingress: types.has('Ingress') ? rulesOf('ingress') : null,
      egress: types.has('Egress') ? rulesOf('egress') : null,
    };
  });

  // Tables: pods that the same policies select, with the same ports, share one.
  const tables: { direction: Direction; rules: Rule[]; own: Identity }[] = [];
  const byKey = new Map<string, number>();
  const tableOf = (identity: number, direction: Direction): number => {
    const own = list[identity];
    const selecting = compiled.filter(
      ({ policy, [direction]: rules }) =>
        rules !== null && policy.namespace === own.namespace && matches(policy.podSelector, own.labels),
    );
    if (selecting.length === 0) return 0;
    // The ports of the pod itself are what names mean at its side.
    const key = `${direction} ${selecting.map(({ policy }) => fullName(policy)).join(' ')} ${JSON.stringify(own.ports)}`;
    const known = byKey.get(key);
    if (known !== undefined) return known;
    const number = tables.push({ direction, own, rules: selecting.flatMap(({ [direction]: rules }) => rules ?? []) });
    byKey.set(key, number);
    return number;
  };
  const egressTables = Int32Array.from(pods, (_, i) => tableOf(numbers[i], 'egress'));
  const ingressTables = Int32Array.from(pods, (_, i) => tableOf(numbers[i], 'ingress'));

  // A name behind a block means a port of the pod that has the address: then the address is an interval of its own.
  const namedBlocks = tables.flatMap(({ direction, rules }) =>
    direction === 'ingress' ? [] : rules.flatMap(({ blocks, ports }) => (ports.some(isNamed) ? blocks : [])),
  );
  const podAt = new Map<number, Identity>();
  all.forEach(({ address }, i) => {
    const at = parseAddress(address) >>> 0;
    const identity = list[numbers[i]];
    if (identity.ports.length > 0 && namedBlocks.some(([from, to]) => from <= at && at <= to)) podAt.set(at, identity);
  });
  const intervals = intervalsOf([
    ...tables.flatMap(({ rules }) => rules.flatMap(({ blocks }) => blocks)),
    ...Array.from(podAt.keys(), (at): [number, number] => [at, at]),
  ]);
  const classes = new PortClasses(tables.flatMap(({ rules }) => rules.flatMap(({ ports }) => portRanges(ports, list))));
  const rows = new Rows(classes.count);
  const identityRows = new Int32Array(tables.length * list.length);
  const intervalRows = new Int32Array(tables.length * intervals.length);
  tables.forEach(({ direction, rules, own }, t) => {
    // Names mean a port of the pod that is asked: this one, or the other end.
    const fixed = direction === 'ingress' ? rules.map(rule => classes.of(rule.ports, own)) : null;
    list.forEach((identity, i) => {
      const allowing = rules.flatMap((rule, r) => {
        if (rule.identities !== null && !rule.identities[i]) return [];
        return [{ id: rule.id, classes: fixed?.[r] ?? classes.of(rule.ports, identity) }];
      });
      identityRows[t * list.length + i] = rows.add(allowing);
    });
    const withBlocks = rules.filter(rule => rule.blocks.length > 0);
    intervals.forEach((first, i) => {
      const allowing = withBlocks
        .filter(({ blocks }) => blocks.some(([from, to]) => from <= first && first <= to))
        .map(rule => ({
          id: rule.id,
          // What is behind an address need not be a pod: names mean nothing there.
          classes: classes.of(rule.ports, direction === 'ingress' ? own : (podAt.get(first) ?? null)),
        }));
      intervalRows[t * intervals.length + i] = rows.add(allowing);
    });
  });

  return {
    rules: ruleNames,
    addresses: Int32Array.from(all, ({ address }) => parseAddress(address)),
    identities: Int32Array.from(numbers),
    localAddresses: Int32Array.from(pods, ({ address }) => parseAddress(address)),
    egressTables,
    ingressTables,
    own: Int32Array.from(sources.own),
    identityCount: list.length,
    intervals,
    portClasses: classes.byPort,
    portClassCount: classes.count,
    identityRows,
    intervalRows,
    rows: rows.values(),
  };
}

function fullName({ namespace, name }: { namespace: string; name: string }): string {
  return `${namespace}/${name}`;
}

/** As the API fills it in: ingress always, egress if there are rules for it. */
export function typesOf({ policyTypes, egress }: PolicyConfig): ReadonlySet<'Ingress' | 'Egress'> {
  if (policyTypes.length > 0) return new Set(policyTypes);
  return new Set(egress.length > 0 ? ['Ingress', 'Egress'] : ['Ingress']);
}

/** Of a pod called namespace/name; a bare name is in "default". */
export function namespaceOf(pod: string): string {
  return pod.includes('/') ? pod.slice(0, pod.indexOf('/')) : 'default';
}

/** Numbers of label sets. [0] is what is no pod. */
class Identities {
  readonly list: Identity[] = [{ namespace: '', namespaceLabels: {}, labels: {}, ports: [] }];
  private readonly byKey = new Map<string, number>();
  private readonly namespaces: ReadonlyMap<string, Readonly<Record<string, string>>>;

  constructor(namespaces: ReadonlyMap<string, Readonly<Record<string, string>>>) {
    this.namespaces = namespaces;
  }

  numberOf({ name, labels, ports }: Pod): number {
    const namespace = namespaceOf(name);
    const sorted = Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1));
    const key = JSON.stringify([namespace, sorted, ports]);
    const known = this.byKey.get(key);
    if (known !== undefined) return known;
    const namespaceLabels = { [NAMESPACE_NAME]: namespace, ...this.namespaces.get(namespace) };
    const number = this.list.push({ namespace, namespaceLabels, labels, ports }) - 1;
    this.byKey.set(key, number);
    return number;
  }
}

/** Does a LabelSelector match these labels? */
export function matches(selector: SelectorConfig, labels: Readonly<Record<string, string>>): boolean {
  for (const [key, value] of Object.entries(selector.matchLabels)) if (labels[key] !== value) return false;
  return selector.matchExpressions.every(({ key, operator, values }) => {
    const value: string | undefined = labels[key];
    if (operator === 'Exists' || operator === 'DoesNotExist') return (value !== undefined) === (operator === 'Exists');
    return (value !== undefined && values.includes(value)) === (operator === 'In');
  });
}

/** @param namespace of the policy */
function compilePeers(
  peers: readonly PeerConfig[],
  namespace: string,
  identities: readonly Identity[],
): Pick<Rule, 'identities' | 'blocks'> {
  if (peers.length === 0) return { identities: null, blocks: [] };
  const matching = identities.map(() => false);
  const blocks: [number, number][] = [];
  for (const { podSelector, namespaceSelector, ipBlock } of peers) {
    if (ipBlock !== undefined) {
      blocks.push(...withoutExcepted(rangeOf(ipBlock.cidr), ipBlock.except.map(rangeOf)));
      continue;
    }
    identities.forEach((identity, i) => {
      if (i === 0) return;
      const inNamespace =
        namespaceSelector === undefined
          ? identity.namespace === namespace
          : matches(namespaceSelector, identity.namespaceLabels);
      if (inNamespace && (podSelector === undefined || matches(podSelector, identity.labels))) matching[i] = true;
    });
  }
  return { identities: matching, blocks };
}

function rangeOf(cidr: string): [number, number] {
  const { prefix, length } = parseCidr(cidr);
  const first = prefix >>> 0;
  return [first, first + 2 ** (32 - length) - 1];
}

function withoutExcepted(block: [number, number], excepted: [number, number][]): [number, number][] {
  let left = [block];
  for (const [first, last] of excepted) {
    left = left.flatMap(([from, to]): [number, number][] => {
      if (last < from || first > to) return [[from, to]];
      return [
        ...(first > from ? [[from, first - 1] as [number, number]] : []),
        ...(last < to ? [[last + 1, to] as [number, number]] : []),
      ];
    });
  }
  return left;
}

/** First addresses of the intervals between all ends of blocks. */
function intervalsOf(blocks: readonly [number, number][]): Uint32Array {
  const starts = new Set([0]);
  for (const [first, last] of blocks) {
    starts.add(first);
    if (last < 0xffffffff) starts.add(last + 1);
  }
  return Uint32Array.from(starts).sort();
}

/** All ranges that a list of ports may mean, at whatever pod. */
function portRanges(ports: readonly PolicyPortConfig[], identities: readonly Identity[]): PortRange[] {
  return ports.flatMap(port =>
    typeof port.port === 'string' ? identities.flatMap(pod => rangesAt(port, pod)) : rangesAt(port, null),
  );
}

function isNamed({ port }: PolicyPortConfig): boolean {
  return typeof port === 'string';
}

/** What one entry of a rule's ports means at a pod. */
function rangesAt({ protocol, port, endPort }: PolicyPortConfig, pod: Identity | null): PortRange[] {
  const number = PROTOCOLS.indexOf(protocol);
  if (port === undefined) return [{ protocol: number, first: 0, last: PORTS - 1 }];
  if (typeof port === 'number') return [{ protocol: number, first: port, last: endPort ?? port }];
  const named = (pod?.ports ?? []).filter(one => one.name === port && one.protocol === protocol);
  return named.map(({ containerPort }) => ({ protocol: number, first: containerPort, last: containerPort }));
}

/** Ports that no rule tells apart are one class. */
class PortClasses {
  readonly byPort = new Uint16Array(PROTOCOLS.length * PORTS);
  count = 1;

  constructor(ranges: readonly PortRange[]) {
    PROTOCOLS.forEach((_, protocol) => {
      const starts = new Set([0]);
      for (const range of ranges) {
        if (range.protocol !== protocol) continue;
        starts.add(range.first);
        if (range.last + 1 < PORTS) starts.add(range.last + 1);
      }
      const sorted = [...starts].sort((a, b) => a - b);
      sorted.forEach((start, i) => {
        const end = sorted[i + 1] ?? PORTS;
        this.byPort.fill(this.count++, protocol * PORTS + start, protocol * PORTS + end);
      });
    });
  }

  /** The classes that a rule's ports are, at a pod; null: all, those of other protocols too. */
  of(ports: readonly PolicyPortConfig[], pod: Identity | null): ReadonlySet<number> | null {
    if (ports.length === 0) return null;
    const found = new Set<number>();
    for (const port of ports) {
      for (const { protocol, first, last } of rangesAt(port, pod)) {
        const from = this.byPort[protocol * PORTS + first];
        const to = this.byPort[protocol * PORTS + last];
        for (let one = from; one <= to; one++) found.add(one);
      }
    }
    return found;
  }
}

/** Rows that say the same are one. */
class Rows {
  private readonly width: number;
  private readonly list: Int32Array[];
  private readonly byKey = new Map<string, number>();

  constructor(width: number) {
    this.width = width;
    this.list = [new Int32Array(width)];
  }

  /** @param allowing rules in order, with the classes of port that each allows */
  add(allowing: readonly { id: number; classes: ReadonlySet<number> | null }[]): number {
    if (allowing.length === 0) return 0;
    const row = new Int32Array(this.width);
    for (const { id, classes } of allowing) {
      if (classes === null) {
        for (let i = 0; i < row.length; i++) if (row[i] === 0) row[i] = id;
      } else for (const one of classes) if (row[one] === 0) row[one] = id;
    }
    const key = row.join(' ');
    const known = this.byKey.get(key);
    if (known !== undefined) return known;
    const number = this.list.push(row) - 1;
    this.byKey.set(key, number);
    return number;
  }

  values(): Int32Array {
    const all = new Int32Array(this.list.length * this.width);
    this.list.forEach((row, i) => {
      all.set(row, i * this.width);
    });
    return all;
  }
}
