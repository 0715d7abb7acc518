/** IPv4 options in every place where a node meets them, held against this machine's kernel: the same packets, the same answers. */
import { strict as assert } from 'node:assert';
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { vxlanFromPeer } from '../../datapath/conformance/from-peer.ts';
import {
  type CheckNode,
  NODE,
  type NodeOptions,
  POD,
  POD2,
  REMOTE,
  SERVER,
  Testbed,
} from '../../datapath/conformance/node.ts';
import { checksumsOk } from '../../datapath/conformance/read.ts';
import { inNamespace } from '../../datapath/control/netns.ts';
import { Random } from '../../datapath/random.ts';
import * as ipv4 from '../../datapath/wire/ipv4.ts';
import { icmpEcho, pattern, udp4 } from '../fixtures/packets.ts';
import { KernelTestbed } from './kernel-subject.ts';
import { Rig } from './rig.ts';

const NODE_OPTIONS: NodeOptions = { tunnel: 'vxlan', nat: true, mtu: 1400 };
const ROUTER_ALERT = 148;
const SECURITY = 130;
const STREAM_ID = 136;
/** Of no standard: not copied, copied. */
const UNKNOWN = [30, 222];
const CASES = 100;

const octets = (address: string) => [...address.split('.').map(Number)];

/** Options as senders write them, and as they should not: 4 to 40 bytes. */
function randomOptions(random: Random): Uint8Array {
  const below = (n: number) => (random.next() >>> 0) % n;
  const pick = <T>(list: readonly T[]) => list[below(list.length)];
  const zeros = (n: number) => Array<number>(n).fill(0);
  const makers: (() => number[])[] = [
    () => [ipv4.OPT_NOP],
    () => [ipv4.OPT_END, below(3), below(3)],
    () => [ROUTER_ALERT, pick([4, 4, 3]), 0, 0],
    () => [SECURITY, 11, ...zeros(9)],
    () => [STREAM_ID, 4, 1, 2],
    () => [pick(UNKNOWN), 6, 1, 2, 3, 4],
    () => recordRoute(pick([1, 2, 3]), pick([4, 4, 4, 8, 12, 6, 3, 0])),
    () => recordRoute(pick([1, 2]), 4),
    () => timestamp(pick([0, 1]), pick([5, 5, 9, 13, 6, 4]), zeros(pick([4, 8, 16]))),
    () => timestamp(pick([0x10, 0xf0, 0xf3, 2, 0xe1]), pick([5, 9]), zeros(4)),
    () => timestamp(3, pick([5, 5, 13]), [...octets(pick([NODE, SERVER, POD, '224.0.0.5', '0.0.0.0'])), ...zeros(4)]),
    () => [ipv4.OPT_LSRR, pick([7, 7, 2]), 4, ...octets(SERVER)],
    () => [pick([7, 68, 130, 30]), pick([0, 1, 2, 3, 41])],
  ];
  const bytes: number[] = [];
  for (let n = 1 + below(3); n > 0; n--) {
    const option = pick(makers)();
    if (bytes.length + option.length <= 40) bytes.push(...option);
  }
  while (bytes.length % 4 !== 0) bytes.push(ipv4.OPT_END);
  return Uint8Array.from(bytes);
}

const recordRoute = (slots: number, pointer: number) => [
  ipv4.OPT_RECORD_ROUTE,
  3 + 4 * slots,
  pointer,
  ...Array<number>(4 * slots).fill(0),
];
const timestamp = (flags: number, pointer: number, entries: number[]) => [
  ipv4.OPT_TIMESTAMP,
  4 + entries.length,
  pointer,
  flags,
  ...entries,
];

type Place = 'p1' | 'wire';
const TO_NODE = 'delivered to the node, which answers a ping';
const PLACES: Record<string, (node: CheckNode, options: Uint8Array, id: number) => [Place, Uint8Array]> = {
  'from a pod to outside': (_, options, id) => ['p1', udp4({ src: POD, dst: SERVER, options, id })],
  'from a pod to a pod': (_, options, id) => ['p1', udp4({ src: POD, dst: POD2, options, id })],
  'from outside to a pod': (_, options, id) => ['wire', udp4({ src: SERVER, dst: POD, options, id })],
  'into a tunnel': (_, options, id) => ['p1', udp4({ src: POD, dst: REMOTE, options, id })],
  'out of a tunnel': (node, options, id) => {
    return ['wire', vxlanFromPeer(node, udp4({ src: REMOTE, dst: POD, options, id }))];
  },
  'cut into fragments': (_, options, id) => {
    return ['p1', udp4({ src: POD, dst: SERVER, options, id, payload: pattern(1430) })];
  },
  [TO_NODE]: (_, options, id) => {
    return ['wire', icmpEcho({ src: SERVER, dst: NODE, options, id })];
  },
};

describe("IPv4 options, against this machine's kernel", function () {
  this.timeout(60_000);
  let rig: Rig;
  before(async () => {
    rig = new Rig('opt');
    await rig.namespace('none');
    execFileSync('taskset', ['-cp', '0', `${process.pid}`], { stdio: 'ignore' });
  });
  after(async () => {
    execFileSync('taskset', ['-p', 'ffffffff', `${process.pid}`], { stdio: 'ignore' });
    await rig.close();
  });

  for (const [place, make] of Object.entries(PLACES)) {
    it(place, () => {
      const bed = new Testbed('linux');
      const kernelLab = new KernelTestbed(rig);
      try {
        const kernel = kernelLab.node(NODE_OPTIONS);
        // With a host port its kernel would answer.
        const ours = bed.node(place === TO_NODE ? { ...NODE_OPTIONS, spec: { host: undefined } } : NODE_OPTIONS);
        inNamespace(kernel.namespace, () => writeFileSync('/proc/sys/net/ipv4/icmp_ratelimit', '0'));
        const random = new Random(16);
        const differ: string[] = [];
        const kinds = new Set<string>();
        for (let id = 1; id <= CASES; id++) {
          const options = randomOptions(random);
          const [side, packet] = make(ours, options, id);
          const sent = ours.exchange(side, packet).map(plain).sort().join('\n');
          const expected = kernel.exchange(side, packet).map(plain).sort().join('\n');
          ours.wait(1);
          kinds.add(expected === '' ? 'nothing' : expected.includes('ICMP 12/0') ? 'a problem' : 'a packet');
          const isSilent = expected === '' && options.includes(ipv4.OPT_TIMESTAMP) && /ICMP 12/.test(sent);
          if (sent !== expected && !isSilent) differ.push(`${hexOf(options)}\n${sent}\nkernel:\n${expected}`);
        }
        assert.equal(differ.slice(0, 12).join('\n\n'), '', `${differ.length} of ${CASES}`);
        assert.deepEqual([...kinds].sort(), ['a packet', 'a problem', 'nothing']);
      } finally {
        kernelLab.close();
      }
    });
  }
});

const hexOf = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');

/** What is alike where nothing is wrong: without times, checksums (that they are right), and ids that the node makes. */
function plain({ side, bytes }: { side: string; bytes: Uint8Array }): string {
  assert.ok(checksumsOk(bytes), `${side}: ${hexOf(bytes)}`);
  const inner =
    side === 'wire' && bytes[ipv4.PROTOCOL] === ipv4.PROTO_UDP && bytes[22] === 8472 >> 8 && bytes[23] === (8472 & 255);
  const packet = bytes.slice(inner ? 50 : 0);
  const l4 = (packet[0] & 15) * 4;
  blank(packet, 0);
  if (packet[ipv4.PROTOCOL] === ipv4.PROTO_ICMP && packet[l4] !== 0) {
    return `${side} ${errorOf(packet.subarray(l4))} with ${hexOf(packet.subarray(20, l4))}`;
  }
  if (packet[ipv4.PROTOCOL] === ipv4.PROTO_ICMP) {
    packet.fill(0, l4 + 2, l4 + 4);
    packet.fill(0, ipv4.ID, ipv4.ID + 2);
  }
  return `${side} ${inner ? 'tunnel ' : ''}${hexOf(packet.subarray(0, l4))} ${hexOf(packet.subarray(l4, l4 + 96))}`;
}

/** Of an error. The kernel quotes options as it has filled them, we as they came: RFC 1812 section 4.3.2.3 lets both do. */
function errorOf(message: Uint8Array): string {
  const [type, code, , , pointer] = message;
  return `ICMP ${type}/${code} at ${pointer} about ${hexOf(message.subarray(8 + ipv4.ID, 8 + 8))}`;
}

/** Without the checksum of the header at `at`, and the times in it. */
function blank(packet: Uint8Array, at: number): void {
  packet.fill(0, at + ipv4.CHECKSUM, at + ipv4.CHECKSUM + 2);
  const end = at + (packet[at] & 15) * 4;
  for (
    let o = at + 20;
    o < end && packet[o] !== ipv4.OPT_END;
    o += packet[o] === ipv4.OPT_NOP ? 1 : Math.max(1, packet[o + 1])
  ) {
    if (packet[o] !== ipv4.OPT_TIMESTAMP) continue;
    const each = (packet[o + 3] & 15) === ipv4.TS_ONLY ? 4 : 8;
    for (let entry = o + 4 + each - 4; entry + 4 <= Math.min(end, o + packet[o + 1]); entry += each) {
      if (packet[entry] + packet[entry + 1] + packet[entry + 2] + packet[entry + 3] > 0)
        packet.fill(0xee, entry, entry + 4);
    }
  }
}
