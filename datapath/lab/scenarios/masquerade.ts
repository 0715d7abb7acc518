/** Articles 000 and 004: which packets of pods leave under their node's address. */

import type { Scenario, ScenarioContext } from '../scenario.ts';
import { addressOf, routerOf, routerWebAddress } from '../topology.ts';
import { TOPOLOGIES } from '../topology-file.ts';
import { checkChecksums, checkPing, describeIcmp } from './checks.ts';
import { distinct, readFrames } from './frames.ts';
import { ask, bothWays, CURL_TIMEOUT, checkRefused, nodeOf, pairsOf, podOf, rowsOf, seenBy } from './requests.ts';

const calico = TOPOLOGIES.calico!;
const flannel = TOPOLOGIES.flannel!;

/** What `get masquerade` says of a rule. */
interface RuleRow {
  rule: number | null;
  action: string;
  from: string | null;
  to: string | null;
  mark: string | null;
  randomFully: boolean | null;
  flows: number;
}

/** A rule in the words of `iptables -t nat -S FLANNEL-POSTRTG`. */
function ruleText({ action, from, to, mark, randomFully }: RuleRow): string {
  const condition = (flag: string, networks: string | null): string[] => {
    if (networks === null || networks === 'any') return [];
    return networks.startsWith('!') ? ['!', flag, networks.slice(1)] : [flag, networks];
  };
  const words = [
    ...condition('-s', from),
    ...condition('-d', to),
    ...(mark === null ? [] : ['-m mark --mark', mark]),
    `-j ${action}`,
    ...(randomFully ? ['--random-fully'] : []),
  ];
  return words.join(' ');
}

/** Numbers of the rules that decided about the new flows of what happens meanwhile; 0: none matched. */
async function rulesUsed(context: ScenarioContext, node: string, during: () => Promise<unknown>): Promise<string[]> {
  const before = await rowsOf<RuleRow>(context, node, 'masquerade');
  await during();
  const after = await rowsOf<RuleRow>(context, node, 'masquerade');
  return after
    .filter((row, i) => row.flows > before[i]!.flows)
    .map(row => (row.rule === null ? 'none' : `rule ${row.rule}`));
}

const CHAIN = [
  '-m mark --mark 0x4000/0x4000 -j RETURN',
  '-s 10.244.1.0/24 -d 10.244.0.0/16 -j RETURN',
  '-s 10.244.0.0/16 -d 10.244.1.0/24 -j RETURN',
  '! -s 10.244.0.0/16 -d 10.244.1.0/24 -j RETURN',
  '-s 10.244.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE --random-fully',
  '! -s 10.244.0.0/16 -d 10.244.0.0/16 -j MASQUERADE --random-fully',
];

/** A port that a node must not keep where the rule says --random-fully. */
const CLIENT_PORT = 40_000;

const postrouting: Scenario = {
  name: 'flannel-masquerade',
  article: '004',
  shows:
    'FLANNEL-POSTRTG leaves pods among themselves alone and lets them out under the address of their node; the ping outside is answered',
  topology: flannel,
  mode: 'vxlan',
  async run(context) {
    const [pod, other] = [podOf(context, 'busybox1'), podOf(context, 'busybox2')];
    const node = nodeOf(context, pod.node);
    const address = addressOf(node.address);
    const router = routerOf(context.lab.topology);
    const outside = routerWebAddress(flannel);

    const rows = await rowsOf<RuleRow>(context, node.name, 'masquerade');
    const chain = rows.filter(row => row.rule !== null).map(ruleText);
    for (const [i, rule] of CHAIN.entries()) {
      // The article prints the first rule without its match, as which it would return every packet.
      context.check(`${node.name}: rule ${i + 1}`, rule, chain[i] ?? 'none');
    }
    context.check(`${node.name}: rules`, CHAIN.length, chain.length);

    const used = async (what: string, rule: string, during: () => Promise<unknown>): Promise<void> => {
      context.check(`${what}: matched at ${node.name}`, rule, await rulesUsed(context, node.name, during));
    };
    await used(`${pod.name} pings ${other.name}`, 'rule 2', () => checkPing(context, pod.name, other.address, 62));
    await used(`${other.name} pings ${pod.name}`, 'rule 3', () => checkPing(context, other.name, pod.address, 62));

    const files = await context.capture({ pod: [pod.name, 'icmp'], eth0: [node.name, 'icmp'] }, () =>
      used(`${pod.name} pings ${outside}`, 'rule 5', () => checkPing(context, pod.name, outside, 63)),
    );
    context.check(
      `${pod.name}: the ping outside`,
      [`${outside} > ${pod.address} echo reply`, `${pod.address} > ${outside} echo request`],
      distinct(await readFrames(files.pod), describeIcmp),
    );
    const wire = await readFrames(files.eth0);
    context.check(
      `${node.name}: tcpdump -i eth0 icmp`,
      [`${outside} > ${address} echo reply`, `${address} > ${outside} echo request`],
      distinct(wire, describeIcmp),
    );
    checkChecksums(context, 'the ping outside', wire);

    const request = `--local-port ${CLIENT_PORT} http://${outside}/`;
    const answers = await ask(context, pod.name, request);
    context.check(`${pod.name} asks the router`, [`${router.name} saw ${address}`], seenBy(answers));
    context.checkThat(
      '--random-fully: port outside',
      `one, and not ${CLIENT_PORT}`,
      answers.map(answer => String(answer.remotePort)),
      answers.length === 1 && answers[0]!.remotePort !== CLIENT_PORT,
    );

    // Somebody outside who knows where the pods are: let in as who he is on the pod's node, masqueraded across another.
    await context.exec(router.name, ['ip', 'route', 'add', flannel.clusterCidr, 'via', address]);
    await used(`${router.name} pings ${pod.name}`, 'rule 4', () => checkPing(context, router.name, pod.address, 63));
    const across = await context.capture({ far: [other.name, 'icmp'] }, () =>
      used(`${router.name} pings ${other.name}`, 'rule 6', () => checkPing(context, router.name, other.address, 62)),
    );
    context.check(
      `${other.name}: who pings`,
      bothWays(other.address, node.hostAddress),
      pairsOf(await readFrames(across.far)),
    );
  },
};

/** A network that Calico shall take for its own, so that nothing towards it is translated: a pool without pods. */
const EXEMPT = '10.10.2.0/24';
const EXEMPT_HOST = '10.10.2.200';

const natOutgoing: Scenario = {
  name: 'calico-nat-outgoing',
  article: '000',
  shows: 'NAT true in the IP pool: pods leave under the address of their node, but only for what is in no pool',
  topology: { ...calico, inside: [...calico.inside, EXEMPT] },
  mode: 'crosssubnet',
  async run(context) {
    const pod = podOf(context, 'pod1');
    const node = nodeOf(context, pod.node);
    const address = addressOf(node.address);
    const router = routerOf(context.lab.topology);
    const outside = routerWebAddress(calico);

    for (const peer of ['pod2', 'pod3']) {
      const answers = await ask(context, pod.name, `http://${podOf(context, peer).address}/`);
      context.check(`${pod.name} asks ${peer}, in the pool`, [`${peer} saw ${pod.address}`], seenBy(answers));
    }
    const files = await context.capture({ wire: [node.name, 'ip'], pod: [pod.name, 'ip'] }, async () => {
      const answers = await ask(context, pod.name, `http://${outside}/`);
      context.check(`${pod.name} asks ${outside}, in no pool`, [`${router.name} saw ${address}`], seenBy(answers));
      await checkPing(context, pod.name, outside, 63);
    });
    const frames = await readFrames(files.wire);
    context.check(`${node.name}: addresses on the wire`, bothWays(address, outside), pairsOf(frames));
    context.check(`${pod.name}: addresses`, bothWays(pod.address, outside), pairsOf(await readFrames(files.pod)));
    checkChecksums(context, 'what leaves and comes back', frames);

    // Nodes are in no pool either.
    const other = nodeOf(context, 'k8s-w2');
    const toNode = await context.capture({ wire: [other.name, 'icmp'] }, () =>
      checkPing(context, pod.name, addressOf(other.address), 63),
    );
    context.check(
      `${other.name}: who pings`,
      bothWays(address, addressOf(other.address)),
      pairsOf(await readFrames(toNode.wire)),
    );

    // A second pool, and the router does not know the way back to a pod.
    const exempt = await context.capture(
      { router: [router.name, `host ${EXEMPT_HOST} and src net ${calico.clusterCidr}`] },
      () => checkRefused(context, pod.name, `http://${EXEMPT_HOST}/`, CURL_TIMEOUT),
    );
    context.check(
      `${router.name}: who asks for ${EXEMPT_HOST}, in another pool`,
      `${pod.address} > ${EXEMPT_HOST}`,
      pairsOf(await readFrames(exempt.router)),
    );
  },
};

export const masqueradeScenarios: readonly Scenario[] = [postrouting, natOutgoing];
