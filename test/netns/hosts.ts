/**
 * Two hosts for the tests of uplinks: each a namespace with one NIC (a veth) and a kernel address on it, as a machine in a
 * data centre has, and a node with one pod beside that.
 *
 *     pod-a   host-a                 wire                 host-b   pod-b
 *      eth0 -- node -- eth0 --- bridge or router --- eth0 -- node -- eth0
 *   10.244.1.10   192.168.10.1                   192.168.10.2   10.244.2.10      with a bridge between
 *                 192.168.10.1  .254       .254  192.168.20.2                    with a router, which knows no pod
 *
 * What the host itself does must not notice any of it: `hold` keeps a TCP session between the kernels' addresses, and
 * `snapshot` is the kernel's state as text, to compare.
 */
import { strict as assert } from 'node:assert';
import { createHash } from 'node:crypto';
import { pattern } from '../fixtures/packets.ts';
import { type Rig, type Running, type RunningNode, until } from './rig.ts';

export type Side = 'a' | 'b';
export type Protocol = 'none' | 'ipip' | 'vxlan' | 'geneve';

export const OVERHEADS: Record<Protocol, number> = { none: 0, ipip: 20, vxlan: 50, geneve: 50 };
export const OTHER: Record<Side, Side> = { a: 'b', b: 'a' };
export const PODS: Record<Side, string> = { a: '10.244.1.10', b: '10.244.2.10' };
export const POD_NETWORKS: Record<Side, string> = { a: '10.244.1.0/24', b: '10.244.2.0/24' };
/** At the host port. */
export const HOST_PORTS: Record<Side, string> = { a: '10.244.1.1', b: '10.244.2.1' };

const SESSION_PORT = 2222;
const UDP_PORT = 5353;
const HTTP_PORT = 8080;

export class Hosts {
  /** The kernels' addresses, as ADDRESS. */
  readonly addresses: Record<Side, string>;
  readonly gateways: Record<Side, string> | null;
  private readonly rig: Rig;

  private constructor(rig: Rig, between: 'bridge' | 'router') {
    this.rig = rig;
    this.addresses = { a: '192.168.10.1', b: between === 'bridge' ? '192.168.10.2' : '192.168.20.2' };
    this.gateways = between === 'bridge' ? null : { a: '192.168.10.254', b: '192.168.20.254' };
  }

  /** Makes the namespaces host-a, host-b, pod-a, pod-b and wire, with nothing of ours in them. */
  static async make(rig: Rig, options: { between: 'bridge' | 'router'; mtu?: number }): Promise<Hosts> {
    const { between, mtu = 1500 } = options;
    const hosts = new Hosts(rig, between);
    await rig.namespace('host-a', 'host-b', 'pod-a', 'pod-b');
    if (between === 'bridge') await rig.bridge('wire');
    else await rig.namespace('wire');
    for (const side of ['a', 'b'] as const) {
      const gateway = hosts.gateways?.[side];
      await rig.ip('wire', [
        `link add to-${side} mtu ${mtu} type veth peer name eth0 mtu ${mtu} netns ${rig.full(`host-${side}`)}`,
        gateway === undefined ? `link set to-${side} master br0 up` : `addr add ${gateway}/24 dev to-${side}`,
        `link set to-${side} up`,
      ]);
      await rig.ip(`host-${side}`, [
        `addr add ${hosts.addresses[side]}/24 dev eth0`,
        'link set eth0 up',
        ...(gateway === undefined ? [] : [`route add default via ${gateway}`]),
      ]);
    }
    if (between === 'router') await rig.ip('wire', ['link set lo up'], { 'net/ipv4/ip_forward': 1 });
    await until('the hosts to reach each other', async () => {
      return (await rig.exec('host-a', 'ping', '-n', '-c1', '-W1', hosts.addresses.b)).code === 0;
    });
    return hosts;
  }

  /**
   * The configuration of a node with one pod that reaches the other side's by a tunnel.
   * @param uplink as in the configuration
   * @param peer underlay address of the other node
   */
  spec(side: Side, uplink: object, protocol: Protocol, peer: string, more: object = {}): object {
    return {
      uplink,
      host: { device: 'tp0', address: `${HOST_PORTS[side]}/32` },
      pods: [{ name: 'default/p', netns: this.rig.full(`pod-${side}`), device: 'eth0', address: PODS[side] }],
      tunnel: protocol === 'none' ? { protocol } : { protocol, peers: [{ address: peer }] },
      routes: [{ to: POD_NETWORKS[OTHER[side]], via: peer, encap: protocol !== 'none' }],
      ...more,
    };
  }

  /** What a node may not change, as text: links, addresses, routes and rules of every table, nft, sysctls. */
  async snapshot(side: Side): Promise<string> {
    const commands = [
      'ip link',
      'ip -4 address',
      'ip rule',
      'ip route show table all',
      'nft list ruleset',
      "sysctl -a -r '^net\\.' 2>/dev/null | grep -v nf_conntrack_count",
    ];
    const script = commands.map(command => `echo '# ${command.replaceAll("'", '')}'; ${command}`).join('; ');
    return this.rig.run(`host-${side}`, 'sh', '-c', script);
  }

  /** Opens a TCP session from one host's kernel to the other's, and keeps it busy. */
  async hold(from: Side): Promise<Session> {
    const to = OTHER[from];
    const server = this.rig.program(`host-${to}`, 'session', 'serve', `${SESSION_PORT}`);
    await server.until('listening\n');
    const client = this.rig.program(`host-${from}`, 'session', 'hold', this.addresses[to], `${SESSION_PORT}`);
    await client.until('connected\n');
    return new Session(server, client);
  }

  /**
   * A node of kernel parts on one side, in place of ours: a VXLAN device that learns nothing and a route to the other
   * side's pods, and the pod behind a veth.
   * @param peer underlay address of our node on the other side, and the MAC of its VTEP
   */
  async kernelVxlan(side: Side, peer: { address: string; mac: string }): Promise<void> {
    const { rig } = this;
    const [other, host] = [OTHER[side], `host-${side}`];
    const mtu = 1500 - OVERHEADS.vxlan;
    await rig.ip(
      host,
      [
        `link add veth0 mtu ${mtu} type veth peer name eth0 mtu ${mtu} netns ${rig.full(`pod-${side}`)}`,
        `addr add ${HOST_PORTS[side]}/32 dev veth0`,
        'link set veth0 up',
        `route add ${PODS[side]}/32 dev veth0`,
        `link add flannel.1 address ${vtepMac(this.addresses[side])} type vxlan id 1 local ${this.addresses[side]} dev eth0 dstport 8472 nolearning`,
        `link set flannel.1 mtu ${mtu} up`,
        `addr add ${HOST_PORTS[side]}/32 dev flannel.1`,
        `route add ${POD_NETWORKS[other]} via ${HOST_PORTS[other]} dev flannel.1 onlink`,
        `neigh add ${HOST_PORTS[other]} lladdr ${peer.mac} dev flannel.1 nud permanent`,
      ],
      { 'net/ipv4/ip_forward': 1 },
    );
    await rig.run(host, 'bridge', 'fdb', 'add', peer.mac, 'dev', 'flannel.1', 'dst', peer.address);
    await rig.ip(`pod-${side}`, [
      `addr add ${PODS[side]}/32 dev eth0`,
      'link set eth0 up',
      `route add ${HOST_PORTS[side]}/32 dev eth0`,
      `route add default via ${HOST_PORTS[side]}`,
    ]);
  }
}

/** The VTEP MAC that a node has where its configuration names none. */
export function vtepMac(underlay: string): string {
  const bytes = underlay.split('.').map(byte => Number(byte).toString(16).padStart(2, '0'));
  return ['02', '42', ...bytes].join(':');
}

/** A TCP session that is open. */
export class Session {
  private readonly server: Running;
  private readonly client: Running;

  constructor(server: Running, client: Running) {
    this.server = server;
    this.client = client;
  }

  /** Ends it. @throws unless every line has been answered, in order, and the connection was never closed */
  async close(): Promise<{ answered: number; maxGapMs: number }> {
    await this.client.stop();
    const result = JSON.parse(this.client.output.trim().split('\n').at(-1)!);
    await this.server.stop();
    assert.equal(result.error, null);
    assert.ok(result.sent > 0);
    assert.equal(result.answered, result.sent);
    return result;
  }
}

// ---- the traffic matrix ---------------------------------------------------------------------------------------------

/** Who talks to whom, by names of namespaces, and the longest packet between them. */
export interface Path {
  from: string;
  to: string;
  address: string;
  mtu: number;
}

/** From the pod of one host to the other's, through a tunnel over an underlay of `mtu`. */
export function pathFrom(side: Side, protocol: Protocol, mtu = 1500): Path {
  const to = OTHER[side];
  return { from: `pod-${side}`, to: `pod-${to}`, address: PODS[to], mtu: mtu - OVERHEADS[protocol] };
}

export async function stopNodes(...nodes: RunningNode[]): Promise<void> {
  for (const node of nodes) assert.equal(await node.stop(), 0, node.output);
}

/** A ping of every size up to the MTU with DF; the next one refused; and those named, in fragments. */
export async function pingEverySize(rig: Rig, path: Path): Promise<void> {
  const most = path.mtu - 28;
  await until(`${path.address} to answer`, async () => {
    return (await rig.exec(path.from, 'ping', '-n', '-c1', '-W1', path.address)).code === 0;
  });
  assert.equal(
    await rig.runProgram(path.from, 'traffic', 'ping', path.address, `${most}`),
    `${most + 1} sizes answered`,
  );
  const tooBig = await rig.exec(path.from, 'ping', '-n', '-c1', '-W1', '-M', 'do', '-s', `${most + 1}`, path.address);
  assert.notEqual(tooBig.code, 0);
  assert.match(tooBig.stdout + tooBig.stderr, new RegExp(`[Mm]essage too long, mtu=${path.mtu}|mtu = ${path.mtu}`));
  for (const size of [most + 1, 4000, 20_000]) {
    await rig.run(path.from, 'ping', '-n', '-c3', '-i0.05', '-W2', '-s', `${size}`, path.address);
  }
}

/** A datagram of every size up to somewhat over the MTU, each compared with its echo. */
export async function exchangeUdp(rig: Rig, path: Path): Promise<void> {
  const server = rig.program(path.to, 'traffic', 'udp-serve', `${UDP_PORT}`);
  await server.until('listening\n');
  const most = path.mtu + 100;
  const said = await rig.runProgram(path.from, 'traffic', 'udp', path.address, `${UDP_PORT}`, `${most}`);
  assert.equal(said, `${most + 1} datagrams answered`);
  await server.stop();
}

const PIECE = 1 << 20;

/** `bytes` by HTTP, hashed where they arrive. */
export async function fetchFile(rig: Rig, path: Path, bytes = 100_000_000): Promise<void> {
  const server = rig.program(path.to, 'session', 'file', `${HTTP_PORT}`, `${bytes}`);
  await server.until('listening\n');
  const url = `http://${path.address}:${HTTP_PORT}/`;
  const sum = await rig.run(path.from, 'bash', '-c', `set -o pipefail; curl -sS -m 60 ${url} | sha256sum`);
  const hash = createHash('sha256');
  const piece = pattern(PIECE);
  for (let at = 0; at < bytes; at += PIECE) hash.update(piece.subarray(0, Math.min(PIECE, bytes - at)));
  assert.equal(sum.split(' ')[0], hash.digest('hex'));
  await server.stop();
}
