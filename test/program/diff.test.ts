/** A running loop that has been changed from program to program is as one that was started with the last of them. */
import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { ManualClock } from '../../datapath/clock.ts';
import { Counters } from '../../datapath/counters.ts';
import { UDP_NEW } from '../../datapath/flow/timeouts.ts';
import type { DeviceHandle } from '../../datapath/io/handle.ts';
import { MemoryDevice } from '../../datapath/io/memory.ts';
import { type MasqueradeRule, MasqueradeRules } from '../../datapath/nat/masquerade.ts';
import type { Service } from '../../datapath/nat/service.ts';
import { Pool } from '../../datapath/packet/pool.ts';
import { PORT_HOST, PORT_POD, PORT_UPLINK } from '../../datapath/port.ts';
import { type Change, diff, inPieces } from '../../datapath/program/diff.ts';
import { Installation } from '../../datapath/program/install.ts';
import {
  findFaults,
  type HopProgram,
  hopProgram,
  type PortProgram,
  type Program,
  portKey,
  type TunnelProgram,
} from '../../datapath/program/program.ts';
import { Random } from '../../datapath/random.ts';
import * as hops from '../../datapath/route/nexthop.ts';
import { TUNNEL_GENEVE, TUNNEL_IPIP, TUNNEL_VXLAN } from '../../datapath/tunnel/tunnel.ts';

const PROFILES = ['linux', 'cilium', 'flannel'] as const;
const NODE = 0x0a000001;
const PEERS = [0x0a000002, 0x0a000003, 0x0a000004];
const UPLINK: PortProgram = { kind: PORT_UPLINK, name: 'ul0', addresses: [NODE], identity: 2, place: '' };

/** What a random program is made from: small numbers that name things. */
interface Choice {
  pods: { name: number; address: number; identity: number; place: number }[];
  hasHost: boolean;
  hostAddress: number;
  tunnels: { name: number; protocol: number; vni: number; peers: number[]; mac: number }[];
  routes: { prefix: number; length: number; tunnel: number; peer: number; mtu: number }[];
  services: { name: number; port: number; endpoints: number[] }[];
  rules: { from: number; masquerade: boolean }[];
  profile: number;
  timeout: number;
}

const few = <T>(item: fc.Arbitrary<T>, key: (value: T) => unknown, max = 5) =>
  fc.uniqueArray(item, { maxLength: max, selector: key });

const choices: fc.Arbitrary<Choice> = fc.record({
  pods: few(
    fc.record({ name: fc.nat(6), address: fc.nat(9), identity: fc.nat(2), place: fc.nat(1) }),
    ({ name }) => name,
  ),
  hasHost: fc.boolean(),
  hostAddress: fc.nat(2),
  tunnels: few(
    fc.record({
      name: fc.nat(3),
      protocol: fc.constantFrom(TUNNEL_IPIP, TUNNEL_VXLAN, TUNNEL_GENEVE),
      vni: fc.nat(2),
      peers: fc.uniqueArray(fc.nat(2), { minLength: 1 }),
      mac: fc.nat(1),
    }),
    ({ name }) => name,
    3,
  ),
  routes: few(
    fc.record({
      prefix: fc.nat(7),
      length: fc.constantFrom(16, 24, 32),
      tunnel: fc.nat(3),
      peer: fc.nat(2),
      mtu: fc.nat(1),
    }),
    ({ prefix, length }) => `${prefix}/${length}`,
    12,
  ),
  services: few(
    fc.record({ name: fc.nat(4), port: fc.nat(1), endpoints: fc.uniqueArray(fc.nat(4)) }),
    ({ name }) => name,
  ),
  rules: fc.array(fc.record({ from: fc.nat(3), masquerade: fc.boolean() }), { maxLength: 4 }),
  profile: fc.nat(2),
  timeout: fc.nat(1),
});

function programOf(choice: Choice): Program {
  const pods = choice.pods.map(
    ({ name, address, identity, place }): PortProgram => ({
      kind: PORT_POD,
      name: `p${name}`,
      addresses: [0x0af40000 + address],
      identity,
      place: `ns${place}`,
    }),
  );
  const hostAddress = 0x0af4ff00 + choice.hostAddress;
  const host: PortProgram = { kind: PORT_HOST, name: 'tp0', addresses: [hostAddress], identity: 6, place: '' };
  const tunnels = choice.tunnels.map(
    ({ name, protocol, vni, peers, mac }): TunnelProgram => ({
      name: `t${name}`,
      protocol,
      port: 4000 + name,
      vni,
      localAddress: NODE,
      localMacHi: 0x0242,
      localMacLo: NODE,
      peers: peers.map(peer => ({ address: PEERS[peer], macHi: 0x0242 + mac, macLo: PEERS[peer] })),
      acceptAny: false,
    }),
  );
  const nextHops: HopProgram[] = [hopProgram(hops.HOP_REFUSE)];
  const place = (hop: HopProgram) => nextHops.push(hop) - 1;
  const routes = pods.map(pod => ({
    prefix: pod.addresses[0],
    length: 32,
    hop: place(hopProgram(hops.HOP_POD, { port: portKey(pod), mtu: 1500, transit: 1 })),
  }));
  for (const { prefix, length, tunnel, peer, mtu } of choice.routes) {
    const into = tunnels.find(({ name, peers }) => name === `t${tunnel}` && peers.some(p => p.address === PEERS[peer]));
    const common = { port: portKey(UPLINK), gateway: PEERS[peer], mtu: 1400 + mtu };
    const hop =
      into === undefined
        ? hopProgram(hops.HOP_GATEWAY, common)
        : hopProgram(hops.HOP_TUNNEL, { ...common, tunnel: into.name, peerAddress: PEERS[peer] });
    routes.push({ prefix: (prefix << 24) & (-1 << (32 - length)), length, hop: place(hop) });
  }
  const unique = [...new Map(routes.map(route => [`${route.prefix}/${route.length}`, route])).values()];
  const services = choice.services.map(
    ({ name, port, endpoints }): Service => ({
      name: `default/s${name}`,
      clusterAddresses: [0x0a600000 + name],
      ports: [
        {
          protocol: 17,
          port: 53 + port,
          endpoints: endpoints.map(e => ({
            address: 0x0af40000 + e,
            port: 53,
            ready: true,
            serving: true,
            terminating: false,
            local: true,
          })),
        },
      ],
    }),
  );
  const rules = choice.rules.map(
    ({ from, masquerade }): MasqueradeRule => ({
      from: [{ address: from << 28, length: 4 }],
      action: masquerade ? 'MASQUERADE' : 'RETURN',
    }),
  );
  return {
    profile: PROFILES[choice.profile],
    underlay: { address: NODE, prefixLength: 24, macHi: 0x0242, macLo: NODE, mtu: 1500 },
    hostAddress,
    ports: [...pods, ...(choice.hasHost ? [host] : []), UPLINK],
    routes: unique,
    nextHops,
    tunnels,
    neighbors: [],
    policy: null,
    nat:
      services.length + rules.length === 0
        ? null
        : {
            capacity: 64,
            timeouts: { profile: 'linux', seconds: { [UDP_NEW]: 30 + choice.timeout } },
            ports: {},
            nodeAddresses: [NODE],
            services,
            rules,
          },
  };
}

/** A loop's tables, with devices in memory. */
class Loop {
  readonly installation: Installation;
  readonly closed: string[] = [];
  private readonly pool = new Pool(80);
  private readonly counters = new Counters();
  program: Program;

  constructor(program: Program) {
    this.program = program;
    this.installation = new Installation(
      program,
      program.ports.map(port => this.device(`${portKey(port)} ${port.place}`)),
      { pool: this.pool, counters: this.counters, clock: new ManualClock(), random: new Random(1) },
    );
  }

  private device(name: string): MemoryDevice {
    const device = new MemoryDevice(this.pool, { name, layer: 3, mtu: 1500 });
    device.close = () => this.closed.push(name);
    return device;
  }

  apply(changes: readonly Change[]): void {
    const given = changes.map(change =>
      change.kind === 'port' && change.port !== null && change.device !== 'kept'
        ? { ...change, handle: { name: `${change.key} ${change.port.place}` } as DeviceHandle }
        : change,
    );
    this.installation.apply(given, handle => this.device(handle.name));
  }

  become(program: Program): void {
    for (const piece of inPieces(diff(this.program, program))) this.apply(piece);
    this.program = program;
  }

  /** Everything that packets meet, by names. */
  describe(): unknown {
    const { datapath } = this.installation;
    const ports = this.installation.portNumbers();
    const tunnels = datapath.tunnels.list;
    // One that has nothing to rewrite is as good as none.
    const nat =
      datapath.nat !== null && datapath.nat.services.size + datapath.nat.rules.count > 0 ? datapath.nat : null;
    return {
      habits: [datapath.decrementAtDelivery, datapath.alwaysMasquerade],
      ports: ports
        .map(([key, number]) => {
          const { index, device, identity, addresses } = datapath.ports[number];
          assert.equal(index, number);
          return [key, device.name, identity, ...addresses];
        })
        .sort(),
      host: [datapath.hostAddress, datapath.host?.name ?? null, datapath.uplink?.name],
      routes: datapath.routes.entries().map(({ prefix, length, value }) => {
        const hop = datapath.nextHops[value];
        const program = this.installation.hopOf(value);
        const tunnel = datapath.tunnels.byNumber[hop.tunnel];
        if (program.tunnel !== '') assert.equal(hop.peer, tunnel!.findPeer(program.peerAddress));
        if (program.tunnel !== '') assert.ok(hop.peer >= 0);
        assert.equal(new Map(ports).get(program.port) ?? -1, hop.port);
        return [prefix, length, program, tunnel?.port ?? null];
      }),
      tunnels: tunnels
        .map(t => {
          const peers = PEERS.filter(peer => t.findPeer(peer) >= 0);
          const headers = peers.map(peer => [...t.templates.slice(t.findPeer(peer) * 8, t.findPeer(peer) * 8 + 8)]);
          return [t.port, t.protocol, t.vniWord, t.ttl, t.udpChecksum, t.checkInnerMac, peers, headers];
        })
        .sort((a, b) => Number(a[0]) - Number(b[0])),
      nat:
        nat === null
          ? null
          : {
              full: datapath.flows!.table.whenFull,
              masqueradePods: nat.services.masqueradePods,
              servesOutside: nat.services.servesOutside,
              timeout: datapath.flows!.timeouts[UDP_NEW],
              services: Array.from(nat.services.rows(), ({ service, port, backends }) => [
                service.name,
                port.port,
                backends.map(({ address, gone }) => [address, gone]).sort(),
              ]).sort(),
              rules: nat.rules.count,
            },
    };
  }
}

describe('a program on a running loop', function () {
  this.timeout(60_000);
  it('is after any changes what it is from the start', () => {
    fc.assert(
      fc.property(fc.array(choices, { minLength: 2, maxLength: 5 }), list => {
        const [first, ...others] = list.map(programOf);
        const loop = new Loop(first);
        for (const program of others) {
          assert.deepEqual(findFaults(program), []);
          loop.become(program);
          assert.deepEqual(loop.describe(), new Loop(program).describe());
        }
      }),
      { numRuns: 60 },
    );
  });

  it('is what it was when any part of a change is taken back', () => {
    fc.assert(
      fc.property(choices, choices, fc.nat(60), (a, b, done) => {
        // Devices that are closed do not come back: that is why it is done last (isLast).
        const { pods, hasHost, hostAddress } = a;
        const [from, to] = [programOf(a), programOf({ ...b, pods, hasHost, hostAddress })];
        const loop = new Loop(from);
        const before = loop.describe();
        const changes = diff(from, to);
        loop.apply(changes.slice(0, done));
        loop.apply(diff(to, from));
        assert.deepEqual(loop.describe(), before);
      }),
      { numRuns: 60 },
    );
  });

  it('keeps the numbers of what stays', () => {
    fc.assert(
      fc.property(choices, choices, (a, b) => {
        const loop = new Loop(programOf(a));
        const rules = loop.installation.datapath.nat?.rules ?? new MasqueradeRules([]);
        rules.hits.fill(7);
        const before = new Map(loop.installation.portNumbers());
        loop.become(programOf(b));
        for (const [key, number] of loop.installation.portNumbers()) {
          if (before.has(key)) assert.equal(number, before.get(key));
        }
        const after = loop.installation.datapath.nat?.rules ?? rules;
        const numbers = [...after.numbers.slice(1)];
        assert.equal(new Set(numbers).size, numbers.length);
        numbers.forEach((number, i) => {
          const old = [...rules.numbers].indexOf(number, 1);
          assert.equal(after.hits[i + 1], old > 0 ? 7 : 0, 'hits stay with the rule');
          if (old < 0) assert.ok(number > Math.max(0, ...rules.numbers), 'a new rule has a number that none had');
        });
      }),
      { numRuns: 60 },
    );
  });

  it('changes nothing when nothing differs, and lets routes that stay alone', () => {
    fc.assert(fc.property(choices, choice => assert.deepEqual(diff(programOf(choice), programOf(choice)), [])));
  });

  it('puts what is new first, and what nothing leads to any more last', () => {
    const base: Choice = {
      pods: [],
      hasHost: true,
      hostAddress: 0,
      tunnels: [],
      routes: [],
      services: [],
      rules: [],
      profile: 0,
      timeout: 0,
    };
    const tunnel = { protocol: TUNNEL_VXLAN, vni: 1, mac: 0 };
    const a = programOf({
      ...base,
      pods: [{ name: 0, address: 0, identity: 0, place: 0 }],
      tunnels: [{ ...tunnel, name: 0, peers: [0, 1] }],
      routes: [{ prefix: 1, length: 24, tunnel: 0, peer: 0, mtu: 0 }],
    });
    const b = programOf({
      ...base,
      pods: [{ name: 1, address: 1, identity: 0, place: 0 }],
      tunnels: [{ ...tunnel, name: 1, peers: [0, 1] }],
      routes: [{ prefix: 1, length: 24, tunnel: 1, peer: 0, mtu: 0 }],
    });
    const text = (change: Change) =>
      change.kind === 'port'
        ? `${change.key} ${change.port === null ? 'gone' : change.device}`
        : change.kind === 'tunnel'
          ? `${change.name} ${change.tunnel === null ? 'gone' : change.was}`
          : change.kind === 'route'
            ? `route ${change.hop === null ? 'gone' : change.hop.tunnel}`
            : change.kind;
    assert.deepEqual(diff(a, b).map(text), [
      'pod p1 new',
      't1 new',
      'route ',
      'route t1',
      'route gone',
      't0 gone',
      'pod p0 gone',
    ]);
    // A peer goes only when no route leads to it.
    const c = programOf({ ...base, pods: [], tunnels: [{ ...tunnel, name: 1, peers: [1] }] });
    assert.deepEqual(diff(b, c).map(text), [
      't1 same headers',
      'route gone',
      'route gone',
      't1 same headers',
      'pod p1 gone',
    ]);
  });
});
