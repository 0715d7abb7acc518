/** One masquerade address and as many flows to one server as there are ports, and more. */
import { EVENT_ICMP_UNREACHABLE_SENT } from '../../datapath/counters.ts';
import { DROP_NAT_PORTS_EXHAUSTED } from '../../datapath/verdict.ts';
import * as ipv4 from '../../datapath/wire/ipv4.ts';
import { ACK_FLAG, RST, SYN } from '../../datapath/wire/tcp.ts';
import { NODE, PODS, World } from './world.ts';

/** Of flow/table.ts. */
const SWEEP_SECONDS = 6;

const SERVER = 0xcb007105 | 0;

export interface PortsResult {
  /** Flows that got a port, before the first one that did not. */
  allocated: number;
  /** Outside ports are all different. */
  distinct: number;
  /** For the flow that got none: ICMP 3/13 to its sender, a reason. */
  errorSent: boolean;
  refused: number;
  /** Closed by the server, and new flows that then found a port. */
  closed: number;
  comeBack: number;
  /** ns for a flow's first packet by how many of the ports were taken, in percent. */
  nsByPercent: [number, number][];
}

/** @param close connections that the server resets once all ports are taken */
export function takeAllPorts(close = 100): PortsResult {
  const world = new World({
    capacity: 131072,
    rules: [{ from: [{ address: 0x0af40000, length: 16 }], action: 'MASQUERADE' }],
  });
  const { inside, outside, counters, clock } = world;
  const ports = new Map<number, number>();
  let lastPort = 0;
  let error = 0;
  outside.written = (view, at) => {
    if (view.getInt32(at + ipv4.SRC) !== NODE || view.getInt32(at + ipv4.DST) !== SERVER) return;
    lastPort = view.getUint16(at + 20);
    ports.set(lastPort, (ports.get(lastPort) ?? 0) + 1);
  };
  inside.written = (view, at) => {
    if (view.getUint8(at + ipv4.PROTOCOL) === ipv4.PROTO_ICMP) error = view.getUint16(at + ipv4.HEADER_LEN);
  };

  let n = 0;
  /** The next new flow; few source ports for many clients, so that most have to be given another. */
  const open = (count: number) => {
    const until = n + count;
    inside.next = s => {
      if (n >= until) return false;
      s.src = PODS[n % PODS.length];
      s.dst = SERVER;
      s.sport = 1024 + Math.floor(n / PODS.length);
      s.dport = 80;
      s.seq = 0;
      s.ack = 0;
      s.flags = SYN;
      n++;
      return true;
    };
    world.work();
  };

  const nsByPercent: [number, number][] = [];
  const all = 65536 - 1024;
  const STEPS = [0, 10, 50, 90, 99, 99.9, 100];
  for (let i = 1; i < STEPS.length; i++) {
    const count = Math.round((all * STEPS[i]) / 100) - n;
    const started = process.hrtime.bigint();
    open(count);
    nsByPercent.push([STEPS[i], Number(process.hrtime.bigint() - started) / count]);
  }
  const allocated = n - counters.dropped(DROP_NAT_PORTS_EXHAUSTED);
  const distinct = ports.size;
  clock.advance(1000); // the limit on ICMP errors
  open(1);
  const errorSent = error === 0x030d && counters.events(EVENT_ICMP_UNREACHABLE_SENT) === 1;
  const refused = counters.dropped(DROP_NAT_PORTS_EXHAUSTED);

  // A RST for a SYN ends the flow at once.
  const closing = [...ports.keys()].slice(0, close);
  let i = 0;
  outside.next = s => {
    if (i >= closing.length) return false;
    s.src = SERVER;
    s.dst = NODE;
    s.sport = 80;
    s.dport = closing[i++];
    s.seq = 0;
    s.ack = 1;
    s.flags = RST | ACK_FLAG;
    return true;
  };
  world.work();
  outside.next = () => false;
  // What has ended is collected in one sweep of the table at the latest.
  for (let seconds = 0; seconds < SWEEP_SECONDS; seconds++) {
    clock.advance(1000);
    world.datapath.tick();
  }
  const before = counters.dropped(DROP_NAT_PORTS_EXHAUSTED);
  open(close + 1);
  const comeBack = close + 1 - (counters.dropped(DROP_NAT_PORTS_EXHAUSTED) - before);
  return { allocated, distinct, errorSent, refused, closed: close, comeBack, nsByPercent };
}
