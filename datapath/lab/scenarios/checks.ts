/** What scenarios check in common. Everything is read from captured packets or from what a command printed. */

import type { ScenarioContext } from '../scenario.ts';
import { type LabNode, type LabPod, routerOf } from '../topology.ts';
import { distinct, type Frame, innerOf, outerOf, readFrames } from './frames.ts';

/** Two pods, the first of which starts every exchange, and what each one's node writes as VNI. */
export interface Pair {
  client: string;
  server: string;
  vni?: readonly [clientToServer: number, serverToClient: number];
}

interface Ends {
  client: LabPod;
  server: LabPod;
  clientNode: LabNode;
  serverNode: LabNode;
}

const SYN = 0x002;
const SYN_ACK = 0x012;
const ACK = 0x010;
const FIN_ACK = 0x011;
const ECHO_REPLY = 0;
const ECHO_REQUEST = 8;
const ICMP_AND_IP_HEADER = 28;

export function endsOf(context: ScenarioContext, pair: Pair): Ends {
  const { pods, nodes } = context.lab.topology;
  const [client, server] = [pair.client, pair.server].map(name => pods.find(pod => pod.name === name)!);
  const [clientNode, serverNode] = [client!, server!].map(pod => nodes.find(node => node.name === pod.node)!);
  return { client: client!, server: server!, clientNode: clientNode!, serverNode: serverNode! };
}

/** Pings and checks that every request is answered with this TTL. */
export async function checkPing(context: ScenarioContext, host: string, address: string, ttl: number): Promise<void> {
  const { stdout } = await context.exec(host, ['ping', '-c', '2', '-i', '0.2', '-W', '1', address]);
  const answers = [...stdout.matchAll(/bytes from .* ttl=(\d+)/g)].map(match => Number(match[1]));
  context.check(`${host} pings ${address}: answers`, 2, answers.length);
  context.check(
    `${host} pings ${address}: TTL of the answers`,
    ttl,
    distinct(answers, value => value),
  );
}

/** Pings that nothing answers, not even with an error. The ICMP that reaches the pod is captured where the pod is. */
async function checkNoAnswer(context: ScenarioContext, pod: string, address: string): Promise<void> {
  const files = await context.capture({ pod: [pod, 'icmp'] }, async () => {
    const { stdout } = await context.exec(pod, ['ping', '-c', '2', '-w', '1', '-W', '1', address]);
    context.check(`${pod} pings ${address}`, '0 received', /\d+ received/.exec(stdout)?.[0] ?? stdout);
  });
  const received = (await readFrames(files.pod)).filter(frame => outerOf(frame).src !== addressOfPod(context, pod));
  context.check(
    `${pod}: ICMP that comes back`,
    [],
    received.map(frame => `type ${frame.icmpType} from ${outerOf(frame).src}`),
  );
}

/** tshark recomputes every checksum of every header it finds, the pods' own included. @param of  what the frames are */
export function checkChecksums(context: ScenarioContext, of: string, frames: readonly Frame[]): void {
  const wrong = frames.flatMap((frame, i) => frame.badChecksums.map(protocol => `${protocol} in packet ${i + 1}`));
  context.checkThat(
    `checksums of ${of}`,
    'all right, in at least one packet',
    wrong.length === 0 ? `right in ${frames.length} packets` : wrong,
    frames.length > 0 && wrong.length === 0,
  );
}

/** Checks the MSS of both ends of a connection. @param frames  in both directions */
export function checkHandshake(context: ScenarioContext, pair: Pair, frames: readonly Frame[], mss: number): void {
  for (const [name, flags] of [
    ['SYN', SYN],
    ['SYN-ACK', SYN_ACK],
  ] as const) {
    context.check(
      `${title(pair)}: MSS in the ${name}`,
      mss,
      distinct(
        frames.filter(frame => frame.tcp?.flags === flags),
        frame => frame.tcp!.mss ?? 'none',
      ),
    );
  }
}

/** Frame lengths that the article prints for one `curl webpod`. */
export interface HttpLengths {
  syn: number;
  synAck: number;
  ack: number;
  request: number;
  response: number;
  fin: number;
}

export function checkHttpLengths(
  context: ScenarioContext,
  frames: readonly Frame[],
  lengths: HttpLengths,
  clientAddress: string,
): void {
  const fromClient = (frame: Frame): boolean => innerOf(frame).src === clientAddress;
  const kinds: [keyof HttpLengths, string, (frame: Frame) => boolean][] = [
    ['syn', 'SYN', frame => frame.tcp!.flags === SYN],
    ['synAck', 'SYN-ACK', frame => frame.tcp!.flags === SYN_ACK],
    ['ack', 'ACK', frame => frame.tcp!.flags === ACK && frame.tcp!.payload === 0],
    ['request', 'GET', frame => frame.tcp!.payload > 0 && fromClient(frame)],
    ['response', '200 OK', frame => frame.tcp!.payload > 0 && !fromClient(frame)],
    ['fin', 'FIN', frame => frame.tcp!.flags === FIN_ACK],
  ];
  for (const [key, name, matches] of kinds) {
    context.check(
      `frame length of the ${name}`,
      lengths[key],
      distinct(
        frames.filter(frame => frame.tcp !== null && matches(frame)),
        frame => frame.length,
      ),
    );
  }
}

/**
 * The largest packet that passes with DF, and that the next one is refused where it is sent and never leaves the pod.
 * @param tried  further ping sizes that must be refused in the same way
 */
export async function checkMtu(context: ScenarioContext, pair: Pair, mtu: number, tried: number[] = []): Promise<void> {
  const { client, server } = endsOf(context, pair);
  const ping = (size: number, wait: number): string[] => {
    return ['ping', '-M', 'do', '-c', '1', '-W', `${wait}`, '-s', `${size}`, server.address];
  };
  const largest = mtu - ICMP_AND_IP_HEADER;
  const passed = await context.exec(client.name, ping(largest, 1));
  context.check(`ping -M do -s ${largest}`, '1 received', /\d+ received/.exec(passed.stdout)?.[0] ?? passed.stderr);
  for (const size of [largest + 1, ...tried]) {
    const files = await context.capture({ pod: [client.name, 'icmp'] }, async () => {
      const refused = await context.exec(client.name, ping(size, 0.2));
      // The text of EMSGSIZE is the C library's: 'too large' in the article's musl, 'too long' in glibc.
      const said = /message too l(arge|ong)/i.exec(refused.stdout + refused.stderr)?.[0];
      context.checkThat(
        `ping -M do -s ${size}`,
        'refused by the sender: Message too large',
        said ?? refused.stdout,
        said !== undefined && refused.exitCode !== 0,
      );
    });
    context.check(
      `ping -M do -s ${size}: packets that left ${client.name}`,
      [],
      (await readFrames(files.pod)).map(describeIcmp),
    );
  }
}

/**
 * What a router sees of pods: it has no route to them and follows its own default route out of the cluster.
 * @param lookup  an address of the unreachable pod CIDR to look up on the router
 */
export async function checkBlackHole(context: ScenarioContext, pair: Pair, lookup: string): Promise<void> {
  const { client, server, clientNode, serverNode } = endsOf(context, pair);
  const router = routerOf(context.lab.topology);
  const way = [
    `${legOf(context, clientNode)} In ${client.address} > ${server.address}`,
    `${router.exit!.device} Out ${client.address} > ${server.address}`,
  ];
  const files = await context.capture({ router: [router.name, 'icmp'], far: [serverNode.name, 'ip'] }, () =>
    checkNoAnswer(context, client.name, server.address),
  );
  const pings = await describeRouted(context, await readFrames(files.router));
  context.check('router: the way of the ping', way, pings);
  const arrived = await readFrames(files.far);
  context.check(
    `${serverNode.name}: what arrives`,
    [],
    arrived.map(frame => addressesOf(outerOf(frame))),
  );

  const web = await context.capture({ router: [router.name, 'tcp port 80'] }, async () => {
    const url = `http://${server.address}/`;
    const curl = await context.exec(client.name, ['curl', '-s', '--connect-timeout', '1', url]);
    context.check('curl exits with', '28 (time-out)', curl.exitCode === 28 ? '28 (time-out)' : `${curl.exitCode}`);
  });
  context.check(
    'router: the way of the SYN',
    way,
    await describeRouted(context, await readFrames(web.router, `tcp.flags == ${SYN}`)),
  );

  const looked = await context.exec(router.name, ['ip', 'route', 'get', lookup]);
  const via = new RegExp(`^${lookup} via \\S+ dev \\S+`).exec(looked.stdout)?.[0] ?? looked.stdout;
  context.check('router: its route there', `${lookup} via ${router.exit!.gateway} dev ${router.exit!.device}`, via);
}

/** Each different way in order of appearance, as tcpdump on `any` prints it: `eth1 In A > B`. */
export async function describeRouted(
  context: ScenarioContext,
  frames: readonly Frame[],
  describe: (frame: Frame) => string = frame => addressesOf(outerOf(frame)),
): Promise<string[]> {
  const names = await interfaceNames(context);
  const lines = frames.map(frame => `${names.get(frame.ifindex)} ${frame.sent ? 'Out' : 'In'} ${describe(frame)}`);
  return [...new Set(lines)];
}

/** Interfaces of the router by index. */
async function interfaceNames(context: ScenarioContext): Promise<Map<number, string>> {
  const { stdout } = await context.lab.exec(routerOf(context.lab.topology).name, ['ip', '-j', 'link']);
  const links = JSON.parse(stdout) as { ifindex: number; ifname: string }[];
  return new Map(links.map(link => [link.ifindex, link.ifname]));
}

export function title(pair: Pair): string {
  return `${pair.client} > ${pair.server}`;
}

export function addressesOf(header: { src: string; dst: string } | undefined): string {
  return header === undefined ? 'none' : `${header.src} > ${header.dst}`;
}

export function describeIcmp(frame: Frame): string {
  const { src, dst } = innerOf(frame);
  const kind =
    frame.icmpType === ECHO_REQUEST ? 'echo request' : frame.icmpType === ECHO_REPLY ? 'echo reply' : 'other';
  return `${src} > ${dst} ${kind}`;
}

/** The router's device on a node's subnet. */
function legOf(context: ScenarioContext, node: LabNode): string {
  return routerOf(context.lab.topology).legs.find(leg => leg.subnet === node.subnet)!.device;
}

function addressOfPod(context: ScenarioContext, name: string): string {
  return context.lab.topology.pods.find(pod => pod.name === name)!.address;
}
