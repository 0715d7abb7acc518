import assert from 'node:assert/strict';
import fc from 'fast-check';
import { ManualClock } from '../../datapath/clock.ts';
import {
  Counters,
  EVENT_ARP_RECEIVED,
  EVENT_ARP_REPLY_SENT,
  EVENT_ARP_REQUEST_SENT,
  EVENT_NEIGHBOR_FAILED,
  EVENT_NEIGHBOR_LEARNT,
  EVENT_NEIGHBOR_MOVED,
} from '../../datapath/counters.ts';
import type { Packet } from '../../datapath/packet/packet.ts';
import { Pool } from '../../datapath/packet/pool.ts';
import { Random } from '../../datapath/random.ts';
import { NeighborTable } from '../../datapath/route/neighbor.ts';
import type { NeighborOptions } from '../../datapath/route/neighbor-options.ts';
import { CONTINUE, DROP_NEIGHBOR_UNREACHABLE, DROP_NO_BUFFER, TAKEN, VERDICT_NAMES } from '../../datapath/verdict.ts';
import * as arp from '../../datapath/wire/arp.ts';
import * as ethernet from '../../datapath/wire/ethernet.ts';
import { arpFrame, bytesOf, dotted, ip, load, mac, patch } from '../fixtures/packets.ts';
import { NeighborModel } from '../model/neighbor.ts';

const OWN = '192.168.10.1';
const OWN_MAC = '02:00:00:00:00:01';
const PEER = '192.168.10.2';
const PEER_MAC = '02:00:00:00:00:02';
const OTHER_MAC = '02:00:00:00:00:03';
const EVERYBODY = 'ff:ff:ff:ff:ff:ff';
const ROUTER_LOOPBACK = '10.10.1.200';

function macText(bytes: Uint8Array): string {
  return Buffer.from(bytes)
    .toString('hex')
    .replace(/(..)(?=.)/g, '$1:');
}

function macOf(text: string): ethernet.Mac {
  const view = new DataView(mac(text).buffer);
  return { hi: ethernet.macHi(view, 0), lo: ethernet.macLo(view, 0) };
}

/** A table with its owner: what the owner is given becomes one line in `log`, and its packet goes back to the pool. */
class Link {
  readonly clock = new ManualClock();
  readonly counters = new Counters();
  readonly pool: Pool;
  readonly table: NeighborTable;
  log: string[] = [];
  frames: Uint8Array[] = [];
  onUnreachable: (() => void) | null = null;
  isUp = true;

  constructor(o: Partial<NeighborOptions> & { slots?: number } = {}) {
    this.pool = new Pool(o.slots ?? 64);
    this.table = new NeighborTable({
      capacity: 16,
      pool: this.pool,
      counters: this.counters,
      address: ip(OWN),
      prefixLength: 24,
      mac: macOf(OWN_MAC),
      events: {
        transmit: p => this.end(p, this.describe(p)),
        canTransmit: () => this.isUp,
        release: (p, reason) => this.end(p, `release ${this.id(p)} ${VERDICT_NAMES[reason]}`),
        unreachable: p => {
          this.end(p, `unreachable ${this.id(p)}`);
          this.onUnreachable?.();
        },
      },
      ...o,
    });
  }

  /** What the forwarding path does with a packet for `next`. The packet is known by `id`. */
  send(next: string, id: number): void {
    const i = this.table.resolve(ip(next), this.clock.now());
    if (i < 0) {
      this.log.push(`refused ${id}`);
      return;
    }
    const p = this.pool.take();
    assert.ok(p !== null);
    p.len = 60;
    this.pool.bytes.fill(0xa5, p.off, p.off + 60);
    this.pool.view.setUint32(p.off + ethernet.HEADER_LEN, id);
    if (!this.table.usable(i)) {
      assert.equal(this.table.hold(i, p), TAKEN);
      return;
    }
    this.table.writeHeader(i, p.off);
    this.end(p, this.describe(p));
  }

  /** Puts a frame in and gives back the name of the verdict. */
  receive(frame: Uint8Array): string {
    const p = load(this.pool, frame);
    p.vnetFlags = 2;
    const verdict = this.table.handleArp(p, this.clock.now());
    if (verdict !== TAKEN) this.pool.release(p);
    return VERDICT_NAMES[verdict];
  }

  reply(from = PEER, fromMac = PEER_MAC): string {
    return this.receive(arpFrame({ oper: 2, sha: fromMac, spa: from, tha: OWN_MAC, tpa: OWN }));
  }

  request(from = PEER, fromMac = PEER_MAC, target = OWN): string {
    return this.receive(arpFrame({ sha: fromMac, spa: from, tpa: target }));
  }

  /** Lets time pass, serving the timers when they ask for it as the loop does. */
  pass(ms: number): void {
    const end = this.clock.now() + ms;
    for (;;) {
      const wait = this.table.tick(this.clock.now());
      if (this.clock.now() + wait > end) break;
      this.clock.advance(wait);
    }
    this.clock.advance(end - this.clock.now());
    this.table.tick(end);
  }

  /** The log so far, which starts anew. */
  seen(): string[] {
    const log = this.log;
    this.log = [];
    this.frames = [];
    return log;
  }

  stateOf(address = PEER): string {
    const row = this.table.entries(this.clock.now()).find(e => e.address === ip(address));
    return row === undefined ? '' : row.state;
  }

  macOf(address = PEER): string {
    const i = this.table.find(ip(address));
    const bytes = new DataView(new ArrayBuffer(6));
    ethernet.setMac(bytes, 0, this.table.macHi[i], this.table.macLo[i]);
    return macText(new Uint8Array(bytes.buffer));
  }

  private id(p: Packet): number {
    return this.pool.view.getUint32(p.off + ethernet.HEADER_LEN);
  }

  private end(p: Packet, line: string): void {
    this.log.push(line);
    this.pool.release(p);
  }

  private describe(p: Packet): string {
    const frame = bytesOf(this.pool, p).slice();
    this.frames.push(frame);
    const view = new DataView(frame.buffer);
    const to = macText(frame.subarray(0, 6));
    assert.equal(macText(frame.subarray(6, 12)), OWN_MAC);
    if (view.getUint16(ethernet.TYPE) === ethernet.TYPE_IPV4) {
      assert.equal(p.len, 60);
      return `packet ${this.id(p)} to ${to}`;
    }
    assert.equal(view.getUint16(ethernet.TYPE), ethernet.TYPE_ARP);
    assert.equal(p.vnetFlags, 0);
    assert.equal(p.local, 1);
    assert.equal(p.len, 42);
    const packet = ethernet.HEADER_LEN;
    assert.ok(arp.check(view, packet, 28));
    assert.equal(macText(frame.subarray(packet + arp.SHA, packet + arp.SHA + 6)), OWN_MAC);
    const spa = dotted(view.getInt32(packet + arp.SPA));
    const tpa = dotted(view.getInt32(packet + arp.TPA));
    if (view.getUint16(packet + arp.OPER) === arp.REPLY) return `reply ${spa} to ${to} ${tpa}`;
    return `request ${tpa} to ${to === EVERYBODY ? 'everybody' : to}`;
  }
}

describe('neighbor: resolution', () => {
  it('sends a broadcast request that is right to the bit', () => {
    const link = new Link();
    link.send(PEER, 1);
    const expected = 'ffffffffffff 020000000001 0806 0001 0800 06 04 0001 020000000001 c0a80a01 000000000000 c0a80a02';
    assert.equal(Buffer.from(link.frames[0]).toString('hex'), expected.replaceAll(' ', ''));
  });

  it('asks once, holds, and sends what it held in order when the answer comes', () => {
    const link = new Link();
    for (let id = 1; id <= 5; id++) link.send(PEER, id);
    assert.deepEqual(link.seen(), [`request ${PEER} to everybody`]);
    assert.equal(link.stateOf(), 'INCOMPLETE');
    assert.equal(link.table.held, 5);

    assert.equal(link.reply(), 'continue');
    assert.deepEqual(
      link.seen(),
      [1, 2, 3, 4, 5].map(id => `packet ${id} to ${PEER_MAC}`),
    );
    assert.equal(link.stateOf(), 'REACHABLE');
    link.send(PEER, 6);
    assert.deepEqual(link.seen(), [`packet 6 to ${PEER_MAC}`]);
    assert.equal(link.counters.events(EVENT_NEIGHBOR_LEARNT), 1);
    assert.equal(link.counters.events(EVENT_ARP_REQUEST_SENT), 1);
    assert.equal(link.counters.events(EVENT_ARP_RECEIVED), 1);
    assert.equal(link.pool.available, 64);
  });

  it('asks three times a second apart, then reports every held packet as unreachable, once', () => {
    const link = new Link();
    link.send(PEER, 1);
    link.send(PEER, 2);
    link.pass(999);
    assert.deepEqual(link.seen(), [`request ${PEER} to everybody`]);
    link.pass(1);
    assert.deepEqual(link.seen(), [`request ${PEER} to everybody`]);
    link.pass(1000);
    assert.deepEqual(link.seen(), [`request ${PEER} to everybody`]);
    link.pass(999);
    assert.deepEqual(link.seen(), []);
    link.pass(1);
    assert.deepEqual(link.seen(), ['unreachable 1', 'unreachable 2']);
    assert.equal(link.stateOf(), 'FAILED');
    assert.equal(link.counters.events(EVENT_NEIGHBOR_FAILED), 1);
    assert.equal(link.table.usable(link.table.find(ip(PEER))), false);
    assert.equal(link.pool.available, 64);

    link.send(PEER, 3); // begins again, as in Linux
    assert.deepEqual(link.seen(), [`request ${PEER} to everybody`]);
    link.reply();
    assert.deepEqual(link.seen(), [`packet 3 to ${PEER_MAC}`]);
  });

  it('forgets a failed neighbour after a minute', () => {
    const link = new Link();
    link.send(PEER, 1);
    link.pass(62_999);
    assert.equal(link.stateOf(), 'FAILED');
    link.pass(1);
    assert.equal(link.table.find(ip(PEER)), -1);
    assert.equal(link.table.size, 0);
    assert.equal(link.table.tick(link.clock.now()), Number.POSITIVE_INFINITY);
  });

  it('drops the oldest when one queue is full, and the oldest of all when all are', () => {
    const link = new Link({ queuePerNeighbor: 2, totalQueue: 3 });
    link.send(PEER, 1);
    link.send(PEER, 2);
    link.send(PEER, 3);
    link.send('192.168.10.3', 4);
    link.send('192.168.10.4', 5);
    assert.deepEqual(
      link.seen().filter(line => line.startsWith('release')),
      ['release 1 drop-neighbor-queue-full', 'release 2 drop-neighbor-queue-full'],
    );
    link.reply();
    assert.deepEqual(link.seen(), [`packet 3 to ${PEER_MAC}`]);
    assert.equal(link.table.held, 2);
  });

  it('lets the owner send to the same neighbour again from within unreachable()', () => {
    const link = new Link();
    link.send(PEER, 1);
    link.send(PEER, 2);
    let id = 10;
    link.onUnreachable = () => link.send(PEER, id++);
    link.pass(3000);
    assert.deepEqual(link.seen().slice(3), ['unreachable 1', `request ${PEER} to everybody`, 'unreachable 2']);
    assert.equal(link.table.held, 2);
    link.onUnreachable = null;
    link.reply();
    assert.deepEqual(link.seen(), [`packet 10 to ${PEER_MAC}`, `packet 11 to ${PEER_MAC}`]);
  });

  it('refuses what no station can have, and asks for nothing', () => {
    const link = new Link();
    const rows = [OWN, '0.0.0.0', '127.0.0.1', '224.0.0.5', '255.255.255.255', '192.168.10.255', '192.168.10.0'];
    for (const row of rows) assert.equal(link.table.resolve(ip(row), 0), -1, row);
    assert.deepEqual(link.seen(), []);
    assert.equal(link.table.size, 0);
    assert.ok(new Link({ prefixLength: 31, address: ip('10.0.0.0') }).table.resolve(ip('10.0.0.1'), 0) >= 0);
  });

  it('without a buffer counts the request as lost and asks again', () => {
    const link = new Link({ slots: 1 });
    const p = link.pool.take();
    assert.ok(p !== null);
    p.len = 60;
    const i = link.table.resolve(ip(PEER), 0);
    assert.equal(link.counters.dropped(DROP_NO_BUFFER), 1);
    assert.equal(link.table.hold(i, p), TAKEN);
    assert.equal(link.table.announce(ip(OWN)), false);
    link.table.delete(ip(PEER));
    assert.equal(link.pool.available, 1);
    assert.equal(link.table.held, 0);
  });

  it('hold() on an entry that nobody resolves leaves the packet to the caller', () => {
    const link = new Link();
    link.send(PEER, 1);
    link.pass(3000);
    const p = link.pool.take();
    assert.ok(p !== null);
    assert.equal(link.table.hold(link.table.find(ip(PEER)), p), DROP_NEIGHBOR_UNREACHABLE);
    assert.equal(link.table.held, 0);
  });
});

describe('neighbor: ageing', () => {
  function reachable(o: Partial<NeighborOptions> = {}): Link {
    const link = new Link(o);
    link.send(PEER, 1);
    link.reply();
    link.seen();
    return link;
  }

  it('unused: REACHABLE 30 s, STALE, forgotten after 10 min', () => {
    const link = reachable();
    link.pass(29_999);
    assert.equal(link.stateOf(), 'REACHABLE');
    link.pass(1);
    assert.equal(link.stateOf(), 'STALE');
    link.pass(569_999);
    assert.equal(link.stateOf(), 'STALE');
    link.pass(1);
    assert.equal(link.table.size, 0);
    assert.deepEqual(link.seen(), []);
  });

  it('unused in a table more than half full: forgotten after a minute', () => {
    const link = reachable({ capacity: 3 });
    link.table.addPermanent(ip('192.168.10.9'), 0x0200, 9);
    link.pass(60_000);
    assert.equal(link.stateOf(), '');
    assert.equal(link.stateOf('192.168.10.9'), 'PERMANENT');
  });

  it('used: DELAY 5 s, then PROBE asks the neighbour itself, and traffic goes on all the while', () => {
    const link = reachable();
    link.pass(30_000);
    link.send(PEER, 2);
    assert.equal(link.stateOf(), 'DELAY');
    link.pass(4999);
    assert.deepEqual(link.seen(), [`packet 2 to ${PEER_MAC}`]);
    link.pass(1);
    assert.equal(link.stateOf(), 'PROBE');
    assert.deepEqual(link.seen(), [`request ${PEER} to ${PEER_MAC}`]);
    link.send(PEER, 3);
    assert.deepEqual(link.seen(), [`packet 3 to ${PEER_MAC}`]);
    link.reply();
    assert.equal(link.stateOf(), 'REACHABLE');
  });

  it('used in the last 5 s of its time goes from REACHABLE to DELAY directly', () => {
    for (const [idle, state] of [
      [5000, 'DELAY'],
      [5001, 'STALE'],
    ] as const) {
      const link = reachable();
      link.pass(30_000 - idle);
      link.send(PEER, 2);
      link.pass(idle);
      assert.equal(link.stateOf(), state);
    }
  });

  it('gone: three unicast requests, FAILED, and the next packet asks everybody', () => {
    const link = reachable();
    link.pass(30_000);
    link.send(PEER, 2);
    link.pass(5000 + 3000);
    assert.deepEqual(link.seen().slice(1), Array(3).fill(`request ${PEER} to ${PEER_MAC}`));
    assert.equal(link.stateOf(), 'FAILED');
    link.send(PEER, 3);
    assert.deepEqual(link.seen(), [`request ${PEER} to everybody`]);
  });

  it('broadcastReprobes (mcast_resolicit) asks everybody before it gives up', () => {
    const link = reachable({ broadcastReprobes: 1 });
    link.pass(30_000);
    link.send(PEER, 2);
    link.pass(5000 + 3000);
    assert.deepEqual(link.seen().slice(-2), [`request ${PEER} to ${PEER_MAC}`, `request ${PEER} to everybody`]);
    link.pass(1000);
    assert.equal(link.stateOf(), 'FAILED');
  });

  it('spreads the reachable time over 0.5 to 1.5 of its base when given a generator', () => {
    const ends: number[] = [];
    for (let seed = 1; seed <= 50; seed++) {
      const link = reachable({ random: new Random(seed * 7919) });
      ends.push(link.table.tick(0));
    }
    assert.ok(Math.min(...ends) >= 15_000 && Math.max(...ends) <= 45_000);
    assert.ok(new Set(ends).size > 25);
  });

  it('serves no more timers per tick than it is told, and says that more wait', () => {
    const link = new Link({ tickWork: 2, capacity: 16 });
    for (let n = 2; n < 7; n++) link.send(`192.168.10.${n}`, n);
    link.seen();
    link.clock.advance(1000);
    assert.equal(link.table.tick(1000), 0);
    assert.equal(link.seen().length, 2);
    assert.equal(link.table.tick(1000), 0);
    assert.equal(link.table.tick(1000), 1000);
    assert.equal(link.seen().length, 3);
  });
});

describe('neighbor: answering', () => {
  it('answers a request for an own address, to the bit, and learns who asked', () => {
    const link = new Link();
    assert.equal(link.request(), 'taken');
    const expected = '020000000002 020000000001 0806 0001 0800 06 04 0002 020000000001 c0a80a01 020000000002 c0a80a02';
    assert.equal(Buffer.from(link.frames[0]).toString('hex'), expected.replaceAll(' ', ''));
    assert.equal(link.stateOf(), 'STALE');
    assert.equal(link.macOf(), PEER_MAC);
    assert.equal(link.counters.events(EVENT_ARP_REPLY_SENT), 1);
    assert.equal(link.pool.available, 64);
  });

  it('trims a frame that the medium padded to 60 bytes', () => {
    const link = new Link();
    const padded = new Uint8Array(60);
    padded.set(arpFrame({ sha: PEER_MAC, spa: PEER, tpa: OWN }));
    assert.equal(link.receive(padded), 'taken');
    assert.equal(link.frames[0].length, 42);
  });

  it('answers a probe (RFC 5227) and learns nothing from it', () => {
    const link = new Link();
    assert.equal(link.request('0.0.0.0'), 'taken');
    assert.deepEqual(link.seen(), [`reply ${OWN} to ${PEER_MAC} 0.0.0.0`]);
    assert.equal(link.request('0.0.0.0', PEER_MAC, '192.168.10.77'), 'continue');
    assert.equal(link.table.size, 0);
  });

  it('answers a sender outside the subnet without learning it', () => {
    const link = new Link();
    assert.equal(link.request(ROUTER_LOOPBACK), 'taken');
    assert.equal(link.table.size, 0);
    link.send(ROUTER_LOOPBACK, 1); // a next hop outside the subnet (onlink) that is being resolved
    link.seen();
    link.request(ROUTER_LOOPBACK);
    assert.deepEqual(link.seen(), [`packet 1 to ${PEER_MAC}`, `reply ${OWN} to ${PEER_MAC} ${ROUTER_LOOPBACK}`]);
  });

  it('answers for others never, for added addresses as long as they are ours', () => {
    const link = new Link();
    const vip = '192.168.10.211';
    assert.equal(link.request(PEER, PEER_MAC, vip), 'continue');
    link.send(vip, 1);
    link.reply(vip, OTHER_MAC);
    link.seen();

    link.table.addOwnAddress(ip(vip));
    assert.equal(link.table.find(ip(vip)), -1, 'the former holder is forgotten');
    assert.equal(link.request(PEER, PEER_MAC, vip), 'taken');
    assert.deepEqual(link.seen(), [`reply ${vip} to ${PEER_MAC} ${PEER}`]);
    link.table.removeOwnAddress(ip(vip));
    assert.equal(link.request(PEER, PEER_MAC, vip), 'continue');
    assert.deepEqual(link.seen(), []);
  });

  it('announces own addresses by gratuitous request or reply', () => {
    const link = new Link();
    assert.equal(link.table.announce(ip(OWN)), true);
    assert.equal(link.table.announce(ip(OWN), true), true);
    const rest = '0001 0800 06 04';
    const rows = [
      `ffffffffffff 020000000001 0806 ${rest} 0001 020000000001 c0a80a01 000000000000 c0a80a01`,
      `ffffffffffff 020000000001 0806 ${rest} 0002 020000000001 c0a80a01 020000000001 c0a80a01`,
    ];
    assert.deepEqual(
      link.frames.map(f => Buffer.from(f).toString('hex')),
      rows.map(r => r.replaceAll(' ', '')),
    );
    assert.equal(link.table.announce(ip(PEER)), false);
  });

  it('answers for addresses that it leads, tells the link of each once, and is silent when the lease has ended', () => {
    const clock = new ManualClock();
    const link = new Link({ clock });
    const [vip, other] = ['192.168.10.211', '192.168.10.212'];
    const lead = (...list: [address: string, until: number][]) =>
      link.table.lead(
        list.map(([address, until]) => ({ address: ip(address), until })),
        clock.now(),
      );
    assert.notEqual(link.request(PEER, PEER_MAC, vip), 'taken');
    lead([vip, 3000]);
    assert.deepEqual(
      link.frames.splice(0).map(f => [f[21], Buffer.from(f.subarray(22, 32)).toString('hex')]),
      [1, 2].map(oper => [oper, '020000000001c0a80ad3']),
      'gratuitous ARP, as request and as reply',
    );
    const answersTo = (address: string) => {
      link.request(PEER, PEER_MAC, address);
      return link.frames.splice(0).length;
    };
    assert.deepEqual([answersTo(vip), answersTo(other)], [1, 0]);
    clock.advance(2000);
    lead([vip, 5000], [other, 5000]);
    assert.equal(link.frames.splice(0).length, 2, 'of the new one alone');
    assert.deepEqual([answersTo(vip), answersTo(other)], [1, 1]);
    lead([vip, 5000]);
    assert.equal(answersTo(other), 0);
    // The time of the burst stands still, as for one that was stopped in the middle of it.
    clock.advance(3000);
    assert.equal(link.clock.now(), 0);
    assert.equal(answersTo(vip), 0);
    assert.deepEqual(link.table.announced.rows(clock.now()), []);
    // Another has taken it over: that is no conflict, and nothing is defended.
    assert.notEqual(link.receive(arpFrame({ sha: OTHER_MAC, spa: vip, tpa: vip })), 'drop-address-conflict');
    assert.deepEqual(link.frames, []);
  });

  it('tells the link again of what it leads when it is up again, when the MAC is another, and when it is asked to', () => {
    const link = new Link();
    const vip = ip('192.168.10.211');
    const told = () => link.frames.splice(0).map(f => [f[11], f[21], f[31]]);
    const lead = (again = false) => link.table.lead([{ address: vip, until: 10_000 }], 0, again);
    const both = [
      [1, 1, 211],
      [1, 2, 211],
    ];
    lead();
    assert.deepEqual(told(), both);
    lead();
    link.table.tick(1);
    assert.deepEqual(told(), []);
    lead(true);
    assert.deepEqual(told(), both, 'asked to');
    link.isUp = false;
    link.table.tick(2);
    assert.deepEqual(told(), []);
    link.isUp = true;
    link.table.tick(3);
    link.table.tick(4);
    assert.deepEqual(told(), both, 'up again');
    link.table.setOwn(ip(OWN), 24, macOf(OWN_MAC));
    link.table.tick(5);
    assert.deepEqual(told(), both, 'another address or MAC');
    link.isUp = false;
    link.table.lead([], 6);
    lead();
    assert.deepEqual(told(), []);
    link.isUp = true;
    link.table.tick(10_000);
    assert.deepEqual(told(), [], 'the lease has ended meanwhile');
  });
});

describe('neighbor: learning', () => {
  const gratuitous = { sha: OTHER_MAC, spa: PEER, tpa: PEER };
  const rows: { what: string; frame: Uint8Array; known: string; fresh?: string }[] = [
    { what: 'gratuitous request', frame: arpFrame(gratuitous), known: 'STALE' },
    { what: 'gratuitous reply', frame: arpFrame({ ...gratuitous, oper: 2, tha: OTHER_MAC }), known: 'other mac' },
    {
      what: 'gratuitous reply to all',
      frame: patch(arpFrame({ ...gratuitous, oper: 2, tha: OTHER_MAC }), 0, 255, 255, 255, 255, 255, 255),
      known: 'STALE',
    },
    {
      what: 'unicast reply that nobody asked for',
      frame: arpFrame({ oper: 2, sha: OTHER_MAC, spa: PEER, tha: OWN_MAC, tpa: OWN }),
      known: 'REACHABLE',
    },
    {
      what: 'request for somebody else',
      frame: arpFrame({ sha: OTHER_MAC, spa: PEER, tpa: '192.168.10.9' }),
      known: 'STALE',
    },
  ];
  for (const row of rows) {
    it(`${row.what}: updates what is known, creates nothing`, () => {
      const verdict = row.known === 'other mac' ? 'drop-other-mac' : 'continue';
      const empty = new Link();
      assert.equal(empty.receive(row.frame), verdict);
      assert.equal(empty.table.size, 0);

      const link = new Link();
      link.send(PEER, 1);
      link.reply();
      link.pass(1001);
      assert.equal(link.receive(row.frame), verdict);
      assert.equal(link.stateOf(), row.known === 'other mac' ? 'REACHABLE' : row.known);
      assert.equal(link.macOf(), row.known === 'other mac' ? PEER_MAC : OTHER_MAC);
      assert.equal(link.counters.events(EVENT_NEIGHBOR_MOVED), row.known === 'other mac' ? 0 : 1);
    });
  }

  it('within a second of a change the first answer stands, except against a gratuitous one', () => {
    const link = new Link();
    link.send(PEER, 1);
    link.reply();
    link.pass(1000);
    link.reply(PEER, OTHER_MAC);
    assert.equal(link.macOf(), PEER_MAC);
    link.receive(arpFrame(gratuitous));
    assert.equal(link.macOf(), OTHER_MAC);
  });

  it('a broadcast with the MAC that is known leaves the state alone', () => {
    const link = new Link();
    link.send(PEER, 1);
    link.reply();
    link.pass(2000);
    link.request(PEER, PEER_MAC, '192.168.10.9');
    assert.equal(link.stateOf(), 'REACHABLE');
    assert.equal(link.counters.events(EVENT_NEIGHBOR_MOVED), 0);
  });

  it('a request to us resolves an entry that waits, and the packets leave', () => {
    const link = new Link();
    link.send(PEER, 1);
    link.request();
    assert.deepEqual(link.seen().slice(1), [`packet 1 to ${PEER_MAC}`, `reply ${OWN} to ${PEER_MAC} ${PEER}`]);
    assert.equal(link.stateOf(), 'DELAY');
  });

  it('an answer to what we never asked does not prove reachability', () => {
    const link = new Link();
    link.request();
    link.reply();
    assert.equal(link.stateOf(), 'STALE');
  });

  it('never changes a PERMANENT entry', () => {
    const link = new Link();
    const { hi, lo } = macOf(PEER_MAC);
    link.send(PEER, 1);
    assert.equal(link.table.addPermanent(ip(PEER), hi, lo), true);
    assert.deepEqual(link.seen().slice(1), [`packet 1 to ${PEER_MAC}`]);
    link.pass(5000);
    link.reply(PEER, OTHER_MAC);
    link.request(PEER, OTHER_MAC);
    link.receive(arpFrame(gratuitous));
    link.pass(3_600_000);
    assert.equal(link.stateOf(), 'PERMANENT');
    assert.equal(link.macOf(), PEER_MAC);
    assert.equal(link.table.delete(ip(PEER)), true);
    assert.equal(link.table.delete(ip(PEER)), false);
    assert.equal(link.table.addPermanent(ip(OWN), hi, lo), false);
  });
});

describe('neighbor: refused packets', () => {
  const good = { sha: PEER_MAC, spa: PEER, tpa: OWN };
  const cut = (n: number) => arpFrame(good).slice(0, n);
  const rows: [string, Uint8Array, string][] = [
    ['41 bytes', cut(41), 'drop-malformed-arp'],
    ['14 bytes', cut(14), 'drop-malformed-arp'],
    ['no bytes', cut(0), 'drop-malformed-arp'],
    ['hardware type 6', patch(arpFrame(good), 15, 6), 'drop-malformed-arp'],
    ['protocol IPv6', patch(arpFrame(good), 16, 0x86, 0xdd), 'drop-malformed-arp'],
    ['hardware length 8', patch(arpFrame(good), 18, 8), 'drop-malformed-arp'],
    ['protocol length 16', patch(arpFrame(good), 19, 16), 'drop-malformed-arp'],
    ['operation 0', patch(arpFrame(good), 21, 0), 'drop-malformed-arp'],
    ['operation 3 (RARP)', patch(arpFrame(good), 21, 3), 'drop-malformed-arp'],
    ['sender MAC broadcast', arpFrame({ ...good, sha: EVERYBODY }), 'drop-malformed-arp'],
    ['sender MAC multicast', arpFrame({ ...good, sha: '01:00:5e:00:00:01' }), 'drop-malformed-arp'],
    ['sender MAC zero', arpFrame({ ...good, sha: '00:00:00:00:00:00' }), 'drop-malformed-arp'],
    ['sender MAC is not the frame source', patch(arpFrame(good), 11, 0x66), 'drop-malformed-arp'],
    ['sender MAC differs in its first bytes', patch(arpFrame(good), 6, 0x06), 'drop-malformed-arp'],
    ['sender MAC is ours', arpFrame({ ...good, sha: OWN_MAC }), 'drop-invalid-source'],
    ['sender IP is ours: conflict', arpFrame({ ...good, spa: OWN }), 'drop-address-conflict'],
    ['conflict, gratuitous', arpFrame({ sha: PEER_MAC, spa: OWN, tpa: OWN }), 'drop-address-conflict'],
    ['sender IP multicast', arpFrame({ ...good, spa: '224.0.0.1' }), 'drop-malformed-arp'],
    ['sender IP broadcast', arpFrame({ ...good, spa: '255.255.255.255' }), 'drop-malformed-arp'],
    ['sender IP subnet broadcast', arpFrame({ ...good, spa: '192.168.10.255' }), 'drop-malformed-arp'],
    ['sender IP loopback', arpFrame({ ...good, spa: '127.0.0.1' }), 'drop-malformed-arp'],
    ['to another MAC', patch(arpFrame(good), 0, 2, 0, 0, 0, 0, 9), 'drop-other-mac'],
  ];
  for (const [what, frame, verdict] of rows) {
    it(`${what}: ${verdict}`, () => {
      const link = new Link();
      link.send(PEER, 1);
      link.seen();
      assert.equal(link.receive(frame), verdict);
      // An own address is defended: claims.test.ts.
      assert.deepEqual(link.seen(), verdict === 'drop-address-conflict' ? [`request ${OWN} to everybody`] : []);
      assert.equal(link.stateOf(), 'INCOMPLETE');
      assert.equal(link.table.size, 1);
    });
  }

  it('random bytes neither throw nor write outside their frame', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), fc.boolean(), (noise, valid) => {
        const link = new Link({ slots: 4 });
        const frame = valid ? patch(arpFrame(good), 6, ...noise.subarray(0, 36)) : noise;
        const p = load(link.pool, frame);
        const end = p.off + Math.max(frame.length, 42);
        link.table.handleArp(p, 0);
        assert.ok(link.pool.bytes.subarray(end, end + 64).every(b => b === 0xa5));
      }),
      { numRuns: 300 },
    );
  });
});

describe('neighbor: floods', () => {
  it('a scan of 100,000 addresses costs known neighbours nothing', () => {
    const link = new Link({ capacity: 256, slots: 256, address: ip('172.16.0.1'), prefixLength: 12 });
    const known: string[] = [];
    for (let n = 0; n < 64; n++) {
      known.push(`172.17.0.${n + 1}`);
      link.send(known[n], n);
      link.reply(known[n], PEER_MAC);
    }
    link.seen();
    let forwarded = 0;
    for (let n = 0; n < 100_000; n++) {
      const address = ip('172.18.0.1') + n;
      const p = link.pool.take();
      assert.ok(p !== null, 'the flood must leave packets in the pool');
      p.len = 60;
      const i = link.table.resolve(address, link.clock.now());
      if (i < 0) link.pool.release(p);
      else if (link.table.hold(i, p) !== TAKEN) link.pool.release(p);
      link.clock.advance(0.5);
      if (n % 10 !== 0) continue;
      link.table.tick(link.clock.now());
      link.seen();
      const to = known[(n / 10) % 64];
      link.send(to, n);
      assert.deepEqual(link.seen(), [`packet ${n} to ${PEER_MAC}`]);
      forwarded++;
      assert.ok(link.table.unresolved <= 128);
      assert.ok(link.table.held <= 64);
      if (link.stateOf(to) === 'PROBE') link.reply(to, PEER_MAC); // they are alive and answer
    }
    assert.equal(forwarded, 10_000);
    for (const address of known) assert.ok(link.table.usable(link.table.find(ip(address))), address);

    link.send('172.17.1.1', 7); // and a new one is found in the middle of it
    link.reply('172.17.1.1', OTHER_MAC);
    assert.equal(link.seen().at(-1), `packet 7 to ${OTHER_MAC}`);
    link.pass(100_000);
    assert.equal(link.table.held, 0);
    assert.equal(link.pool.available, 256);
  });

  it('spoofed requests to us replace only each other', () => {
    const link = new Link({ capacity: 16 });
    for (let n = 2; n < 10; n++) {
      link.send(`192.168.10.${n}`, n);
      link.reply(`192.168.10.${n}`);
    }
    link.send('192.168.10.10', 10);
    for (let n = 11; n < 250; n++) assert.equal(link.request(`192.168.10.${n}`, OTHER_MAC), 'taken');
    assert.equal(link.table.size, 8 + 1 + 4);
    for (let n = 2; n < 10; n++) assert.equal(link.stateOf(`192.168.10.${n}`), 'REACHABLE');
    assert.equal(link.stateOf('192.168.10.10'), 'INCOMPLETE');
  });

  it('a table full of resolved neighbours refuses new ones instead of forgetting old ones', () => {
    const link = new Link({ capacity: 4 });
    for (let n = 2; n < 6; n++) {
      link.send(`192.168.10.${n}`, n);
      link.reply(`192.168.10.${n}`);
    }
    link.seen();
    link.send('192.168.10.9', 9);
    assert.deepEqual(link.seen(), ['refused 9']);
    assert.equal(link.request('192.168.10.9'), 'taken');
    assert.equal(link.table.size, 4);
    assert.equal(link.table.addPermanent(ip('192.168.10.9'), 0x0200, 9), false);
  });

  it('asks for one address once a second, also when its entry is evicted and wanted again', () => {
    const link = new Link({ maxUnresolved: 1 });
    const times = new Map<string, number[]>();
    for (let n = 0; n < 1000; n++) {
      link.send(`192.168.10.${2 + (n % 3)}`, n);
      link.table.tick(link.clock.now());
      for (const line of link.seen()) {
        if (line.startsWith('request')) times.set(line, [...(times.get(line) ?? []), link.clock.now()]);
      }
      link.clock.advance(10);
    }
    assert.equal(times.size, 3);
    for (const [line, sent] of times) {
      assert.ok(sent.length > 5, line);
      for (let k = 1; k < sent.length; k++) assert.ok(sent[k] - sent[k - 1] >= 1000, line);
    }
  });

  it('allocates nothing while packets are forwarded, held, dropped and answered', () => {
    const pool = new Pool(8);
    const table = new NeighborTable({
      capacity: 64,
      pool,
      counters: new Counters(),
      address: ip(OWN),
      prefixLength: 24,
      mac: macOf(OWN_MAC),
      queuePerNeighbor: 1,
      totalQueue: 2,
      events: {
        transmit: p => pool.release(p),
        release: p => pool.release(p),
        unreachable: p => pool.release(p),
      },
    });
    const known = ip(PEER);
    const question = load(pool, arpFrame({ sha: PEER_MAC, spa: PEER, tpa: OWN }));
    const { hi, lo } = macOf(PEER_MAC);
    let now = 0;
    const round = () => {
      for (let n = 0; n < 50_000; n++) {
        const addr = (n & 1) === 0 ? known : (known + 1 + ((n >> 1) % 100)) | 0;
        const i = table.resolve(addr, now);
        const p = pool.take();
        if (p === null) throw new Error('packet lost');
        if (table.usable(i)) {
          table.writeHeader(i, p.off);
          pool.release(p);
        } else if (table.hold(i, p) !== TAKEN) pool.release(p);
        ethernet.setMac(pool.view, question.off + ethernet.DST, 0xffff, -1);
        ethernet.setMac(pool.view, question.off + ethernet.SRC, hi, lo);
        question.len = 41; // malformed: stays ours
        table.handleArp(question, now);
        if ((n & 63) === 0) table.tick(++now);
      }
    };
    table.addPermanent(known, hi, lo);
    round();
    round();
    let least = Number.POSITIVE_INFINITY;
    for (let k = 0; k < 4; k++) {
      const before = process.memoryUsage().heapUsed;
      round();
      least = Math.min(least, Math.abs(process.memoryUsage().heapUsed - before));
    }
    assert.ok(least < 100_000, `${least} bytes for 50,000 packets`); // one number each would be 800,000
  });
});

describe('neighbor: against the slow model', () => {
  const names = Array.from({ length: 10 }, (_, n) => `192.168.10.${n + 1}`).concat(ROUTER_LOOPBACK, '0.0.0.0');
  const macs = [PEER_MAC, OTHER_MAC, '02:00:00:00:00:04'];
  const name = fc.integer({ min: 0, max: 10 }).map(n => names[n]);
  const neighbor = fc.integer({ min: 1, max: 10 }).map(n => names[n]);
  const station = fc.constantFrom(...macs);
  const operation = fc.oneof(
    { weight: 6, arbitrary: fc.record({ do: fc.constant('send' as const), to: name }) },
    {
      weight: 6,
      arbitrary: fc.record({
        do: fc.constant('arp' as const),
        operation: fc.constantFrom('request' as const, 'reply' as const),
        unicast: fc.boolean(),
        mac: station,
        sender: fc.constantFrom(...names),
        target: fc.oneof(fc.constant(OWN), name),
        repeats: fc.boolean(),
      }),
    },
    {
      weight: 4,
      arbitrary: fc.record({
        do: fc.constant('pass' as const),
        ms: fc.constantFrom(1, 300, 999, 1000, 1001, 4000, 5000, 30_000, 60_000, 300_000),
      }),
    },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('permanent' as const), address: neighbor, mac: station }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('delete' as const), address: neighbor }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('own' as const), address: neighbor, add: fc.boolean() }) },
  );

  it('any sequence of packets, answers, lies, timers and commands has the same outcome', () => {
    fc.assert(
      fc.property(fc.array(operation, { minLength: 1, maxLength: 250, size: 'max' }), operations => {
        const caps = { capacity: 6, queuePerNeighbor: 2, totalQueue: 4, maxUnresolved: 3, maxLearnt: 2 };
        const link = new Link({ ...caps, slots: 16 });
        const model = new NeighborModel({
          ...caps,
          address: OWN,
          inSubnet: a => a.startsWith('192.168.10.'),
          tie: (a, b) => ip(a) - ip(b),
        });
        let id = 0;
        for (const o of operations) {
          const now = link.clock.now();
          switch (o.do) {
            case 'send':
              link.send(o.to, ++id);
              model.send(o.to, id, now);
              break;
            case 'arp': {
              const tha = o.repeats ? o.mac : OWN_MAC;
              const oper = o.operation === 'request' ? 1 : 2;
              const frame = arpFrame({ oper, sha: o.mac, spa: o.sender, tha, tpa: o.target });
              frame.set(mac(o.unicast ? OWN_MAC : EVERYBODY), 0);
              assert.equal(link.receive(frame), model.arp(o, now));
              break;
            }
            case 'pass':
              link.clock.advance(o.ms);
              assert.equal(link.table.tick(link.clock.now()), model.tick(link.clock.now()));
              break;
            case 'permanent': {
              const { hi, lo } = macOf(o.mac);
              assert.equal(link.table.addPermanent(ip(o.address), hi, lo), model.permanent(o.address, o.mac));
              break;
            }
            case 'delete':
              assert.equal(link.table.delete(ip(o.address)), model.delete(o.address));
              break;
            case 'own':
              if (o.add) {
                link.table.addOwnAddress(ip(o.address));
                model.addOwn(o.address);
              } else {
                link.table.removeOwnAddress(ip(o.address));
                model.removeOwn(o.address);
              }
          }
          assert.deepEqual(link.seen(), model.log.splice(0));
          compare(link, model);
        }
      }),
      { numRuns: 300 },
    );
  });

  function compare(link: Link, model: NeighborModel): void {
    const seen = link.table.entries(link.clock.now()).map(e => ({
      address: dotted(e.address),
      state: e.state,
      mac: e.mac === null ? '' : link.macOf(dotted(e.address)),
      queued: e.queued,
      probes: e.probes,
      idleMs: e.idleMs,
    }));
    const expected = [...model.entries.values()]
      .sort((a, b) => (ip(a.address) >>> 0) - (ip(b.address) >>> 0))
      .map(e => ({
        address: e.address,
        state: e.state,
        mac: e.state === 'INCOMPLETE' || e.state === 'FAILED' ? '' : e.mac,
        queued: model.held.filter(h => h.address === e.address).length,
        probes: e.probes,
        idleMs: link.clock.now() - e.used,
      }));
    assert.deepEqual(seen, expected);
    assert.equal(link.table.size, model.entries.size);
    assert.equal(link.table.held, model.held.length);
    assert.equal(link.pool.available, 16 - model.held.length, 'every packet is either held or back in the pool');
    for (const e of expected) assert.notEqual(link.table.find(ip(e.address)), -1);
    assert.ok(link.table.unresolved <= link.table.size);
  }

  it('CONTINUE and TAKEN are the names that the rows above use', () => {
    assert.equal(VERDICT_NAMES[CONTINUE], 'continue');
    assert.equal(VERDICT_NAMES[TAKEN], 'taken');
  });
});

describe('neighbor: display and options', () => {
  it('lists entries by address with age, queue and probes', () => {
    const link = new Link();
    link.send('192.168.10.200', 1);
    link.send('192.168.10.200', 2);
    link.send(PEER, 3);
    link.reply();
    link.pass(1500);
    assert.deepEqual(link.table.entries(link.clock.now()), [
      { address: ip(PEER), mac: macOf(PEER_MAC), state: 'REACHABLE', ageMs: 1500, idleMs: 1500, queued: 0, probes: 0 },
      {
        address: ip('192.168.10.200'),
        mac: null,
        state: 'INCOMPLETE',
        ageMs: 1500,
        idleMs: 1500,
        queued: 2,
        probes: 2,
      },
    ]);
  });

  it('refuses caps and times that cannot work', () => {
    for (const bad of [{ capacity: 0 }, { queuePerNeighbor: 0 }, { retransMs: 0 }, { gcStaleMs: Number.NaN }]) {
      assert.throws(() => new Link(bad), RangeError, JSON.stringify(bad));
    }
  });
});
