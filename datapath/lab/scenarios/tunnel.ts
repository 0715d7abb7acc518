/** Checks of a tunnel: every field of its outer header, its source ports, and whom it listens to. */

import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import ipaddr from 'ipaddr.js';
import * as ethernet from '../../wire/ethernet.ts';
import * as ipv4 from '../../wire/ipv4.ts';
import * as udp from '../../wire/udp.ts';
import type { CaptureSummary } from '../capture.ts';
import { LabError } from '../lab-error.ts';
import type { ScenarioContext } from '../scenario.ts';
import { Stranger } from '../stranger.ts';
import { addressOf } from '../topology.ts';
import { addressesOf, checkChecksums, checkPing, describeIcmp, endsOf, type Pair, title } from './checks.ts';
import { distinct, type Frame, innerOf, outerOf, readFrames } from './frames.ts';

/** The outer header that a system sends, by FIELD.md's table of the real ones. */
export interface Outer {
  /** pcap filter for the tunnel's packets. */
  filter: string;
  protocol: 'ipip' | 'vxlan' | 'geneve';
  /** tshark -d rules without which it would take some of the packets for something else. */
  decodeAs?: readonly string[];
  /** Bytes in front of the pods' IP header. */
  overhead: number;
  /** 'inherit': as in the inner header. */
  ttl: number | 'inherit';
  df: 0 | 'inherit';
  udp?: {
    port: number;
    checksum: 'zero' | 'computed';
    /** First and last possible source port. */
    sourcePorts: readonly [number, number];
  };
}

const FLOWS = 24;
/** DSCP EF: what a tunnel must not copy outside by default. */
const MARKED_TOS = 0xb8;
/** Away from every default, so that a copied TTL and a fixed one differ. */
const MARKED_TTL = 40;
const DEFAULT_TTL = 64;
const SETTLE_MS = 100;

/**
 * Sends pings through the tunnel, one of them marked, and checks the outer headers as each node sent them.
 * @param ttl  that a pod's packet arrives with at the other
 */
export async function checkTunnel(context: ScenarioContext, pair: Pair, outer: Outer, ttl: number): Promise<void> {
  const { client, server, clientNode, serverNode } = endsOf(context, pair);
  const files = await context.capture(
    {
      there: [clientNode.name, `${outer.filter} and src host ${addressOf(clientNode.address)}`],
      back: [serverNode.name, `${outer.filter} and src host ${addressOf(serverNode.address)}`],
      plain: [clientNode.name, 'icmp'],
      pod: [server.name, 'icmp[icmptype] == icmp-echo'],
    },
    async () => {
      await checkPing(context, client.name, server.address, ttl);
      const marks = ['-Q', `${MARKED_TOS}`, '-t', `${MARKED_TTL}`];
      await context.exec(client.name, ['ping', '-c', '1', '-W', '1', ...marks, server.address]);
    },
  );
  const readTunnel = (file: CaptureSummary): Promise<Frame[]> => readFrames(file, 'ip', outer.decodeAs);
  const [there, back] = await Promise.all([readTunnel(files.there), readTunnel(files.back)]);
  const [plain, arrived] = await Promise.all([readFrames(files.plain), readFrames(files.pod)]);
  checkOuter(context, pair, outer, there, back);
  context.check(`${clientNode.name}: plain ICMP on the wire`, [], plain.map(describeIcmp));
  context.check(
    `${server.name}: TTL of the requests`,
    [`${MARKED_TTL - DEFAULT_TTL + ttl}`, `${ttl}`],
    distinct(arrived, frame => innerOf(frame).ttl),
  );
  context.check(
    `${server.name}: DSCP byte of the requests`,
    ['0', `${MARKED_TOS}`],
    distinct(arrived, frame => innerOf(frame).tos),
  );
}

/** Checks every field of the outer headers. @param there, back  as the client's and the server's node sent them */
function checkOuter(context: ScenarioContext, pair: Pair, outer: Outer, there: Frame[], back: Frame[]): void {
  const { client, server, clientNode, serverNode } = endsOf(context, pair);
  const frames = [...there, ...back];
  const [from, to] = [addressOf(clientNode.address), addressOf(serverNode.address)];
  const check = checkerOf(context, pair);

  check('outer protocol', outer.udp === undefined ? 4 : 17, frames, frame => outerOf(frame).protocol);
  check('outer addresses, there', `${from} > ${to}`, there, frame => addressesOf(outerOf(frame)));
  check('outer addresses, back', `${to} > ${from}`, back, frame => addressesOf(outerOf(frame)));
  check('inner addresses, there', `${client.address} > ${server.address}`, there, frame => addressesOf(innerOf(frame)));
  check('inner addresses, back', `${server.address} > ${client.address}`, back, frame => addressesOf(innerOf(frame)));
  check('bytes added', outer.overhead, frames, frame => outerOf(frame).length - innerOf(frame).length);
  if (outer.udp !== undefined) checkUdpTunnel(context, pair, outer, there, back);

  if (outer.ttl === 'inherit') {
    check('outer TTL above the inner', 0, frames, frame => outerOf(frame).ttl - innerOf(frame).ttl);
  } else {
    check('outer TTL', outer.ttl, frames, frame => outerOf(frame).ttl);
  }
  if (outer.df === 'inherit') {
    // A ping asks with DF set and is answered without: both occur.
    check(
      'outer DF, where the inner is 0',
      0,
      frames.filter(frame => innerOf(frame).df === 0),
      outerDf,
    );
    check(
      'outer DF, where the inner is 1',
      1,
      frames.filter(frame => innerOf(frame).df === 1),
      outerDf,
    );
  } else {
    check('outer DF', outer.df, frames, outerDf);
  }
  check('outer DSCP and ECN, also of the marked packet', 0, frames, frame => outerOf(frame).tos);
  // With DF 0 a router may cut the packet: the same id twice would mix two packets up.
  for (const [name, direction] of [
    ['there', there],
    ['back', back],
  ] as const) {
    const ids = distinct(direction, frame => outerOf(frame).id);
    context.check(`${title(pair)}: different outer ids, ${name}`, direction.length, ids.length);
  }
  checkChecksums(context, `the pings, ${title(pair)}`, frames);
}

function checkUdpTunnel(context: ScenarioContext, pair: Pair, outer: Outer, there: Frame[], back: Frame[]): void {
  const { clientNode, serverNode } = endsOf(context, pair);
  const frames = [...there, ...back];
  const check = checkerOf(context, pair);
  const macs = [clientNode.vtepMac, serverNode.vtepMac];

  check('UDP destination port', outer.udp!.port, frames, frame => frame.udp[0]?.dst ?? 'none');
  for (const [name, direction, vni, [from, to]] of [
    ['there', there, pair.vni![0], macs],
    ['back', back, pair.vni![1], macs.toReversed()],
  ] as const) {
    check(`VNI, ${name}`, vni, direction, frame => frame.vni ?? 'none');
    check(`tunnel header, ${name}`, tunnelHeader(outer.protocol, vni), direction, frame => frame.tunnelHeader);
    check(`inner Ethernet, ${name}`, `${from} > ${to}`, direction, frame => addressesOf(frame.ethernet.at(-1)));
  }
  if (outer.protocol === 'vxlan') check('VXLAN flags', '0x08', frames, frame => frame.vxlanFlags);
  else check('GENEVE protocol type', '0x6558', frames, frame => frame.genevePayload);
  check('outer UDP checksum', outer.udp!.checksum, frames, frame =>
    frame.udp[0]?.checksum === '0x0000' ? 'zero' : 'computed',
  );
}

/** Opens connections one after the other and checks the outer source ports they get. */
export async function checkSourcePorts(context: ScenarioContext, pair: Pair, outer: Outer): Promise<void> {
  const { client, server, clientNode } = endsOf(context, pair);
  const files = await context.capture({ wire: [clientNode.name, outer.filter] }, async () => {
    const urls = `http://${server.address}/[1-${FLOWS}]`;
    await context.exec(client.name, ['curl', '-s', '-o', '/dev/null', '-H', 'Connection: close', urls]);
  });
  const frames = await readFrames(files.wire, 'tcp', outer.decodeAs);
  const portsOfFlow = new Map<string, Set<number>>();
  for (const frame of frames) {
    const { src, dst } = innerOf(frame);
    const flow = `${src}:${frame.tcp!.src} > ${dst}:${frame.tcp!.dst}`;
    portsOfFlow.set(flow, (portsOfFlow.get(flow) ?? new Set()).add(frame.udp[0]?.src ?? 0));
  }
  const ports = [...portsOfFlow.values()].flatMap(set => [...set]);
  const [from, to] = outer.udp!.sourcePorts;
  const [lowest, highest] = [Math.min(...ports), Math.max(...ports)];
  const middle = (from + to) / 2;
  context.check('flows, there and back', 2 * FLOWS, portsOfFlow.size);
  context.check(
    'outer source ports of a flow',
    1,
    distinct([...portsOfFlow.values()], set => set.size),
  );
  context.checkThat(
    'outer source ports, lowest and highest',
    `in ${from}-${to}, in its lower and its upper half`,
    `${lowest}-${highest}`,
    // Each half is missed with a probability of 2^-48.
    lowest >= from && highest <= to && lowest < middle && highest > middle,
  );
  context.checkThat(
    'different outer source ports',
    `at least ${FLOWS} for ${2 * FLOWS} flows`,
    new Set(ports).size,
    new Set(ports).size >= FLOWS,
  );
  checkChecksums(context, `the ${2 * FLOWS} flows`, frames);
}

/**
 * A genuine tunnel packet, sent again by a host that is nobody's peer: first with the peer's own address, to show that
 * nothing else about it is wrong, then with the stranger's.
 */
export async function checkUnknownPeer(context: ScenarioContext, pair: Pair, outer: Outer): Promise<void> {
  const { client, server, serverNode } = endsOf(context, pair);
  const toServer = `${outer.filter} and dst host ${addressOf(serverNode.address)}`;
  const genuine = await context.capture({ wire: [serverNode.name, toServer] }, async () => {
    await context.exec(client.name, ['ping', '-c', '1', '-W', '1', server.address]);
  });
  const frame = firstFrame(genuine.wire.path);
  const address = addressOf(serverNode.address).replace(/\d+$/, '66');

  const stranger = await Stranger.join(context.lab, serverNode.subnet);
  try {
    for (const [name, source, arrivals] of [
      ["the peer's address", null, 1],
      [`its own address ${address}`, address, 0],
    ] as const) {
      const sent = forge(frame, source);
      const files = await context.capture(
        { wire: [serverNode.name, toServer], pod: [server.name, 'icmp[icmptype] == icmp-echo'] },
        async () => {
          stranger.send(sent);
          await sleep(SETTLE_MS);
        },
      );
      context.check(
        `a stranger sends a tunnel packet from ${name}: on the wire of ${serverNode.name}`,
        1,
        files.wire.packets,
      );
      context.check(`a stranger sends a tunnel packet from ${name}: at ${server.name}`, arrivals, files.pod.packets);
    }
  } finally {
    stranger.leave();
  }
}

/** The first packet of a pcap file in the byte order of this machine. */
function firstFrame(path: string): Uint8Array {
  const file = readFileSync(path);
  if (file.length < 40) throw new LabError(`${path} holds no packet`);
  return file.subarray(40, 40 + file.readUInt32LE(32));
}

/** A copy of an Ethernet frame from another MAC and, unless null, another IPv4 source. Its outer UDP checksum becomes 0. */
function forge(frame: Uint8Array, source: string | null): Uint8Array {
  const copy = Uint8Array.from(frame);
  const view = new DataView(copy.buffer);
  ethernet.setMac(view, ethernet.SRC, 0x0200, 0x57a9);
  if (source === null) return copy;
  const ip = ethernet.HEADER_LEN;
  copy.set(ipaddr.parse(source).toByteArray(), ip + ipv4.SRC);
  ipv4.setHeaderChecksum(view, ip);
  if (copy[ip + ipv4.PROTOCOL] === ipv4.PROTO_UDP) view.setUint16(ip + ipv4.HEADER_LEN + udp.CHECKSUM, 0);
  return copy;
}

/** Checks that a field has one value in all of some frames, of which there is at least one. */
function checkerOf(context: ScenarioContext, pair: Pair) {
  return (what: string, expected: string | number, frames: readonly Frame[], of: (frame: Frame) => string | number) =>
    context.check(`${title(pair)}: ${what}`, expected, distinct(frames, of));
}

function outerDf(frame: Frame): number {
  return outerOf(frame).df;
}

/** First 8 bytes behind the UDP header, in hex: flags and VNI, no options. */
function tunnelHeader(protocol: Outer['protocol'], vni: number): string {
  return `${protocol === 'vxlan' ? '08000000' : '00006558'}${vni.toString(16).padStart(6, '0')}00`;
}
