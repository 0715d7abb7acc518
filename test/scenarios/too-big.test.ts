/**
 * What ping, tracepath and TCP make of a packet that does not fit, as one table: each tunnel, the four ways of RFC 4459, over
 * underlays of several MTUs and one with a narrow link in its middle.
 */
import { strict as assert } from 'node:assert';
import { after, before, describe, it } from 'mocha';
import { Rig, type Running } from '../netns/rig.ts';
import { makeRouters, nodeAddress, plugNode, routerAddress, setLinkMtu } from './routers.ts';

const WAYS = ['signal', 'fragment-outer', 'fragment-inner', 'larger-underlay'] as const;
type Way = (typeof WAYS)[number];
const OVERHEADS = { ipip: 20, vxlan: 50, geneve: 50 };
type Protocol = keyof typeof OVERHEADS;

/** MTU of the nodes' uplinks, and of the link between the routers; `df` of the tunnel's packets. */
interface Underlay {
  name: string;
  uplink: number;
  link: number;
  df: 'clear' | 'set';
}

const UNDERLAYS: Underlay[] = [
  { name: '1500', uplink: 1500, link: 1500, df: 'clear' },
  { name: '1400', uplink: 1400, link: 1400, df: 'clear' },
  { name: '9000', uplink: 9000, link: 9000, df: 'clear' },
  { name: '1500, 1400 in the middle', uplink: 1500, link: 1400, df: 'clear' },
  { name: '1500, 1400 in the middle, outer DF', uplink: 1500, link: 1400, df: 'set' },
];

/** Lengths in bytes of the IP packets that pods send; -O stands for the tunnel's headers. */
interface Expected {
  /** MTU of the pods' devices. */
  pod: string;
  /** The longest that `ping -M do` gets through once everybody has heard of the path. */
  largest: string;
  /** Who refuses one byte more: the sender's kernel, or nobody. */
  refused: 'EMSGSIZE' | 'lost';
  /** What tracepath says at its end; nothing where its probes are lost. */
  tracepath: string | null;
  /** A ping of 3000 bytes without DF, and with the kernel's choice (-M want). */
  fragments: 'pass' | 'lost';
  tcp: 'pass' | 'stalls';
}

const fits = (mtu: string): Expected => ({
  pod: mtu,
  largest: mtu,
  refused: 'EMSGSIZE',
  tracepath: mtu,
  fragments: 'pass',
  tcp: 'pass',
});

const TABLE: Record<string, Record<Way, Expected>> = {
  '1500': {
    signal: fits('1500-O'),
    'fragment-outer': fits('1500'),
    'fragment-inner': fits('1500'),
    'larger-underlay': fits('1500-O'),
  },
  '1400': {
    signal: fits('1400-O'),
    'fragment-outer': fits('1400'),
    'fragment-inner': fits('1400'),
    'larger-underlay': fits('1400-O'),
  },
  '9000': {
    signal: fits('9000-O'),
    'fragment-outer': fits('9000'),
    'fragment-inner': fits('9000'),
    // What it is for: pods have an Ethernet's 1500, and every link has room for that.
    'larger-underlay': fits('1500'),
  },
  // Without DF outside, the router before the narrow link cuts tunnel packets; the exit puts them together.
  '1500, 1400 in the middle': {
    signal: fits('1500-O'),
    'fragment-outer': fits('1500'),
    'fragment-inner': fits('1500'),
    'larger-underlay': fits('1500-O'),
  },
  '1500, 1400 in the middle, outer DF': {
    // The router refuses, the node passes it on, and the pod's kernel knows from then on.
    signal: { ...fits('1400-O'), pod: '1500-O' },
    'fragment-outer': fits('1500'),
    'fragment-inner': fits('1500'),
    // The black hole: the promise of RFC 4459 section 3.3 is broken, and nobody is told.
    'larger-underlay': {
      pod: '1500-O',
      largest: '1400-O',
      refused: 'lost',
      tracepath: null,
      fragments: 'lost',
      tcp: 'stalls',
    },
  },
};

const TCP_PORT = 5001;
const TCP_BYTES = 300_000;
const address = (side: number, way: Way) => `10.77.${10 * side + WAYS.indexOf(way)}.10`;
const network = (side: number, way: Way) => `10.77.${10 * side + WAYS.indexOf(way)}.0/24`;
const podName = (side: number, way: Way) => `${way}${side}`;

function lengthOf(text: string, protocol: Protocol): number {
  const [bytes, minus] = text.split('-');
  return Number(bytes) - (minus === 'O' ? OVERHEADS[protocol] : 0);
}

function specOf(rig: Rig, protocol: Protocol, underlay: Underlay, side: number): object {
  const peer = nodeAddress(3 - side);
  return {
    uplink: {
      kind: 'tap',
      device: 'ul0',
      mac: `02:00:00:00:77:0${side}`,
      address: `${nodeAddress(side)}/24`,
      gateway: routerAddress(side),
      mtu: underlay.uplink,
    },
    host: { device: 'tp0', address: `10.77.${10 * side + 9}.1/32` },
    pods: WAYS.map(way => ({
      name: `default/${way}`,
      netns: rig.full(podName(side, way)),
      device: 'eth0',
      address: address(side, way),
      mtu: lengthOf(TABLE[underlay.name][way].pod, protocol),
    })),
    // Inherited, the TTL of a probe of tracepath would run out in the underlay.
    tunnel: { protocol, peers: [{ address: peer }], df: underlay.df, ttl: 64 },
    routes: WAYS.map(way => ({ to: network(3 - side, way), via: peer, encap: true, tooBig: way })),
  };
}

describe('too big for the tunnel, on real devices', () => {
  const rig = new Rig('big');
  let nodes: Running[] = [];

  before(async function () {
    this.timeout(60_000);
    await makeRouters(rig);
    await rig.namespace('node1', 'node2', ...WAYS.flatMap(way => [podName(1, way), podName(2, way)]));
    for (const way of WAYS) {
      await rig.program(podName(2, way), 'bulk', 'serve', `${TCP_PORT}`).until('listening');
    }
  });

  after(async function () {
    this.timeout(20_000);
    await rig.close();
  });

  /** One echo request of `length` bytes from a pod of `side` to that of the other; waits for `patience` seconds. */
  const ping = (way: Way, discover: string, length: number, patience = 3, side = 1) => {
    const size = ['-M', discover, '-s', `${length - 28}`];
    return rig.exec(podName(side, way), 'ping', '-n', '-c1', `-W${patience}`, ...size, address(3 - side, way));
  };

  for (const protocol of Object.keys(OVERHEADS) as Protocol[]) {
    for (const underlay of UNDERLAYS) {
      describe(`${protocol} over an underlay of ${underlay.name}`, () => {
        before(async function () {
          this.timeout(30_000);
          await setLinkMtu(rig, underlay.link);
          nodes = await Promise.all(
            [1, 2].map(async side => {
              const node = await rig.node(`node${side}`, specOf(rig, protocol, underlay, side));
              await plugNode(rig, side, underlay.uplink);
              return node;
            }),
          );
        });

        after(async function () {
          this.timeout(20_000);
          await Promise.all(nodes.map(node => node.stop()));
        });

        for (const way of WAYS) {
          const expected = TABLE[underlay.name][way];
          const largest = lengthOf(expected.largest, protocol);

          it(`${way}: ${expected.largest} pass, one more is ${expected.refused}`, async function () {
            this.timeout(60_000);
            await learnPath(way, lengthOf(expected.pod, protocol));
            const passes = await ping(way, 'do', largest);
            assert.equal(passes.code, 0, `${largest} bytes: ${passes.stdout}${passes.stderr}`);

            const refused = await ping(way, 'do', largest + 1, 0.3);
            assert.equal(refused.code, 1, `${largest + 1} bytes: ${refused.stdout}`);
            const isLocal = /message too long/i.test(refused.stdout + refused.stderr);
            assert.equal(isLocal ? 'EMSGSIZE' : 'lost', expected.refused, refused.stdout + refused.stderr);

            for (const discover of ['dont', 'want']) {
              const cut = await ping(way, discover, 3000, expected.fragments === 'pass' ? 3 : 0.3);
              const outcome = cut.code === 0 ? 'pass' : 'lost';
              assert.equal(outcome, expected.fragments, `-M ${discover}: ${cut.stdout}${cut.stderr}`);
            }

            const hops = expected.tracepath === null ? 2 : 5;
            const probes = ['-n', '-m', `${hops}`, '-l', `${podMtu(way)}`];
            const path = await rig.exec(podName(1, way), 'tracepath', ...probes, address(2, way));
            const found = /Resume: pmtu (\d+) hops/.exec(path.stdout)?.[1];
            const want = expected.tracepath === null ? undefined : `${lengthOf(expected.tracepath, protocol)}`;
            assert.equal(found, want, path.stdout);

            const argv = ['tcp', address(2, way), `${TCP_PORT}`, `${TCP_BYTES}`, '1'];
            const client = rig.program(podName(1, way), 'bulk', ...argv);
            const limit = new Promise<'stalls'>(resolve =>
              setTimeout(resolve, expected.tcp === 'pass' ? 20_000 : 2000, 'stalls'),
            );
            const tcp = await Promise.race([client.exited.then(code => (code === 0 ? 'pass' : client.output)), limit]);
            await client.stop('SIGKILL');
            assert.equal(tcp, expected.tcp);
          });
        }

        const podMtu = (way: Way) => lengthOf(TABLE[underlay.name][way].pod, protocol);

        /** Sends the longest packets in both directions until the path is known to those who are told. */
        async function learnPath(way: Way, length: number): Promise<void> {
          for (const side of [1, 2]) {
            for (let i = 0; i < 4; i++) if ((await ping(way, 'do', length, 0.3, side)).code === 0) break;
          }
        }
      });
    }
  }
});
