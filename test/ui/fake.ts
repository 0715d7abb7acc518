/** A network for the page that has no node: the datapath in memory answers, and what happens is what the test says. */

import { MemorySource } from '../../datapath/ui/page/memory-source.ts';
import type { Picture } from '../../datapath/ui/picture.ts';
import type { PageCounters, PageFlow, PagePacket, Sink } from '../../datapath/ui/protocol.ts';
import type { Shown } from '../../datapath/ui/server.ts';
import { hexText, tcp4, udp4 } from '../fixtures/packets.ts';

export const NODES = 6;
export const PODS_PER_NODE = 50;

const podAddress = (node: number, pod: number) => `10.244.${node}.${pod + 10}`;
const nodeName = (node: number) => `n${node}`;

function configOf(node: number): string {
  const others = Array.from({ length: NODES }, (_, i) => i + 1).filter(other => other !== node);
  return JSON.stringify({
    apiVersion: 'tunpath.dev/v1',
    kind: 'NodeConfig',
    metadata: { name: nodeName(node) },
    spec: {
      uplink: { kind: 'segment', segment: 'lan10', mac: `02:00:00:00:00:0${node}`, address: `192.168.10.${node}/24` },
      host: { device: 'tp0', address: `10.244.${node}.1/32` },
      pods: Array.from({ length: PODS_PER_NODE }, (_, i) => ({
        name: `default/p${node}-${i}`,
        netns: `p${node}-${i}`,
        device: 'eth0',
        address: podAddress(node, i),
        labels: { app: i % 2 === 0 ? 'web' : 'curl' },
      })),
      tunnel: { protocol: 'vxlan', peers: others.map(other => ({ address: `192.168.10.${other}` })) },
      routes: others.map(other => ({ to: `10.244.${other}.0/24`, via: `192.168.10.${other}`, encap: true })),
      services: [
        {
          name: 'default/web',
          clusterIP: '10.96.0.10',
          ports: [{ port: 80, targetPort: 8080 }],
          endpoints: [{ address: podAddress(1, 0) }, { address: podAddress(2, 0) }],
        },
      ],
    },
  });
}

/** The i-th of any number of flows, each of its own. */
export function flowAt(i: number): PageFlow {
  const node = (i % NODES) + 1;
  const other = ((i + 1) % NODES) + 1;
  const pod = Math.floor(i / NODES) % PODS_PER_NODE;
  const dport = 53 + Math.floor(i / 60_000);
  const isDrop = i % 10 === 9;
  const [src, dst] = [podAddress(node, pod), podAddress(other, pod)];
  const packet = udp4({ src, dst: isDrop ? '10.99.0.1' : dst, sport: 1024 + (i % 60_000), dport });
  return {
    timeMs: 1_764_000_000_000 + i,
    node: nodeName(node),
    source: { name: `default/p${node}-${pod}`, address: src, port: 1024 + (i % 60_000) },
    destination: {
      name: isDrop ? 'world' : `default/p${other}-${pod}`,
      address: isDrop ? '10.99.0.1' : dst,
      port: dport,
    },
    protocol: 17,
    verdict: isDrop ? 'DROPPED' : 'FORWARDED',
    reason: isDrop ? 'drop-no-route' : '',
    isReply: false,
    summary: 'UDP',
    length: packet.length,
    inPort: `default/p${node}-${pod}`,
    outPort: isDrop ? '' : 'uplink',
    hex: isDrop ? hexText(packet) : '',
  };
}

function packetAt(i: number): PagePacket {
  const bytes = tcp4({ src: podAddress(1, 0), dst: podAddress(2, 0), sport: 1024 + i, dport: 80, flags: 2 });
  return {
    timeMs: 1_764_000_000_000 + i,
    node: 'n1',
    port: 'default/p1-0',
    direction: 'in',
    reason: '',
    number: i,
    length: bytes.length,
    layer: 3,
    hex: hexText(bytes),
  };
}

export class FakeNetwork implements Shown {
  private readonly source = new MemorySource();
  private readonly sinks = new Set<Sink>();
  private told: Picture | null = null;
  /** `FILTER drops` of every capture that was begun, and whether it has ended. */
  readonly captures: { filter: string; drops: boolean; isOver: boolean }[] = [];

  /** @param isLab an article's lab instead of 300 pods */
  constructor(isLab = false) {
    // What the source in memory finds, it tells all pages.
    this.source.start({
      picture: picture => {
        this.told = picture;
        for (const sink of this.sinks) sink.picture(picture);
      },
      flows: flows => this.flows(flows),
      packets: () => {},
      counters: () => {},
      lost: () => {},
      trouble: () => {},
    });
    if (isLab) return;
    this.source.openFiles(Array.from({ length: NODES }, (_, i) => ({ file: `${i}`, text: configOf(i + 1) })));
  }

  flows(flows: PageFlow[]): void {
    for (const sink of this.sinks) sink.flows(flows);
  }

  counters(): void {
    const counters: PageCounters = {
      timeMs: Date.now(),
      nodes: [
        {
          node: 'n1',
          counters: [{ name: 'drop-no-route', packets: 17 }],
          ports: [{ name: 'default/p1-0', kind: 'pod', rxPackets: 10, txPackets: 20, rxBytes: 1000, txBytes: 2000 }],
          tables: [{ table: 'conntrack', used: 12, size: 65536 }],
        },
      ],
    };
    for (const sink of this.sinks) sink.counters(counters);
  }

  join(sink: Sink): () => void {
    this.sinks.add(sink);
    sink.picture(this.told!);
    this.counters();
    return () => this.sinks.delete(sink);
  }

  async packets(filter: string, drops: boolean, signal: AbortSignal, sink: Sink): Promise<void> {
    if (filter.includes('(')) throw new Error(`${filter}: expected a filter`);
    const capture = { filter, drops, isOver: false };
    this.captures.push(capture);
    signal.addEventListener('abort', () => {
      capture.isOver = true;
    });
    sink.packets(Array.from({ length: 40 }, (_, i) => packetAt(i)));
  }

  explain: Shown['explain'] = request => this.source.explain(request);
  change: Shown['change'] = request => this.source.change(request);
  prove: Shown['prove'] = () => this.source.prove();
  conformance: Shown['conformance'] = (profile, rfc) => this.source.conformance(profile, rfc);
  close(): void {
    this.sinks.clear();
  }
}
