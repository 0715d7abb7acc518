/**
 * The kernel's side: a namespace that forwards between two veth pairs, with the rules that correspond to the datapath's
 * program, and at the other ends of the pairs two packet sockets.
 *
 *   namespace "ends": in0 --- in1 : namespace "kernel" : out1 --- out0 : namespace "ends"
 */
import { execFileSync } from 'node:child_process';
import { inNamespace } from '../../../datapath/control/netns.ts';
import { ethernet, ip, udp4 } from '../../fixtures/packets.ts';
import { PacketSocket } from '../packet-socket.ts';
import type { Rig } from '../rig.ts';
import {
  CLIENTS,
  GATEWAY,
  INSIDE_ADDRESS,
  INSIDE_BACKEND,
  type Node,
  OUT_MTU,
  OUTSIDE_ADDRESS,
  SERVICES,
  type Sent,
  type Side,
  TIMEOUT_SECONDS,
} from './network.ts';

/** MACs of in1 and out1, and of whoever is behind in0 and out0: not those devices, so that no kernel answers there. */
const NODE_MAC = { in: '02:00:00:00:01:01', out: '02:00:00:00:01:02' };
const FAR_MAC = { in: '02:00:00:00:02:01', out: '02:00:00:00:02:02' };

/** Markers: a packet that no rule touches and that leaves by the other side after all that was sent before it. */
const MARKER = '198.18.0.1';
const MARKER_TO = { in: '198.18.0.2', out: '10.1.0.250' };
const MARKER_TIMEOUT_MS = 2000;

const SYSCTLS = {
  'net/ipv4/ip_forward': 1,
  'net/ipv4/conf/all/rp_filter': 0,
  'net/ipv4/conf/default/rp_filter': 0,
  'net/ipv4/conf/all/send_redirects': 0,
  'net/ipv4/conf/default/send_redirects': 0,
  'net/ipv4/icmp_ratemask': 0,
  'net/ipv4/conf/all/log_martians': 0,
};

const TIMEOUTS = [
  ...['syn_sent', 'syn_recv', 'established', 'fin_wait', 'close_wait', 'last_ack', 'time_wait', 'close'].map(
    state => `tcp_timeout_${state}`,
  ),
  'tcp_timeout_max_retrans',
  'tcp_timeout_unacknowledged',
  'udp_timeout',
  'udp_timeout_stream',
  'icmp_timeout',
  'generic_timeout',
];

const numeric = (address: string) => `0x${(ip(address) >>> 0).toString(16)}`;

function ruleset(dropInvalid: boolean): string {
  const vips = SERVICES.map(service => service.vip).join(', ');
  const dnat = SERVICES.flatMap(({ vip, backend, ports }) =>
    ports.map(([protocol, port, to]) => {
      const name = protocol === 6 ? 'tcp' : 'udp';
      // What comes from outside is masqueraded, as is what comes back to where it came from: kube-proxy's marks.
      return `ip daddr ${vip} ${name} dport ${port} ip saddr != ${backend} iifname in1 dnat to ${backend}:${to}
      ip daddr ${vip} ${name} dport ${port} meta mark set 0x4000 dnat to ${backend}:${to}`;
    }),
  );
  return `table ip referee {
    chain raw { type filter hook prerouting priority raw; ip saddr ${MARKER} notrack; }
    chain arriving { type nat hook prerouting priority dstnat;
      ${dnat.join('\n      ')}
    }
    chain forward { type filter hook forward priority filter;
      ${dropInvalid ? 'ct state invalid drop' : ''}
      ip daddr { ${vips} } reject with icmp port-unreachable
    }
    chain leaving { type nat hook postrouting priority srcnat;
      meta mark 0x4000 masquerade
      ip saddr 10.1.0.0/16 ip daddr != { 10.1.0.0/16, 10.2.0.0/16 } masquerade
    }
    # The node has no processes here: their refusals would be the only thing that they say.
    chain answers { type filter hook output priority raw;
      ip protocol tcp drop
      # About packets for the node itself: the quoted destination.
      icmp type destination-unreachable @th,192,32 { ${numeric(OUTSIDE_ADDRESS)}, ${numeric(INSIDE_ADDRESS)} } drop
    }
  }`;
}

export interface KernelFlow {
  protocol: number;
  state: string;
  /** "src:sport dst:dport"; for ICMP "src dst id type"; without ports "src dst". */
  original: string;
  reply: string;
  unreplied: boolean;
  assured: boolean;
}

export class KernelNode implements Node {
  private readonly rig: Rig;
  private readonly sockets: Record<Side, PacketSocket>;
  private readonly namespace: string;
  private markers = 0;

  private constructor(rig: Rig, name: string) {
    this.rig = rig;
    this.namespace = `kernel${name}`;
    const open = (device: string) => inNamespace(rig.full(`ends${name}`), () => new PacketSocket(device, true));
    this.sockets = { in: open('in0'), out: open('out0') };
    // On one processor the kernel handles packets strictly in the order in which they are sent.
    execFileSync('taskset', ['-cp', '0', `${process.pid}`], { stdio: 'ignore' });
  }

  /** @param dropInvalid as kube-proxy's KUBE-FORWARD chain; without it the kernel lets them out as they came */
  static async make(rig: Rig, name: string, dropInvalid: boolean): Promise<KernelNode> {
    const ends = `ends${name}`;
    const kernel = `kernel${name}`;
    await rig.namespace(ends, kernel);
    await rig.ip(ends, [
      `link add in0 type veth peer name in1 address ${NODE_MAC.in} netns ${rig.full(kernel)}`,
      `link add out0 type veth peer name out1 address ${NODE_MAC.out} netns ${rig.full(kernel)}`,
      ...['in0', 'out0'].map(device => `link set ${device} arp off mtu 9000 up`),
    ]);
    const inside = [...CLIENTS, INSIDE_BACKEND, MARKER_TO.out];
    await rig.ip(
      kernel,
      [
        `link set in1 mtu 9000 up`,
        `link set out1 mtu 9000 up`,
        `addr add ${INSIDE_ADDRESS}/24 dev in1`,
        `addr add ${OUTSIDE_ADDRESS}/24 dev out1`,
        ...inside.map(address => `neigh add ${address} lladdr ${FAR_MAC.in} dev in1 nud permanent`),
        `neigh add ${GATEWAY} lladdr ${FAR_MAC.out} dev out1 nud permanent`,
        `route add default via ${GATEWAY} mtu lock ${OUT_MTU}`,
      ],
      SYSCTLS,
    );
    await rig.run(kernel, 'nft', ruleset(dropInvalid));
    const timeouts = TIMEOUTS.map(name => `net.netfilter.nf_conntrack_${name}=${TIMEOUT_SECONDS}`);
    await rig.run(kernel, 'sysctl', '-q', '-w', ...timeouts);
    return new KernelNode(rig, name);
  }

  exchange(side: Side, bytes: Uint8Array): Sent[] {
    this.send(side, bytes);
    const id = ++this.markers & 0xffff;
    this.send(side, udp4({ src: MARKER, dst: MARKER_TO[side], id }));
    const other = side === 'in' ? 'out' : 'in';
    const outputs: Sent[] = [];
    const deadline = performance.now() + MARKER_TIMEOUT_MS;
    for (;;) {
      const frame = this.sockets[other].receive();
      if (frame === null) {
        if (performance.now() > deadline) throw new Error('the kernel has lost a marker');
        continue;
      }
      if (!isIpv4(frame)) continue;
      const packet = frame.slice(14);
      const view = new DataView(packet.buffer);
      if (view.getInt32(12) === MARKER_ADDRESS && view.getUint16(4) === id) break;
      outputs.push({ side: other, bytes: packet });
    }
    for (let frame = this.sockets[side].receive(); frame !== null; frame = this.sockets[side].receive()) {
      if (isIpv4(frame)) outputs.push({ side, bytes: frame.slice(14) });
    }
    return outputs;
  }

  /** The flow table. */
  async flows(): Promise<KernelFlow[]> {
    const text = await this.rig.run(this.namespace, 'cat', '/proc/net/nf_conntrack');
    return text.split('\n').filter(Boolean).map(parseFlow);
  }

  close(): void {
    this.sockets.in.close();
    this.sockets.out.close();
    execFileSync('taskset', ['-p', 'ffffffff', `${process.pid}`], { stdio: 'ignore' });
  }

  private send(side: Side, bytes: Uint8Array): void {
    const error = this.sockets[side].send(ethernet(bytes, { src: FAR_MAC[side], dst: NODE_MAC[side] }));
    if (error !== 0) throw new Error(`sending ${bytes.length} bytes ${side}: errno ${error}`);
  }
}

const MARKER_ADDRESS = ip(MARKER);

function isIpv4(frame: Uint8Array): boolean {
  return frame.length >= 34 && frame[12] === 8 && frame[13] === 0;
}

function parseFlow(line: string): KernelFlow {
  const [, , , protocol, , maybeState] = line.split(/\s+/);
  const tuples = [...line.matchAll(/src=(\S+) dst=(\S+) (?:sport=(\d+) dport=(\d+)|type=(\d+) code=\d+ id=(\d+))?/g)];
  const [original, reply] = tuples.map(([, src, dst, sport, dport, type, id]) => {
    if (type !== undefined) return `${src} ${dst} ${id} ${type}`;
    return sport === undefined ? `${src} ${dst}` : `${src}:${sport} ${dst}:${dport}`;
  });
  return {
    protocol: Number(protocol),
    state: maybeState.includes('=') ? '' : maybeState,
    original,
    reply,
    unreplied: line.includes('[UNREPLIED]'),
    assured: line.includes('[ASSURED]'),
  };
}
