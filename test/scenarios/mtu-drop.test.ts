/**
 * The underlay's MTU drops from 1500 to 1400 while TCP is sending: through a service, whose backend is behind the tunnel, and
 * through masquerade, to a server outside. The sender must hear of it in terms of its own connection, and go on within two
 * round trips.
 */
import { strict as assert } from 'node:assert';
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { after, before, describe, it } from 'mocha';
import { decodeCapture } from '../../datapath/lab/capture.ts';
import { Rig } from '../netns/rig.ts';
import { makeRouters, nodeAddress, plugNode, routerAddress, setLinkMtu } from './routers.ts';

const CLIENT = '10.77.1.10';
const BACKEND = '10.77.2.10';
const SERVICE = '10.96.0.10';
/** A host behind the second router. */
const OUTSIDE = '192.168.20.9';
const PORT = 5201;
/** Slow enough that the capture keeps up, fast enough that there is always a packet on the way. */
const RATE = '80M';
/** The capture is this long once data flows: what comes before it are a few lines of iperf's own. */
const FLOWING_BYTES = 64 << 10;
/** A shared machine: what its scheduler adds to a round trip of 0.1 ms. */
const JITTER_MS = 30;

function spec(rig: Rig, side: number): object {
  const peer = nodeAddress(3 - side);
  return {
    uplink: {
      kind: 'tap',
      device: 'ul0',
      mac: `02:00:00:00:78:0${side}`,
      address: `${nodeAddress(side)}/24`,
      gateway: routerAddress(side),
    },
    host: { device: 'tp0', address: `10.77.${side}.1/32` },
    pods: [
      { name: 'default/p', netns: rig.full(`pod${side}`), device: 'eth0', address: side === 1 ? CLIENT : BACKEND },
    ],
    tunnel: { protocol: 'vxlan', peers: [{ address: peer }], df: 'set' },
    routes: [{ to: `10.77.${3 - side}.0/24`, via: peer, encap: true }],
    masquerade: [{ from: '10.77.0.0/16', notTo: ['10.77.0.0/16'] }],
    services: [
      { name: 'default/iperf', addresses: [SERVICE], ports: [{ port: PORT }], endpoints: [{ address: BACKEND }] },
    ],
  };
}

/** A captured packet at the sender, times in ms. */
interface Seen {
  at: number;
  source: string;
  length: number;
  seq: number;
  payload: number;
  ack: number;
  /** "Fragmentation needed": its MTU, and who the quoted packet was from and to. */
  mtu: number;
  quoted: string;
}

async function readCapture(file: string): Promise<Seen[]> {
  const fields = ['frame.time_epoch', 'ip.src', 'ip.dst', 'ip.len', 'tcp.seq', 'tcp.len', 'tcp.ack', 'icmp.mtu'];
  const rows = await decodeCapture(file, fields);
  return rows.map(([at, source, destination, length, seq, payload, ack, mtu]) => {
    return {
      at: 1000 * Number(at[0]),
      source: source[0],
      length: Number(length[0]),
      seq: Number(seq[0]),
      payload: Number(payload[0] ?? 0),
      ack: Number(ack[0] ?? 0),
      mtu: Number(mtu[0] ?? 0),
      quoted: `${source[1]} > ${destination[1]}`,
    };
  });
}

const distance = (a: number, b: number) => (a - b) | 0;

/**
 * From the first data that was lost to the acknowledgement that covers it, and what a round trip took around that time.
 * @param sender its address in the capture
 */
function recoveryOf(seen: Seen[], sender: string): { lostMs: number; roundTripMs: number; error: Seen } {
  const error = seen.find(packet => packet.mtu > 0);
  assert.ok(error !== undefined, 'no "fragmentation needed" reached the sender');
  const lost = seen.findLast(packet => packet.at < error.at && packet.source === sender && packet.seq === error.seq);
  assert.ok(lost !== undefined, `what is quoted (${error.seq}) was sent`);
  const isAck = (packet: Seen) => packet.source !== sender && packet.mtu === 0;
  const acked = seen.find(packet => packet.at > error.at && isAck(packet) && distance(packet.ack, lost.seq) > 0);
  assert.ok(acked !== undefined, 'the lost data was never acknowledged');

  const trips: number[] = [];
  for (const data of seen) {
    if (data.source !== sender || data.payload === 0 || Math.abs(data.at - lost.at) > 300 || data.at >= lost.at)
      continue;
    const answer = seen.find(
      packet => packet.at > data.at && isAck(packet) && distance(packet.ack, data.seq + data.payload) >= 0,
    );
    if (answer !== undefined) trips.push(answer.at - data.at);
    if (trips.length > 200) break;
  }
  assert.ok(trips.length > 10, 'data flowed before the drop');
  trips.sort((a, b) => a - b);
  return { lostMs: acked.at - lost.at, roundTripMs: trips[Math.floor(trips.length / 2)], error };
}

describe('the underlay becomes narrower in mid-transfer', () => {
  const rig = new Rig('drop');

  before(async function () {
    this.timeout(60_000);
    await makeRouters(rig);
    await rig.namespace('node1', 'node2', 'pod1', 'pod2');
    for (const side of [1, 2]) {
      await rig.node(`node${side}`, spec(rig, side));
      await plugNode(rig, side, 1500);
    }
    await rig.spawn('pod2', 'iperf3', '-s', '--forceflush').until('listening');
    await rig.namespace('outside');
    await rig.ip('right', [
      `link add out type veth peer name eth0 netns ${rig.full('outside')}`,
      'link set out master br0 up',
    ]);
    await rig.ip('outside', [
      `addr add ${OUTSIDE}/24 dev eth0`,
      'link set eth0 up',
      `route add default via ${routerAddress(2)}`,
    ]);
    await rig.spawn('outside', 'iperf3', '-s', '--forceflush').until('listening');
  });

  after(async function () {
    this.timeout(20_000);
    await rig.close();
  });

  const CASES = [
    {
      what: 'through a service, from the client',
      server: SERVICE,
      at: 'pod1',
      sender: CLIENT,
      reverse: false,
      mtu: 1350,
      quoted: `${CLIENT} > ${SERVICE}`,
    },
    {
      what: 'through a service, to the client',
      server: SERVICE,
      at: 'pod2',
      sender: BACKEND,
      reverse: true,
      mtu: 1350,
      quoted: `${BACKEND} > ${CLIENT}`,
    },
    {
      what: 'through masquerade, from the client',
      server: OUTSIDE,
      at: 'pod1',
      sender: CLIENT,
      reverse: false,
      mtu: 1400,
      quoted: `${CLIENT} > ${OUTSIDE}`,
    },
    {
      what: 'through masquerade, to the client',
      server: OUTSIDE,
      at: 'outside',
      sender: OUTSIDE,
      reverse: true,
      mtu: 1400,
      quoted: `${OUTSIDE} > ${nodeAddress(1)}`,
    },
  ];

  for (const { what, server, at, sender, reverse, mtu, quoted } of CASES) {
    it(what, async function () {
      this.timeout(60_000);
      await setLinkMtu(rig, 1500);
      // What was learnt of the path before is forgotten with the device's state: another flow starts anew.
      await Promise.all([1, 2].map(side => rig.ip(`pod${side}`, ['route flush cache'])));
      const file = join(rig.directory, 'drop.pcap');
      const capture = rig.spawn(
        at,
        'tcpdump',
        '-i',
        'eth0',
        '-n',
        '-U',
        '-s',
        '128',
        '-B',
        '8192',
        '-w',
        file,
        'tcp or icmp',
      );
      await capture.until('listening');
      const client = rig.spawn('pod1', 'iperf3', '-c', server, '-t', '4', '-b', RATE, '-J', ...(reverse ? ['-R'] : []));
      // Seconds may pass on a busy machine before the first byte, and as many before the link is told.
      while (statSync(file).size < FLOWING_BYTES) await sleep(20);
      await setLinkMtu(rig, 1400);
      assert.equal(await client.exited, 0, client.output);
      await capture.stop('SIGINT');

      const { lostMs, roundTripMs, error } = recoveryOf(await readCapture(file), sender);
      assert.equal(error.mtu, mtu);
      assert.equal(error.quoted, quoted, 'the sender would not know its own connection');
      assert.ok(
        lostMs <= 2 * roundTripMs + JITTER_MS,
        `${lostMs.toFixed(2)} ms for ${roundTripMs.toFixed(2)} ms round trips`,
      );
      const { end } = JSON.parse(client.output);
      assert.ok(end.sum_received.bits_per_second > 60e6, 'the transfer went on');
    });
  }
});
