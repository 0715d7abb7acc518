/** Services in articles 001, 002 and 004: one address for several pods, rewritten by the client's node or the one asked. */

import { type Scenario, type ScenarioContext, SEED } from '../scenario.ts';
import { addressOf, dnsNameOf, type LabService, routerOf, serviceOf } from '../topology.ts';
import { TOPOLOGIES } from '../topology-file.ts';
import { checkChecksums } from './checks.ts';
import { distinct, type Frame, innerOf, outerOf, readFrames } from './frames.ts';
import {
  type Answer,
  ask,
  atPods,
  bothWays,
  CURL_REFUSED,
  checkRefused,
  nodeOf,
  pairsOf,
  podOf,
  rowsOf,
  seenBy,
} from './requests.ts';

const cilium = TOPOLOGIES.cilium!;
const calico = TOPOLOGIES.calico!;
const flannel = TOPOLOGIES.flannel!;

const webpod = serviceOf(cilium, 'default/webpod');
const webpods = cilium.pods.filter(pod => pod.labels.app === 'webpod');

const REQUESTS = 100;
/** Of chi squared with two degrees of freedom: fair dice exceed it once in twenty times. */
const CHI_SQUARED_95 = 5.99;
/** Enough that each of three backends is met: all but once in a thousand times. */
const ROUNDS = 20;

/** The service as `cilium-dbg bpf lb list` prints it: slot 0 is the frontend, the others are backends. */
async function lbList(context: ScenarioContext, node: string, service: LabService): Promise<string[]> {
  const frontends = await rowsOf<{ name: string; type: string; address: string; port: number; protocol: string }>(
    context,
    node,
    'services',
  );
  const backends = await rowsOf<{ service: string; address: string; port: number; protocol: string }>(
    context,
    node,
    'endpoints',
  );
  const frontend = frontends.find(row => row.name === service.name && row.type === 'ClusterIP');
  if (frontend === undefined) return [];
  const at = `${frontend.address}:${frontend.port}/${frontend.protocol.toUpperCase()}`;
  return [
    `${at} (0) 0.0.0.0:0 [ClusterIP]`,
    ...backends
      .filter(row => row.service === service.name)
      .map(({ address, port, protocol }, i) => `${at} (${i + 1}) ${address}:${port}/${protocol.toUpperCase()}`),
  ];
}

/** Spread over backends, as `sort | uniq -c | sort -nr` prints it, and whether fair dice would have done so. */
function checkSpread(context: ScenarioContext, answers: readonly Answer[], hostnames: readonly string[]): void {
  const counts = hostnames.map(name => answers.filter(answer => answer.hostname === name).length);
  const fair = REQUESTS / hostnames.length;
  const chiSquared = counts.reduce((sum, count) => sum + (count - fair) ** 2 / fair, 0);
  const spread = counts.sort((a, b) => b - a).join('/');
  context.checkThat(
    `${REQUESTS} requests over ${hostnames.length} backends, nodes' seed ${SEED}`,
    `all answered, chi squared under ${CHI_SQUARED_95}; the article has 38/35/27`,
    `${answers.length} answered, ${spread}, chi squared ${chiSquared.toFixed(2)}`,
    answers.length === REQUESTS && chiSquared < CHI_SQUARED_95,
  );
}

const clusterIp: Scenario = {
  name: 'cilium-clusterip',
  article: '001',
  shows:
    'one address in front of three webpods: lb list has 4 rows, 100 requests spread as by dice, no pod sees who was rewritten',
  topology: cilium,
  mode: 'vxlan',
  async run(context) {
    const client = podOf(context, 'curl-pod');
    const at = `${webpod.address}:80/TCP`;
    context.check(
      'k8s-ctr: lb list',
      [
        `${at} (0) 0.0.0.0:0 [ClusterIP]`,
        `${at} (1) 172.20.0.131:80/TCP`,
        `${at} (2) 172.20.1.217:80/TCP`,
        `${at} (3) 172.20.2.73:80/TCP`,
      ],
      await lbList(context, 'k8s-ctr', webpod),
    );
    let answers: Answer[] = [];
    const files = await context.capture(
      { client: [client.name, 'ip'], wire: ['k8s-ctr', 'udp port 8472'], ...atPods(webpods, 'ip') },
      async () => {
        answers = await ask(context, client.name, 'http://webpod/', REQUESTS);
      },
    );
    checkSpread(
      context,
      answers,
      webpods.map(pod => pod.hostname!),
    );
    context.check(
      'RemoteAddr',
      client.address,
      distinct(answers, answer => answer.remoteAddress),
    );
    const [inside, wire, ...far] = await Promise.all([
      readFrames(files.client),
      readFrames(files.wire),
      ...webpods.map(pod => readFrames(files[pod.name as keyof typeof files])),
    ]);
    context.check(
      `${client.name}: addresses in its packets`,
      bothWays(client.address, webpod.address),
      pairsOf(inside),
    );
    checkChecksums(context, `what ${client.name} receives and sends`, inside);
    for (const [i, pod] of webpods.entries()) {
      context.check(`${pod.name}: addresses in its packets`, bothWays(client.address, pod.address), pairsOf(far[i]!));
    }
    context.check(
      'k8s-ctr: addresses inside the tunnel',
      webpods
        .filter(pod => pod.node !== 'k8s-ctr')
        .flatMap(pod => bothWays(client.address, pod.address))
        .sort(),
      pairsOf(wire),
    );
    // The node's own processes are clients, too.
    const own = await ask(context, 'k8s-ctr', `http://${webpod.address}/`);
    context.check(
      'k8s-ctr asks itself: RemoteAddr',
      nodeOf(context, 'k8s-ctr').hostAddress,
      distinct(own, answer => answer.remoteAddress),
    );
    await checkRefused(context, client.name, `http://${webpod.address}:81/`, CURL_REFUSED);
  },
};

const nodePort: Scenario = {
  name: 'cilium-nodeport',
  article: '001',
  shows:
    "every node's address and the node port lead to every webpod; one on the node that was asked sees the client, the others that node",
  topology: cilium,
  mode: 'geneve',
  async run(context) {
    const router = routerOf(context.lab.topology);
    const port = webpod.ports[0]!.nodePort!;
    for (const node of cilium.nodes) {
      const address = addressOf(node.address);
      const client = addressOf(router.legs.find(leg => leg.subnet === node.subnet)!.address);
      let answers: Answer[] = [];
      const files = await context.capture({ outside: [router.name, `tcp port ${port}`] }, async () => {
        answers = await ask(context, router.name, `http://${address}:${port}/`, ROUNDS);
      });
      context.check(`${node.name}: requests answered`, ROUNDS, answers.length);
      context.check(
        `${node.name}: RemoteAddr`,
        webpods.map(pod => `${pod.hostname} saw ${pod.node === node.name ? client : node.hostAddress}`).sort(),
        seenBy(answers),
      );
      const frames = await readFrames(files.outside);
      context.check(`${node.name}: addresses outside`, bothWays(client, address), pairsOf(frames));
      // What the router itself sends gets its checksums only below its captures.
      const received = frames.filter(frame => outerOf(frame).src === address);
      context.check(
        `${node.name}: ports that answer`,
        port,
        distinct(received, frame => frame.tcp!.src),
      );
      checkChecksums(context, `what ${node.name} answers`, received);
    }
    await checkRefused(context, router.name, `http://192.168.10.100:${port + 1}/`, CURL_REFUSED);
  },
};

const db = serviceOf(calico, 'default/db');

const dnat: Scenario = {
  name: 'kubeproxy-dnat',
  article: '002',
  shows:
    "pod1 asks the service, pod2 answers pod1, and the answer reaches pod1 from the service's address; netstat finds nothing that listens",
  topology: calico,
  mode: 'ipip',
  async run(context) {
    const [pod1, pod2] = [podOf(context, 'pod1'), podOf(context, 'pod2')];
    let answers: Answer[] = [];
    const files = await context.capture(
      { pod1: ['pod1', 'ip'], pod2: ['pod2', 'ip'], wire: ['k8s-w1', 'ip proto 4'] },
      async () => {
        answers = await ask(context, 'pod1', `http://${db.address}/`);
      },
    );
    context.check('pod1 asks the service', [`pod2 saw ${pod1.address}`], seenBy(answers));
    const [inside, far, wire] = await Promise.all([
      readFrames(files.pod1),
      readFrames(files.pod2),
      readFrames(files.wire),
    ]);
    context.check('pod1: addresses in its packets', bothWays(pod1.address, db.address), pairsOf(inside));
    context.check('pod2: addresses in its packets', bothWays(pod1.address, pod2.address), pairsOf(far));
    context.check('k8s-w1: addresses inside the tunnel', bothWays(pod1.address, pod2.address), pairsOf(wire));
    context.check(
      "pod1's port, at pod1 and at pod2",
      distinct(inside.filter(fromClient(pod1.address)), frame => frame.tcp!.src),
      distinct(far.filter(fromClient(pod1.address)), frame => frame.tcp!.src),
    );
    checkChecksums(context, 'what pod1 receives and sends', inside);
    checkChecksums(context, 'what pod2 receives and sends', far);

    const [header, ...sockets] = (await context.exec('k8s-w1', ['ss', '-tuln'])).stdout.trim().split('\n');
    context.check('k8s-w1: ss -tuln: its first word', 'Netid', header!.split(' ')[0]!);
    context.check('k8s-w1: ss -tuln: sockets that listen', [], sockets);
    const own = await ask(context, 'k8s-w1', `http://${db.address}/`);
    context.check(
      'k8s-w1, where nothing listens, asks the service: who answers',
      'pod2',
      distinct(own, answer => answer.hostname),
    );
    const rejected = await context.capture({ pod1: ['pod1', 'icmp'] }, () =>
      checkRefused(context, 'pod1', `http://${db.address}:81/`, CURL_REFUSED),
    );
    context.check(
      'pod1: ICMP about a port that the service has not',
      'type 3',
      distinct(await readFrames(rejected.pod1), frame => `type ${frame.icmpType}`),
    );
  },
};

function fromClient(address: string): (frame: Frame) => boolean {
  return frame => innerOf(frame).src === address;
}

const dns: Scenario = {
  name: 'flannel-dns',
  article: '004',
  shows: 'names resolve through 10.96.0.10, the cluster address of CoreDNS, from pods of every node',
  topology: flannel,
  mode: 'vxlan',
  async run(context) {
    const kubeDns = serviceOf(flannel, 'kube-system/kube-dns');
    const busybox = serviceOf(flannel, 'default/busybox');
    const server = podOf(context, 'coredns');
    const clients = ['busybox0', 'busybox1', 'busybox2'];

    const files = await context.capture({ client: ['busybox1', 'udp'], server: [server.name, 'udp'] }, async () => {
      const answer = await context.exec('busybox1', [
        'dig',
        `@${kubeDns.address}`,
        '+tries=1',
        '+time=2',
        dnsNameOf(busybox),
      ]);
      const said = [/status: \w+/, /SERVER: [\d.]+#\d+/].map(part => part.exec(answer.stdout)?.[0] ?? 'none');
      context.check('busybox1: dig', ['status: NOERROR', `SERVER: ${kubeDns.address}#53`], said);
    });
    const [inside, far] = await Promise.all([readFrames(files.client), readFrames(files.server)]);
    const pod = podOf(context, 'busybox1');
    context.check('busybox1: addresses in its packets', bothWays(pod.address, kubeDns.address), pairsOf(inside));
    context.check('coredns: addresses in its packets', bothWays(pod.address, server.address), pairsOf(far));
    checkChecksums(context, 'what busybox1 receives and sends', inside);
    checkChecksums(context, 'what coredns receives and sends', far);

    // From the node of CoreDNS, across the tunnel, and as a pod does it: by the search list of its resolv.conf.
    for (const client of clients) {
      const { stdout } = await context.exec(client, ['dig', '+search', '+short', '+tries=1', '+time=2', 'busybox']);
      context.check(`${client}: dig +search +short busybox`, busybox.address, stdout.trim());
    }
    const reverse = await context.exec('busybox2', ['dig', '+short', '+tries=1', '+time=2', '-x', kubeDns.address]);
    context.check(`busybox2: dig -x ${kubeDns.address}`, `${dnsNameOf(kubeDns)}.`, reverse.stdout.trim());
    const unknown = await context.exec('busybox2', ['dig', '+tries=1', '+time=2', `nosuch.default.svc.cluster.local`]);
    context.check('busybox2: dig nosuch', 'status: NXDOMAIN', /status: \w+/.exec(unknown.stdout)?.[0] ?? 'none');

    const answers = await ask(context, 'busybox1', 'http://busybox/');
    context.checkThat(
      'busybox1: curl http://busybox/',
      `one of ${clients.join(', ')}`,
      answers.map(answer => answer.hostname),
      answers.length === 1 && clients.includes(answers[0]!.hostname),
    );
  },
};

export const serviceScenarios: readonly Scenario[] = [clusterIp, nodePort, dnat, dns];
