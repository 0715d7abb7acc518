/** Our side: the whole datapath over memory, with the program that corresponds to the kernel's rules. */
import { ManualClock } from '../../../datapath/clock.ts';
import { Counters } from '../../../datapath/counters.ts';
import type { FlowRow } from '../../../datapath/flow/flows.ts';
import { STATES } from '../../../datapath/flow/timeouts.ts';
import type { Datapath } from '../../../datapath/forward.ts';
import { MemoryDevice } from '../../../datapath/io/memory.ts';
import { Pool } from '../../../datapath/packet/pool.ts';
import { PORT_POD, PORT_UPLINK } from '../../../datapath/port.ts';
import { createDatapath } from '../../../datapath/program/install.ts';
import { type HopProgram, hopProgram } from '../../../datapath/program/program.ts';
import { Random } from '../../../datapath/random.ts';
import * as hops from '../../../datapath/route/nexthop.ts';
import { VERDICT_NAMES } from '../../../datapath/verdict.ts';
import { hasPorts } from '../../../datapath/wire/ipv4.ts';
import { arpFrame, dotted, ethernet, ip } from '../../fixtures/packets.ts';
import type { KernelFlow } from './kernel.ts';
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

const MAC = { hi: 0x0200, lo: 0x00000001, text: '02:00:00:00:00:01' };
const GATEWAY_MAC = '02:00:00:00:00:02';

/** Between two packets: longer than the time between two ICMP errors to one destination. */
const STEP_MS = 1100;

export class OurNode implements Node {
  readonly counters = new Counters();
  readonly datapath: Datapath;
  private readonly clock = new ManualClock();
  private readonly devices: Record<Side, MemoryDevice>;

  constructor(seed: number) {
    const pool = new Pool(2048);
    const { clock, counters } = this;
    this.devices = {
      in: new MemoryDevice(pool, { name: 'in', mtu: 9000 }),
      out: new MemoryDevice(pool, { name: 'out', layer: 2, mtu: OUT_MTU }),
    };
    const hop = ({ kind = hops.HOP_REFUSE, ...fields }: Partial<HopProgram>) =>
      hopProgram(kind, { transit: 1, ...fields });
    const inside = [...CLIENTS, INSIDE_BACKEND].map(ip);
    const host = (address: number, hop: number) => ({ prefix: address, length: 32, hop });
    const cluster = { address: ip('10.1.0.0'), length: 16 };
    const peers = { address: ip('10.2.0.0'), length: 16 };
    this.datapath = createDatapath(
      {
        profile: 'linux',
        underlay: { address: ip(OUTSIDE_ADDRESS), prefixLength: 24, macHi: MAC.hi, macLo: MAC.lo, mtu: OUT_MTU },
        hostAddress: ip(INSIDE_ADDRESS),
        ports: [
          { kind: PORT_POD, name: 'in', addresses: inside, identity: 0, place: '' },
          { kind: PORT_UPLINK, name: 'out', addresses: [ip(OUTSIDE_ADDRESS)], identity: 2, place: '' },
        ],
        nextHops: [
          hop({}),
          hop({ kind: hops.HOP_POD, port: 'pod in', mtu: 9000 }),
          hop({ kind: hops.HOP_HOST }),
          hop({ kind: hops.HOP_GATEWAY, port: 'uplink out', gateway: ip(GATEWAY), mtu: OUT_MTU, transit: 0 }),
        ],
        routes: [
          ...inside.map(address => host(address, 1)),
          host(ip(INSIDE_ADDRESS), 2),
          host(ip(OUTSIDE_ADDRESS), 2),
          { prefix: 0, length: 0, hop: 3 },
        ],
        tunnels: [],
        neighbors: [],
        policy: null,
        nat: {
          capacity: 1 << 16,
          timeouts: {
            profile: 'linux',
            seconds: Object.fromEntries(Array.from({ length: STATES }, (_, state) => [state, TIMEOUT_SECONDS * 100])),
          },
          ports: { profile: 'linux' },
          nodeAddresses: [ip(OUTSIDE_ADDRESS)],
          services: SERVICES.map(({ vip, backend, ports }) => ({
            name: `default/${vip}`,
            clusterAddresses: [ip(vip)],
            ports: ports.map(([protocol, port, to]) => ({
              protocol,
              port,
              endpoints: [
                { address: ip(backend), port: to, ready: true, serving: true, terminating: false, local: false },
              ],
            })),
          })),
          rules: [{ from: [cluster], notTo: [cluster, peers], action: 'MASQUERADE' }],
        },
      },
      [this.devices.in, this.devices.out],
      { pool, counters, clock, random: new Random(seed) },
    );
    this.run('out', arpFrame({ sha: GATEWAY_MAC, spa: GATEWAY, tpa: OUTSIDE_ADDRESS }));
    this.devices.out.collect();
  }

  exchange(side: Side, bytes: Uint8Array): Sent[] {
    this.clock.advance(STEP_MS);
    this.run(side, side === 'in' ? bytes : ethernet(bytes, { src: GATEWAY_MAC, dst: MAC.text }));
    const inside = this.devices.in.collect().map(packet => ({ side: 'in' as const, bytes: packet }));
    const outside = this.devices.out.collect().map(frame => ({ side: 'out' as const, bytes: frame.slice(14) }));
    return side === 'in' ? [...outside, ...inside] : [...inside, ...outside];
  }

  /** Names of the reasons for which packets were dropped so far, with how many. */
  drops(): Map<string, number> {
    const rows = new Map<string, number>();
    VERDICT_NAMES.forEach((name, reason) => {
      if (name.startsWith('drop-')) rows.set(name, this.counters.dropped(reason));
    });
    return rows;
  }

  flows(): KernelFlow[] {
    const rows: FlowRow[] = [];
    const flows = this.datapath.flows!;
    const now = this.clock.now();
    flows.list(1, 1 << 20, now, flow => rows.push(flows.row(flow, now)));
    return rows.map(row => {
      const tuple = ({ src, dst, sport, dport }: FlowRow['original']) => {
        if (row.protocol === 1) return `${dotted(src)} ${dotted(dst)} ${sport} ${dport}`;
        return hasPorts(row.protocol)
          ? `${dotted(src)}:${sport} ${dotted(dst)}:${dport}`
          : `${dotted(src)} ${dotted(dst)}`;
      };
      return {
        protocol: row.protocol,
        state: row.state,
        original: tuple(row.original),
        reply: tuple(row.reply),
        unreplied: !row.seenReply,
        assured: row.assured,
      };
    });
  }

  private run(side: Side, bytes: Uint8Array): void {
    this.devices[side].inject(bytes);
    const port = this.datapath.ports[side === 'in' ? 0 : 1];
    while (this.devices[side].pending > 0) this.datapath.receive(port);
  }
}
