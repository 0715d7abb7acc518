/**
 * The rules of the table nat that a node's masquerade rules and services amount to, as `iptables -t nat -S` prints them where
 * flannel, Calico and kube-proxy write them. There are none in the kernel: the node's own tables do what they say. Pure.
 */
import { createHash } from 'node:crypto';
import type { ResolvedConfig } from '../control/resolved.ts';
import { addressesOf } from '../control/service-config.ts';
import type { CiliumBackend } from './cilium-text.ts';

const MARK = '0x4000';
const BASE32 = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';
/** Built-in chains of the table. */
const BUILT_IN = ['PREROUTING', 'INPUT', 'OUTPUT', 'POSTROUTING'];

/** Chains in order, each with its rules as they stand behind `-A CHAIN`. */
class Table {
  readonly chains = new Map<string, string[]>();

  constructor() {
    for (const chain of BUILT_IN) this.chains.set(chain, []);
  }

  add(chain: string, ...rules: string[]): void {
    this.chains.set(chain, [...(this.chains.get(chain) ?? []), ...rules]);
  }

  lines(only?: string): string[] {
    const own = [...this.chains].filter(([name]) => only === undefined || name === only);
    const heads = own.map(([name]) => (BUILT_IN.includes(name) ? `-P ${name} ACCEPT` : `-N ${name}`));
    return [...heads, ...own.flatMap(([name, rules]) => rules.map(rule => `-A ${name} ${rule}`))];
  }
}

/**
 * @param backends as the control socket's `endpoints`
 * @param chain this one alone
 * @returns null where there is no such chain
 */
export function iptablesNat(config: ResolvedConfig, backends: readonly CiliumBackend[], chain?: string): string | null {
  const table = new Table();
  const { profile } = config.spec;
  if (profile !== 'cilium') addServices(table, config, backends);
  addMasquerade(table, config);
  if (chain !== undefined && !table.chains.has(chain)) return null;
  return table
    .lines(chain)
    .map(line => `${line}\n`)
    .join('');
}

function addMasquerade(table: Table, { spec }: ResolvedConfig): void {
  const { profile, masquerade } = spec;
  if (masquerade.length === 0 || profile === 'cilium') return;
  if (profile === 'flannel') {
    table.add('POSTROUTING', '-m comment --comment "flanneld masq" -j FLANNEL-POSTRTG');
    table.add(
      'FLANNEL-POSTRTG',
      ...masquerade.flatMap(rule => ruleTexts(rule, '-m comment --comment "flanneld masq"')),
    );
    return;
  }
  const chain = profile === 'calico' ? 'cali-nat-outgoing' : 'POSTROUTING';
  if (profile === 'calico') {
    table.add('POSTROUTING', '-j cali-POSTROUTING');
    table.add('cali-POSTROUTING', '-j cali-nat-outgoing');
  }
  table.add(chain, ...masquerade.flatMap(rule => ruleTexts(rule, '')));
}

interface Rule {
  from: readonly string[];
  notFrom: readonly string[];
  to: readonly string[];
  notTo: readonly string[];
  mark?: { value: number; mask: number };
  action?: string;
  randomFully?: boolean;
}

/** A rule for each source and destination, since iptables has one of each. Several exceptions are RETURNs before it. */
function ruleTexts(rule: Partial<Rule>, comment: string): string[] {
  const { from = [], notFrom = [], to = [], notTo = [], mark, action, randomFully } = rule;
  const target = action === 'RETURN' ? '-j RETURN' : `-j MASQUERADE${randomFully ? ' --random-fully' : ''}`;
  const marked = mark === undefined ? '' : `-m mark --mark 0x${mark.value.toString(16)}/0x${mark.mask.toString(16)}`;
  const sources =
    notFrom.length > 0 ? notFrom.map(one => `! -s ${one}`) : from.length > 0 ? from.map(one => `-s ${one}`) : [''];
  const lastNot = notTo.at(-1);
  const earlier = notTo.slice(0, -1);
  const destinations = lastNot !== undefined ? [`! -d ${lastNot}`] : to.length > 0 ? to.map(one => `-d ${one}`) : [''];
  const text = (...parts: string[]): string => parts.filter(part => part !== '').join(' ');
  return sources.flatMap(source => [
    ...earlier.map(one => text(source, `-d ${one}`, marked, comment, '-j RETURN')),
    ...destinations.map(destination => text(source, destination, marked, comment, target)),
  ]);
}

// ---------------------------------------------------------------- kube-proxy

/** kube-proxy's names for chains: 16 letters of a hash (pkg/proxy/iptables/proxier.go, portProtoHash). */
export function kubeChain(prefix: string, text: string): string {
  const bytes = createHash('sha256').update(text).digest();
  let bits = 0;
  let value = 0;
  let name = '';
  for (const byte of bytes) {
    value = (value << 8) | byte;
    bits += 8;
    while (bits >= 5 && name.length < 16) {
      bits -= 5;
      name += BASE32[(value >>> bits) & 31];
    }
    value &= 0xff;
  }
  return `${prefix}${name}`;
}

function addServices(table: Table, { spec }: ResolvedConfig, backends: readonly CiliumBackend[]): void {
  if (spec.services.length === 0) return;
  const portals = '-m comment --comment "kubernetes service portals" -j KUBE-SERVICES';
  table.add('PREROUTING', portals);
  table.add('OUTPUT', portals);
  table.add('POSTROUTING', '-m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING');
  table.add('KUBE-SERVICES');
  table.add('KUBE-NODEPORTS');
  table.add('KUBE-MARK-MASQ', `-j MARK --set-xmark ${MARK}/${MARK}`);
  table.add(
    'KUBE-POSTROUTING',
    `-m mark ! --mark ${MARK}/${MARK} -j RETURN`,
    `-j MARK --set-xmark ${MARK}/0x0`,
    '-m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully',
  );
  for (const service of spec.services) {
    const addresses = addressesOf<string>(service);
    for (const port of service.ports) {
      const name = port.name === undefined ? service.name : `${service.name}:${port.name}`;
      const protocol = port.protocol.toLowerCase();
      const comment = (text: string): string => `-m comment --comment "${text}"`;
      const chain = kubeChain('KUBE-SVC-', `${name}${protocol}`);
      const of = backends.filter(
        one =>
          one.service === service.name &&
          one.ready &&
          one.protocol.toLowerCase() === protocol &&
          (typeof port.targetPort !== 'number' || port.targetPort === one.port),
      );
      const at = (address: string, what: string): string =>
        `-d ${address}/32 -p ${protocol} ${comment(`${name} ${what}`)} -m ${protocol} --dport ${port.port} -j ${chain}`;
      table.add('KUBE-SERVICES', ...addresses.cluster.map(address => at(address, 'cluster IP')));
      table.add('KUBE-SERVICES', ...addresses.loadBalancer.map(address => at(address, 'loadbalancer IP')));
      table.add('KUBE-SERVICES', ...addresses.external.map(address => at(address, 'external IP')));
      if (port.nodePort !== undefined) {
        table.add(
          'KUBE-NODEPORTS',
          `-p ${protocol} ${comment(name)} -m ${protocol} --dport ${port.nodePort} -j ${chain}`,
        );
      }
      table.add(chain);
      of.forEach((backend, i) => {
        const end = `${backend.address}:${backend.port}`;
        const sep = kubeChain('KUBE-SEP-', `${name}${protocol}${end}`);
        const left = of.length - i;
        const chance = left === 1 ? '' : ` -m statistic --mode random --probability ${(1 / left).toFixed(11)}`;
        table.add(chain, `${comment(`${name} -> ${end}`)}${chance} -j ${sep}`);
        table.add(
          sep,
          `-s ${backend.address}/32 ${comment(name)} -j KUBE-MARK-MASQ`,
          `-p ${protocol} ${comment(name)} -m ${protocol} -j DNAT --to-destination ${end}`,
        );
      });
    }
  }
  table.add(
    'KUBE-SERVICES',
    '-m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS',
  );
}
