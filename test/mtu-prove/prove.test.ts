import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { after, before, describe, it } from 'mocha';
import { formatProblems, loadDocuments } from '../../datapath/control/load-config.ts';
import { CaptureFile } from '../../datapath/io/capture-file.ts';
import { loadInputs } from '../../datapath/mtu-prove/load.ts';
import { Network } from '../../datapath/mtu-prove/network.ts';
import { type Case, prove, type Verdict } from '../../datapath/mtu-prove/prove.ts';
import { tableRows } from '../../datapath/mtu-prove/report.ts';
import { whyOf } from '../../datapath/mtu-prove/words.ts';
import { MAIN } from '../fixtures/program.ts';
import { documentsOf, networkOf, type TwoNodes } from './configs.ts';

const FIXTURES = fileURLToPath(new URL('../../../test/fixtures/mtu/', import.meta.url)); // seen from dist/test/mtu-prove

/** The prepared configurations. test/netns/mtu-prove.test.ts shows the same on real devices. */
const PREPARED: {
  name: string;
  /** Of a > b and of b > a. */
  largest: [number, number];
  verdicts: [Verdict, Verdict];
  fails: string | null;
  says: RegExp;
}[] = [
  {
    name: 'clean',
    largest: [1450, 1450],
    verdicts: ['ok', 'ok'],
    fails: null,
    says: /^all that a pod sends; longer ones its own kernel refuses \(EMSGSIZE, "Message too large"\), which is no loss$/,
  },
  {
    name: 'mixed-mtu',
    largest: [1450, 1450],
    verdicts: ['black hole', 'ok'],
    fails: 'ping -M do -c 1 -s 1423 10.244.2.10',
    says: /^1451-8950: lost at interface of b, and nobody is told; TCP passes \(segments of 1450\); remedy: uplink.mtu 1500 on a$/,
  },
  {
    name: 'vxlan-over-1280',
    largest: [1230, 1230],
    verdicts: ['signalled', 'signalled'],
    fails: 'ping -M do -c 1 -s 1203 10.244.2.10',
    says: /^1231-1450 with DF: r1 tells a MTU 1280, a tells the sender MTU 1230; .*remedy: uplink.mtu 1280 on a and b$/,
  },
  {
    name: 'vxlan-in-vxlan',
    largest: [1400, 1400],
    verdicts: ['black hole', 'black hole'],
    fails: 'ping -M do -c 1 -s 1373 10.244.2.10',
    says: /^1401-1450: lost at link a-b, which is itself vxlan and leaves 1450 of 1500, and nobody is told; TCP connects and hangs with its first full segment \(1450\); remedy: uplink.mtu 1450 on a and b$/,
  },
  {
    name: 'dsr-option',
    largest: [1438, 1438],
    verdicts: ['signalled', 'signalled'],
    fails: 'ping -M do -c 1 -s 1411 10.244.2.10',
    says: /^1439-1450 with DF: a tells the sender MTU 1438; without DF: a cuts it in 2, default\/p2 joins them; .*remedy: mtu 1438 for the pods of a$/,
  },
  {
    name: 'filtered-icmp',
    largest: [1230, 1230],
    verdicts: ['black hole', 'black hole'],
    fails: 'ping -M do -c 1 -s 1203 10.244.2.10',
    says: /^1231-1450: r1 drops it before link r1-r2, and its ICMP is lost at link a-r1; TCP connects and hangs/,
  },
];

function casesOf(directory: string): Case[] {
  const { configs, underlays, problems } = loadInputs([directory]);
  assert.equal(formatProblems(problems), '');
  return prove(new Network(configs, underlays));
}

const way = (cases: Case[], from: string, to: string, kind: Case['kind'] = 'pods') =>
  cases.find(c => c.kind === kind && c.from.name === from && c.to?.name === to)!;

describe('mtu prove', () => {
  describe('the prepared configurations', () => {
    for (const { name, largest, verdicts, fails, says } of PREPARED) {
      it(`${name}: ${verdicts[0]}`, () => {
        const cases = casesOf(`${FIXTURES}${name}`);
        const [there, back] = [way(cases, 'a', 'b'), way(cases, 'b', 'a')];
        assert.deepEqual([there.largest, back.largest], largest);
        assert.deepEqual([there.verdict, back.verdict], verdicts);
        assert.equal(there.fails?.command ?? null, fails);
        assert.match(whyOf(there), says);
        // The service leads to the same pod: its flows fare as the pods' own do.
        const [service, reply] = [way(cases, 'a', 'b', 'service'), way(cases, 'b', 'a', 'reply')];
        assert.deepEqual([service.largest, reply.largest], largest);
        assert.deepEqual([service.verdict, reply.verdict], verdicts);
      });
    }
  });

  describe('the four ways of RFC 4459, and whether the tunnel has DF', () => {
    const narrow = [{ between: ['a', 'r'] }, { between: ['r', 'b'], mtu: 1280 }];
    const wide = [{ between: ['a', 'b'], mtu: 9000 }];
    type Row = [string, TwoNodes, Verdict, number, RegExp];
    const way4459 = (tooBig: string, more: TwoNodes = {}): TwoNodes => {
      return { ...more, both: { ...more.both, spec: { mtu: { tooBig } } } };
    };
    const rows: Row[] = [
      [
        'signal, the tunnel without DF',
        { links: narrow },
        'fragments',
        1230,
        /r cuts the tunnel's packet in 2, b joins them/,
      ],
      [
        'signal, DF',
        { profile: 'rfc', links: narrow },
        'signalled',
        1230,
        /r tells a MTU 1280, a tells the sender MTU 1230/,
      ],
      [
        'signal, DF inherited',
        { both: { tunnel: { df: 'inherit' } }, links: narrow },
        'signalled',
        1230,
        /with DF: r tells a MTU 1280.*; without DF: r cuts the tunnel's packet in 2/,
      ],
      [
        'fragment-inner',
        way4459('fragment-inner'),
        'fragments',
        1450,
        /^1451-1500: a cuts it in 2, default\/p2 joins them/,
      ],
      [
        'fragment-inner, DF',
        way4459('fragment-inner', { profile: 'rfc', links: narrow }),
        'fragments',
        1230,
        /the first is lost, by which a learns of MTU 1280 from r, then a cuts it in 2/,
      ],
      [
        'fragment-outer',
        way4459('fragment-outer'),
        'fragments',
        1450,
        /^1451-1500: a cuts the tunnel's packet in 2, b joins them; TCP pays for it/,
      ],
      [
        'fragment-outer over the narrow link',
        way4459('fragment-outer', { links: narrow }),
        'fragments',
        1230,
        /r cuts the tunnel's packet in 2/,
      ],
      ['larger-underlay', way4459('larger-underlay', { both: { uplinkMtu: 1600 }, links: wide }), 'ok', 1500, /^all/],
      [
        'larger-underlay that is none',
        way4459('larger-underlay', { profile: 'rfc', both: { uplinkMtu: 1600 }, links: narrow }),
        'black hole',
        1230,
        /r drops it, and nobody is told/,
      ],
      ['a route of its own', { both: { route: { mtu: 1300 } } }, 'signalled', 1300, /a tells the sender MTU 1300/],
      ['the MTU on the route', { profile: 'cilium' }, 'ok', 1450, /^all/],
      [
        'clamped TCP',
        { both: { podMtu: 1500, spec: { mtu: { clampMss: true } } } },
        'signalled',
        1450,
        /TCP passes \(segments of 1450\)/,
      ],
      ['TCP not clamped', { both: { podMtu: 1500 } }, 'signalled', 1450, /TCP learns it \(segments of 1500 at first\)/],
    ];
    for (const [what, configuration, verdict, largest, says] of rows) {
      it(`${what}: ${verdict}, ${largest}`, () => {
        const there = way(prove(networkOf(configuration)), 'a', 'b');
        assert.deepEqual([there.verdict, there.largest], [verdict, largest], whyOf(there));
        assert.match(whyOf(there), says);
      });
    }
  });

  describe('no way at all', () => {
    const rows: [string, TwoNodes, RegExp][] = [
      ['no route', { a: { spec: { routes: [] } } }, /^a has no route to 10\.244\.2\.10$/],
      [
        'an unknown peer',
        { b: { tunnel: { peers: [{ address: '192.168.10.9' }] }, spec: { routes: [] } } },
        /^b does not take .*: drop-encap-unknown-peer$/,
      ],
      ['another VNI', { b: { tunnel: { vni: 7 } } }, /^b does not take .*: drop-tunnel-unknown-vni$/],
      ['another port', { b: { tunnel: { port: 4789 } } }, /^b does not take .*: another protocol or port$/],
      [
        'a critical option',
        { protocol: 'geneve', profile: 'rfc', a: { tunnel: { options: [{ class: 1, type: 129 }] } } },
        /^b does not take .*: drop-geneve-critical-option$/,
      ],
      [
        'circles',
        {
          a: {
            spec: {
              routes: [{ to: '10.244.0.0/16', via: '192.168.10.2', encap: true }],
              services: [
                {
                  name: 'default/s',
                  addresses: ['10.96.0.1'],
                  ports: [{ port: 80 }],
                  endpoints: [{ address: '10.244.9.9' }],
                },
              ],
            },
          },
          b: { spec: { routes: [{ to: '10.244.0.0/16', via: '192.168.10.1', encap: true }] } },
        },
        /^goes in circles: a > b > a$/,
      ],
    ];
    for (const [what, configuration, says] of rows) {
      it(what, () => {
        const cases = prove(networkOf(configuration)).filter(({ from }) => from.name === 'a');
        const there = cases.find(({ verdict }) => verdict === 'unreachable');
        assert.match(whyOf(there!), says);
        assert.equal(there!.fails, null);
      });
    }
  });

  describe('documents', () => {
    const problemsOf = (text: string) => loadDocuments(text, 'FILE').problems.map(problem => formatProblems([problem]));
    const underlay = (links: string) =>
      `apiVersion: tunpath.dev/v1\nkind: Underlay\nmetadata: { name: u }\nspec:\n  links:\n    - ${links}\n`;
    const rows: [string, string][] = [
      ['{ between: [a] }', '6:9: spec.links[0].between: got ["a"], expected two names: nodes, or routers between them'],
      ['{ between: [a, a] }', '6:9: spec.links[0].between: got ["a", "a"], expected two different names'],
      ['{ between: [a, b], mtu: 60 }', '6:31: spec.links[0].mtu: got 60, expected a whole number from 68 to 65535'],
      [
        '{ between: [a, b], mtu: 100, carriedBy: { protocol: vxlan } }',
        '6:31: spec.links[0].mtu: got 100, expected at least 118: vxlan takes 50',
      ],
      ['{ between: [a, b], icmp: no }', '6:32: spec.links[0].icmp: got "no", expected one of allowed, filtered'],
      ['{ between: [a, b], layer: 4 }', '6:33: spec.links[0].layer: got 4, expected 2 or 3'],
      [
        '{ between: [a, b], icpm: allowed }',
        '6:26: spec.links[0].icpm: got the unknown field "icpm", expected one of between, mtu, layer, icmp, carriedBy',
      ],
    ];
    for (const [links, problem] of rows) {
      it(`refuses ${links}`, () => assert.deepEqual(problemsOf(underlay(links)), [`FILE:${problem}`]));
    }

    let directory: string;
    before(() => {
      directory = mkdtempSync(join(tmpdir(), 'tunpath-mtu-'));
    });
    after(() => rmSync(directory, { recursive: true }));
    const run = (...argv: string[]) =>
      spawnSync(process.execPath, [MAIN, 'mtu', 'prove', ...argv], { encoding: 'utf8' });

    it('finds what no document shows by itself, and ends with 2', () => {
      const file = join(directory, 'twice.yaml');
      const links = [{ between: ['a', 'bb'] }];
      writeFileSync(file, `${documentsOf({ links })}\n---\n${documentsOf({}).split('\n---\n')[0]}`);
      const { status, stderr, stdout } = run('-f', file);
      assert.equal(status, 2);
      assert.equal(stdout, '');
      assert.match(stderr, /metadata.name: got a, expected a name no other node has/);
      assert.match(
        stderr,
        /spec.uplink.address: got 192.168.10.1\/24, expected an address no other node has \(a has it\)/,
      );
      assert.match(stderr, /spec.uplink.mac: got 02:00:00:00:00:01, expected a MAC no other node has \(a has it\)/);
      assert.match(stderr, /spec.pods\[0\].address: got 10.244.1.10, expected an address no other pod has/);
      assert.match(
        stderr,
        /spec.links\[0\].between\[1\]: got "bb", expected a node, or a router that another link names, too/,
      );
      assert.equal(run('-f', join(directory, 'nosuch.yaml')).status, 2);
      assert.equal(run().status, 2);
    });

    it('ends with 0 where nothing vanishes, with 1 where something does, and writes it', () => {
      assert.equal(run('-f', `${FIXTURES}clean`).status, 0);
      assert.equal(run('-f', `${FIXTURES}dsr-option`).status, 0);
      const pcap = join(directory, 'fails.pcap');
      const { status, stderr, stdout } = run('-f', `${FIXTURES}vxlan-in-vxlan`, '--pcap', pcap, '-o', 'json');
      assert.equal(status, 1);
      assert.match(
        stderr,
        /ICMP of 1401 bytes with DF vanishes, 1400 pass: in default\/p1, ping -M do -c 1 -s 1373 10.244.2.10/,
      );
      const rows = JSON.parse(stdout) as { fails: { bytes: number; df: boolean } }[];
      assert.deepEqual([rows[0].fails.bytes, rows[0].fails.df], [1401, true]);

      const file = new CaptureFile(pcap);
      const packets: Uint8Array[] = [];
      for (let p = file.next(); p !== null; p = file.next()) packets.push(p.bytes.slice());
      file.close();
      assert.deepEqual(
        packets.map(packet => packet.length),
        [1401, 1451],
      );
      assert.deepEqual(packets[1].subarray(50), packets[0]);
      assert.equal(packets[0][6], 0x40, 'DF');
      assert.equal(packets[0][9], 1, 'ICMP');
    });
  });

  it('a hundred nodes with ten pods each: a million pairs in a handful of rows', function () {
    this.timeout(120_000);
    const NODES = 100;
    const address = (n: number) => `192.168.${10 + (n >> 6)}.${1 + (n & 63)}`;
    const node = (n: number) => {
      const others = Array.from({ length: NODES }, (_, i) => i).filter(i => i !== n);
      return {
        apiVersion: 'tunpath.dev/v1',
        kind: 'NodeConfig',
        metadata: { name: `n${n}` },
        spec: {
          uplink: {
            kind: 'tap',
            device: 'ul0',
            mac: `02:00:00:00:01:${n.toString(16).padStart(2, '0')}`,
            address: `${address(n)}/16`,
            mtu: n === 7 ? 9000 : 1500,
          },
          pods: Array.from({ length: 10 }, (_, p) => {
            return {
              name: `default/p${n}-${p}`,
              netns: `p${n}-${p}`,
              device: 'eth0',
              address: `10.244.${n}.${10 + p}`,
            };
          }),
          tunnel: { protocol: 'vxlan', peers: others.map(other => ({ address: address(other) })) },
          routes: others.map(other => ({ to: `10.244.${other}.0/24`, via: address(other), encap: true })),
        },
      };
    };
    const directory = mkdtempSync(join(tmpdir(), 'tunpath-mtu-'));
    try {
      for (let n = 0; n < NODES; n++) writeFileSync(join(directory, `${n}.json`), JSON.stringify(node(n)));
      const { configs, underlays, problems } = loadInputs([directory]);
      assert.equal(formatProblems(problems), '');
      const cases = prove(new Network(configs, underlays));
      const rows = tableRows(cases, false);
      assert.equal(
        cases.reduce((sum, { pairs }) => sum + pairs, 0),
        1000 * 999,
      );
      assert.deepEqual(
        rows
          .map(({ pairs, largest, verdict }) => [pairs, largest, verdict])
          .sort((a, b) => Number(a[0]) - Number(b[0])),
        [
          [90, 8950, 'ok'],
          [9 * 10 * 99, 1450, 'ok'],
          [10 * 990, 1450, 'black hole'],
          [99 * 990 * 10, 1450, 'ok'],
        ],
      );
    } finally {
      rmSync(directory, { recursive: true });
    }
  });

  it('a segment carries what it and the ports at both ends take, and what is longer is lost without a word', () => {
    const node = (n: number) => `
apiVersion: tunpath.dev/v1
kind: NodeConfig
metadata: { name: n${n} }
spec:
  uplink: { kind: segment, segment: lan, mac: "02:00:00:00:00:0${n}", address: 192.168.10.${n}/24 }
  pods: [{ name: default/p${n}, netns: p${n}, device: eth0, address: 10.244.${n}.10 }]
  tunnel: { protocol: vxlan, peers: [{ address: 192.168.10.${3 - n} }] }
  routes: [{ to: 10.244.${3 - n}.0/24, via: 192.168.10.${3 - n}, encap: true }]
---`;
    const segment = (spec: string) => `
apiVersion: tunpath.dev/v1
kind: Segment
metadata: { name: lan }
spec: ${spec}
`;
    const directory = mkdtempSync(join(tmpdir(), 'tunpath-mtu-'));
    try {
      for (const [spec, there, back] of [
        ['{}', 1450, 1450],
        ['{ mtu: 1400 }', 1350, 1350],
        ['{ impairments: { mtu: 1300 } }', 1250, 1250],
        ['{ ports: [{ node: n2, to: { mtu: 1200 }, from: { mtu: 1380 } }] }', 1150, 1330],
      ] as const) {
        writeFileSync(join(directory, 'all.yaml'), node(1) + node(2) + segment(spec));
        const { configs, underlays, segments, problems } = loadInputs([directory]);
        assert.equal(formatProblems(problems), '');
        const cases = prove(new Network(configs, underlays, segments));
        const [first, second] = [way(cases, 'n1', 'n2'), way(cases, 'n2', 'n1')];
        assert.deepEqual([first.largest, second.largest], [there, back], spec);
        if (spec !== '{}') {
          assert.equal(first.verdict, 'black hole');
          assert.match(whyOf(first), /lost at segment lan, and nobody is told/);
        }
      }
      writeFileSync(join(directory, 'again.yaml'), segment('{}'));
      assert.match(formatProblems(loadInputs([directory]).problems), /metadata\.name: got "lan" again/);
    } finally {
      rmSync(directory, { recursive: true });
    }
  });

  it('--expand lists every pair of pods by name', () => {
    const text = execFileSync(
      process.execPath,
      [MAIN, 'mtu', 'prove', '-f', `${FIXTURES}clean`, '--expand', '-o', 'jsonl'],
      {
        encoding: 'utf8',
      },
    );
    const rows = text
      .trim()
      .split('\n')
      .map(line => JSON.parse(line));
    assert.deepEqual(
      rows.map(({ sender, receiver, kind }) => [kind, sender, receiver]),
      [
        ['pods', 'default/p1', 'default/p2'],
        ['service', 'default/p1', 'default/p2'],
        ['reply', 'default/p2', 'default/p1'],
        ['pods', 'default/p2', 'default/p1'],
      ],
    );
  });
});
