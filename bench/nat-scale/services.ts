/** Many services: what a change to one costs, how long a stream has to wait for it, and what a lookup costs. */
import type { Service } from '../../datapath/nat/service.ts';
import { Random } from '../../datapath/random.ts';
import { PROTO_TCP } from '../../datapath/wire/ipv4.ts';
import { SYN } from '../../datapath/wire/tcp.ts';
import { PODS, World } from './world.ts';

const ENDPOINTS = 10;
const VIPS = 0x0a600000;
const BACKENDS = 0x0b000000;

/** Service `n`, its endpoints from `shift` on. */
function service(n: number, shift = 0): Service {
  return {
    name: `default/s${n}`,
    clusterAddresses: [(VIPS + n) | 0],
    ports: [
      {
        protocol: PROTO_TCP,
        port: 80,
        endpoints: Array.from({ length: ENDPOINTS }, (_, i) => ({
          address: (BACKENDS + n * 16 + i + shift) | 0,
          port: 8080,
          ready: true,
          serving: true,
          terminating: false,
          local: false,
        })),
      },
    ],
  };
}

export interface ServicesResult {
  services: number;
  endpoints: number;
  /** Setting all of them, ms. */
  buildMs: number;
  /** Changing one endpoint of one service: median, 99th percentile and longest of `changes`, ms. */
  changeMs: number;
  p99ChangeMs: number;
  longestChangeMs: number;
  /** Longest pause between two packets of a stream, without and with a change after every burst, ms. */
  quietGapMs: number;
  busyGapMs: number;
  lost: number;
  /** The first packet of a flow to one service again and again, and to random ones: choosing the backend, ns. */
  hotLookupNs: number;
  lookupNs: number;
}

/** @param changes how many are timed. @param lookups how many are timed */
export function changeServices(count: number, changes = 1000, lookups = 1_000_000): ServicesResult {
  const world = new World({ capacity: 1024 });
  const { services } = world.datapath.nat!;
  const flows = world.datapath.flows!;
  const ms = (started: number) => performance.now() - started;

  const startedAll = performance.now();
  for (let n = 0; n < count; n++) services.set(service(n));
  const buildMs = ms(startedAll);

  const random = new Random(3);
  const times: number[] = [];
  for (let i = 0; i < changes; i++) {
    const changed = service(random.below(count), 1 + (i & 1));
    const started = performance.now();
    services.set(changed);
    times.push(ms(started));
  }
  times.sort((a, b) => a - b);

  // A stream through one of them: the same connection again and again, a burst at a time.
  const stream = (bursts: number, between: () => void): { gap: number; lost: number } => {
    let written = 0;
    let last = 0;
    let gap = 0;
    world.outside.written = () => {
      const now = performance.now();
      if (last !== 0) gap = Math.max(gap, now - last);
      last = now;
      written++;
    };
    for (let b = 0; b < bursts; b++) {
      let i = 0;
      world.inside.next = s => {
        if (i++ >= 64) return false;
        s.src = PODS[i % PODS.length];
        s.dst = VIPS;
        s.sport = 5000;
        s.dport = 80;
        s.seq = 0;
        s.ack = 0;
        s.flags = SYN;
        return true;
      };
      world.work();
      between();
    }
    return { gap, lost: bursts * 64 - written };
  };
  stream(2000, () => {});
  const quiet = stream(1000, () => {});
  const busy = stream(1000, () => services.set(service(1 + random.below(count - 1), random.below(3))));

  const p = world.datapath.pool.take()!;
  p.src = PODS[0];
  p.protocol = PROTO_TCP;
  p.dstPort = 80;
  const lookup = (n: number, among: number) => {
    for (let i = 0; i < n; i++) {
      p.dst = (VIPS + random.below(among)) | 0;
      p.srcPort = i & 0xffff;
      services.select(p, 0, 0);
    }
  };
  const timeLookups = (among: number) => {
    lookup(lookups / 4, among);
    const started = performance.now();
    lookup(lookups, among);
    return (ms(started) * 1e6) / lookups;
  };
  const hotLookupNs = timeLookups(1);
  const lookupNs = timeLookups(count);
  world.datapath.pool.release(p);
  if (flows.table.used !== PODS.length) throw new Error(`${flows.table.used} flows`);
  return {
    services: count,
    endpoints: count * ENDPOINTS,
    buildMs,
    changeMs: times[times.length >> 1],
    p99ChangeMs: times[Math.floor(times.length * 0.99)],
    longestChangeMs: times[times.length - 1],
    quietGapMs: quiet.gap,
    busyGapMs: busy.gap,
    lost: quiet.lost + busy.lost,
    hotLookupNs,
    lookupNs,
  };
}
