/**
 * One busy pod starves nobody: while four TCP flows of one pod take all that two nodes can carry, another pod's pings
 * still come back soon.
 */
import { strict as assert } from 'node:assert';
import { setTimeout as sleep } from 'node:timers/promises';
import { Rig } from './rig.ts';

/** For the figures: TUNPATH_TEST_SECONDS=30. */
const BUSY_SECONDS = Number(process.env.TUNPATH_TEST_SECONDS ?? 4);
const START_MS = 500;
const INTERVAL_S = 0.005;
/** As many as the busy time has room for; a ping of this interval is late by a timer tick now and then. */
const PINGS = Math.floor(((BUSY_SECONDS - 1) / INTERVAL_S) * 0.8);

/** The aim, as a multiple of the unloaded p99. */
const AIM = 5;
/**
 * Milliseconds that are let pass although they miss the aim. Six busy threads (two loops, two iperf3 with their kernel
 * side, ping) share two cores and whatever else the machine runs, so a ping waits for time slices of 3 ms at up to five
 * places, and in the far uplink's ring behind the 2 to 4 ms of data that the four flows keep in flight. On an idle
 * machine the unloaded p99 is 0.25 ms and the loaded one 4 to 5 ms. A port that is not served in turn waits for whole
 * windows of its neighbour and is far above this.
 */
const ALLOWED_MS = 40;
/** Under load the median has no such excuse. */
const MEDIAN_MS = 8;

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

describe('fairness between pods', function () {
  this.timeout(30_000 + 3000 * BUSY_SECONDS);
  let rig: Rig;
  let unloaded: Times;
  let loaded: Times;
  let gigabits = 0;

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
    const busy = rig.spawn('pod11', 'iperf3', '-c', address(2, 1), '-P', '4', '-t', `${BUSY_SECONDS}`, '-J');
    await sleep(START_MS);
    loaded = await ping(rig);
    assert.ok(!busy.ended, 'the pings came while the flows were busy');
    assert.equal(await busy.exited, 0, busy.output);
    gigabits = JSON.parse(busy.output).end.sum_received.bits_per_second / 1e9;
    if (process.env.TUNPATH_TEST_SECONDS !== undefined) console.log({ unloaded, loaded, gigabits });
  });
  after(() => rig.close());

  it('the flows were busy', () => {
    assert.ok(gigabits > 1, `${gigabits} Gb/s`);
  });

  it('no ping was lost', () => {
    assert.deepEqual([unloaded.received, loaded.received], [PINGS, PINGS]);
  });

  it('the pings of the other pod come back soon', () => {
    const what = JSON.stringify({ unloaded, loaded });
    assert.ok(loaded.p99 <= Math.max(AIM * unloaded.p99, ALLOWED_MS), what);
    assert.ok(loaded.p50 <= MEDIAN_MS, what);
  });
});
