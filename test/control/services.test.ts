/** Services of a configuration as the datapath gets them, and pods that are more than one address. */
import assert from 'node:assert/strict';
import { formatProblems, loadConfig } from '../../datapath/control/load-config.ts';
import { resolveTap, withUplink } from '../../datapath/control/resolved.ts';
import { compile } from '../../datapath/program/compile.ts';
import type { Program } from '../../datapath/program/program.ts';
import { VERDICT_NAMES } from '../../datapath/verdict.ts';
import { dotted, tcp4 } from '../fixtures/packets.ts';
import { fromWire, NODE, POD, REMOTE, TestNode } from '../forward-rig.ts';

const NAME = 'b';

function programOf(more: object): Program {
  const loaded = loadConfig(
    JSON.stringify({
      apiVersion: 'tunpath.dev/v1',
      kind: 'NodeConfig',
      metadata: { name: NAME },
      spec: {
        uplink: { kind: 'tap', device: 'ul0', mac: '02:00:00:00:00:01', address: '192.168.10.1/24' },
        host: { device: 'tp0', address: '10.244.1.1/32' },
        pods: [{ name: 'p1', netns: 'n1', device: 'eth0', address: '10.244.1.10' }],
        ...more,
      },
    }),
    'test',
  );
  assert.ok(loaded.config !== undefined, formatProblems(loaded.problems ?? []));
  const { uplink } = loaded.config.spec;
  assert.ok(uplink.kind === 'tap');
  return compile(withUplink(loaded.config, resolveTap(uplink)));
}

/** The endpoints of each port of the only service: those for which `which` holds. */
function endpointsOf(program: Program, which: 'local' | 'near' | 'ready'): string[][] {
  return program.nat!.services[0].ports.map(({ endpoints }) =>
    endpoints.filter(endpoint => endpoint[which]).map(({ address, port }) => `${dotted(address)}:${port}`),
  );
}

function service(endpoints: object[], more: object = {}): object {
  return { services: [{ name: 'web', clusterIP: '10.96.0.10', ports: [{ port: 80 }], endpoints, ...more }] };
}

describe('control/services', () => {
  it('an endpoint is local if its nodeName says so, if it is a pod of this node, and if it is the node', () => {
    const program = programOf(
      service([
        { address: '10.244.1.10' },
        { address: '10.244.1.1' },
        { address: '192.168.10.1' },
        { address: '10.244.1.99', nodeName: NAME },
        { address: '10.244.1.98', nodeName: 'a' },
        { address: '10.244.1.97' },
      ]),
    );
    assert.deepEqual(endpointsOf(program, 'local'), [
      ['10.244.1.10:80', '10.244.1.1:80', '192.168.10.1:80', '10.244.1.99:80'],
    ]);
  });

  it('two endpoints of one address have two ports, and several ports each have their own', () => {
    assert.deepEqual(
      endpointsOf(
        programOf(
          service([
            { address: '10.0.0.1', port: 8080 },
            { address: '10.0.0.1', port: 8081 },
          ]),
        ),
        'ready',
      ),
      [['10.0.0.1:8080', '10.0.0.1:8081']],
    );
    const ports = [
      { name: 'http', port: 80 },
      { name: 'dns', port: 53, protocol: 'UDP', targetPort: 5353 },
    ];
    const endpoints = [{ address: '10.0.0.1', ports: { http: 8080, dns: 54 } }, { address: '10.0.0.2' }];
    assert.deepEqual(endpointsOf(programOf(service(endpoints, { ports })), 'ready'), [
      ['10.0.0.1:8080', '10.0.0.2:80'],
      ['10.0.0.1:54', '10.0.0.2:5353'],
    ]);
  });

  it('prefers the endpoints of its zone or node only if asked, and only if each that is ready has a zone', () => {
    const endpoints = [
      { address: '10.0.0.1', zone: 'z1' },
      { address: '10.0.0.2', zone: 'z2' },
      { address: '10.0.0.3', ready: false },
      { address: '10.244.1.10', zone: 'z2' },
    ];
    const near = (more: object, zone?: string, list: object[] = endpoints) =>
      endpointsOf(programOf({ ...service(list, more), ...(zone === undefined ? {} : { zone }) }), 'near')[0];
    assert.deepEqual(near({}, 'z1'), []);
    assert.deepEqual(near({ trafficDistribution: 'PreferClose' }, 'z1'), ['10.0.0.1:80']);
    assert.deepEqual(near({ trafficDistribution: 'PreferSameZone' }, 'z3'), []);
    assert.deepEqual(near({ trafficDistribution: 'PreferSameZone' }), []);
    assert.deepEqual(near({ trafficDistribution: 'PreferSameNode' }, 'z1'), ['10.244.1.10:80']);
    const mixed = [...endpoints, { address: '10.0.0.4' }];
    assert.deepEqual(near({ trafficDistribution: 'PreferClose' }, 'z1', mixed), []);
    assert.deepEqual(near({ trafficDistribution: 'PreferSameNode' }, 'z1', endpoints.slice(0, 3)), ['10.0.0.1:80']);
  });

  it('answers node ports at those of its addresses that nodePortAddresses holds, else at the uplink’s', () => {
    const at = (more: object) => programOf({ ...service([]), ...more }).nat!.nodeAddresses.map(dotted);
    const own = '169.254.42.2';
    assert.deepEqual(at({}), ['192.168.10.1', own]);
    assert.deepEqual(at({ nodePortAddresses: '10.244.0.0/16' }), ['10.244.1.1', own]);
    assert.deepEqual(at({ nodePortAddresses: ['0.0.0.0/0'] }), ['192.168.10.1', '10.244.1.1', own]);
  });

  it('a router pod sends from the networks behind it, and gets what is for them', () => {
    const pods = [{ name: 'r', netns: 'n3', device: 'eth0', address: '10.244.1.12', networks: ['10.50.0.0/16'] }];
    const node = new TestNode({ pods });
    node.meetNeighbors();
    const dropped = (reason: string) => node.counters.dropped(VERDICT_NAMES.indexOf(reason));
    node.send('p1', tcp4({ src: POD, dst: '10.50.7.7' }));
    assert.equal(node.collect('r').length, 1);
    node.send('r', tcp4({ src: '10.50.7.7', dst: POD }), tcp4({ src: '10.51.0.1', dst: POD }));
    assert.equal(node.collect('p1').length, 1);
    assert.equal(dropped('drop-invalid-source'), 1);
    node.send('r', tcp4({ src: '10.50.7.7', dst: REMOTE }));
    assert.equal(node.collect('ul0').length, 1);
    node.send('ul0', fromWire(tcp4({ src: '10.50.7.7', dst: NODE })));
    assert.equal(dropped('drop-martian-source'), 1, 'nobody outside may speak for a network of ours');
    assert.equal(node.balance, 0);
  });

  it('a pod begins no more flows than conntrack.perSource, from all its addresses; nobody else is counted', () => {
    const services = [
      { name: 'web', clusterIP: '10.96.0.10', ports: [{ port: 80 }], endpoints: [{ address: REMOTE }] },
    ];
    const pods = [{ name: 'r', netns: 'r', device: 'eth0', address: '10.244.1.12', networks: ['10.50.0.0/16'] }];
    const node = new TestNode({ services, pods, conntrack: { perSource: 3 } });
    node.meetNeighbors();
    const quota = () => node.counters.dropped(VERDICT_NAMES.indexOf('drop-ct-source-quota'));
    for (let sport = 1000; sport < 1010; sport++) {
      node.send('p1', tcp4({ src: POD, dst: '10.96.0.10', sport, dport: 80 }));
      node.send('r', tcp4({ src: `10.50.0.${sport - 999}`, dst: '10.96.0.10', sport, dport: 80 }));
      node.send('ul0', fromWire(tcp4({ src: '203.0.113.9', dst: POD, sport, dport: 80 })));
    }
    assert.equal(node.collect('ul0').length, 6);
    const isTcp = (bytes: Uint8Array) => bytes[9] === 6; // beside what the node says of those refused
    assert.equal(node.collect('p1').filter(isTcp).length, 10);
    assert.equal(quota(), 14);
    assert.equal(node.balance, 0);
  });
});
