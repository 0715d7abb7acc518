/**
 * A cluster of three nodes in memory goes from each encapsulation to each other while every pod sends to every other one:
 * nothing is lost and nothing reordered, also where whoever runs the switch is killed in the middle of it, and where a peer
 * does not confirm.
 */
import assert from 'node:assert/strict';
import { ANYWHERE, type Encap, type Network } from '../../datapath/api/agent/network.ts';
import { type NetworkPlan, type Own, type Peer, routesOf, tunnelsOf } from '../../datapath/api/agent/node-network.ts';
import {
  type Account,
  beginSwitch,
  differs,
  outcomeOf,
  planOf,
  type SwitchHost,
  type SwitchState,
  TunnelSwitch,
} from '../../datapath/api/agent/tunnel-switch.ts';
import { loadConfig } from '../../datapath/control/load-config.ts';
import { type ResolvedConfig, resolveSegment, withUplink } from '../../datapath/control/resolved.ts';
import { Sim } from '../../datapath/drive/sim.ts';
import { Random } from '../../datapath/random.ts';
import { UNIMPAIRED } from '../../datapath/segment/impairments.ts';
import type { Segment } from '../../datapath/segment/segment.ts';
import { udp4 } from '../fixtures/packets.ts';

const NODES = ['n1', 'n2', 'n3'];
const WIRE_MS = 2;
/** What a node takes to be told something. */
const APPLY_MS = 2;

type Kind = 'native' | 'ipip' | 'vxlan' | 'geneve';
const KINDS: Kind[] = ['native', 'ipip', 'vxlan', 'geneve'];
const ENCAPS: Record<Exclude<Kind, 'native'>, Encap> = {
  ipip: { name: 'ipip', protocol: 'ipip' },
  vxlan: { name: 'vxlan', protocol: 'vxlan', port: 8472, vni: 'identity' },
  geneve: { name: 'geneve', protocol: 'geneve', port: 6081, vni: 'identity' },
};

const networkOf = (encap: Encap | null): Network => ({
  system: null,
  pools: [{ cidr: ANYWHERE, encap, direct: false }],
  plain: 'all',
  closed: [],
});
const network = (kind: Kind): Network => networkOf(kind === 'native' ? null : ENCAPS[kind]);

const podOf = (node: string): string => `10.244.${node.slice(1)}.10`;
const peersOf = (node: string): Peer[] =>
  NODES.filter(other => other !== node).map(name => ({
    name,
    address: `192.168.10.${name.slice(1)}`,
    podCidrs: [`10.244.${name.slice(1)}.0/24`],
  }));
const ownOf = (node: string): Own => ({
  subnet: `192.168.10.${node.slice(1)}/24`,
  podCidrs: [`10.244.${node.slice(1)}.0/24`],
});

function configOf(node: string, plan: NetworkPlan): { config?: ResolvedConfig; problems: string[] } {
  const n = node.slice(1);
  const tunnels = tunnelsOf(plan, ownOf(node), peersOf(node));
  const { routes } = routesOf(plan, ownOf(node), peersOf(node));
  const document = {
    apiVersion: 'tunpath.dev/v1',
    kind: 'NodeConfig',
    metadata: { name: node },
    spec: {
      uplink: { kind: 'segment', segment: 'lan', mac: `02:00:00:00:00:0${n}`, address: `192.168.10.${n}/24` },
      host: { device: 'tp0', address: `10.244.${n}.1/32` },
      pods: [{ name: 'p', netns: 'p', device: 'eth0', address: podOf(node), identity: 100 + Number(n) }],
      tunnels,
      routes,
      conntrack: { size: 1024 },
    },
  };
  const { config, problems = [] } = loadConfig(JSON.stringify(document), node);
  if (config === undefined) return { problems: problems.map(({ path, message }) => `${path}: ${message}`) };
  assert.ok(config.spec.uplink.kind === 'segment');
  return { config: withUplink(config, resolveSegment(config.spec.uplink)), problems: [] };
}

class Killed extends Error {}

/** Three nodes, and a stream from each pod to each other one that never rests. */
class World implements SwitchHost {
  readonly sim = new Sim({ seed: 7 });
  private readonly wire: Segment;
  saved: SwitchState | undefined;
  /** Peers that are deaf to what is asked of them. */
  deaf = new Set<string>();
  /** Ends whoever calls, at that call: before it is done, or after. */
  fuse = Number.POSITIVE_INFINITY;
  killsAfter = false;
  calls = 0;
  kill: (error: Killed) => void = () => {};
  /** At which call a node is restarted. */
  restartAt: { call: number; node: string } | undefined;
  /** When the counts of nodes that were restarted began. */
  private readonly since = new Map<string, string>();
  private readonly sequence = new Map<string, number>();
  private readonly expected = new Map<string, number>();
  readonly faults: string[] = [];
  /** Packets that did not arrive, by `SENDER>RECEIVER`. */
  readonly lost = new Map<string, number>();
  /** Every so many half milliseconds a pod sends. */
  pace = 1;
  private halves = 0;
  /** The wire loses all for so long while a node is told something, once. */
  outageMs = 0;
  private probes = 0;
  private readonly answered = new Set<number>();

  constructor(kind: Kind | Network) {
    const first = typeof kind === 'string' ? network(kind) : kind;
    const plan: NetworkPlan = { accepts: [first], towards: () => first, settled: first };
    this.wire = this.sim.addSegment('lan', { impairments: { delay: WIRE_MS } });
    for (const node of NODES) {
      this.sim.addNode(configOf(node, plan).config!);
      this.keepLedger(node);
    }
    // Neighbours are known before anything counts.
    this.pass(60);
  }

  private keepLedger(node: string): void {
    const netOf = (other: string) => ({ prefix: (10 << 24) | (244 << 16) | (Number(other.slice(1)) << 8), length: 24 });
    const peers = peersOf(node).map(({ name }) => ({ name, networks: [netOf(name)] }));
    this.sim.nodes.get(node)!.installation.keepLedger({ own: [netOf(node)], peers });
  }

  /** As far as its counts go: they begin anew. */
  restart(node: string): void {
    this.sim.nodes.get(node)!.installation.keepLedger(null);
    this.keepLedger(node);
    this.since.set(node, `restart ${this.since.size}`);
  }

  /** Time passes, in which every pod sends to every other one once in half a millisecond. */
  pass(ms: number): void {
    for (let i = 0; i < ms * 2; i++) {
      const isTurn = this.halves++ % this.pace === 0;
      for (const sender of isTurn ? NODES : []) {
        for (const { name: receiver } of peersOf(sender)) this.send(sender, receiver);
      }
      this.sim.run(0.5);
      this.collect();
    }
  }

  private send(sender: string, receiver: string): void {
    const key = `${sender}>${receiver}`;
    const number = this.sequence.get(key) ?? 0;
    this.sequence.set(key, number + 1);
    const payload = new Uint8Array(40);
    new DataView(payload.buffer).setUint32(0, number);
    this.sim.nodes
      .get(sender)!
      .inject(
        'p',
        udp4({ src: podOf(sender), dst: podOf(receiver), sport: 1000 + Number(sender.slice(1)), dport: 2000, payload }),
      );
  }

  private collect(): void {
    for (const receiver of NODES) {
      for (const { bytes } of this.sim.nodes.get(receiver)!.collect('p')) {
        const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
        const key = `n${view.getUint16(20) - 1000}>${receiver}`;
        const number = view.getUint32(28);
        const expected = this.expected.get(key) ?? 0;
        if (number !== expected) {
          this.faults.push(`${key}: got ${number}, expected ${expected}`);
          this.lost.set(key, (this.lost.get(key) ?? 0) + number - expected);
        }
        this.expected.set(key, number + 1);
      }
      for (const { bytes } of this.sim.nodes.get(receiver)!.collect('tp0')) {
        this.answered.add(new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getUint32(28));
      }
    }
  }

  /** Lets all arrive, and says what was lost or came out of order. */
  finish(): string[] {
    for (let i = 0; i < 20; i++) {
      this.sim.run(5);
      this.collect();
    }
    const lost = [...this.sequence].filter(([key, sent]) => (this.expected.get(key) ?? 0) !== sent);
    return [...this.faults, ...lost.map(([key, sent]) => `${key}: ${this.expected.get(key)} of ${sent}`)];
  }

  close(): void {
    this.sim.close();
  }

  /** The mark of every call: whoever is killed hears nothing more. */
  private async call<T>(what: () => T | Promise<T>): Promise<T> {
    this.calls++;
    const dies = this.calls === this.fuse;
    if (dies && !this.killsAfter) return this.die();
    if (this.calls === this.restartAt?.call) this.restart(this.restartAt.node);
    const result = await what();
    return dies ? this.die() : result;
  }

  private die(): Promise<never> {
    this.kill(new Killed());
    return new Promise(() => {});
  }

  nodes(): string[] {
    return NODES;
  }

  wayOf({ pools }: Network): string | null {
    return pools[0]!.encap?.name ?? '';
  }

  async check(node: string, plan: NetworkPlan): Promise<string[]> {
    return configOf(node, plan).problems;
  }

  apply(node: string, plan: NetworkPlan): Promise<void> {
    return this.call(() => {
      this.sim.nodes.get(node)!.apply(configOf(node, plan).config!);
      if (this.outageMs > 0) {
        this.wire.impair({ ...UNIMPAIRED, delay: WIRE_MS, loss: 1 });
        this.pass(this.outageMs);
        this.wire.impair({ ...UNIMPAIRED, delay: WIRE_MS });
        this.outageMs = 0;
      }
      this.pass(APPLY_MS);
    });
  }

  confirm(sender: string, receiver: string): Promise<boolean> {
    return this.call(() => {
      if (this.deaf.has(receiver)) return false;
      const number = 0x8000_0000 + this.probes++;
      const payload = new Uint8Array(40);
      new DataView(payload.buffer).setUint32(0, number);
      const [src, dst] = [`10.244.${sender.slice(1)}.1`, `10.244.${receiver.slice(1)}.1`];
      this.sim.nodes.get(sender)!.inject('tp0', udp4({ src, dst, sport: 9, dport: 9, payload }));
      this.pass(3 * WIRE_MS);
      return this.answered.has(number);
    });
  }

  account(node: string): Promise<Account | undefined> {
    return this.call(() => ({
      since: this.since.get(node) ?? 'start',
      rows: this.sim.nodes.get(node)!.installation.ledgerRows(),
    }));
  }

  save(state: SwitchState): Promise<void> {
    return this.call(() => {
      this.saved = structuredClone(state);
    });
  }

  wait(ms: number): Promise<void> {
    return this.call(() => this.pass(ms));
  }

  now(): number {
    return this.sim.now;
  }

  /** Tunnels of each node, and by which its routes lead. */
  get shape(): string[] {
    return NODES.map(node => {
      const { tunnels, routes } = this.sim.nodes.get(node)!.config.spec;
      return `${tunnels.map(({ name }) => name)} / ${routes.map(({ encap }) => encap ?? 'native')}`;
    });
  }
}

const FRESH = { epoch: 1, base: {} };

function atRest(kind: Kind): string[] {
  const name = kind === 'native' ? '' : kind;
  return NODES.map(() => `${name} / ${name || 'native'},${name || 'native'}`);
}

describe('a live switch of tunnels', function () {
  this.timeout(60_000);

  for (const from of KINDS) {
    for (const to of KINDS) {
      if (from === to) continue;
      it(`${from} to ${to}: nothing is lost or reordered, and the ledger says so`, async () => {
        const world = new World(from);
        const state = await new TunnelSwitch(world, beginSwitch(network(from), network(to), FRESH)).run();
        assert.equal(state.phase, 'Done', state.message);
        world.pass(10);
        assert.deepEqual(world.finish(), []);
        assert.deepEqual(world.shape, atRest(to));
        const rows = state.ledger;
        assert.equal(rows.length, 2 * 6);
        for (const { epoch, tunnel, sent, received, lost } of rows) {
          const kind = epoch === 1 ? from : to;
          assert.equal(tunnel, kind === 'native' ? '' : kind);
          assert.ok(sent > 10, `${sent} sent`);
          assert.deepEqual([received, lost], [sent, 0]);
        }
        assert.deepEqual(outcomeOf(state), state.to);
        world.close();
      });
    }
  }

  it('there and back again and again: each epoch is counted by itself', async () => {
    const world = new World('native');
    let before: Pick<SwitchState, 'epoch' | 'base'> = FRESH;
    let current = network('native');
    for (const kind of ['vxlan', 'native', 'vxlan', 'ipip', 'native'] as const) {
      const state = await new TunnelSwitch(world, beginSwitch(current, network(kind), before)).run();
      assert.equal(state.phase, 'Done');
      for (const { sent, received, lost } of state.ledger) {
        assert.ok(sent > 0 && sent < 2000);
        assert.deepEqual([received, lost], [sent, 0]);
      }
      before = state;
      current = outcomeOf(state);
    }
    assert.deepEqual(world.finish(), []);
    world.close();
  });

  it('what the wire loses is in the ledger', async () => {
    for (const pace of [1, 14]) {
      const world = new World('vxlan');
      world.pace = pace;
      let before: Pick<SwitchState, 'epoch' | 'base'> = FRESH;
      for (const [from, to] of [
        ['vxlan', 'geneve'],
        ['geneve', 'vxlan'],
      ] as const) {
        world.lost.clear();
        world.outageMs = 50;
        const state = await new TunnelSwitch(world, beginSwitch(network(from), network(to), before)).run();
        assert.equal(state.phase, 'Done', state.message);
        for (const { epoch, sender, receiver, sent, received, lost } of state.ledger) {
          const known = world.lost.get(`${sender}>${receiver}`)!;
          assert.ok(known >= Math.floor(100 / pace), `${known} lost`);
          assert.equal(sent - received, lost);
          const what = `${epoch} ${sender}>${receiver}: ${lost} of ${known}`;
          // The first epoch is counted from its middle on: without a pause those on their way hide as many.
          const hidden = pace === 1 && epoch === 1 ? 2 * WIRE_MS : 0;
          if (epoch === state.epoch) assert.equal(lost, 0, what);
          else assert.ok(lost! <= known && lost! >= known - hidden, what);
        }
        before = state;
      }
      world.close();
    }
  });

  it('what is lost is waited for as long as it may take, however long nodes take to answer', async () => {
    let [clock, sent] = [0, 0];
    const began: Partial<Record<SwitchState['phase'], number>> = {};
    const slow: SwitchHost = {
      nodes: () => ['n1', 'n2'],
      wayOf: ({ pools }) => pools[0]!.encap?.name ?? '',
      check: async () => [],
      async apply() {
        sent = 5;
      },
      confirm: async () => true,
      async account(node) {
        clock += 500;
        const peer = node === 'n1' ? 'n2' : 'n1';
        return { since: 'start', rows: [{ peer, tunnel: 'vxlan', sent, received: 0 }] };
      },
      async save({ phase }) {
        began[phase] ??= clock;
      },
      async wait(ms) {
        clock += ms;
      },
      now: () => clock,
    };
    const state = await new TunnelSwitch(slow, beginSwitch(network('vxlan'), network('geneve'), FRESH)).run();
    assert.equal(state.phase, 'Done');
    assert.deepEqual(
      state.ledger.filter(({ epoch }) => epoch === 1).map(({ lost }) => lost),
      [5, 5],
    );
    // Three seconds, and the look before and at the end of them.
    const ms = began.Finishing! - began.Draining!;
    assert.ok(ms >= 3000 && ms <= 3000 + 2 * 1020, `${ms} ms`);
  });

  it('a node that was restarted before a switch is not taken for loss', async () => {
    const world = new World('vxlan');
    world.pass(50);
    world.restart('n2');
    const first = await new TunnelSwitch(world, beginSwitch(network('vxlan'), network('geneve'), FRESH)).run();
    assert.deepEqual(new Set(first.ledger.map(({ lost }) => lost)), new Set([0]));
    for (const { sent, received } of first.ledger) assert.ok(sent > 10 && received === sent);
    world.pass(50);
    world.restart('n2');
    // What it counted since the first switch is forgotten; what the second one begins is counted.
    const second = await new TunnelSwitch(world, beginSwitch(network('geneve'), network('ipip'), first)).run();
    for (const { epoch, sender, receiver, lost } of second.ledger) {
      const isForgotten = epoch === 2 && [sender, receiver].includes('n2');
      assert.equal(lost, isForgotten ? null : 0, `${epoch} ${sender}>${receiver}`);
    }
    world.close();
  });

  it('of a node that is restarted in the middle of a switch nothing false is said', async () => {
    for (let call = 1, calls = 1; call <= calls; call += 5) {
      const world = new World('native');
      world.restartAt = { call, node: 'n1' };
      const first = await new TunnelSwitch(world, beginSwitch(network('native'), network('vxlan'), FRESH)).run();
      calls = world.calls;
      assert.ok(calls > 30, `${calls} calls`);
      for (const { sender, receiver, lost } of first.ledger) {
        if (![sender, receiver].includes('n1')) assert.equal(lost, 0);
        else assert.ok(lost === 0 || lost === null, `${lost} lost, restarted at call ${call}`);
      }
      world.pass(20);
      const second = await new TunnelSwitch(world, beginSwitch(network('vxlan'), network('native'), first)).run();
      // Restarted in the end or afterwards, it has forgotten a part of what the second switch leaves.
      const isKnown = first.ledger.filter(({ epoch }) => epoch === 2).filter(({ lost }) => lost === null).length === 4;
      for (const { epoch, sender, receiver, lost } of second.ledger) {
        const mayBeForgotten = epoch === 2 && !isKnown && [sender, receiver].includes('n1');
        assert.ok(lost === 0 || (lost === null && mayBeForgotten), `${lost} lost, restarted at call ${call}`);
      }
      assert.deepEqual(world.finish(), []);
      world.close();
    }
  });

  it('killed at random moments, and gone on with by another: never a half state, nothing lost', async () => {
    const random = new Random(20);
    for (let round = 0; round < 20; round++) {
      const from = KINDS[random.next() >>> 30]!;
      const to = KINDS[(KINDS.indexOf(from) + 1 + ((random.next() >>> 16) % 3)) % 4]!;
      const world = new World(from);
      let state = beginSwitch(network(from), network(to), FRESH);
      await world.save(state);
      let kills = 0;
      for (;;) {
        world.calls = 0;
        world.fuse = kills < 3 ? 1 + ((random.next() >>> 8) % 60) : Number.POSITIVE_INFINITY;
        world.killsAfter = random.next() < 0;
        const death = new Promise<never>((_, reject) => {
          world.kill = reject;
        });
        try {
          state = await Promise.race([new TunnelSwitch(world, state).run(), death]);
          break;
        } catch (error) {
          if (!(error instanceof Killed)) throw error;
          kills++;
          // Nobody is there for a while.
          world.pass(20);
          state = world.saved!;
        }
      }
      const what = `round ${round}: ${from} to ${to}, killed ${kills} times`;
      assert.equal(state.phase, 'Done', what);
      assert.deepEqual(world.finish(), [], what);
      assert.deepEqual(world.shape, atRest(to), what);
      world.close();
    }
  });

  it('a peer that does not confirm takes all back, without loss', async () => {
    for (const deaf of NODES) {
      const world = new World('vxlan');
      world.deaf.add(deaf);
      const state = await new TunnelSwitch(world, beginSwitch(network('vxlan'), network('geneve'), FRESH)).run();
      assert.equal(state.phase, 'RolledBack');
      assert.match(state.message, new RegExp(`^${deaf} does not confirm what n\\d sends by geneve$`));
      world.pass(10);
      assert.deepEqual(world.finish(), []);
      assert.deepEqual(world.shape, atRest('vxlan'));
      assert.deepEqual(outcomeOf(state), network('vxlan'));
      for (const { lost } of state.ledger) assert.equal(lost, 0);
      world.close();
    }
  });

  it('where the old network has no way back, a pair is confirmed with its opposite', async () => {
    const accounts = { since: 'start', rows: [] };
    for (const broken of [false, true]) {
      const plans = new Map<string, NetworkPlan>();
      const echoes: string[] = [];
      const wayOf = ({ pools }: Network): string | null => pools[0]!.encap?.name ?? null;
      const leads = (from: string, to: string): boolean => wayOf(plans.get(from)!.towards(to)) !== null;
      const apart: SwitchHost = {
        nodes: () => ['n1', 'n2'],
        wayOf,
        check: async () => [],
        apply: async (node, plan) => void plans.set(node, plan),
        async confirm(from, to) {
          echoes.push(`${from}>${to}`);
          return !broken && leads(from, to) && leads(to, from);
        },
        account: async () => accounts,
        save: async () => {},
        wait: async () => {},
        now: () => 0,
      };
      const state = await new TunnelSwitch(apart, beginSwitch(network('native'), network('vxlan'), FRESH)).run();
      assert.equal(state.phase, broken ? 'RolledBack' : 'Done', state.message);
      assert.deepEqual([...new Set(echoes)], ['n2>n1']);
      assert.equal(leads('n1', 'n2') && leads('n2', 'n1'), !broken);
    }
  });

  it('another port, and another VNI, are switches like others', async () => {
    const vxlan = (port: number, vni: number) => networkOf({ name: 'vxlan', protocol: 'vxlan', port, vni });
    const world = new World(vxlan(8472, 1));
    let before: Pick<SwitchState, 'epoch' | 'base'> = FRESH;
    let current = vxlan(8472, 1);
    for (const [port, vni, name] of [
      [4789, 1, 'vxlan-4789-1'],
      [4789, 2, 'vxlan'],
      [8472, 1, 'vxlan-8472-1'],
    ] as const) {
      assert.ok(differs(current, vxlan(port, vni)));
      const state = await new TunnelSwitch(world, beginSwitch(current, vxlan(port, vni), before)).run();
      assert.equal(state.phase, 'Done', state.message);
      assert.equal(state.to.pools[0]!.encap!.name, name);
      before = state;
      current = outcomeOf(state);
    }
    assert.ok(!differs(current, vxlan(8472, 1)));
    assert.deepEqual(world.finish(), []);
    world.close();
  });

  it('what cannot be told apart is refused by name, and nothing is touched', async () => {
    const refused: [Encap, RegExp][] = [
      [{ name: 'vxlan', protocol: 'vxlan', port: 8472, vni: 5 }, /n1: .*another VNI or another port/],
      [{ name: 'geneve', protocol: 'geneve', port: 8472, vni: 5 }, /n1: .*another port than 8472/],
    ];
    for (const [encap, expected] of refused) {
      const world = new World('vxlan');
      const state = await new TunnelSwitch(world, beginSwitch(network('vxlan'), networkOf(encap), FRESH)).run();
      assert.equal(state.phase, 'Refused');
      assert.match(state.message, expected);
      assert.equal(world.calls, 1);
      assert.deepEqual(world.shape, atRest('vxlan'));
      world.close();
    }
  });

  it('MTUs are those of the smaller network as long as both are there', () => {
    const state = beginSwitch(network('native'), network('vxlan'), FRESH);
    const tunnels = (phase: SwitchState['phase']) =>
      configOf('n1', planOf({ ...state, phase }, 'n1')).config!.spec.tunnels.map(({ name }) => name);
    assert.deepEqual(tunnels('Moving'), ['vxlan']);
    assert.deepEqual(tunnels('RollingBack'), ['vxlan']);
    assert.deepEqual(tunnels('Done'), ['vxlan']);
    assert.deepEqual(tunnels('RolledBack'), []);
  });
});
