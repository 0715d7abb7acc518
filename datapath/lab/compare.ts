/**
 * The same traffic through every mode of the lab, one mode after the other, and what each one costs: header bytes and MSS
 * read from captured packets, the MTU tried out, round trips, throughput and loss measured; and whether services and the way
 * out of the cluster work.
 */

import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { decodeCapture } from './capture.ts';
import { Lab } from './lab.ts';
import { LabError } from './lab-error.ts';
import type { Mode } from './modes.ts';
import { addressOf, endpointsOf, type LabPod, type LabService, routerWebAddress, type Topology } from './topology.ts';
import { noiseDigest } from './whoami.ts';

export const KERNEL = 'kernel-vxlan';

export interface Comparison {
  /** kernel-vxlan: the kernel's own, as flannel sets it up, in the same run. */
  mode: Mode | typeof KERNEL;
  /** Where the server is, seen from the client. */
  subnet: 'same' | 'other';
  client: string;
  server: string;
  /** Bytes in front of the pods' IP header, the underlay's Ethernet header not counted; from a capture. */
  headerBytes: number | null;
  /** Largest IP packet that reaches the server unfragmented; one more byte does not. */
  mtu: number | null;
  /** Of the SYN and of the SYN-ACK, after whatever the datapath did to them. */
  mss: number | null;
  rttP50Ms: number | null;
  rttP99Ms: number | null;
  tcpBitsPerSecond: number | null;
  tcpRetransmits: number | null;
  udpLossPercent: number | null;
  /** Backends of a service that answered through its cluster address, `3 of 3`. */
  service: string | null;
  /** The address that a web server outside the cluster saw: the node's, for pods are masqueraded. */
  outside: string | null;
  /** Empty where everything worked. */
  failures: string[];
}

export interface CompareOptions {
  name: string;
  topology: Topology;
  modes: readonly Mode[];
  progress: (line: string) => void;
}

/** Of the nodes' random choices: the share of each backend is then the same in every run. */
const SEED = 1;
/** Enough that all three backends get some. */
const SERVICE_REQUESTS = 20;

const PING_COUNT = 200;
const PING_INTERVAL_S = 0.005;
const TCP_SECONDS = 2;
const UDP_SECONDS = 1;
/** Offered load of the loss measurement; datagrams that fit every mode's MTU. */
export const UDP_RATE = '200M';
const UDP_PAYLOAD = 1372;
const DOWNLOAD_BYTES = 10_000_000;
const ICMP_AND_IP_HEADER = 28;

/** Who sends to whom. */
interface Cast {
  client: LabPod;
  /** A pod that answers HTTP, on another node of the client's subnet, and one in another subnet. */
  servers: Partial<Record<Comparison['subnet'], LabPod>>;
  service?: LabService;
  /** A web server outside of the cluster. */
  outside?: string;
}

/** @throws LabError when a topology has nobody to send to */
function castOf(topology: Topology): Cast {
  const { pods, nodes, services, routers } = topology;
  const subnetOf = (pod: LabPod): string => nodes.find(({ name }) => name === pod.node)!.subnet;
  const placed = pods.filter(({ memory }) => memory === undefined);
  const client = placed.find(({ hostname, dns }) => hostname === undefined && !dns) ?? placed[0];
  const far = placed.filter(pod => pod.hostname !== undefined && pod.node !== client?.node);
  if (client === undefined || far.length === 0) {
    throw new LabError(`topology ${topology.name}: expected a pod, and one with a hostname on another node`, {
      usage: true,
    });
  }
  const isNear = (pod: LabPod): boolean => subnetOf(pod) === subnetOf(client);
  const answers = (address: string): boolean => far.concat(client).some(pod => pod.address === address && pod.hostname);
  return {
    client,
    servers: { same: far.find(isNear), other: far.find(pod => !isNear(pod)) },
    service: services.find(service => endpointsOf(topology, service).some(answers)),
    outside: routers[0]?.loops[0] === undefined ? undefined : routerWebAddress(topology),
  };
}

/**
 * Where each mode is measured. Native reaches only its own subnet, crosssubnet differs between the two; the tunnels are the
 * same everywhere and are measured where native is, if anybody is there.
 */
function pathsOf(mode: Mode, { servers }: Cast): Comparison['subnet'][] {
  const there = (['same', 'other'] as const).filter(subnet => servers[subnet] !== undefined);
  if (mode === 'crosssubnet') return there;
  return there.filter(subnet => mode !== 'native' || subnet === 'same').slice(0, 1);
}

/** Never throws for what a mode does wrong: that is in its rows. @throws LabError for a topology with nobody to send to */
export async function compareModes(options: CompareOptions): Promise<Comparison[]> {
  const rows: Comparison[] = [];
  const cast = castOf(options.topology);
  for (const mode of options.modes) {
    const paths = pathsOf(mode, cast);
    if (paths.length === 0) continue;
    const started = performance.now();
    let lab: Lab;
    try {
      lab = await Lab.up({ name: options.name, topology: options.topology, mode, seed: SEED });
    } catch (error) {
      rows.push(...paths.map(subnet => ({ ...emptyRow(mode, subnet, cast), failures: [(error as Error).message] })));
      continue;
    }
    try {
      options.progress(`${mode}: lab up in ${((performance.now() - started) / 1000).toFixed(1)} s`);
      for (const subnet of paths) rows.push(await measurePath(lab, cast, subnet, options.progress));
      await checkOtherSubnet(lab, cast, rows.at(-1)!);
    } finally {
      await lab.down();
    }
  }
  if (options.modes.includes('vxlan')) rows.push(await measureKernel(options, cast));
  return rows;
}

/** The kernel's VXLAN between the same pods: what the vxlan row is to be held against. */
async function measureKernel(options: CompareOptions, cast: Cast): Promise<Comparison> {
  const [subnet] = pathsOf('vxlan', cast);
  let lab: Lab;
  try {
    lab = await Lab.up({ name: options.name, topology: options.topology, mode: 'vxlan', kernel: true });
  } catch (error) {
    return { ...emptyRow(KERNEL, subnet!, cast), failures: [(error as Error).message] };
  }
  try {
    return await measurePath(lab, cast, subnet!, options.progress, KERNEL);
  } finally {
    await lab.down();
  }
}

/** Every step that can run does, also after one has failed. */
async function measurePath(
  lab: Lab,
  cast: Cast,
  subnet: Comparison['subnet'],
  progress: (line: string) => void,
  mode: Comparison['mode'] = lab.mode,
): Promise<Comparison> {
  const row = emptyRow(mode, subnet, cast);
  const pair = { client: cast.client, server: cast.servers[subnet]! };
  const steps: Step[] = [
    ['ping and curl, captured', () => measureHeaders(lab, row, pair)],
    ['MTU', () => measureMtu(lab, row, pair)],
    ['round trips', () => measureRoundTrips(lab, row, pair)],
    ...(mode === KERNEL ? [] : clusterSteps(lab, row, cast)),
    ['iperf3', () => measureThroughput(lab, row, pair)],
  ];
  for (const [name, run] of steps) {
    let said: string;
    try {
      said = await run();
    } catch (error) {
      said = (error as Error).message;
      row.failures.push(`${name}: ${said}`);
    }
    progress(`${mode} to ${row.server}: ${name}: ${said}`);
  }
  return row;
}

type Step = [name: string, run: () => Promise<string>];

/** What a node's services and masquerade do; the kernel's nodes of the comparison have none. */
function clusterSteps(lab: Lab, row: Comparison, { client, servers, service, outside }: Cast): Step[] {
  return [
    ...(service === undefined
      ? []
      : [['service', () => askService(lab, row, client, service, knowsPods(lab) ? undefined : servers.other)] as Step]),
    ...(outside === undefined ? [] : [['outside', () => askOutside(lab, row, client, outside)] as Step]),
  ];
}

interface Pair {
  client: LabPod;
  server: LabPod;
}

async function measureHeaders(lab: Lab, row: Comparison, { client, server }: Pair): Promise<string> {
  const capture = await lab.capture(client.node, { filter: 'ip', snaplen: 256 });
  const { address, hostname, port = 80 } = server;
  const ping = await lab.exec(client.name, ['ping', '-c', '3', '-i', '0.1', '-W', '1', address]);
  const page = await lab.exec(client.name, ['curl', '-s', '-m', '5', `http://${address}:${port}/`]);
  const { path } = await capture.stop();
  if (ping.exitCode !== 0) throw new LabError(`ping got no answer from ${address}`);
  if (!page.stdout.startsWith(`Hostname: ${hostname}\n`)) throw new LabError(`curl got no answer from ${address}`);

  const digest = await lab.exec(client.name, [
    'sh',
    '-c',
    `curl -s -m 20 http://${address}:${port}/bytes/${DOWNLOAD_BYTES} | sha256sum`,
  ]);
  if (!digest.stdout.startsWith(noiseDigest(DOWNLOAD_BYTES))) throw new LabError('a download arrived damaged');

  const packets = await decodeCapture(path, ['ip.len', 'tcp.options.mss_val'], 'icmp.type == 8 || tcp.flags.syn == 1');
  const headers = new Set<number>();
  const segments: number[] = [];
  for (const [lengths, mss] of packets) {
    // The inner packet is the last of those in the frame; with no tunnel it is the only one.
    headers.add(Number(lengths![0]) - Number(lengths!.at(-1)));
    if (mss!.length > 0) segments.push(Number(mss![0]));
  }
  if (headers.size !== 1) throw new LabError(`header sizes in the capture: ${[...headers].join(', ') || 'none'}`);
  if (segments.length === 0) throw new LabError('no SYN in the capture');
  row.headerBytes = [...headers][0]!;
  row.mss = Math.min(...segments);
  return `${row.headerBytes} header bytes, MSS ${row.mss}`;
}

async function measureMtu(lab: Lab, row: Comparison, { client, server }: Pair): Promise<string> {
  if (row.headerBytes === null) throw new LabError('not tried: the header is not known');
  const { address } = server;
  const passes = async (size: number): Promise<boolean> => {
    const payload = `${size - ICMP_AND_IP_HEADER}`;
    const ping = await lab.exec(client.name, ['ping', '-M', 'do', '-c', '1', '-W', '0.5', '-s', payload, address]);
    return ping.exitCode === 0;
  };
  // Where only some paths have a tunnel, the pod's device is already made for the smallest.
  const device = await lab.exec(client.name, ['cat', '/sys/class/net/eth0/mtu']);
  const mtu = Math.min(underlayMtu(lab.topology, client, server) - row.headerBytes, Number(device.stdout));
  const [largest, larger] = await Promise.all([passes(mtu), passes(mtu + 1)]);
  if (!largest) throw new LabError(`a packet of ${mtu} bytes does not pass`);
  if (larger) throw new LabError(`a packet of ${mtu + 1} bytes passes, and should not`);
  row.mtu = mtu;
  return `${mtu} bytes pass, ${mtu + 1} do not`;
}

/** Of the wires that both are on. */
function underlayMtu({ nodes, subnets }: Topology, ...pods: LabPod[]): number {
  const used = pods.map(pod => nodes.find(({ name }) => name === pod.node)!.subnet);
  return Math.min(...subnets.filter(({ name }) => used.includes(name)).map(({ mtu }) => mtu));
}

async function measureRoundTrips(lab: Lab, row: Comparison, { client, server }: Pair): Promise<string> {
  const flags = ['-n', '-c', `${PING_COUNT}`, '-i', `${PING_INTERVAL_S}`, '-W', '1'];
  const ping = await lab.exec(client.name, ['ping', ...flags, server.address]);
  const times = [...ping.stdout.matchAll(/time=([\d.]+) ms/g)].map(match => Number(match[1])).sort((a, b) => a - b);
  if (times.length < PING_COUNT) throw new LabError(`${PING_COUNT - times.length} of ${PING_COUNT} pings lost`);
  row.rttP50Ms = quantile(times, 0.5);
  row.rttP99Ms = quantile(times, 0.99);
  return `p50 ${row.rttP50Ms} ms, p99 ${row.rttP99Ms} ms`;
}

async function measureThroughput(
  lab: Lab,
  row: Comparison,
  { client, server: { address, name } }: Pair,
): Promise<string> {
  const server = lab.spawn(name, ['iperf3', '-s', '--forceflush'], { stdio: ['ignore', 'pipe', 'ignore'] });
  server.on('error', () => {});
  try {
    await Promise.race([once(server.stdout!, 'data'), sleep(3000)]);
    const run = async (flags: string[], seconds: number): Promise<Iperf> => {
      const argv = ['iperf3', '-J', '-c', address, '-t', `${seconds}`, ...flags];
      const result = await lab.exec(client.name, argv, { timeoutMs: (seconds + 10) * 1000 });
      if (result.exitCode !== 0)
        throw new LabError(`iperf3 ${flags.join(' ')}: ${errorOf(result.stdout) || result.stderr}`);
      return JSON.parse(result.stdout) as Iperf;
    };
    const tcp = await run([], TCP_SECONDS);
    row.tcpBitsPerSecond = tcp.end.sum_received.bits_per_second;
    row.tcpRetransmits = tcp.end.sum_sent.retransmits;
    const udp = await run(['-u', '-b', UDP_RATE, '-l', `${UDP_PAYLOAD}`], UDP_SECONDS);
    row.udpLossPercent = udp.end.sum.lost_percent;
    const gigabits = (row.tcpBitsPerSecond / 1e9).toFixed(2);
    return `TCP ${gigabits} Gb/s, ${row.tcpRetransmits} retransmissions; UDP ${row.udpLossPercent.toFixed(2)} % lost`;
  } finally {
    server.kill();
  }
}

/** Requests through the cluster address. Every backend must be met but those that the mode cannot reach. */
async function askService(
  lab: Lab,
  row: Comparison,
  { name, address }: LabPod,
  service: LabService,
  other: LabPod | undefined,
): Promise<string> {
  const backends = endpointsOf(lab.topology, service);
  const far = backends.filter(backend => lab.mode === 'native' && backend === other?.address);
  // All at once: where one of the backends cannot be reached, the time-outs of its share run side by side.
  const command = `seq ${SERVICE_REQUESTS} | xargs -P ${SERVICE_REQUESTS} -I{} curl -s -m 2 http://${service.address}:${service.ports[0]!.port}/?{}`;
  const { stdout } = await lab.exec(name, ['sh', '-c', command]);
  const met = new Set([...stdout.matchAll(/^IP: (\d\S*)$/gm)].map(match => match[1]!));
  const answered = backends.filter(backend => met.has(backend));
  row.service = `${answered.length} of ${backends.length}`;
  const wrong = far.filter(backend => met.has(backend));
  if (wrong.length > 0) throw new LabError(`answers from ${wrong.join(', ')}, behind a router without a route`);
  if (answered.length < backends.length - far.length) throw new LabError(`answers from ${row.service} backends`);
  const clients = new Set([...stdout.matchAll(/^RemoteAddr: (.+):\d+$/gm)].map(match => match[1]!));
  if (clients.size !== 1 || !clients.has(address)) throw new LabError(`the client seen is ${[...clients].join(', ')}`);
  return `${row.service} backends answer ${address}`;
}

async function askOutside(lab: Lab, row: Comparison, client: LabPod, outside: string): Promise<string> {
  const { stdout } = await lab.exec(client.name, ['curl', '-s', '-m', '5', `http://${outside}/`]);
  row.outside = /^RemoteAddr: (.+):\d+$/m.exec(stdout)?.[1] ?? null;
  const node = addressOf(lab.topology.nodes.find(({ name }) => name === client.node)!.address);
  if (row.outside === null) throw new LabError(`no answer from ${outside}`);
  if (row.outside !== node) throw new LabError(`${outside} saw ${row.outside}, expected the node's ${node}`);
  return `${outside} saw ${row.outside}`;
}

/** Native must not reach the pods of the other subnet, unless a router has routes to pods; every other mode must. */
async function checkOtherSubnet(lab: Lab, { client, servers: { other } }: Cast, row: Comparison): Promise<void> {
  if (other === undefined) return;
  const ping = await lab.exec(client.name, ['ping', '-c', '1', '-W', '0.5', other.address]);
  const reached = ping.exitCode === 0;
  if (lab.mode === 'native' && reached && !knowsPods(lab))
    row.failures.push('reaches the other subnet, through a router without a route');
  if (lab.mode !== 'native' && !reached) row.failures.push('does not reach the other subnet');
}

/** Whether routers have routes to pods. */
function knowsPods({ topology }: Lab): boolean {
  return topology.routers.some(({ routes }) => routes.length > 0);
}

interface Iperf {
  end: {
    sum: { lost_percent: number };
    sum_sent: { retransmits: number };
    sum_received: { bits_per_second: number };
  };
}

/** iperf3 -J writes its errors into the document on stdout. */
function errorOf(stdout: string): string {
  try {
    return (JSON.parse(stdout) as { error?: string }).error ?? '';
  } catch {
    return '';
  }
}

function emptyRow(mode: Comparison['mode'], subnet: Comparison['subnet'], { client, servers }: Cast): Comparison {
  return {
    mode,
    subnet,
    client: client.name,
    server: servers[subnet]!.name,
    headerBytes: null,
    mtu: null,
    mss: null,
    rttP50Ms: null,
    rttP99Ms: null,
    tcpBitsPerSecond: null,
    tcpRetransmits: null,
    udpLossPercent: null,
    service: null,
    outside: null,
    failures: [],
  };
}

/** Nearest rank. @param sorted ascending, not empty */
export function quantile(sorted: readonly number[], q: number): number {
  return sorted[Math.max(0, Math.ceil(q * sorted.length) - 1)]!;
}
