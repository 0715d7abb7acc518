/** Topologies as files: what is chosen where they say nothing, and what is refused. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { stringify } from 'yaml';
import { formatProblems, loadConfig } from '../../datapath/control/load-config.ts';
import { drawMermaid, drawSvg } from '../../datapath/lab/graph.ts';
import { nodeConfig } from '../../datapath/lab/modes.ts';
import { routesOf } from '../../datapath/lab/routing.ts';
import { MODES, type Topology } from '../../datapath/lab/topology.ts';
import { loadTopology, printTopology, TOPOLOGIES, topologyText } from '../../datapath/lab/topology-file.ts';

const fixture = (name: string): string =>
  readFileSync(new URL(`../../../test/fixtures/topology/${name}`, import.meta.url), 'utf8');

function load(spec: string): Topology {
  const text = `apiVersion: tunpath.dev/v1\nkind: Topology\nmetadata: { name: t }\nspec:\n${spec}`;
  const { topology, problems } = loadTopology(text, 't.yaml');
  assert.equal(problems === undefined ? '' : formatProblems(problems), '');
  return topology!;
}

const { topology: own } = loadTopology(fixture('two-routers.yaml'), 'two-routers.yaml') as { topology: Topology };

describe('topology files', () => {
  for (const topology of [...Object.values(TOPOLOGIES), own]) {
    it(`${topology.name}: is the same when it is printed and read again`, () => {
      const { topology: again, problems } = loadTopology(printTopology(topology), 'printed');
      assert.equal(problems === undefined ? '' : formatProblems(problems), '');
      assert.deepEqual(again, topology);
    });
  }

  it('give what is built in as it is written, with a schema that editors find', () => {
    const text = topologyText('cilium');
    assert.match(text, /^# yaml-language-server: \$schema=\/.*\/docs\/configuration\.schema\.json\n# Article 001\./);
    assert.deepEqual(loadTopology(text, 'cilium.yaml').topology, TOPOLOGIES.cilium);
  });

  it('choose addresses, networks, MACs and identities that nobody has said', () => {
    const { nodes, pods, mode, profile, masquerade, inside } = load(`
  subnets: [{ name: lan, cidr: 10.1.0.0/24 }]
  nodes: [{ name: a, subnet: lan }, { name: b, subnet: lan, address: 10.1.0.10, podCidr: 10.244.0.0/24 }]
  pods: [{ name: p, node: a }, { name: q, node: a, address: 10.244.1.10 }, { name: r, node: a }]
`);
    assert.deepEqual([mode, profile, masquerade, inside], ['vxlan', 'linux', 'aws', ['10.244.0.0/16']]);
    assert.deepEqual(nodes[0], {
      name: 'a',
      subnet: 'lan',
      address: '10.1.0.11/24',
      mac: '02:00:0a:01:00:0b',
      vtepMac: '02:42:0a:01:00:0b',
      podCidr: '10.244.1.0/24',
      hostAddress: '10.244.1.1',
    });
    assert.deepEqual(
      pods.map(({ address, identity }) => `${address} ${identity}`),
      ['10.244.1.11 1001', '10.244.1.10 1002', '10.244.1.12 1003'],
    );
  });

  it('say where there is no room for what is left out', () => {
    const { problems } = loadTopology(
      `apiVersion: tunpath.dev/v1
kind: Topology
metadata: { name: full }
spec:
  subnets: [{ name: lan, cidr: 10.1.0.0/30 }]
  nodes:
    - { name: a, subnet: lan, address: 10.1.0.1 }
    - { name: b, subnet: lan, address: 10.1.0.2 }
    - { name: c, subnet: lan }
`,
      'full.yaml',
    );
    assert.match(
      formatProblems(problems!),
      /^full\.yaml:9:7: spec\.nodes\[2\]\.address: got nothing, expected one, for/,
    );
  });

  it('are refused with every problem at its line', () => {
    const { problems } = loadTopology(fixture('bad.yaml'), 'bad.yaml');
    assert.deepEqual(
      problems!.map(({ line, path }) => `${line} ${path}`),
      [
        '3 metadata.name',
        '5 spec.mode',
        '7 spec.subnets[0].mtu',
        '8 spec.subnets[1].name',
        '8 spec.subnets[1].cidr',
        '10 spec.nodes[0].subnet',
        '11 spec.nodes[1].address',
        '12 spec.nodes[2].name',
        '12 spec.nodes[2].podCidr',
        '14 spec.pods[0].name',
        '14 spec.pods[0].node',
        '14 spec.pods[0].memory',
        '15 spec.pods[1].porrt',
        '17 spec.routers[0].legs[1].device',
        '19 spec.links[0].endpoints[1]',
      ],
    );
  });

  it('are refused where two would be one, each at its line', () => {
    const text = `apiVersion: tunpath.dev/v1
kind: Topology
metadata: { name: t }
spec:
  clusterCidr: 10.0.0.0/8
  subnets:
    - { name: lan, cidr: 10.1.0.0/24 }
    - { name: lan-eth1, cidr: 10.2.0.0/24 }
    - { name: r-nodes, cidr: 10.3.0.0/24 }
    - { name: r, cidr: 10.4.0.0/24 }
  nodes:
    - { name: a, subnet: lan, podCidr: 10.244.1.0/24 }
    - { name: b, subnet: lan, podCidr: 10.244.2.0/24, hostAddress: 10.244.2.9 }
    - { name: c, subnet: lan, podCidr: 10.2.0.128/25 }
    - { name: d, subnet: lan, podCidr: 10.1.0.0/24 }
    - { name: e, subnet: lan-eth1, podCidr: 10.2.0.16/28, address: 10.2.0.77, hostAddress: 10.2.0.77 }
    - { name: r-nodes, subnet: lan, podCidr: 10.244.6.0/24 }
  pods:
    - { name: p, node: a, address: 10.244.1.1 }
    - { name: q, node: b, address: 10.244.2.9 }
  services:
    - { name: web, address: 10.96.0.1, ports: [{ port: 80 }], selector: {} }
    - { name: default/web, address: 10.96.0.2, ports: [{ port: 80 }], selector: {} }
    - { name: other/web, address: 10.96.0.3, ports: [{ port: 80 }], selector: {} }
  routers:
    - { name: lan, legs: [{ subnet: lan }, { subnet: lan-eth1 }] }
    - { name: x, legs: [{ subnet: r }] }
  hosts:
    - { name: r, subnet: lan }
`;
    const { problems } = loadTopology(text, 't.yaml');
    assert.deepEqual(
      problems!.map(({ line, path }) => `${line} ${path}`),
      [
        '10 spec.subnets[3].name',
        '14 spec.nodes[2].podCidr',
        '15 spec.nodes[3].podCidr',
        '17 spec.nodes[5].name',
        '19 spec.pods[0].address',
        '20 spec.pods[1].address',
        '23 spec.services[1].name',
        '26 spec.routers[0].legs[0].device',
        '29 spec.hosts[0].name',
      ],
    );
  });

  it('leave the names to the lab that it has for things of its own', () => {
    for (const name of ['api', 'nodes', 'segments', 'net', 'away']) {
      const text = `apiVersion: tunpath.dev/v1
kind: Topology
metadata: { name: names }
spec:
  subnets: [{ name: lan, cidr: 10.1.0.0/24 }]
  nodes: [{ name: a, subnet: lan }]
  pods: [{ name: ${name}, node: a }]
`;
      const { problems = [] } = loadTopology(text, 'names.yaml');
      assert.match(
        formatProblems(problems),
        /^names\.yaml:7:18: spec\.pods\[0\]\.name: got "\w+", expected a name other than /,
      );
    }
  });

  it('of any nonsense are refused with problems, not with an exception', () => {
    const good = fixture('two-routers.yaml').split('\n');
    for (const nonsense of ['', '[]', 'x', '{ a: [ }', 'null', '- - 1']) {
      for (let i = 0; i < good.length; i++) {
        const lines = [...good];
        lines[i] = lines[i]!.replace(/: .*|\S.*$/, `: ${nonsense}`);
        const { topology, problems } = loadTopology(lines.join('\n'), 'x.yaml');
        assert.ok(topology !== undefined || problems!.length > 0);
      }
    }
  });

  it('make configurations that nodes take, in every mode', () => {
    for (const mode of MODES) {
      for (const node of own.nodes) {
        const loaded = loadConfig(stringify(nodeConfig('t', own, node, { mode })), `${node.name}.yaml`);
        assert.equal(loaded.problems === undefined ? '' : formatProblems(loaded.problems), '');
      }
    }
    const spec = nodeConfig('t', own, own.nodes[2]!, { mode: 'vxlan' }).spec;
    assert.equal(spec.uplink.mtu, 1499);
    assert.deepEqual(spec.pods[0], {
      name: 'default/pc',
      kind: 'memory',
      app: 'echo',
      address: '10.244.2.10/32',
      labels: {},
      identity: 1003,
    });
  });
});

describe('routers of a topology', () => {
  const routes = (topology: Topology): Record<string, string[]> =>
    Object.fromEntries(
      topology.routers.map(router => [
        router.name,
        routesOf(topology, router)
          .map(({ to, via }) => `${to} via ${via}`)
          .sort(),
      ]),
    );

  it('know the networks of each other', () => {
    assert.deepEqual(routes(own), {
      r1: ['10.9.9.9/32 via 100.64.0.2', '192.168.3.0/24 via 100.64.0.2'],
      r2: ['192.168.1.0/24 via 100.64.0.1', '192.168.2.0/24 via 100.64.0.1'],
    });
  });

  it('take the shortest path, the nearest exit, and first of all what they are told', () => {
    const chain = load(`
  subnets: [{ name: s1, cidr: 10.1.0.0/24 }, { name: s2, cidr: 10.2.0.0/24 }, { name: s3, cidr: 10.3.0.0/24 }]
  nodes: [{ name: a, subnet: s1 }]
  routers:
    - { name: r1, legs: [{ subnet: s1, address: 10.1.0.1 }], exit: { address: 10.0.2.2/24, gateway: 10.0.2.1 } }
    - { name: r2, legs: [{ subnet: s1, address: 10.1.0.2 }, { subnet: s2, address: 10.2.0.2 }] }
    - { name: r3, legs: [{ subnet: s2, address: 10.2.0.3 }, { subnet: s3, address: 10.3.0.3 }], routes: [{ to: 10.1.0.0/24, via: 10.3.0.9 }] }
  links: [{ endpoints: ["r1:eth5", "r3:eth5"], addresses: [10.9.0.1/30, 10.9.0.2/30] }]
`);
    assert.deepEqual(routes(chain), {
      r1: ['10.2.0.0/24 via 10.1.0.2', '10.3.0.0/24 via 10.9.0.2'],
      r2: ['0.0.0.0/0 via 10.1.0.1', '10.3.0.0/24 via 10.2.0.3', '10.9.0.0/30 via 10.1.0.1'],
      r3: ['0.0.0.0/0 via 10.9.0.1', '10.1.0.0/24 via 10.3.0.9'],
    });
  });
});

describe('graph of a topology', () => {
  it('has every host, its namespace where the lab is up, and what leads where', () => {
    for (const topology of [...Object.values(TOPOLOGIES), own]) {
      const mermaid = drawMermaid(topology, 'vxlan', 'one');
      const svg = drawSvg(topology, 'vxlan', 'one');
      const { nodes, pods, routers, hosts } = topology;
      for (const { name } of [...nodes, ...routers, ...hosts, ...pods.filter(({ memory }) => memory === undefined)]) {
        for (const picture of [mermaid, svg])
          assert.ok(picture.includes(`tp-one-${name}`), `${topology.name}: ${name}`);
      }
      assert.ok(!/NaN|undefined/.test(svg));
    }
    assert.match(drawMermaid(own, 'vxlan'), /r1 ---\|"eth9 100\.64\.0\.1 - eth9 100\.64\.0\.2 mtu 1299"\| r2\n/);
  });
});
