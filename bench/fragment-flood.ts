/**
 * Does memory stay within its bound under a flood of fragments? Random fragments of random datagrams, a million a second of
 * virtual time, to both users of fragments in turn: reassembly at the tunnel's exit, and virtual reassembly for NAT.
 *
 *   node dist/bench/fragment-flood.js [--seconds 3600] [-o json]
 *
 * An hour of it is 3.6 G fragments, and takes about as many minutes as a fragment takes nanoseconds / 17. Half of the
 * fragments are of eight datagrams that do complete; the rest are of datagrams that never will.
 */
import { formatGrid } from '../datapath/cli/table.ts';
import { Counters, EVENT_DATAGRAMS_REASSEMBLED } from '../datapath/counters.ts';
import { Reassembly } from '../datapath/mtu/reassembly.ts';
import { VirtualReassembly } from '../datapath/mtu/virtual-reassembly.ts';
import type { Packet } from '../datapath/packet/packet.ts';
import { Pool } from '../datapath/packet/pool.ts';
import { Random } from '../datapath/random.ts';
import { CONTINUE, TAKEN, VERDICT_NAMES } from '../datapath/verdict.ts';
import * as ipv4 from '../datapath/wire/ipv4.ts';
import { environment } from './environment.ts';

const PER_SECOND = 1_000_000;
const SLOTS = 2048;
const PIECE = 16;
/** Fragments of a whole datagram. */
const PIECES = 4;
/** Packets between two looks at the timers, as one round of the loop has. */
const ROUND = 64;

interface Flood {
  fragments: number;
  nsPerFragment: number;
  /** Complete datagrams: put together by one, let pass by the other. */
  complete: number;
  /** Greatest number of packets of the pool, and of datagrams, that were in use between two fragments. */
  mostPackets: number;
  mostDatagrams: number;
  /** Fragments in, less those accounted for: 0. */
  unexplained: number;
  drops: [string, number][];
  rssMiB: number[];
  heapMiB: number[];
}

/** One of the two, as the flood sees it. */
interface Target {
  datagrams: number;
  held: number;
  /** @returns 1 if the fragment ended a whole datagram */
  take(p: Packet, now: number): number;
  tick(now: number): number;
}

class Scene {
  readonly pool = new Pool(SLOTS);
  readonly counters = new Counters();
  passed = 0;

  /** Counts a packet under the reason that it ends for. */
  release(p: Packet, reason: number): void {
    this.counters.drop(reason, p.len);
    this.pool.release(p);
  }

  /** ReassemblyEvents: an error would be sent. */
  timeout(): void {}
}

function reassembly(scene: Scene): Target {
  const { pool, counters } = scene;
  const target = new Reassembly({ pool, counters, random: new Random(2), events: scene });
  return {
    get datagrams() {
      return target.datagrams;
    },
    get held() {
      return target.held;
    },
    take(p, now) {
      const v = target.accept(p, 0, now);
      if (v !== TAKEN) scene.release(p, v);
      const whole = target.takeWhole();
      if (whole === null) return 0;
      pool.release(whole);
      scene.passed += PIECES;
      return 1;
    },
    tick: now => target.tick(now),
  };
}

function virtualReassembly(scene: Scene): Target {
  const { pool, counters } = scene;
  const target = new VirtualReassembly({ pool, counters, random: new Random(3), events: scene });
  const pass = (p: Packet) => {
    pool.release(p);
    scene.passed++;
  };
  return {
    get datagrams() {
      return target.datagrams;
    },
    get held() {
      return target.held;
    },
    take(p, now) {
      const v = target.accept(p, 0, now);
      if (v === CONTINUE) {
        const isFirst = (p.fragment & ipv4.OFFSET_MASK) === 0;
        const { datagram } = p;
        if (isFirst) target.admit(p);
        pass(p);
        if (!isFirst) return 0;
        for (let q = target.nextReleased(datagram); q !== null; q = target.nextReleased(datagram)) pass(q);
        return 1;
      }
      if (v !== TAKEN) scene.release(p, v);
      return 0;
    },
    tick: now => target.tick(now),
  };
}

function flood(make: (scene: Scene) => Target, seconds: number): Flood {
  const scene = new Scene();
  const { pool, counters } = scene;
  const target = make(scene);
  const random = new Random(1);
  const memory = { rss: [] as number[], heap: [] as number[] };
  let [complete, mostPackets, mostDatagrams] = [0, 0, 0];
  const started = process.hrtime.bigint();
  for (let second = 0; second < seconds; second++) {
    const from = second * 1000;
    for (let i = 0; i < PER_SECOND; i++) {
      const p = pool.take() as Packet;
      const r = random.next();
      const isOurs = (r & 1) === 0;
      writeFragment(pool.view, p, isOurs ? (r >>> 1) & 7 : r >>> 8, isOurs, (r >>> 4) & (PIECES - 1));
      complete += target.take(p, from + Math.floor(i / 1000));
      if (i % ROUND !== 0) continue;
      mostPackets = Math.max(mostPackets, SLOTS - pool.available);
      mostDatagrams = Math.max(mostDatagrams, target.datagrams);
      target.tick(from + Math.floor(i / 1000));
    }
    if (second % Math.ceil(seconds / 4) !== 0 && second !== seconds - 1) continue;
    const { rss, heapUsed } = process.memoryUsage();
    memory.rss.push(Math.round(rss / 2 ** 20));
    memory.heap.push(Math.round(heapUsed / 2 ** 20));
  }
  const nsPerFragment = Number(process.hrtime.bigint() - started) / (seconds * PER_SECOND);
  const drops = VERDICT_NAMES.map((name, i): [string, number] => [name, counters.dropped(i)]).filter(([, n]) => n > 0);
  const dropped = drops.reduce((sum, [, n]) => sum + n, 0);
  return {
    fragments: seconds * PER_SECOND,
    nsPerFragment,
    complete: Math.max(complete, counters.events(EVENT_DATAGRAMS_REASSEMBLED)),
    mostPackets,
    mostDatagrams,
    unexplained: seconds * PER_SECOND - scene.passed - dropped - target.held,
    drops,
    rssMiB: memory.rss,
    heapMiB: memory.heap,
  };
}

/** A fragment as parseIpv4 leaves it: quarter `piece` of the datagram `id`, of one of eight senders. */
function writeFragment(view: DataView, p: Packet, id: number, isOurs: boolean, piece: number): void {
  const { off } = p;
  p.len = ipv4.HEADER_LEN + PIECE;
  p.l4 = off + ipv4.HEADER_LEN;
  p.src = isOurs ? 0x0a000001 : 0x0a000000 | (id >>> 16);
  p.dst = 0x0a000002;
  p.protocol = ipv4.PROTO_IPIP;
  p.fragment = (piece < PIECES - 1 ? ipv4.FLAG_MF : 0) | ((piece * PIECE) >> 3);
  view.setInt32(off, 0x45000000 | p.len);
  view.setInt32(off + ipv4.ID, ((id & 0xffff) << 16) | p.fragment);
  view.setInt32(off + ipv4.TTL, (64 << 24) | (p.protocol << 16));
  view.setInt32(off + ipv4.SRC, p.src);
  view.setInt32(off + ipv4.DST, p.dst);
}

function argument(name: string, otherwise: string): string {
  const at = process.argv.indexOf(name);
  return at < 0 ? otherwise : process.argv[at + 1];
}

const seconds = Number(argument('--seconds', '3600'));
const results = { reassembly: flood(reassembly, seconds), virtual: flood(virtualReassembly, seconds) };

if (argument('-o', 'table') === 'json') {
  process.stdout.write(`${JSON.stringify({ environment: environment(), results }, null, 2)}\n`);
} else {
  const { cpu, cores, node } = environment();
  process.stdout.write(`${cpu}, ${cores} cores, Node ${node}\n`);
  for (const [name, result] of Object.entries(results)) {
    const table = [
      ['fragments', result.fragments],
      ['ns per fragment', result.nsPerFragment.toFixed(0)],
      ['datagrams completed', result.complete],
      [`packets of the pool in use, at most (of ${SLOTS})`, result.mostPackets],
      ['datagrams known, at most', result.mostDatagrams],
      ['fragments that no counter explains', result.unexplained],
      ...result.drops,
      ['RSS MiB, four times and at the end', result.rssMiB.join(' -> ')],
      ['heap MiB', result.heapMiB.join(' -> ')],
    ];
    process.stdout.write(
      `\n${name}, ${seconds} s of ${PER_SECOND} fragments a second\n${formatGrid(['WHAT', 'SEEN'], table)}`,
    );
  }
}
