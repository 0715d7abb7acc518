/** What `host check` tries: pings on the underlay and by the tunnel, next to what the node and the kernel count meanwhile. */
import { createSocket } from 'node:dgram';
import { readFileSync } from 'node:fs';
import { execa } from 'execa';
import { ControlError, callNode } from '../control/client.ts';
import { ipJson, readInterfaces } from '../control/interfaces.ts';
import type { PathMtuState } from '../control/status.ts';
import { readFirewall } from './facts.ts';
import { judge, type Ruleset } from './firewall.ts';
import { IcmpListener } from './icmp-listener.ts';
import type { ConflictFacts, PairFacts, Ping, PortFacts } from './judge-pair.ts';
import { HOOKS, type UplinkKindName } from './request.ts';

/** What a node says of itself, as far as it is of use here. */
interface Status {
  node: string;
  underlay: { kind: string; interface: string | null; device: string; address: string; mtu: number };
  /** One of these: the short form, or a list. */
  tunnel?: Tunnel;
  tunnels?: Tunnel[];
  conflicts: ConflictFacts[];
}
interface Tunnel {
  /** Absent in the short form. */
  name?: string;
  protocol: string;
  port?: number;
  peers: string[];
  mtu: number;
}
interface PortRow extends PortFacts {
  device: string;
  addresses: string[];
}
interface RouteRow {
  to: string;
  kind: string;
  via: string | null;
  /** Of one into a tunnel: its name. */
  device: string | null;
  underlayVia?: string;
}
interface NeighborRow {
  address: string;
  mac: string | null;
}
type Counted = Record<string, number>;

const PINGS = 3;
/** For an answer, s; the datapath may have to ask for a neighbour first. */
const PATIENCE_S = 1;
const UDP_PATIENCE_MS = 400;
const ICMP_BYTES = 28;
const LONG_BYTES = 4000;

export interface Findings {
  ports: PortFacts[];
  conflicts: ConflictFacts[];
  pairs: PairFacts[];
  /** What rose in all that time, the kernel's counters included. */
  counted: Counted;
}

/**
 * @param wanted peers to try; all that the node has where it is empty
 * @param targets by peer, an address behind its tunnel that answers ping; default: the first of the network routed to it
 * @throws ControlError when the node cannot be asked, or not from here
 */
export async function probePairs(socket: string, wanted: string[], targets: Map<string, string>): Promise<Findings> {
  const ask = async <T>(method: string, kind?: string) => (await callNode(socket, method, { kind })) as T;
  const status = await ask<Status>('status');
  const [ports, routes, firewall] = [
    await ask<PortRow[]>('get', 'ports'),
    await ask<RouteRow[]>('get', 'routes'),
    await readFirewall(),
  ];
  await mustBeHere(status, ports);
  const count = async () => ({ ...(await countersOf(socket)), ...kernelCounters() });
  const before = await count();
  const pairs: PairFacts[] = [];
  for (const tunnel of status.tunnels ?? [status.tunnel!]) {
    // A peer that no tunnel has is tried all the same: that says what is wrong.
    const known = wanted.filter(peer => tunnel.name === undefined || tunnel.peers.includes(peer));
    for (const peer of wanted.length > 0 ? known : tunnel.peers) {
      pairs.push(await probePair(socket, { status, tunnel, ports, routes, firewall, peer, target: targets.get(peer) }));
    }
  }
  // Asked last: what the pings have brought to light is in it.
  const { conflicts } = await ask<Status>('status');
  return { ports: await ask<PortRow[]>('get', 'ports'), conflicts, pairs, counted: risen(before, await count()) };
}

/** Pings from another namespace would try another host's network. @throws ControlError */
async function mustBeHere({ node }: Status, ports: PortRow[]): Promise<void> {
  const host = ports.find(({ kind }) => kind === 'host');
  if (host === undefined || (await readInterfaces()).some(({ name }) => name === host.device)) return;
  throw new ControlError(
    `${node} runs in another network namespace, with ${host.device}: run this there (ip netns exec)`,
  );
}

interface Pair {
  status: Status;
  tunnel: Tunnel;
  ports: PortRow[];
  routes: RouteRow[];
  firewall: Ruleset | null;
  peer: string;
  target: string | undefined;
}

async function probePair(socket: string, pair: Pair): Promise<PairFacts> {
  const { status, tunnel, peer, firewall } = pair;
  const { underlay } = status;
  const [address] = underlay.address.split('/');
  const target = targetOf(pair);
  const facts: PairFacts = {
    peer,
    ...(tunnel.name === undefined ? {} : { tunnelName: tunnel.name }),
    node: { address, kind: underlay.kind, underlayMtu: underlay.mtu, tunnelMtu: tunnel.mtu },
    traffic: tunnel.port === undefined ? 'IP protocol 4' : `UDP port ${tunnel.port}`,
    underlay: await ping(peer, {}),
    target,
    counted: {},
    ...(firewall === null ? {} : { firewall: judgeFirewall(status, tunnel, firewall, peer) }),
  };
  if (facts.underlay.received > 0) {
    facts.underlayFull = await ping(peer, { size: underlay.mtu - ICMP_BYTES, whole: true });
  }
  if ('address' in target) await probeTunnel(socket, facts, target, tunnel.port);
  facts.neighbor = await neighborOf(socket, pair);
  facts.pathMtu = await pathMtuOf(socket, pair);
  return facts;
}

/** What the node has been told of the path to the peer, by now. */
async function pathMtuOf(socket: string, { peer, tunnel }: Pair): Promise<PairFacts['pathMtu']> {
  const known = ((await callNode(socket, 'get', { kind: 'pmtu' })) as PathMtuState[]).find(row => row.peer === peer);
  const name = tunnel.name ?? tunnel.protocol;
  const inner = known?.inner.find(text => text.startsWith(`${name} `))?.slice(name.length + 1);
  if (known === undefined || inner === undefined) return undefined;
  return { mtu: known.mtu, inner: Number(inner), from: known.from, expiresSeconds: known.expiresSeconds };
}

async function probeTunnel(
  socket: string,
  facts: PairFacts,
  { address, source }: { address: string; source: string },
  port: number | undefined,
): Promise<void> {
  const most = facts.node.tunnelMtu - ICMP_BYTES;
  const before = await countersOf(socket);
  const listener = new IcmpListener();
  facts.tunnel = await ping(address, { source });
  if (facts.tunnel.received === 0) {
    if (port !== undefined) await sendDatagram(facts.peer, port);
    facts.refusal = listener.errorAbout(facts.peer, port);
    facts.counted = risen(before, await countersOf(socket));
  }
  listener.close();
  if (facts.tunnel.received === 0) return;
  facts.sizes = [];
  for (const size of [0, 1, 56, most >> 1, most - 100, most - 8, most - 1, most]) {
    facts.sizes.push({ size, ping: await ping(address, { source, size, whole: true, count: 1 }) });
  }
  facts.above = await ping(address, { source, size: most + 1, whole: true, count: 1 });
  facts.fragments = [
    await ping(address, { source, size: most + 1, count: 1 }),
    await ping(address, { source, size: LONG_BYTES, count: 1 }),
  ];
  facts.counted = risen(before, await countersOf(socket));
}

/** Which address behind the tunnel to try, and from which: what host init writes has the host port first in its network. */
function targetOf({ ports, routes, tunnel, peer, target }: Pair): PairFacts['target'] {
  const host = ports.find(({ kind }) => kind === 'host');
  if (host === undefined) return { missing: 'the node has no host port to send from (spec.host)' };
  const [source] = host.addresses;
  if (target !== undefined) return { address: target, source };
  const route = routes.find(
    ({ kind, via, to, device }) =>
      kind === 'tunnel' && via === peer && to !== 'default' && device === (tunnel.name ?? tunnel.protocol),
  );
  if (route === undefined)
    return { missing: `no route leads into the tunnel ${tunnel.name ?? ''} to ${peer}`.replace('  ', ' ') };
  if (!route.to.includes('/')) return { address: route.to, source };
  const [network] = route.to.split('/');
  return { address: network.replace(/\d+$/, last => String(Number(last) + 1)), source };
}

function judgeFirewall({ underlay }: Status, tunnel: Tunnel, firewall: Ruleset, peer: string): PairFacts['firewall'] {
  const hooks = HOOKS[underlay.kind as UplinkKindName];
  // A TAP is wherever the user has put it.
  if (hooks === undefined) return { outcome: 'accept' };
  const packet = {
    input: underlay.interface ?? underlay.device,
    protocol: tunnel.port === undefined ? 'ipip' : 'udp',
    port: tunnel.port,
    source: peer,
    destination: underlay.address.split('/')[0],
  } as const;
  return judge(firewall, packet, hooks);
}

/** Who leads to a peer on the underlay, and whether that one has a MAC: as the node knows it, or else the kernel. */
async function neighborOf(socket: string, { routes, peer, status }: Pair): Promise<PairFacts['neighbor']> {
  const known = (await callNode(socket, 'get', { kind: 'neighbors' })) as NeighborRow[];
  const via = routes.find(route => route.kind === 'tunnel' && route.via === peer)?.underlayVia ?? peer;
  const ours = known.find(({ address }) => address === via);
  if (status.underlay.kind !== 'raw' && ours !== undefined) return { address: via, answers: ours.mac !== null };
  const [route] = await ipJson<{ gateway?: string; dev?: string }>('route', 'get', peer).catch(() => []);
  if (route === undefined) return undefined;
  const next = route.gateway ?? peer;
  const rows = await ipJson<{ dst: string; lladdr?: string; state: string[] }>('neigh', 'show', next).catch(() => []);
  const row = rows.find(({ dst }) => dst === next);
  return row === undefined
    ? undefined
    : { address: next, answers: row.lladdr !== undefined && !row.state.includes('FAILED') };
}

/** @param options.whole with DF set */
async function ping(
  address: string,
  options: { source?: string; size?: number; whole?: boolean; count?: number },
): Promise<Ping> {
  const { source, size = 56, whole = false, count = PINGS } = options;
  const args = ['-n', '-c', `${count}`, '-i', '0.2', '-W', `${PATIENCE_S}`, '-s', `${size}`];
  if (whole) args.push('-M', 'do');
  if (source !== undefined) args.push('-I', source);
  const result = await execa('ping', [...args, address], {
    reject: false,
    stdin: 'ignore',
    env: { LC_ALL: 'C' },
    all: true,
  });
  if (result.exitCode === undefined)
    throw new ControlError(`ping: ${result.shortMessage} (apt-get install iputils-ping)`);
  return parsePing(result.all ?? '');
}

/** @param text what iputils' ping printed, both streams */
export function parsePing(text: string): Ping {
  const [, sent = '0', received = '0'] = /(\d+) packets transmitted, (\d+) received/.exec(text) ?? [];
  const rtt = /rtt min\/avg\/max\/mdev = ([\d.]+)\//.exec(text)?.[1];
  const tooLong = /(?:mtu=|mtu = )(\d+)/.exec(text)?.[1];
  const [, from, said] =
    /^From (\S+) .*?(Destination .*|Packet filtered|Time to live exceeded|Source .*|Precedence .*)$/m.exec(text) ?? [];
  const own = /^ping: (?:connect|sendmsg|sendto): (.*)$/m.exec(text)?.[1];
  return {
    sent: Number(sent),
    received: Number(received),
    ...(rtt === undefined ? {} : { rttMs: Number(rtt) }),
    ...(tooLong === undefined ? {} : { tooLongFor: Number(tooLong) }),
    ...(said === undefined ? {} : { error: said, from }),
    ...(said === undefined && own !== undefined ? { error: own } : {}),
  };
}

/** Sends a datagram from an ordinary socket, and gives what it meets time to come back. */
function sendDatagram(address: string, port: number): Promise<void> {
  return new Promise(resolve => {
    const socket = createSocket('udp4');
    const end = () => {
      clearTimeout(late);
      socket.close();
      resolve();
    };
    const late = setTimeout(end, UDP_PATIENCE_MS);
    // Also where there is no route.
    socket.on('error', end);
    socket.send(Buffer.alloc(1), port, address);
  });
}

async function countersOf(socket: string): Promise<Counted> {
  const rows = (await callNode(socket, 'get', { kind: 'counters' })) as { name: string; packets: number }[];
  return Object.fromEntries(rows.map(({ name, packets }) => [name, packets]));
}

/** /proc/net/snmp of this namespace, as "Udp.InCsumErrors". */
function kernelCounters(): Counted {
  return parseSnmp(readFileSync('/proc/net/snmp', 'utf8'));
}

export function parseSnmp(text: string): Counted {
  const counted: Counted = {};
  const lines = text.trim().split('\n');
  for (let i = 0; i + 1 < lines.length; i += 2) {
    const [names, values] = [lines[i].split(' '), lines[i + 1].split(' ')];
    for (let j = 1; j < names.length; j++) counted[`${names[0].slice(0, -1)}.${names[j]}`] = Number(values[j]);
  }
  return counted;
}

function risen(before: Counted, after: Counted): Counted {
  const rows = Object.entries(after).map(([name, packets]) => [name, packets - (before[name] ?? 0)] as const);
  return Object.fromEntries(rows.filter(([, packets]) => packets > 0));
}
