/**
 * `tunpath apply` under traffic: what a route is encapsulated in changes on both ends while a stream goes over it, and pods,
 * tunnels and routes come and go beside flows that have nothing to do with them. Nothing is lost, nothing is reordered.
 *
 *   pa -- node a ---- bridge sw ---- node b -- pb        and on a: p0, p1 beside pa, and pods that come and go
 */
import { strict as assert } from 'node:assert';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { callNode } from '../../datapath/control/client.ts';
import type { ApplyResult } from '../../datapath/control/node.ts';
import { socketPath } from '../../datapath/control/server.ts';
import { Capture, decodeCapture } from '../../datapath/lab/capture.ts';
import { Rig, until } from './rig.ts';

type Spec = Record<string, unknown>;
type Kind = 'native' | 'ipip' | 'vxlan' | 'geneve';

const ENDS = {
  a: {
    own: '192.168.10.1',
    peer: '192.168.10.2',
    pod: '10.244.1.10',
    network: '10.244.1.0/24',
    other: '10.244.2.0/24',
  },
  b: {
    own: '192.168.10.2',
    peer: '192.168.10.1',
    pod: '10.244.2.10',
    network: '10.244.2.0/24',
    other: '10.244.1.0/24',
  },
} as const;
type End = keyof typeof ENDS;

const PER_SECOND = 2000;
const BYTES = 64;
/** How long a kind is left in place. */
const PHASE_MS = 400;
/** Every ordered pair of kinds once: from each to each other. */
const CIRCUIT: Kind[] = [
  ...(['native', 'ipip', 'native', 'vxlan', 'native', 'geneve'] as const),
  ...(['ipip', 'vxlan', 'ipip', 'geneve', 'vxlan', 'geneve', 'native'] as const),
];
/** The machine may keep a reader waiting until its socket buffer is full; that is not ours to count. */
const ATTEMPTS = 4;
const CYCLES = 100;

/** What iperf3 says of one direction of UDP. */
interface Received {
  packets: number;
  lost: number;
  outOfOrder: number;
}

describe('apply under traffic', function () {
  this.timeout(240_000);
  let rig: Rig;

  before(async () => {
    rig = new Rig('at');
    await rig.namespace('a', 'b', 'pa', 'pb', 'p0', 'p1', 'guest');
    await rig.bridge('sw', '192.168.10.254/24');
    for (const end of ['a', 'b'] as const) {
      await rig.node(end, specOf(end, 'native'));
      await rig.plug(end, 'ul0', 'sw', `up-${end}`);
    }
    for (const [from, to] of [
      ['pa', ENDS.b.pod],
      ['p0', '10.244.1.12'],
    ]) {
      await until(`${to} to answer`, async () => (await rig.exec(from, 'ping', '-c1', '-W1', to)).code === 0);
    }
    for (const pod of ['pb', 'p1']) {
      const server = rig.spawn(pod, 'iperf3', '-s', '--forceflush');
      await server.until('Server listening');
    }
  });
  after(() => rig.close());

  function pod(name: string, netns: string, address: string): Spec {
    return { name, netns: rig.full(netns), device: 'eth0', address };
  }

  /** All tunnels are accepted on both ends; `kind` is what the route to the other end takes. */
  function specOf(end: End, kind: Kind, more: { pods?: Spec[]; routes?: Spec[]; tunnels?: Spec[] } = {}): Spec {
    const { own, peer, pod: address, other } = ENDS[end];
    const peers = [{ address: peer }];
    const beside = end === 'a' ? [pod('p0', 'p0', '10.244.1.11'), pod('p1', 'p1', '10.244.1.12')] : [];
    return {
      uplink: { kind: 'tap', device: 'ul0', mac: `02:00:00:00:00:0${own.at(-1)}`, address: `${own}/24` },
      pods: [pod(`p${end}`, `p${end}`, address), ...beside, ...(more.pods ?? [])],
      tunnels: [
        { name: 'ipip', protocol: 'ipip', peers },
        { name: 'vxlan', protocol: 'vxlan', peers },
        { name: 'geneve', protocol: 'geneve', peers },
        ...(more.tunnels ?? []),
      ],
      routes: [{ to: other, via: peer, encap: kind === 'native' ? false : kind }, ...(more.routes ?? [])],
      masquerade: [{ from: '10.244.0.0/16', notTo: ['10.244.0.0/16'] }],
    };
  }

  async function apply(end: End, spec: Spec): Promise<NonNullable<ApplyResult['applied']>> {
    const text = readFileSync(rig.writeConfig(end, spec), 'utf8');
    const result = (await callNode(socketPath(rig.full(end)), 'apply', { text, file: 'test' }, 30_000)) as ApplyResult;
    assert.ok(result.applied !== undefined, JSON.stringify(result));
    return result.applied;
  }

  /** Runs a stream of UDP while `work` goes on. @returns what each direction received, as iperf3 counts */
  async function stream(
    from: string,
    to: string,
    options: { seconds: number; perSecond: number; both: boolean },
    work: () => Promise<void>,
  ): Promise<Received[]> {
    const { seconds, perSecond, both } = options;
    const rate = ['-u', '-l', `${BYTES}`, '-b', `${perSecond * BYTES * 8}`, '-t', `${seconds}`];
    const client = rig.spawn(from, 'iperf3', '-c', to, ...rate, ...(both ? ['--bidir'] : []), '-J', '-i', '0');
    await sleep(700);
    await work();
    assert.equal(await client.exited, 0, client.output);
    const { end } = JSON.parse(client.output) as {
      end: Record<string, { packets: number; lost_packets: number }> & { streams: { udp: { out_of_order: number } }[] };
    };
    const outOfOrder = end.streams.reduce((sum, { udp }) => sum + udp.out_of_order, 0);
    return (both ? [end.sum, end.sum_bidir_reverse] : [end.sum]).map(sum => ({
      packets: sum.packets,
      lost: sum.lost_packets,
      outOfOrder,
    }));
  }

  /** Datagrams that a reader was too slow for. */
  async function unread(...pods: string[]): Promise<number> {
    let sum = 0;
    for (const name of pods) {
      const rows = (await rig.run(name, 'cat', '/proc/net/snmp')).split('\n').filter(line => line.startsWith('Udp:'));
      const at = rows[0].split(' ').indexOf('RcvbufErrors');
      sum += Number(rows[1].split(' ')[at]);
      // And packets that the device's own queue had no room for while the node did not run.
      sum += Number(await rig.run(name, 'cat', '/sys/class/net/eth0/statistics/tx_dropped'));
    }
    return sum;
  }

  it(`a stream of ${PER_SECOND} packets per second through every switch of encapsulation loses none`, async () => {
    for (let attempt = 1; ; attempt++) {
      const before = await unread('pa', 'pb');
      const file = join(rig.directory, 'switch.pcap');
      const capture = await Capture.start(rig.full('sw'), 'up-a', file, {
        filter: 'ip',
        snaplen: 128,
        env: process.env,
      });
      const seconds = Math.ceil((CIRCUIT.length * (PHASE_MS + 200)) / 1000) + 2;
      const received = await stream('pa', ENDS.b.pod, { seconds, perSecond: PER_SECOND, both: true }, async () => {
        for (const kind of CIRCUIT.slice(1)) {
          await Promise.all([apply('a', specOf('a', kind)), apply('b', specOf('b', kind))]);
          await sleep(PHASE_MS);
        }
      });
      const { dropped } = await capture.stop();
      const notOurs = (await unread('pa', 'pb')) - before;
      const said = `${JSON.stringify(received)}, ${notOurs} not read in time, ${dropped} not captured`;
      if ((notOurs > 0 || dropped > 0) && attempt < ATTEMPTS) continue;
      for (const { packets, lost, outOfOrder } of received) {
        assert.ok(packets > seconds * PER_SECOND * 0.9, said);
        assert.deepEqual([lost, outOfOrder], [0, 0], said);
      }
      const rows = await decodeCapture(file, ['ip.src', 'ip.proto', 'udp.port'], 'udp.port == 5201');
      for (const [from, inner] of [
        [ENDS.a.own, ENDS.a.pod],
        [ENDS.b.own, ENDS.b.pod],
      ]) {
        const kinds = rows
          .filter(([[src]]) => src === from || src === inner)
          .map(([, [protocol], ports]) => kindOf(protocol, ports));
        const runs = kinds.filter((kind, i) => kind !== kinds[i - 1]);
        assert.deepEqual(runs, CIRCUIT, `what the wire saw of ${inner}`);
      }
      return;
    }
  });

  it(`pods come and go ${CYCLES} times, tunnels and routes too, and flows beside them do not notice`, async () => {
    await apply('a', specOf('a', 'vxlan'));
    await apply('b', specOf('b', 'vxlan'));
    // A flow that a masquerade rule decides, for its hits to be there.
    await rig.run('p0', 'ping', '-c1', '-W2', '192.168.10.254');
    const hits = async () => (await rig.get<{ rule: number; flows: number }>('a', 'masquerade'))[0];
    const portOf = async (name: string) => (await rig.ports('a')).find(port => port.name === name)!;
    const [ruleBefore, portBefore] = [await hits(), await portOf('pa')];
    for (let attempt = 1; ; attempt++) {
      const before = await unread('pa', 'pb');
      const ping = rig.spawn('p0', 'ping', '-i', '0.01', '-q', '10.244.1.12');
      let stops = 0;
      const [received] = await stream('pa', ENDS.b.pod, { seconds: 40, perSecond: 500, both: false }, async () => {
        for (let i = 0; i < CYCLES; i++) {
          const guest = pod('guest', 'guest', `10.244.1.${100 + (i % 100)}`);
          const tunnels = [
            { name: `x${i % 3}`, protocol: 'vxlan', port: 9000 + i, vni: i, peers: [{ address: ENDS.a.peer }] },
          ];
          const routes = [{ to: `10.9.${i}.0/24`, via: ENDS.a.peer, encap: `x${i % 3}` }];
          const more = i % 2 === 0 ? { pods: [guest], tunnels, routes } : { tunnels, routes };
          stops = Math.max(stops, (await apply('a', specOf('a', 'vxlan', more))).longestStopMs);
          stops = Math.max(
            stops,
            (await apply('a', specOf('a', 'vxlan', i % 2 === 0 ? { tunnels } : { pods: [guest] }))).longestStopMs,
          );
        }
      });
      ping.child.kill('SIGINT');
      await ping.exited;
      const [, sent, answered] = /(\d+) packets transmitted, (\d+) received/.exec(ping.output) ?? [];
      const notOurs = (await unread('pa', 'pb')) - before;
      const said = `${JSON.stringify(received)}, ${notOurs} not read in time, ping ${ping.output}, longest stop ${stops} ms`;
      if (notOurs > 0 && attempt < ATTEMPTS) continue;
      assert.deepEqual([received.lost, received.outOfOrder], [0, 0], said);
      assert.ok(Number(sent) > 500, said);
      // The last one may be on its way when ping ends.
      assert.ok(Number(sent) - Number(answered) <= 1, said);
      break;
    }
    const [ruleAfter, portAfter] = [await hits(), await portOf('pa')];
    assert.equal(ruleAfter.rule, ruleBefore.rule);
    assert.ok(ruleAfter.flows >= ruleBefore.flows && ruleBefore.flows > 0, 'hits go on');
    assert.ok(portAfter.rxPackets > portBefore.rxPackets + 10_000, 'counters go on');
    await apply('a', specOf('a', 'vxlan'));
    assert.deepEqual(
      (await rig.ports('a')).map(({ name }) => name),
      ['pa', 'p0', 'p1', 'ul0'],
    );
  });
});

function kindOf(protocol: string, ports: string[]): Kind {
  if (protocol === '4') return 'ipip';
  if (ports.includes('8472')) return 'vxlan';
  return ports.includes('6081') ? 'geneve' : 'native';
}
