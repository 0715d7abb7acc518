/** `get`, `describe` and `status`: names and options; what they do is in the files that they import. */
import { type Command, Option } from 'commander';
import { KINDS } from '../control/kinds.ts';
import { UsageError } from './exit.ts';
import { FORMATS, type Format, parseFormat } from './format.ts';
import type { GetFlags } from './get.ts';
import { findKind, isNodeKind } from './kinds.ts';
import type { ObjectFlags } from './objects.ts';
import { ends, KUBECONFIG, NODE, OUTPUT } from './options.ts';
import { isOfCluster, type KindFlags } from './which-kind.ts';

const WHICH = `
A kind is one of a node's tables, or one of Kubernetes: pods, nodes, deployments and whatever
else the API has, with its short names, and KIND.GROUP, KIND,KIND, KIND/NAME as kubectl takes
them. What both have (services, endpoints, pods, networkpolicies) is the node's with --node,
or where exactly one node runs here; else the cluster's, also with --kubeconfig, -n, -A or -l.`;

const SELECTING = [
  ['-A, --all-namespaces', 'Kubernetes: in all namespaces'],
  ['-l, --selector <selector>', "Kubernetes: by labels, 'app=web,tier!=back'"],
  KUBECONFIG,
] as const;

/** What the command line holds for both sorts of kinds. */
type AskingFlags = Omit<GetFlags & ObjectFlags & KindFlags, 'output'> & { n?: string | true; output: string };

export function addAsking(program: Command): void {
  const get = program
    .command('get')
    .description('list what a running node holds, or objects of a cluster')
    .argument('<kind>', `${KINDS.join(', ')}, under their short names and the singular, too; or a kind of Kubernetes`)
    .argument('[name]', 'only what has that name')
    .option('-w, --watch', 'and then each that is new or different')
    .option('--sort-by <field>', 'a column, or a field of -o json: packets, .original.dst, .metadata.name')
    .option('-n [namespace]', 'Kubernetes: --namespace; conntrack: --src-nat')
    .option('--namespace <name>', "Kubernetes: in a namespace; default: the kubeconfig's");
  for (const [flags, text] of SELECTING) get.option(flags, text);
  get
    .option('-s, --src <network>', 'conntrack: from an address or network')
    .option('-d, --dst <network>', 'conntrack: to one')
    .option('-r, --reply-src <network>', 'conntrack: that answers')
    .option('-q, --reply-dst <network>', 'conntrack: that is answered')
    .option('-p, --proto <protocol>', 'conntrack: tcp, udp, icmp, sctp or a number')
    .option('--sport, --orig-port-src <port>', 'conntrack: from a port')
    .option('--dport, --orig-port-dst <port>', 'conntrack: to a port')
    .option('--reply-port-src <port>', 'conntrack: port that answers')
    .option('--reply-port-dst <port>', 'conntrack: port that is answered')
    .option('--state <state>', 'conntrack: of TCP, ESTABLISHED')
    .option('-u, --status <list>', 'conntrack: ASSURED, SEEN_REPLY, UNREPLIED, SRC_NAT, DST_NAT')
    .addOption(new Option('--orig-src <network>').hideHelp())
    .addOption(new Option('--orig-dst <network>').hideHelp())
    .option('--src-nat [network]', 'conntrack: whose source is translated')
    .option('-g, --dst-nat [network]', 'conntrack: whose destination is')
    .option(...NODE)
    .option(
      '-o, --output <format>',
      `${FORMATS.join(', ')}; Kubernetes: name; cilium: lb, ct, nat, ipcache, endpoints as cilium-dbg prints them`,
      text => (text === 'cilium' || text === 'name' ? text : parseFormat(text)),
      'table',
    )
    .addHelpText('after', WHICH)
    .action(
      ends(async (kind: string, name: string | undefined, flags: AskingFlags) => {
        if (flags.output === 'cilium') return (await import('./cilium.ts')).getCilium(kind, flags.node);
        const given = namespaceFlags(kind, flags);
        if (await isOfCluster(kind, given)) {
          return (await import('./objects.ts')).getObjects(kind, name, given as ObjectFlags);
        }
        if (given.output === 'name') throw new UsageError(`-o name: expected one of ${FORMATS.join(', ')}`);
        return (await import('./get.ts')).get(kind, name, flowFlags({ ...given }));
      }),
    );

  const describe = program
    .command('describe')
    .description('everything about one row or object, and what belongs to it')
    .argument('<kind>', 'as for get')
    .argument('[name]', 'default: all of them')
    .option('-n, --namespace <name>', "Kubernetes: in a namespace; default: the kubeconfig's");
  for (const [flags, text] of SELECTING) describe.option(flags, text);
  describe
    .option(...NODE)
    .option(...OUTPUT)
    .addHelpText('after', WHICH)
    .action(
      ends(async (kind: string, name: string | undefined, flags: ObjectFlags & KindFlags & { output: Format }) =>
        (await isOfCluster(kind, flags))
          ? (await import('./objects.ts')).describeObjects(kind, name, flags)
          : (await import('./get.ts')).describe(kind, name, flags),
      ),
    );

  program
    .command('status')
    .description('ports, offloads, tunnel and tables of a running node')
    .option(...NODE)
    .option(...OUTPUT)
    .action(ends(async flags => (await import('./get.ts')).status(flags)));
}

/** -n is conntrack(8)'s as well as kubectl's. @throws UsageError */
function namespaceFlags(kind: string, { n, ...flags }: AskingFlags): AskingFlags {
  if (n === undefined) return flags;
  const word = kind.toLowerCase();
  if (isNodeKind(word) && findKind(word).name === 'conntrack') return { ...flags, srcNat: n };
  if (n === true) throw new UsageError('-n: expected a namespace');
  return { ...flags, namespace: n };
}

/** Long options of conntrack(8) under the names that they have here. */
function flowFlags({ origSrc, origDst, origPortSrc, origPortDst, ...flags }: Record<string, unknown>): GetFlags {
  return { src: origSrc, dst: origDst, sport: origPortSrc, dport: origPortDst, ...flags } as GetFlags;
}
