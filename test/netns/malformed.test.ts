/** Malformed packets of every protocol into each kind of port, on real devices. test/malformed.test.ts has more, over memory. */
import { strict as assert } from 'node:assert';
import { EVENT_NAMES } from '../../datapath/counters.ts';
import { VERDICT_NAMES } from '../../datapath/verdict.ts';
import type { Ends } from '../fixtures/malformed.ts';
import { balance } from '../forward-rig.ts';
import { type PortRow, Rig, type RunningNode, until } from './rig.ts';

const SEED = Number(process.env.SEED ?? 20261121);
const PROTOCOLS = 8;
const PACKETS = 10_000 * PROTOCOLS;
const NODE = '192.168.10.1';
const PEER = '192.168.10.2';
const POD = '10.244.1.10';
const REMOTE = '10.244.2.20';
const MACS = { ours: '02:00:00:00:00:01', peer: '02:00:00:00:00:02' };
const VTEP_MACS = { ours: '02:42:0a:f4:01:00', peer: '02:42:0a:f4:02:00' };

const OUTWARDS: Ends = {
  src: POD,
  dst: REMOTE,
  outerSrc: POD,
  outerDst: PEER,
  innerSrcMac: VTEP_MACS.ours,
  innerDstMac: VTEP_MACS.peer,
  vni: 7,
};
const INWARDS: Ends = {
  src: REMOTE,
  dst: POD,
  outerSrc: PEER,
  outerDst: NODE,
  innerSrcMac: VTEP_MACS.peer,
  innerDstMac: VTEP_MACS.ours,
  vni: 7,
};

describe(`${PACKETS} malformed packets into a real device (SEED=${SEED})`, function () {
  this.timeout(30_000);
  let rig: Rig;
  let node: RunningNode;
  let arpInvalid = 0;

  before(async () => {
    rig = new Rig('ma');
    await rig.namespace('node', 'pod', 'pod2');
    // The peer is the switch itself: it answers ARP, and what comes for it ends there.
    await rig.bridge('sw', `${PEER}/24`);
    await rig.ip('sw', [`link set br0 address ${MACS.peer}`, `route add 10.244.1.0/24 via ${NODE}`]);
    node = await rig.node('node', {
      uplink: { kind: 'tap', device: 'ul0', mac: MACS.ours, address: `${NODE}/24` },
      host: { device: 'tp0', address: '10.244.1.1/32' },
      pods: [
        { name: 'p1', netns: rig.full('pod'), device: 'eth0', address: POD },
        { name: 'p2', netns: rig.full('pod2'), device: 'eth0', address: '10.244.1.11' },
      ],
      tunnel: {
        protocol: 'vxlan',
        port: 8472,
        vni: 7,
        mac: VTEP_MACS.ours,
        peers: [{ address: PEER, mac: VTEP_MACS.peer }],
      },
      routes: [{ to: '10.244.2.0/24', via: PEER, encap: true }],
      offload: 'none',
    });
    await rig.plug('node', 'ul0', 'sw', 'up-n');
    await rig.run('sw', 'ping', '-n', '-c', '1', '-W', '2', POD);
  });
  after(() => rig.close());

  /** Counters, ports and packets in the node's hands, once none of them moves any more. */
  async function settle(): Promise<{ counters: Map<string, number>; ports: PortRow[]; held: number }> {
    const read = async () => {
      const ports = await rig.ports('node');
      const counters = await rig.counters('node');
      // Asking wakes the node.
      counters.delete('wakeups');
      const rows = await rig.get<{ queued: number }>('node', 'neighbors');
      const { tables } = await rig.status<{ tables: { table: string; used: number }[] }>('node');
      const fragments = tables.find(({ table }) => table === 'fragments')?.used ?? 0;
      return { counters, ports, held: rows.reduce((n, row) => n + row.queued, fragments) };
    };
    let last = await read();
    const still = async () => {
      const before = last;
      last = await read();
      return JSON.stringify([...last.counters, last.ports]) === JSON.stringify([...before.counters, before.ports]);
    };
    await until('the node to be done', still, 10_000);
    return last;
  }

  const ports: { kind: string; port: string; host: string; device: string; form: 'ip' | 'frame'; ends: object }[] = [
    { kind: 'pod', port: 'p1', host: 'pod', device: 'eth0', form: 'ip', ends: OUTWARDS },
    {
      kind: 'host',
      port: 'tp0',
      host: 'node',
      device: 'tp0',
      form: 'ip',
      ends: { ...OUTWARDS, src: '10.244.1.1', outerSrc: '10.244.1.1' },
    },
    {
      kind: 'uplink',
      port: 'ul0',
      host: 'sw',
      device: 'up-n',
      form: 'frame',
      ends: { ...INWARDS, srcMac: MACS.peer, dstMac: MACS.ours },
    },
  ];

  for (const { kind, port, host, device, form, ends } of ports) {
    it(`a ${kind} port takes them, counts every one, and goes on`, async () => {
      const before = await settle();
      const args = [device, form, `${PACKETS}`, `${SEED}`, JSON.stringify(ends)];
      const taken = Number(await rig.runProgram(host, 'inject', ...args));
      assert.ok(taken > 0.95 * PACKETS, `the device took ${taken}`);
      const after = await settle();
      assert.ok(!node.ended, node.output);

      const invalid = (of: typeof before) => of.counters.get('drop-invalid-source') ?? 0;
      if (kind === 'uplink') arpInvalid += invalid(after) - invalid(before);
      const rx = (of: typeof before) => of.ports.find(row => row.name === port)!.rxPackets;
      // At least: the kernels behind the ports answer some of what reaches them.
      assert.ok(rx(after) - rx(before) >= taken, `read ${rx(after) - rx(before)} of ${taken}`);

      const sum = (field: 'rxPackets' | 'txPackets') => after.ports.reduce((n, row) => n + row[field], 0);
      const conserved = balance({
        read: sum('rxPackets'),
        written: sum('txPackets'),
        held: after.held,
        arpInvalid,
        event: event => after.counters.get(EVENT_NAMES[event]) ?? 0,
        drops: reason => after.counters.get(VERDICT_NAMES[reason]) ?? 0,
      });
      assert.equal(conserved, 0, 'packets read and made, less packets written, dropped and held');

      await rig.run('pod', 'ping', '-n', '-c', '1', '-W', '2', '10.244.1.11');
      await rig.run('node', 'ping', '-n', '-c', '1', '-W', '2', POD);
      await rig.run('sw', 'ping', '-n', '-c', '1', '-W', '3', POD);
    });
  }
});
