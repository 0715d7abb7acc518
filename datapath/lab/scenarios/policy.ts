/** Article 002: a NetworkPolicy. */

import type { Scenario, ScenarioContext } from '../scenario.ts';
import { TOPOLOGIES } from '../topology-file.ts';
import { distinct, readFrames } from './frames.ts';
import { ask, bothWays, CURL_TIMEOUT, checkRefused, pairsOf, podOf, rowsOf, seenBy } from './requests.ts';

const topology = TOPOLOGIES.calico!;

const ALLOW = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: allow-db-access
spec:
  podSelector:
    matchLabels:
      name: "pod1"
  policyTypes:
  - Ingress
  ingress:
  - from:
    - podSelector:
        matchLabels:
          name: "pod2"
`;

/** Packets that a node has dropped for a policy. */
async function denied(context: ScenarioContext, node: string): Promise<number> {
  const rows = await rowsOf<{ name: string; packets: number }>(context, node, 'counters');
  return rows.find(row => row.name === 'drop-policy-denied-ingress')?.packets ?? 0;
}

const networkPolicy: Scenario = {
  name: 'networkpolicy-db',
  article: '002',
  shows: 'allow-db-access: pod2 may reach pod1, pod3 may not, and what pod1 itself asks for comes back',
  topology,
  mode: 'ipip',
  api: true,
  async run(context) {
    const [pod1, pod2, pod3] = ['pod1', 'pod2', 'pod3'].map(name => podOf(context, name));
    const url = `http://${pod1!.address}/`;
    for (const pod of [pod1!, pod2!, pod3!]) {
      const { stdout } = await context.kubectl(['label', 'pod', pod.name, `name=${pod.name}`]);
      context.check(`kubectl label pod ${pod.name}`, `pod/${pod.name} labeled`, stdout.trim());
    }
    for (const pod of [pod2!, pod3!]) {
      context.check(
        `before: ${pod.name} asks pod1`,
        [`pod1 saw ${pod.address}`],
        seenBy(await ask(context, pod.name, url)),
      );
    }
    const { stdout } = await context.kubectl(['apply', '-f', '-'], ALLOW);
    context.check('the policy', 'networkpolicy.networking.k8s.io/allow-db-access created', stdout.trim());
    await context.settle(
      () => context.lab.exec('pod3', ['curl', '-s', '-o', '/dev/null', '--connect-timeout', '1', url]),
      ({ exitCode }) => exitCode === CURL_TIMEOUT,
    );

    const files = await context.capture(
      { pod1: ['pod1', 'tcp'], pod3: ['pod3', 'tcp'], wire: [pod1!.node, 'ip proto 4'] },
      async () => {
        const before = await denied(context, pod1!.node);
        await checkRefused(context, 'pod3', url, CURL_TIMEOUT);
        const dropped = (await denied(context, pod1!.node)) - before;
        context.checkThat(`${pod1!.node}: drop-policy-denied-ingress`, 'counts', `${dropped} packets`, dropped > 0);
        context.check('pod2 asks pod1', [`pod1 saw ${pod2!.address}`], seenBy(await ask(context, 'pod2', url)));
        // Replies come in though nobody may: the flow is known.
        const own = await ask(context, 'pod1', `http://${pod3!.address}/`);
        context.check('pod1 asks pod3', [`pod3 saw ${pod1!.address}`], seenBy(own));
      },
    );
    const [inside, far, wire] = await Promise.all([
      readFrames(files.pod1),
      readFrames(files.pod3, `tcp.flags == 2 and ip.src == ${pod3!.address}`),
      readFrames(files.wire),
    ]);
    context.check(
      "pod3: its SYN leaves, for pod1's node is the one that drops it",
      [`${pod3!.address} > ${pod1!.address}`],
      pairsOf(far),
    );
    const arrived = wire.filter(({ tcp, ip }) => tcp?.flags === 2 && ip.at(-1)!.src === pod3!.address);
    context.check(`${pod1!.node}: the SYN of pod3 arrives`, [`${pod3!.address} > ${pod1!.address}`], pairsOf(arrived));
    const requests = inside.filter(({ tcp }) => tcp?.flags === 2);
    context.check(
      'pod1: SYNs in its packets',
      [`${pod1!.address} > ${pod3!.address}`, `${pod2!.address} > ${pod1!.address}`],
      pairsOf(requests),
    );
    context.check(
      'pod1: what it has from and to pod3 belongs to its own request',
      bothWays(pod1!.address, pod3!.address),
      distinct(
        inside.filter(({ ip }) => [ip[0]!.src, ip[0]!.dst].includes(pod3!.address)),
        ({ ip }) => `${ip[0]!.src} > ${ip[0]!.dst}`,
      ),
    );
    const rows = await rowsOf<{ policy: string; selects: string[] }>(context, pod1!.node, 'policies');
    context.check(
      `${pod1!.node}: get policies`,
      ['default/allow-db-access selects default/pod1'],
      rows.map(({ policy, selects }) => `${policy} selects ${selects}`),
    );

    const deleted = await context.kubectl(['delete', 'networkpolicy', 'allow-db-access']);
    context.check('kubectl delete networkpolicy exits with', 0, deleted.exitCode);
    const answers = await context.settle(
      () => ask(context, 'pod3', url),
      seen => seen.length > 0,
    );
    context.check('without the policy: pod3 asks pod1', [`pod1 saw ${pod3!.address}`], seenBy(answers));
  },
};

export const policyScenarios: readonly Scenario[] = [networkPolicy];
