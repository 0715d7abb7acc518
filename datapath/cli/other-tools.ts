/** What people type who know kubectl, containerlab, ip, tcpdump, conntrack or hubble, and what it is called here. */

const KUBECTL = 'kubectl does that, with the KUBECONFIG of a lab: tunpath lab inspect shows it';

/** By the words behind `tunpath`. */
const WORDS: Readonly<Record<string, string>> = {
  ...Object.fromEntries(
    ['logs', 'exec', 'run', 'create', 'scale', 'expose', 'edit', 'patch', 'label', 'annotate', 'rollout', 'wait', 'cp']
      .concat(['port-forward', 'attach', 'drain', 'cordon', 'uncordon', 'taint', 'top', 'auth', 'api-resources'])
      .concat(['api-versions', 'cluster-info', 'config', 'replace', 'set', 'debug', 'proxy'])
      .map(word => [word, KUBECTL]),
  ),
  exec: 'tunpath lab exec HOST -- COMMAND; or kubectl exec',
  top: 'tunpath status, get ports, get counters --sort-by packets',
  logs: 'kubectl logs POD; a node logs to its standard error, or the journal',
  deploy: 'tunpath lab up -f FILE',
  up: 'tunpath lab up',
  down: 'tunpath lab down',
  destroy: 'tunpath lab down',
  inspect: 'tunpath lab inspect',
  graph: 'tunpath lab graph',
  save: 'tunpath lab topology NAME > FILE; tunpath lab up --print',
  shell: 'tunpath lab shell HOST',
  ssh: 'tunpath lab shell HOST',
  list: 'tunpath lab list, tunpath get KIND',
  ls: 'tunpath lab list, tunpath get KIND',
  ps: 'tunpath lab status, tunpath status',
  route: 'tunpath get routes',
  routes: 'tunpath get routes',
  ip: 'tunpath get routes, get ports, get neighbors',
  neigh: 'tunpath get neighbors',
  neighbor: 'tunpath get neighbors',
  addr: 'tunpath get ports',
  address: 'tunpath get ports',
  link: 'tunpath get ports',
  show: 'tunpath get KIND, tunpath describe KIND NAME',
  conntrack: 'tunpath get conntrack, with the filters of conntrack -L',
  ct: 'tunpath get conntrack',
  tcpdump: 'tunpath capture, with the words of tcpdump',
  dump: 'tunpath capture',
  flows: 'tunpath observe, tunpath get conntrack',
  hubble: 'tunpath observe; hubble itself: tunpath lab shell HOST',
  cilium: 'tunpath lab shell HOST, which has cilium, hubble and calicoctl',
  trace: 'tunpath explain --from POD --to ADDRESS:PORT',
  ping: 'tunpath lab pingall, tunpath lab exec POD -- ping ADDRESS',
  start: 'tunpath node --config FILE, tunpath lab up',
  stop: 'tunpath lab down; a node ends at Ctrl-C, or by tunpath delete -f FILE',
  validate: 'tunpath apply -f FILE --dry-run, tunpath mtu prove -f FILE',
  init: 'tunpath host init, tunpath example',
  'lab deploy': 'tunpath lab up -f FILE',
  'lab create': 'tunpath lab up',
  'lab start': 'tunpath lab up',
  'lab destroy': 'tunpath lab down',
  'lab delete': 'tunpath lab down',
  'lab stop': 'tunpath lab down',
  'lab ls': 'tunpath lab list',
  'lab ps': 'tunpath lab status',
  'lab ssh': 'tunpath lab shell HOST',
  'lab ping': 'tunpath lab pingall',
  'lab logs': 'kubectl logs POD; of nodes: the files that tunpath lab inspect names',
};

/** Node tables of other tools that are no kind here. */
const KINDS: Readonly<Record<string, string>> = {
  tunnel: 'tunpath status shows the tunnels',
  tunnels: 'tunpath status shows the tunnels',
  peers: 'tunpath status shows the tunnels, get neighbors who answers',
  vxlan: 'tunpath status shows the tunnels',
  nft: 'tunpath get services, masquerade, policies',
  iptables: 'tunpath get services, masquerade, policies',
  mtu: 'tunpath status, mtu prove, mtu probe',
};

/** @param words of a command line that were not understood, from the first on */
export function knownElsewhere(words: readonly string[]): string | undefined {
  const known = [words.slice(0, 2).join(' '), words[0] ?? ''].find(word => Object.hasOwn(WORDS, word));
  return known === undefined ? undefined : WORDS[known];
}

export function kindElsewhere(word: string): string | undefined {
  return Object.hasOwn(KINDS, word) ? KINDS[word] : undefined;
}
