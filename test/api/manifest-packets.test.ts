/**
 * Files as users have them (test/fixtures/manifests), through the API and its controllers to the program of a node, and where
 * packets go then. Pods are queues in memory.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { stringify } from 'yaml';
import { withoutFaulty } from '../../datapath/api/agent/acceptable.ts';
import { compileNode } from '../../datapath/api/agent/node-program.ts';
import { readManifests } from '../../datapath/api/client/manifests.ts';
import { mirrored } from '../../datapath/api/controllers/mirroring.ts';
import type { Json } from '../../datapath/api/object.ts';
import { loadConfig } from '../../datapath/control/load-config.ts';
import { resolveSegment, withUplink } from '../../datapath/control/resolved.ts';
import { Sim, type SimNode } from '../../datapath/drive/sim.ts';
import { tcp4 } from '../fixtures/packets.ts';
import { ClusterRig } from './cluster-rig.ts';

const MANIFESTS = new URL('../../../test/fixtures/manifests/', import.meta.url); // seen from dist/test/api

const READER = { role: 'reader' };

/** Pods that no manifest has: by address, who may be behind a service or ask. */
const EXTRA: Json[] = [
  ...[200, 201, 202, 203, 204, 205].map(n => ({ name: `default/p${n}`, address: `10.244.0.${n}`, labels: {} })),
  { name: 'default/reader', address: '10.244.0.10', labels: READER },
  { name: 'default/masked', address: '10.244.0.130', labels: READER },
  { name: 'default/db', address: '10.244.0.20', labels: { role: 'db' }, ports: [{ name: 'http', containerPort: 80 }] },
  { name: 'default/api', address: '10.244.0.21', labels: { role: 'api' } },
  {
    name: 'default/ports',
    address: '10.244.0.22',
    labels: { role: 'ports' },
    ports: [{ name: 'http', containerPort: 8080 }],
  },
  { name: 'default/front', address: '10.244.0.140', labels: { role: 'frontend' } },
  { name: 'team-a/client', address: '10.244.0.30', labels: { role: 'client' } },
  { name: 'team-a/old', address: '10.244.0.31', labels: { role: 'client', legacy: 'yes' } },
];

class Packets {
  readonly rig: ClusterRig;
  readonly node: SimNode;
  readonly refused: string[];
  private readonly sim: Sim;
  private port = 1024;

  private constructor(rig: ClusterRig, sim: Sim, node: SimNode, refused: string[]) {
    this.rig = rig;
    this.sim = sim;
    this.node = node;
    this.refused = refused;
  }

  static async of(...files: string[]): Promise<Packets> {
    const rig = await ClusterRig.start(['a']);
    for (const file of files) {
      const { found, problems } = readManifests(readFileSync(new URL(file, MANIFESTS), 'utf8'), file);
      assert.deepEqual(problems, []);
      for (const { object } of found) await rig.create(stringify(object));
    }
    await rig.settle();
    assert.deepEqual(rig.errors, []);
    const list = (kind: string) => rig.cluster.list(kind);
    const base = {
      apiVersion: 'tunpath.dev/v1',
      kind: 'NodeConfig',
      metadata: { name: 'a' },
      spec: {
        uplink: { kind: 'segment', segment: 'lan', mac: '02:00:00:00:00:01', address: '192.0.2.1/24' },
        pods: EXTRA.map((pod, i) => ({ netns: `n${i}`, device: 'eth0', ...pod })),
        tunnel: { protocol: 'none' },
        routes: [],
      },
    };
    const { config: written, missing } = compileNode(
      base,
      {
        nodes: list('Node'),
        pods: list('Pod'),
        services: list('Service'),
        slices: list('EndpointSlice'),
        policies: list('NetworkPolicy'),
        namespaces: list('Namespace'),
        configMaps: list('ConfigMap'),
        endpoints: list('CiliumEndpoint'),
        pools: list('IPPool'),
      },
      'a',
      () => true,
    );
    assert.deepEqual(missing, []);
    const { config: kept, refused, problems } = withoutFaulty(written, 'test');
    assert.deepEqual(problems, []);
    const { config } = loadConfig(stringify(kept), 'test');
    assert.ok(config?.spec.uplink.kind === 'segment');
    const sim = new Sim();
    const node = sim.addNode(withUplink(config, resolveSegment(config.spec.uplink)), { uplink: 'queue' });
    return new Packets(
      rig,
      sim,
      node,
      refused.map(({ place, message }) => `${place}: ${message}`),
    );
  }

  /** Sends a SYN from a pod. @returns `ADDRESS:PORT` where it came out, or `dropped` */
  send(from: string, to: string, port: number, sport = this.port++): string {
    const src = this.node.config.spec.pods.find(({ name }) => name === from)!.address.split('/')[0]!;
    this.node.inject(from, tcp4({ src, dst: to, sport, dport: port, flags: 2 }));
    this.sim.run(1);
    for (const { name } of this.node.config.spec.pods) {
      const [frame] = this.node.collect(name);
      if (frame === undefined) continue;
      // A reset, or an ICMP error, to who has sent it.
      if (name === from) return 'refused';
      const { bytes } = frame;
      return `${bytes.slice(16, 20).join('.')}:${(bytes[22]! << 8) | bytes[23]!}`;
    }
    return 'dropped';
  }

  /** Where many flows go, each place once. */
  places(to: string, port: number, from = 'default/reader'): string[] {
    const found = new Set<string>();
    for (let n = 0; n < 60; n++) found.add(this.send(from, to, port));
    return [...found].sort();
  }

  async stop(): Promise<void> {
    this.sim.close();
    await this.rig.stop();
  }
}

describe("packets of users' manifests", function () {
  this.timeout(30_000);
  let packets: Packets;
  afterEach(() => packets?.stop());

  it('two endpoints with one address, and Endpoints with a port too many', async () => {
    packets = await Packets.of('one-address-two-ports.yaml', 'endpoints-more-ports.yaml');
    assert.deepEqual(packets.refused, []);
    assert.deepEqual(packets.places('10.96.20.1', 80), ['10.244.0.200:8001', '10.244.0.200:8002']);
    assert.deepEqual(packets.places('10.96.20.2', 5432), ['10.244.0.201:5432', '10.244.0.202:5432']);
  });

  it('an endpoint that is in two slices is one, and IPv6 is none of ours', async () => {
    packets = await Packets.of('endpointslices-overlapping.yaml');
    assert.deepEqual(packets.refused, []);
    assert.deepEqual(packets.places('10.96.20.3', 80), ['10.244.0.204:8080']);
  });

  it('a named target port is what each pod calls so', async () => {
    packets = await Packets.of('named-target-port.yaml');
    const { clusterIP } = packets.rig.get('Service', 'named').spec;
    const ports = packets.places(clusterIP, 80).map(place => place.split(':')[1]);
    assert.deepEqual(ports.sort(), ['8080', '9090']);
  });

  it('a client stays where it was, for as long as the nested field says', async () => {
    packets = await Packets.of('deployment-and-service.yaml', 'session-affinity.yaml');
    const places = packets.places('10.96.20.4', 80);
    assert.equal(places.length, 1, places.join());
    const all = packets.places(packets.rig.get('Service', 'frontend').spec.clusterIP, 80);
    assert.equal(all.length, 3, all.join());
    const sticky = packets.node.config.spec.services.find(({ name }) => name === 'default/sticky');
    assert.equal(sticky?.sessionAffinityTimeoutSeconds, 100);
  });

  it('external addresses, a balanced one, and a name twice for two protocols', async () => {
    packets = await Packets.of(
      'deployment-and-service.yaml',
      'external-ips.yaml',
      'cilium-pools.yaml',
      'load-balancer.yaml',
      'dns-udp-and-tcp.yaml',
    );
    assert.deepEqual(packets.refused, []);
    assert.equal(packets.places('198.51.100.32', 8083).length, 3);
    const [{ ip }] = packets.rig.get('Service', 'balanced').status.loadBalancer.ingress;
    assert.equal(ip, '203.0.113.17');
    assert.equal(packets.places(ip, 443).length, 3);
    // Nobody is behind it.
    assert.equal(packets.send('default/reader', '10.96.20.10', 53), 'refused');
  });

  it('default deny closes every pod, and `except` a part of what is allowed', async () => {
    packets = await Packets.of('pods-and-secrets.yaml', 'policy-except.yaml');
    assert.equal(packets.send('default/reader', '10.244.0.20', 80), '10.244.0.20:80');
    assert.equal(packets.send('default/reader', '10.244.0.20', 81), 'dropped');
    assert.equal(packets.send('default/masked', '10.244.0.20', 80), 'dropped');
    // In the part that is left out, but let in by its label, and by its namespace's.
    assert.equal(packets.send('default/front', '10.244.0.20', 80), '10.244.0.20:80');
    assert.equal(packets.send('team-a/client', '10.244.0.20', 80), '10.244.0.20:80');
    assert.equal(packets.send('default/db', '10.244.0.10', 80), 'dropped');
    await packets.stop();
    packets = await Packets.of('policy-default-deny.yaml');
    assert.equal(packets.send('default/masked', '10.244.0.10', 80), 'dropped');
    assert.equal(packets.send('default/reader', '10.244.0.30', 80), '10.244.0.30:80');
  });

  it('selectors of one element both have to hold; ports by name and range', async () => {
    packets = await Packets.of('pods-and-secrets.yaml', 'policy-combined-selectors.yaml', 'policy-ports.yaml');
    assert.deepEqual(packets.refused, []);
    assert.equal(packets.send('team-a/client', '10.244.0.21', 80), '10.244.0.21:80');
    assert.equal(packets.send('team-a/old', '10.244.0.21', 80), 'dropped');
    assert.equal(packets.send('default/reader', '10.244.0.21', 80), 'dropped');
    assert.equal(packets.send('default/reader', '10.244.0.22', 8080), '10.244.0.22:8080');
    assert.equal(packets.send('default/reader', '10.244.0.22', 80), 'dropped');
    assert.equal(packets.send('team-a/client', '10.244.0.22', 8080), 'dropped');
  });

  it('a service by its Endpoints goes with them, and what is left out is an event', async () => {
    packets = await Packets.of('one-address-two-ports.yaml');
    const { rig } = packets;
    const slices = () => rig.cluster.list('EndpointSlice').filter(({ metadata }) => metadata.namespace === 'default');
    const mirrors = () =>
      slices().filter(({ metadata }) => metadata.labels?.['kubernetes.io/service-name'] === 'two-ports');
    assert.equal(mirrors().length, 2);
    await rig.change('Endpoints', 'two-ports', endpoints => {
      endpoints.subsets = [{ addresses: [{ ip: '2001:db8::1' }, { ip: '192.0.2.9' }], ports: [{ port: 80 }] }];
    });
    assert.deepEqual(
      mirrors().map(({ endpoints }) => endpoints.map(({ addresses }: Json) => addresses)),
      [[['192.0.2.9']]],
    );
    const events = rig.cluster.list('Event').filter(({ reason }) => reason === 'NotMirrored');
    assert.deepEqual(
      events.map(({ message }) => message),
      ['2001:db8::1: only IPv4 is forwarded'],
    );
    await rig.change('Service', 'two-ports', service => {
      service.spec.selector = { app: 'x' };
    });
    assert.deepEqual(
      mirrors().filter(({ metadata }) => /mirroring/.test(JSON.stringify(metadata.labels))),
      [],
    );
  });
});

describe('mirrored Endpoints', () => {
  it('are a slice for each list of ports', () => {
    const ports = [{ name: 'a', port: 1, protocol: 'TCP' }];
    const subsets = [
      { addresses: [{ ip: '192.0.2.1' }], ports },
      { notReadyAddresses: [{ ip: '192.0.2.2', nodeName: 'n' }], ports },
      { addresses: [{ ip: '192.0.2.3' }] },
    ];
    assert.deepEqual(mirrored({ subsets } as Json), [
      {
        ports,
        endpoints: [
          { addresses: ['192.0.2.1'], conditions: { ready: true } },
          { addresses: ['192.0.2.2'], conditions: { ready: false }, nodeName: 'n' },
        ],
      },
      { ports: [], endpoints: [{ addresses: ['192.0.2.3'], conditions: { ready: true } }] },
    ]);
    assert.deepEqual(mirrored({} as Json), []);
  });
});
