/** Article 001: addresses for services of type LoadBalancer out of a pool (LB-IPAM), and whom the pods behind them see. */

import type { Scenario, ScenarioContext } from '../scenario.ts';
import { addressOf, routerOf, serviceOf } from '../topology.ts';
import { TOPOLOGIES } from '../topology-file.ts';
import { checkChecksums } from './checks.ts';
import { distinct, readFrames } from './frames.ts';
import {
  ask,
  atPods,
  bothWays,
  CURL_TIMEOUT,
  checkRefused,
  nodeOf,
  pairsOf,
  podOf,
  rowsOf,
  seenBy,
} from './requests.ts';

const topology = TOPOLOGIES.cilium!;
const article = '001';

const webpod = serviceOf(topology, 'default/webpod');
const webpods = topology.pods.filter(pod => pod.labels.app === 'webpod');
const ROUTER = routerOf(topology).name;
const OUTSIDE = addressOf(routerOf(topology).legs[0]!.address);

/** What the pool gives webpod. */
export const LBIP = '192.168.10.211';

const POOL = `
apiVersion: "cilium.io/v2"
kind: CiliumLoadBalancerIPPool
metadata:
  name: "cilium-lb-ippool"
spec:
  blocks:
  - start: "192.168.10.211"
    stop: "192.168.10.215"
`;

/** Two of its addresses are the first pool's. */
const OVERLAPPING = `
apiVersion: "cilium.io/v2"
kind: CiliumLoadBalancerIPPool
metadata:
  name: "overlapping"
spec:
  blocks:
  - start: "192.168.10.214"
    stop: "192.168.10.220"
`;

/** The article's services have pods of their own, which answer one request at a time; these have the webpods. */
export function netshootWeb(name: string, port: number): string {
  return `
apiVersion: v1
kind: Service
metadata:
  name: ${name}
  labels:
    app: netshoot-web
spec:
  type: LoadBalancer
  selector:
    app: webpod
  ports:
  - name: http
    port: ${port}
    targetPort: 80
`;
}

/** A row of a table that kubectl prints, without the columns from `ages` on, which differ from day to day. */
export function rowIn(text: string, name: string, columns: number): string {
  const row = text.split('\n').find(line => line.split(/\s+/)[0] === name);
  return row === undefined ? 'none' : row.split(/\s+/).slice(0, columns).join(' ');
}

async function checkPool(context: ScenarioContext, what: string, available: number): Promise<void> {
  const wanted = `cilium-lb-ippool false False ${available}`;
  const { stdout } = await context.kubectlUntil(
    ['get', 'ippools'],
    text => rowIn(text, 'cilium-lb-ippool', 4) === wanted,
  );
  context.check(`kubectl get ippools, ${what}`, wanted, rowIn(stdout, 'cilium-lb-ippool', 4));
}

/** @param address that it is to have; `<pending>`: none */
export async function checkService(
  context: ScenarioContext,
  what: string,
  name: string,
  address: string,
): Promise<void> {
  const seen = (text: string): string => rowIn(text, name, 4).split(' ')[3] ?? 'none';
  const { stdout } = await context.kubectlUntil(['get', 'svc', name], text => seen(text) === address);
  context.check(`kubectl get svc ${name}, ${what}`, address, seen(stdout));
}

/** @param annotations without `lbipam.cilium.io/` */
export async function annotate(
  context: ScenarioContext,
  name: string,
  annotations: Record<string, string>,
): Promise<void> {
  const list = Object.entries(annotations).map(([key, value]) => `lbipam.cilium.io/${key}=${value}`);
  const { exitCode } = await context.kubectl(['annotate', 'svc', name, ...list, '--overwrite']);
  context.check(`kubectl annotate svc ${name} exits with`, 0, exitCode);
}

interface Condition {
  type: string;
  status: string;
  reason: string;
  message: string;
}

async function conditionsOf(
  context: ScenarioContext,
  argv: readonly string[],
  ofType: (type: string) => boolean,
): Promise<string[]> {
  const { stdout } = await context.kubectl(['get', ...argv, '-o', 'jsonpath={.status.conditions}']);
  return (JSON.parse(stdout || '[]') as Condition[])
    .filter(({ type }) => ofType(type))
    .map(({ type, status, reason, message }) => `${type} ${status} ${reason} '${message}'`)
    .sort();
}

function isConflict(type: string): boolean {
  return type === 'cilium.io/PoolConflict';
}

/** Makes the pool and gives webpod an address of it, and returns when every node forwards what is for that. */
export async function giveAddress(context: ScenarioContext): Promise<void> {
  const made = await context.kubectl(['apply', '-f', '-'], POOL);
  context.check('the pool', 'ciliumloadbalancerippool.cilium.io/cilium-lb-ippool created', made.stdout.trim());
  await checkPool(context, 'before anybody has an address', 5);
  const patched = await context.kubectl(['patch', 'svc', 'webpod', '-p', '{"spec":{"type":"LoadBalancer"}}']);
  context.check('kubectl patch svc webpod', 'service/webpod patched', patched.stdout.trim());
  await checkService(context, 'with an address', 'webpod', LBIP);
  await untilForwarded(context, LBIP, 80);
}

/** Controllers, then agents, then loops: every node has the service at this address. */
async function untilForwarded(context: ScenarioContext, address: string, port: number): Promise<void> {
  for (const node of topology.nodes) {
    const rows = await context.settle(
      () => rowsOf<{ address: string; port: number; type: string }>(context, node.name, 'services'),
      seen => seen.some(row => row.address === address && row.port === port),
    );
    context.check(
      `${node.name}: get services has ${address}:${port}`,
      'LoadBalancer',
      distinct(
        rows.filter(row => row.address === address && row.port === port),
        row => row.type,
      ),
    );
  }
}

const lbIpam: Scenario = {
  name: 'cilium-lbipam',
  article,
  shows:
    'a pool of five: webpod gets 192.168.10.211, one asks for .215, two share it with a key, conflicts and counts stand in the status; nobody outside finds the address',
  topology,
  mode: 'vxlan',
  api: true,
  async run(context) {
    const none = await context.kubectl(['get', 'CiliumLoadBalancerIPPool', '-A']);
    context.check('kubectl get CiliumLoadBalancerIPPool -A', 'No resources found', none.stderr.trim());
    await giveAddress(context);
    const row = await context.kubectl(['get', 'svc', 'webpod']);
    context.check(
      'kubectl get svc webpod',
      `webpod LoadBalancer ${webpod.address} ${LBIP} 80:32203/TCP`,
      rowIn(row.stdout, 'webpod', 5),
    );
    const ip = await context.kubectl(['get', 'svc', 'webpod', '-o', 'jsonpath={.status.loadBalancer.ingress[0].ip}']);
    context.check('LBIP', LBIP, ip.stdout);
    await checkPool(context, 'when webpod has one', 4);
    context.check(
      'conditions of the pool',
      [
        "cilium.io/IPsAvailable Unknown noreason '4'",
        "cilium.io/IPsTotal Unknown noreason '5'",
        "cilium.io/IPsUsed Unknown noreason '1'",
      ],
      await conditionsOf(context, ['ippools', 'cilium-lb-ippool'], type => !isConflict(type)),
    );
    context.check(
      'conditions of webpod',
      ["cilium.io/IPAMRequestSatisfied True satisfied ''"],
      await conditionsOf(context, ['svc', 'webpod'], type => !isConflict(type)),
    );
    await checkRequests(context);

    await context.kubectl(['apply', '-f', '-'], netshootWeb('netshoot-web', 80));
    await checkService(context, 'the next address', 'netshoot-web', '192.168.10.212');
    await annotate(context, 'netshoot-web', { ips: '192.168.10.215' });
    await checkService(context, 'the one that it asks for', 'netshoot-web', '192.168.10.215');
    await context.kubectl(['apply', '-f', '-'], netshootWeb('netshoot-web2', 8080));
    await checkService(context, 'the next one again', 'netshoot-web2', '192.168.10.212');
    const shared = { ips: '192.168.10.215', 'sharing-key': '1234' };
    await annotate(context, 'netshoot-web2', { ips: '192.168.10.215' });
    await checkService(context, 'an address that is taken, without a key', 'netshoot-web2', '<pending>');
    context.check(
      'why it has none',
      [
        "cilium.io/IPAMRequestSatisfied False already_allocated 'The IP '192.168.10.215' is already allocated to another service'",
      ],
      await conditionsOf(context, ['svc', 'netshoot-web2'], type => !isConflict(type)),
    );
    await annotate(context, 'netshoot-web', shared);
    await annotate(context, 'netshoot-web2', shared);
    await checkService(context, 'shared', 'netshoot-web2', '192.168.10.215');
    await checkService(context, 'shared', 'netshoot-web', '192.168.10.215');
    await checkPool(context, 'with two addresses for three services', 3);
    for (const port of [80, 8080]) {
      await untilForwarded(context, '192.168.10.215', port);
      const answers = await ask(context, 'k8s-ctr', `http://192.168.10.215:${port}/`);
      context.check(`k8s-ctr: curl 192.168.10.215:${port}: answers`, 1, answers.length);
    }

    await context.kubectl(['apply', '-f', '-'], OVERLAPPING);
    const { stdout } = await context.kubectlUntil(
      ['get', 'ippools'],
      text => rowIn(text, 'overlapping', 3) !== 'overlapping false',
    );
    context.check('a pool that overlaps', 'overlapping false True', rowIn(stdout, 'overlapping', 3));
    context.check(
      'why',
      [
        "cilium.io/PoolConflict True cidr_overlap 'Pool conflicts since range '192.168.10.214 - 192.168.10.220' overlaps range '192.168.10.211 - 192.168.10.215' from IP Pool 'cilium-lb-ippool''",
      ],
      await conditionsOf(context, ['ippools', 'overlapping'], isConflict),
    );
  },
};

/** From a pod and from a node it answers; outside nobody says who has it. */
async function checkRequests(context: ScenarioContext): Promise<void> {
  const client = podOf(context, 'curl-pod');
  const argv = ['exec', client.name, '--', 'curl', '-s', '--connect-timeout', '1', LBIP];
  const files = await context.capture(
    { client: [client.name, `host ${LBIP}`], ...atPods(webpods, `host ${client.address}`) },
    async () => {
      const { stdout } = await context.kubectl(argv);
      context.check(
        `kubectl exec ${client.name}: RemoteAddr`,
        client.address,
        /^RemoteAddr: ([\d.]+):/m.exec(stdout)?.[1] ?? 'no answer',
      );
    },
  );
  const inside = await readFrames(files.client);
  context.check(`${client.name}: addresses in its packets`, bothWays(client.address, LBIP), pairsOf(inside));
  checkChecksums(context, `what ${client.name} receives and sends`, inside);

  const arp = await context.capture({ wire: ['net:br10', `arp host ${LBIP}`] }, async () => {
    await checkRefused(context, ROUTER, `http://${LBIP}/`, CURL_TIMEOUT);
    const { stdout } = await context.exec(ROUTER, ['arping', '-I', 'eth1', '-c', '1', '-w', '1', LBIP]);
    context.check(
      `router: arping ${LBIP}`,
      'Received 0 response(s)',
      /Received \d+ response\(s\)/.exec(stdout)?.[0] ?? stdout,
    );
  });
  context.checkThat('br10: who asks for it', 'the router', `${arp.wire.packets} requests`, arp.wire.packets > 0);
}

const sourceMatrix: Scenario = {
  name: 'cilium-source-matrix',
  article,
  shows:
    "behind 192.168.10.211 a pod sees another pod's own address, a node's cilium_host, and of a client outside its own address only on the node that was asked",
  topology,
  mode: 'vxlan',
  api: true,
  async run(context) {
    await giveAddress(context);
    const url = `http://${LBIP}/`;
    const client = podOf(context, 'curl-pod');
    const sees = (of: (node: string) => string): string[] =>
      webpods.map(pod => `${pod.hostname} saw ${of(pod.node)}`).sort();

    const fromPod = await ask(context, client.name, url, ROUNDS);
    context.check(`${client.name} asks: answers`, ROUNDS, fromPod.length);
    context.check(
      `${client.name} asks: whom pods see`,
      sees(() => client.address),
      seenBy(fromPod),
    );
    const own = nodeOf(context, 'k8s-ctr').hostAddress;
    context.check(
      'k8s-ctr asks: whom pods see',
      sees(() => own),
      seenBy(await ask(context, 'k8s-ctr', url, ROUNDS)),
    );

    // Nobody announces the address yet, so the router is told which node to ask, as ARP would tell it.
    for (const leader of topology.nodes.filter(({ subnet }) => subnet === 'br10')) {
      await context.exec(ROUTER, ['ip', 'neigh', 'replace', LBIP, 'lladdr', leader.mac, 'dev', 'eth1']);
      let answers: Awaited<ReturnType<typeof ask>> = [];
      const files = await context.capture({ wire: [leader.name, `host ${LBIP}`] }, async () => {
        answers = await ask(context, ROUTER, url, ROUNDS);
      });
      context.check(`outside, by ${leader.name}: answers`, ROUNDS, answers.length);
      context.check(
        `outside, by ${leader.name}: whom pods see`,
        sees(node => (node === leader.name ? OUTSIDE : leader.hostAddress)),
        seenBy(answers),
      );
      const frames = await readFrames(files.wire);
      context.check(`${leader.name}: addresses outside`, bothWays(OUTSIDE, LBIP), pairsOf(frames));
      checkChecksums(
        context,
        `what ${leader.name} answers`,
        frames.filter(frame => frame.ip[0]!.src === LBIP),
      );
    }
  },
};

/** Enough that each of three backends is met: all but once in a thousand times. */
const ROUNDS = 20;

export const balancerScenarios: readonly Scenario[] = [lbIpam, sourceMatrix];
