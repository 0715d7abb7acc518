/**
 * One busy pod starves nobody: while four TCP flows of one pod take all that two nodes can carry, another pod's pings
 * still come back soon.
 */
import { strict as assert } from 'node:assert';
import { setTimeout as sleep } from 'node:timers/promises';
import { Rig } from './rig.ts';

/** For figures: TUNPATH_TEST_PINGS=6000 (30 s) prints the times; what they are depends on the machine, so no test judges them. */
const PINGS = Number(process.env.TUNPATH_TEST_PINGS ?? 400);
const INTERVAL_S = 0.005;
/** Longer than any run of pings: the flows are ended when those are done. */
const BUSY_SECONDS = 300;
const START_MS = 500;
/** Bytes that the flows must have moved meanwhile, or they were not busy: a tenth of a second's worth. */
const BUSY_BYTES = 10_000_000;

const address = (side: number, pod: number) => `10.244.${side}.${10 + pod}`;

function spec(rig: Rig, side: number): object {
  const peer = 3 - side;
  return {
    uplink: { kind: 'tap', device: 'ul0', mac: `02:00:00:00:00:0${side}`, address: `192.168.10.${side}/24` },
    host: { device: 'tp0', address: `10.244.${side}.1/32` },
    pods: [1, 2].map(pod => ({
      name: `default/p${pod}`,
      netns: rig.full(`pod${side}${pod}`),
      device: 'eth0',
      address: address(side, pod),
    })),
    tunnel: {
      protocol: 'vxlan',
      port: 8472,
      vni: 1,
      mac: `02:42:0a:f4:0${side}:00`,
      peers: [{ address: `192.168.10.${peer}`, mac: `02:42:0a:f4:0${peer}:00` }],
    },
    routes: [{ to: `10.244.${peer}.0/24`, via: `192.168.10.${peer}`, encap: true }],
    profile: 'linux',
    offload: 'auto',
  };
}

interface Times {
  received: number;
  p50: number;
  p99: number;
}

async function ping(rig: Rig): Promise<Times> {
  const argv = ['ping', '-n', '-i', `${INTERVAL_S}`, '-c', `${PINGS}`, '-W', '2', address(2, 2)];
  const { stdout } = await rig.exec('pod12', ...argv);
  const times = Array.from(stdout.matchAll(/time=([\d.]+)/g), match => Number(match[1])).sort((a, b) => a - b);
  const quantile = (q: number) => times[Math.min(times.length - 1, Math.floor(times.length * q))] ?? Infinity;
  return { received: times.length, p50: quantile(0.5), p99: quantile(0.99) };
}

/** Bytes that the busy pod has sent so far. */
async function bytesOf(rig: Rig): Promise<number> {
  const ports = await rig.ports('node1');
  return ports.find(port => port.name === 'default/p1')!.rxBytes;
}

describe('fairness between pods', function () {
  this.timeout(30_000 + 50 * PINGS);
  let rig: Rig;
  let unloaded: Times;
  let loaded: Times;
  let moved = 0;

  before(async () => {
    rig = new Rig('fair');
    await rig.namespace('node1', 'node2', 'pod11', 'pod12', 'pod21', 'pod22');
    await rig.bridge('sw');
    await Promise.all(
      [1, 2].map(async side => {
        await rig.node(`node${side}`, spec(rig, side));
        await rig.plug(`node${side}`, 'ul0', 'sw', `up${side}`);
      }),
    );
    await rig.spawn('pod21', 'iperf3', '-s', '--forceflush').until('listening');
    // A third of a second for the compiler and the neighbours.
    await rig.run('pod12', 'ping', '-q', '-i', '0.002', '-c', '150', address(2, 2));
    unloaded = await ping(rig);
    const busy = rig.spawn('pod11', 'iperf3', '-c', address(2, 1), '-P', '4', '-t', `${BUSY_SECONDS}`);
    await sleep(START_MS);
    const before = await bytesOf(rig);
    loaded = await ping(rig);
    moved = (await bytesOf(rig)) - before;
    await busy.stop();
    if (process.env.TUNPATH_TEST_PINGS !== undefined) console.log({ unloaded, loaded, moved });
  });
  after(() => rig.close());

  it('the flows were busy all the while', () => {
    assert.ok(moved > BUSY_BYTES, `${moved} bytes`);
  });

  it('no ping of the other pod was lost, or later than two seconds', () => {
    assert.deepEqual([unloaded.received, loaded.received], [PINGS, PINGS]);
  });
});
