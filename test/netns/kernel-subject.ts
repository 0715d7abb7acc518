/**
 * The kernel in the place of the datapath: a node of the conformance checks (datapath/conformance/node.ts) that is made of
 * veth pairs, the kernel's VXLAN device and nftables, in a namespace of its own. The same checks send it the same packets.
 *
 *   one namespace:   p1a --- p1b |         | wireb --- wirea
 *                                | routing |
 *                    p2a --- p2b |  vxlan7 |           a: a packet socket; b: the kernel's
 */
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import {
  GATEWAY,
  HOST,
  NODE,
  type NodeOptions,
  PEER,
  PEER_VTEP_MAC,
  POD,
  POD2,
  type Sent,
  type Side,
  type Testbed,
  VNI,
  VTEP_MAC,
} from '../../datapath/conformance/node.ts';
import { inNamespace } from '../../datapath/control/netns.ts';
import { ethernet, ip, udp4 } from '../fixtures/packets.ts';
import { PacketSocket } from './packet-socket.ts';
import type { Rig } from './rig.ts';

/** What a check asks of its node that cannot be had of the kernel within a test. */
export class Unsupported extends Error {}

type KernelSide = Exclude<Side, 'host'>;
const SIDES: readonly KernelSide[] = ['p1', 'p2', 'wire'];
/** MACs of the kernel's ends, and of whoever is behind the other ends: no device has those. */
const NODE_MAC = { p1: '02:00:00:00:01:01', p2: '02:00:00:00:01:02', wire: '02:00:00:00:01:03' };
const FAR_MAC = { p1: '02:00:00:00:02:01', p2: '02:00:00:00:02:02', wire: '02:00:00:00:02:03' };

/** A packet behind all others, by the way through the node. */
const MARKER = '198.18.0.1';
const MARKER_TO = { p1: '198.18.0.2', p2: '198.18.0.2', wire: '10.244.1.250' };
const MARKER_TO_P2 = '10.244.1.251';
const MARKER_TIMEOUT_MS = 3000;
/** A device that has just come up drops what it is to send until the kernel has noticed (linkwatch). */
const RETRY_MS = 20;
/** VXLAN delivers what it has decapsulated in a later round of the softirq than the marker. */
const QUIET_MS = 8;

const TUNNEL_PORT = 8472;

/** Gives the checks kernel nodes, each in a namespace of its own. */
export class KernelTestbed {
  private static count = 0;
  readonly profile = 'linux';
  readonly packets: string[] = [];
  private readonly rig: Rig;
  private readonly made: KernelSubject[] = [];

  constructor(rig: Rig) {
    this.rig = rig;
  }

  /** As the checks take it. */
  get asTestbed(): Testbed {
    return this as unknown as Testbed;
  }

  node(options: NodeOptions = {}): KernelSubject {
    refuseUnsupported(options);
    const subject = new KernelSubject(this.rig.namespaceNow(`s${KernelTestbed.count++}`), options);
    this.made.push(subject);
    return subject;
  }

  close(): void {
    for (const subject of this.made) subject.close();
    this.made.length = 0;
  }
}

class KernelSubject {
  readonly tunnelPort = TUNNEL_PORT;
  /** The kernel does not say why. */
  readonly dropped: readonly string[] = [];
  readonly namespace: string;
  private readonly sockets: Record<KernelSide, PacketSocket>;
  private markers = 0;

  constructor(namespace: string, o: NodeOptions) {
    const usesTunnel = o.tunnel === 'vxlan';
    this.namespace = namespace;
    batch(namespace, [
      ...SIDES.flatMap(side => [
        `link add ${side}a type veth peer name ${side}b address ${NODE_MAC[side]}`,
        `link set ${side}a arp off mtu 9000 up`,
        `link set ${side}b mtu ${side === 'wire' ? (o.mtu ?? 1500) : 9000} up`,
      ]),
      `addr add ${HOST}/32 dev lo`,
      `addr add ${NODE}/24 dev wireb`,
      ...[PEER, GATEWAY].map(address => `neigh add ${address} lladdr ${FAR_MAC.wire} dev wireb nud permanent`),
      `route add default via ${GATEWAY}`,
      ...[
        [POD, 'p1'],
        [POD2, 'p2'],
        [MARKER_TO.wire, 'p1'],
        [MARKER_TO_P2, 'p2'],
      ].flatMap(([address, side]) => [
        `route add ${address}/32 dev ${side}b`,
        `neigh add ${address} lladdr ${FAR_MAC[side as KernelSide]} dev ${side}b nud permanent`,
      ]),
      ...(usesTunnel
        ? [
            `link add vxlan7 address ${VTEP_MAC} type vxlan id ${VNI} local ${NODE} dev wireb dstport ${TUNNEL_PORT} nolearning${o.df === undefined ? '' : ` df ${o.df}`}`,
            'link set vxlan7 up',
            'route add 10.244.2.0/24 via 10.244.2.0 dev vxlan7 onlink',
            `neigh add 10.244.2.0 lladdr ${PEER_VTEP_MAC} dev vxlan7 nud permanent`,
          ]
        : []),
    ]);
    if (usesTunnel) {
      execFileSync('bridge', ['-n', namespace, 'fdb', 'add', PEER_VTEP_MAC, 'dev', 'vxlan7', 'dst', PEER]);
    }
    // What leaves has its checksum, which a veth pair would leave to whoever receives.
    execFileSync('ip', ['netns', 'exec', namespace, 'ethtool', '-K', 'wireb', 'tx', 'off'], { stdio: 'ignore' });
    inNamespace(namespace, () => {
      writeFileSync('/proc/sys/net/ipv4/ip_forward', '1');
      for (const device of ['all', 'default', ...SIDES.map(side => `${side}b`)]) {
        writeFileSync(`/proc/sys/net/ipv4/conf/${device}/rp_filter`, '0');
        writeFileSync(`/proc/sys/net/ipv4/conf/${device}/send_redirects`, '0');
      }
    });
    if (o.nat === true) {
      const to = o.ports === undefined ? '' : ` to :${o.ports}`;
      const ports = to === '' ? 'masquerade' : `ip protocol { tcp, udp } masquerade${to}`;
      execFileSync('ip', ['netns', 'exec', namespace, 'nft', '-f', '-'], {
        input: `table ip check {
          chain raw { type filter hook prerouting priority raw; ip saddr ${MARKER} notrack; }
          chain leaving { type nat hook postrouting priority srcnat;
            ip saddr 10.244.0.0/16 ip daddr != { 10.244.0.0/16, 224.0.0.0/4 } ${ports}
          }
          # Nobody is behind the node's own ports; what the node would say is not what a check asks about.
          chain answers { type filter hook output priority raw; ip protocol tcp drop; icmp type destination-unreachable icmp code port-unreachable drop; }
        }`,
        stdio: ['pipe', 'ignore', 'inherit'],
      });
    }
    const open = (side: KernelSide) => inNamespace(namespace, () => new PacketSocket(`${side}a`, true));
    this.sockets = { p1: open('p1'), p2: open('p2'), wire: open('wire') };
    this.warmUp('p1', MARKER_TO.p1, 'wire');
    this.warmUp('wire', MARKER_TO.wire, 'p1');
    this.warmUp('wire', MARKER_TO_P2, 'p2');
  }

  exchange(side: Side, bytes: Uint8Array): Sent[] {
    if (side === 'host') throw new Unsupported('the host is the kernel itself');
    return this.sendFrame(side, ethernet(bytes, { src: FAR_MAC[side], dst: NODE_MAC[side] }));
  }

  exchangeFrame(frame: Uint8Array): Sent[] {
    return this.sendFrame('wire', frame);
  }

  wait(): Sent[] {
    throw new Unsupported('its time is real');
  }

  event(): number {
    throw new Unsupported('it counts otherwise');
  }

  close(): void {
    for (const side of SIDES) this.sockets[side].close();
    execFileSync('ip', ['netns', 'del', this.namespace]);
  }

  private sendFrame(side: KernelSide, frame: Uint8Array): Sent[] {
    for (const one of SIDES) while (this.sockets[one].receive() !== null); // what nobody asked for
    this.send(side, frame);
    const id = (++this.markers & 0x7fff) + 1;
    const marker = udp4({ src: MARKER, dst: MARKER_TO[side], id });
    this.send(side, ethernet(marker, { src: FAR_MAC[side], dst: NODE_MAC[side] }));
    const sent: Sent[] = [];
    let until = performance.now() + MARKER_TIMEOUT_MS;
    let marked = false;
    while (performance.now() < until) {
      for (const from of SIDES) {
        const received = this.sockets[from].receive();
        if (received === null || received.length < 34 || received[12] !== 8 || received[13] !== 0) continue;
        const bytes = received.slice(14);
        const view = new DataView(bytes.buffer);
        if (view.getInt32(12) === ip(MARKER)) marked ||= view.getUint16(4) === id;
        else sent.push({ side: from, bytes });
        if (marked) until = performance.now() + (side === 'wire' ? QUIET_MS : 1);
      }
    }
    if (!marked) throw new Error('the kernel has lost a marker');
    return sent;
  }

  /** Until a packet gets through this way. */
  private warmUp(from: KernelSide, dst: string, to: KernelSide): void {
    const marker = ethernet(udp4({ src: MARKER, dst }), { src: FAR_MAC[from], dst: NODE_MAC[from] });
    const deadline = performance.now() + MARKER_TIMEOUT_MS;
    while (performance.now() < deadline) {
      this.send(from, marker);
      for (const retry = performance.now() + RETRY_MS; performance.now() < retry; ) {
        if (this.sockets[to].receive() !== null) return;
      }
    }
    throw new Error(`nothing gets from ${from} to ${to}`);
  }

  private send(side: KernelSide, frame: Uint8Array): void {
    const error = this.sockets[side].send(frame);
    if (error !== 0) throw new Error(`sending ${frame.length} bytes to ${side}: errno ${error}`);
  }
}

/** @throws Unsupported if the kernel cannot be such a node */
export function refuseUnsupported(o: NodeOptions): void {
  if (o.tunnel !== undefined && o.tunnel !== 'vxlan') throw new Unsupported('this kernel has no such device');
  if (o.tunnel === undefined && o.nat !== true) throw new Unsupported('neither VXLAN nor NAT');
  if (o.flows !== undefined) throw new Unsupported("nf_conntrack_max is the whole machine's");
  if (o.slots !== undefined) throw new Unsupported('a flood: too slow one packet at a time');
  if (o.spec !== undefined || o.neighbors === false) throw new Unsupported('no counterpart');
}

function batch(namespace: string, lines: string[]): void {
  execFileSync('ip', ['-n', namespace, '-batch', '-'], { input: `${lines.join('\n')}\n` });
}
