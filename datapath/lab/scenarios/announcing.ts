/** Article 001: who answers ARP for a load balancer's address, and who does when that node is gone. */

import { type CaptureSummary, decodeCapture } from '../capture.ts';
import type { Scenario, ScenarioContext } from '../scenario.ts';
import { addressOf, type LabNode, routerOf } from '../topology.ts';
import { TOPOLOGIES } from '../topology-file.ts';
import { annotate, checkService, giveAddress, LBIP, netshootWeb, rowIn } from './balancers.ts';
import { distinct } from './frames.ts';
import { ask, CURL_TIMEOUT, checkRefused, nodeOf, rowsOf, seenBy } from './requests.ts';

const topology = TOPOLOGIES.cilium!;
const article = '001';
const webpods = topology.pods.filter(pod => pod.labels.app === 'webpod');
const ROUTER = routerOf(topology).name;
const OUTSIDE = addressOf(routerOf(topology).legs[0]!.address);
/** Enough that each of three backends is met: all but once in a thousand times. */
const ROUNDS = 20;

const LEASE = 'cilium-l2announce-default-webpod';

function policy(name: string, app: string): string {
  return `
apiVersion: "cilium.io/v2alpha1"
kind: CiliumL2AnnouncementPolicy
metadata:
  name: ${name}
spec:
  serviceSelector:
    matchLabels:
      app: ${app}
  nodeSelector:
    matchExpressions:
      - key: kubernetes.io/hostname
        operator: NotIn
        values:
          - k8s-w0
  interfaces:
  - ^eth[1-9]+
  externalIPs: true
  loadBalancerIPs: true
`;
}

interface Arp {
  /** `request` or `reply`. */
  kind: string;
  /** MAC and address of who says it. */
  sender: string;
  /** Whom it is about. */
  target: string;
}

async function readArp(file: CaptureSummary): Promise<Arp[]> {
  if (file.packets === 0) return [];
  const fields = ['arp.opcode', 'arp.src.hw_mac', 'arp.src.proto_ipv4', 'arp.dst.proto_ipv4'];
  return (await decodeCapture(file.path, fields, 'arp')).map(([opcode, mac, sender, target]) => ({
    kind: opcode![0] === '2' ? 'reply' : 'request',
    sender: `${sender![0]} at ${mac![0]}`,
    target: target![0]!,
  }));
}

/** Asks everybody for an address, several times, and checks who answers, and that each request has one answer at most. */
async function checkArping(context: ScenarioContext, address: string, leader: LabNode): Promise<void> {
  const files = await context.capture({ arp: [`${ROUTER}:eth1`, `arp host ${address}`] }, async () => {
    const { stdout } = await context.exec(ROUTER, ['arping', '-b', '-I', 'eth1', '-c', '3', '-w', '9', address]);
    const received = /Received \d+ response\(s\)/.exec(stdout)?.[0] ?? stdout;
    context.check(`router: arping ${address}`, 'Received 3 response(s)', received);
  });
  const seen = await readArp(files.arp);
  const replies = seen.filter(({ kind, target }) => kind === 'reply' && target !== address);
  const requests = seen.filter(({ kind, target, sender }) => kind === 'request' && !sender.startsWith(`${target} `));
  context.check(
    `${ROUTER}: who answers for ${address}`,
    `${address} at ${leader.mac}`,
    distinct(replies, ({ sender }) => sender),
  );
  context.checkThat(
    `${ROUTER}: answers to a request`,
    'never two',
    `${replies.length} to ${requests.length}`,
    replies.length > 0 && replies.length <= requests.length,
  );
}

/** Who has a lease; looked for until one has whom `isRight` accepts. */
async function holderOf(
  context: ScenarioContext,
  lease: string,
  isRight: (holder: string) => boolean = holder => holder !== '',
): Promise<string> {
  const holder = (text: string): string => {
    const [name, found = ''] = rowIn(text, lease, 2).split(' ');
    return name === lease ? found : '';
  };
  const { stdout } = await context.kubectlUntil(['-n', 'kube-system', 'get', 'lease'], text => {
    const found = holder(text);
    return topology.nodes.some(({ name }) => name === found) && isRight(found);
  });
  return holder(stdout);
}

/** The addresses that each node answers for, as `cilium-dbg shell -- db/show l2-announce` has them. */
async function announcedBy(context: ScenarioContext): Promise<string[]> {
  const lines = await Promise.all(
    topology.nodes.map(async ({ name }) => {
      const rows = await rowsOf<{ ip: string }>(context, name, 'l2-announce');
      return rows.map(({ ip }) => `${name} ${ip}`);
    }),
  );
  return lines.flat();
}

/** Turns announcing on, with the article's policy, and waits for a leader. @returns that node */
async function announce(context: ScenarioContext, settings: Record<string, string> = {}): Promise<LabNode> {
  // What `helm upgrade cilium ... --set l2announcements.enabled=true` changes.
  const data = { 'enable-l2-announcements': 'true', ...settings };
  const patch = ['-n', 'kube-system', 'patch', 'cm', 'cilium-config', '-p', JSON.stringify({ data })];
  context.check('cilium-config', 'configmap/cilium-config patched', (await context.kubectl(patch)).stdout.trim());
  const made = await context.kubectl(['apply', '-f', '-'], policy('policy1', 'webpod'));
  context.check('policy1', 'ciliuml2announcementpolicy.cilium.io/policy1 created', made.stdout.trim());
  const holder = await holderOf(context, LEASE);
  context.checkThat('the leader', 'k8s-ctr or k8s-w1', holder, ['k8s-ctr', 'k8s-w1'].includes(holder));
  await context.settle(
    () => announcedBy(context),
    seen => seen.length > 0,
  );
  return nodeOf(context, holder);
}

const l2Announce: Scenario = {
  name: 'cilium-l2-announce',
  article,
  shows:
    "arping of 192.168.10.211 times out until a policy announces it; then the leader's MAC answers, one node for each service, and the same for services that share an address",
  topology,
  mode: 'vxlan',
  api: true,
  async run(context) {
    await giveAddress(context);
    const { stdout } = await context.exec(ROUTER, ['arping', '-I', 'eth1', '-c', '1', '-w', '1', LBIP]);
    context.check('before: arping', 'Received 0 response(s)', /Received \d+ response\(s\)/.exec(stdout)?.[0] ?? stdout);
    await checkRefused(context, ROUTER, `http://${LBIP}/`, CURL_TIMEOUT);

    let leader = topology.nodes[0]!;
    const files = await context.capture({ arp: [`${ROUTER}:eth1`, `arp host ${LBIP}`] }, async () => {
      leader = await announce(context);
    });
    const gratuitous = (await readArp(files.arp)).filter(
      ({ sender, target }) => target === LBIP && sender.startsWith(`${LBIP} `),
    );
    context.check(
      `${ROUTER}: gratuitous ARP, as request and as reply`,
      ['reply', 'request'].map(kind => `${kind} of ${LBIP} at ${leader.mac}`),
      distinct(gratuitous, ({ kind, sender }) => `${kind} of ${sender}`),
    );
    const spec = await context.kubectl(['-n', 'kube-system', 'get', `lease/${LEASE}`, '-o', 'jsonpath={.spec}']);
    const { holderIdentity, leaseDurationSeconds, leaseTransitions } = JSON.parse(spec.stdout || '{}');
    context.check(
      'the lease',
      `${leader.name}, 15 s, 0 transitions`,
      `${holderIdentity}, ${leaseDurationSeconds} s, ${leaseTransitions} transitions`,
    );
    context.check('get l2-announce', [`${leader.name} ${LBIP}`], await announcedBy(context));
    await checkArping(context, LBIP, leader);

    const answers = await ask(context, ROUTER, `http://${LBIP}/`, ROUNDS);
    context.check('router: curl: answers', ROUNDS, answers.length);
    context.check(
      'router: curl: whom pods see',
      webpods.map(pod => `${pod.hostname} saw ${pod.node === leader.name ? OUTSIDE : leader.hostAddress}`).sort(),
      seenBy(answers),
    );
    const neighbor = await context.exec(ROUTER, ['ip', 'neigh', 'show', LBIP]);
    context.check(`router: its neighbour ${LBIP}`, leader.mac, /lladdr (\S+)/.exec(neighbor.stdout)?.[1] ?? 'none');

    await context.kubectl(['apply', '-f', '-'], policy('policy2', 'netshoot-web'));
    const shared = { ips: '192.168.10.215', 'sharing-key': '1234' };
    for (const [name, port] of [
      ['netshoot-web', 80],
      ['netshoot-web2', 8080],
    ] as const) {
      await context.kubectl(['apply', '-f', '-'], netshootWeb(name, port));
      await annotate(context, name, shared);
      await checkService(context, 'shared', name, shared.ips);
    }
    const first = await holderOf(context, 'cilium-l2announce-default-netshoot-web');
    const second = await holderOf(context, 'cilium-l2announce-default-netshoot-web2', holder => holder === first);
    context.check('netshoot-web and netshoot-web2 share an address: their leader', first, second);
    await context.settle(
      () => announcedBy(context),
      seen => seen.some(line => line.endsWith(shared.ips)),
    );
    await checkArping(context, shared.ips, nodeOf(context, first));
  },
};

/** For the article's fifteen, five and two seconds; a machine with much to do must not take them for a failure. */
const QUICK = {
  'l2-announcements-lease-duration': '5s',
  'l2-announcements-renew-deadline': '4s',
  'l2-announcements-retry-period': '500ms',
};

function signal(context: ScenarioContext, node: LabNode, name: 'SIGSTOP' | 'SIGCONT' | 'SIGKILL'): void {
  const pid = context.lab.status().find(({ host }) => host === node.name)?.pid;
  context.tell(`[${node.name}] $ kill -${name.slice(3)} ${pid}`);
  if (pid !== null && pid !== undefined) process.kill(pid, name);
}

/** Waits until another node than `before` leads and answers outside, and checks what the router has learnt of it. */
async function checkTakeover(context: ScenarioContext, before: LabNode, what: string): Promise<LabNode> {
  const began = performance.now();
  const holder = await holderOf(context, LEASE, found => found !== before.name);
  const leader = nodeOf(context, holder);
  // One of three backends is on the node that is away.
  const answers = await context.settle(
    () => ask(context, ROUTER, `http://${LBIP}/`),
    seen => seen.length > 0,
  );
  const seconds = ((performance.now() - began) / 1000).toFixed(1);
  context.check(`${what}: curl answers again`, 1, answers.length);
  context.checkThat(
    `${what}: who leads`,
    `another than ${before.name}`,
    `${holder}, ${seconds} s later`,
    holder !== before.name,
  );
  const { stdout } = await context.exec(ROUTER, ['ip', 'neigh', 'show', LBIP]);
  context.check(`${what}: the router's neighbour`, leader.mac, /lladdr (\S+)/.exec(stdout)?.[1] ?? 'none');
  return leader;
}

const l2Failover: Scenario = {
  name: 'cilium-l2-failover',
  article,
  shows:
    'the leader is away: its lease ends, another node says by gratuitous ARP that the address is there, and the service answers again; when the first one goes on, it is silent',
  topology,
  mode: 'vxlan',
  api: true,
  processes: true,
  async run(context) {
    await giveAddress(context);
    const first = await announce(context, QUICK);
    await checkArping(context, LBIP, first);
    context.check('router: curl answers', 1, (await ask(context, ROUTER, `http://${LBIP}/`)).length);

    let second = first;
    const files = await context.capture({ arp: [`${ROUTER}:eth1`, `arp src host ${LBIP}`] }, async () => {
      signal(context, first, 'SIGSTOP');
      second = await checkTakeover(context, first, 'paused');
      signal(context, first, 'SIGCONT');
      // What it says now is what it says by itself: nobody has told it that it leads no more.
      await checkArping(context, LBIP, second);
    });
    const said = await readArp(files.arp);
    context.check(
      `${ROUTER}: gratuitous ARP, as request and as reply`,
      ['reply', 'request'].map(kind => `${kind} of ${LBIP} at ${second.mac}`),
      distinct(
        said.filter(({ target }) => target === LBIP),
        ({ kind, sender }) => `${kind} of ${sender}`,
      ),
    );
    context.check(
      `${ROUTER}: who has answered since`,
      `${LBIP} at ${second.mac}`,
      distinct(said, ({ sender }) => sender),
    );
    const jsonpath = ['-o', 'jsonpath={.spec.leaseTransitions}'];
    const lease = await context.kubectl(['-n', 'kube-system', 'get', `lease/${LEASE}`, ...jsonpath]);
    context.check('leaseTransitions', '1', lease.stdout);

    signal(context, second, 'SIGKILL');
    const third = await checkTakeover(context, second, 'killed');
    await checkArping(context, LBIP, third);
  },
};

export const announcingScenarios: readonly Scenario[] = [l2Announce, l2Failover];
