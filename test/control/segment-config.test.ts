import assert from 'node:assert/strict';
import fc from 'fast-check';
import { formatProblems, loadConfig, loadDocuments } from '../../datapath/control/load-config.ts';
import {
  changeImpairments,
  formatImpairments,
  impairments,
  parseLimit,
  parseLoss,
  parsePercent,
  parseRate,
  parseSize,
  parseTime,
  writtenImpairments,
} from '../../datapath/control/netem.ts';
import { UNIMPAIRED } from '../../datapath/segment/impairments.ts';

const NODE = `apiVersion: tunpath.dev/v1
kind: NodeConfig
metadata: { name: a }
spec:
  uplink: { kind: segment, segment: lan10, mac: "02:00:00:00:00:01", address: 192.168.10.1/24 }
`;

const SEGMENT = `apiVersion: tunpath.dev/v1
kind: Segment
metadata: { name: lan10 }
spec:
  mtu: 9000
  tap: { device: lan10, netns: net, mirror: true }
  impairments: { delay: 5ms, loss: 0.1% }
  ports:
    - { node: a, to: { rate: 10mbit, limit: 30kb, ceThreshold: 10kb } }
`;

function problems(text: string): string[] {
  return (loadConfig(text, 'F').problems ?? []).map(problem => formatProblems([problem]));
}

describe('segments in configuration', () => {
  it("values have tc's units", () => {
    assert.deepEqual(['5ms', '200us', '1s', '1.5ms', '10us', '0', '5', '5 ms', '-1ms', '11m', '2000s'].map(parseTime), [
      5,
      0.2,
      1000,
      1.5,
      0.01,
      0,
      ...Array(5).fill(undefined),
    ]);
    assert.deepEqual(
      ['10mbit', '1gbit', '1500kbit', '1mbps', '1kibit', '8bit', '10', 'mbit', '0.1bit'].map(parseRate),
      [1e7, 1e9, 1.5e6, 8e6, 1024, 8, ...Array(3).fill(undefined)],
    );
    assert.deepEqual(['1600b', '30kb', '30k', '1mb', '1'].map(parseSize), [1600, 30720, 30720, 1048576, undefined]);
    assert.deepEqual(['0.1%', '100%', '0', '101%', '0.1', '%'].map(parsePercent), [
      0.001,
      1,
      0,
      undefined,
      undefined,
      undefined,
    ]);
    assert.deepEqual(['1000', '30kb', '0', 'x'].map(parseLimit), [
      { packets: 1000 },
      { bytes: 30720 },
      undefined,
      undefined,
    ]);
    assert.deepEqual(
      ['1%', 'gemodel 1%', 'gemodel 1% 10% 70% 0.1%', 'gemodel', 'gemodel 1', 'state 1%'].map(parseLoss),
      [
        0.01,
        { p: 0.01, r: 0.99, badLoss: 1, goodLoss: 0 },
        { p: 0.01, r: 0.1, badLoss: 0.7, goodLoss: 0.001 },
        undefined,
        undefined,
        undefined,
      ],
    );
  });

  it('no text makes a parser throw or accept what is no number', () => {
    fc.assert(
      fc.property(fc.string(), text => {
        for (const parse of [parseTime, parseRate, parseSize, parsePercent]) {
          const value = parse(text);
          assert.ok(value === undefined || (Number.isFinite(value) && value >= 0));
        }
        parseLoss(text);
        parseLimit(text);
      }),
    );
  });

  it('a Segment stands beside a NodeConfig, before or behind it', () => {
    for (const text of [`${NODE}---\n${SEGMENT}`, `${SEGMENT}---\n${NODE}`]) {
      const { config, segments } = loadConfig(text, 'F');
      assert.deepEqual(config?.spec.uplink, {
        kind: 'segment',
        segment: 'lan10',
        mac: '02:00:00:00:00:01',
        address: '192.168.10.1/24',
        mtu: 1500,
      });
      assert.deepEqual(segments, [
        {
          apiVersion: 'tunpath.dev/v1',
          kind: 'Segment',
          metadata: { name: 'lan10' },
          spec: {
            mtu: 9000,
            tap: { device: 'lan10', netns: 'net', mirror: true, offload: 'auto' },
            impairments: { ...UNIMPAIRED, delay: 5, loss: 0.001 },
            ports: [{ node: 'a', to: { ...UNIMPAIRED, rate: 1e7, limit: { bytes: 30720 }, ceThreshold: 10240 } }],
            seed: 1,
          },
        },
      ]);
    }
    assert.equal(loadDocuments(`${SEGMENT}---\n${NODE}`, 'F').segments.length, 1);
  });

  it('says at its place what is wrong, all at once', () => {
    const wrong = SEGMENT.replace('5ms', '5')
      .replace('0.1%', '0.1')
      .replace('10mbit', '10')
      .replace('device: lan10', 'device: a/b')
      .replace('mtu: 9000', 'mut: 9000');
    assert.deepEqual(problems(`${NODE}---\n${wrong}`), [
      'F:11:3: spec.mut: got the unknown field "mut", expected one of mtu, tap, impairments, ports, seed',
      'F:12:18: spec.tap.device: got "a/b", expected a device name: 1 to 15 bytes without blank, slash, colon or percent, and not lo, all or default',
      'F:13:25: spec.impairments.delay: got 5, expected a time up to 10 minutes with its unit, such as 5ms, 200us or 1s',
      'F:13:34: spec.impairments.loss: got 0.1, expected a share such as 0.1%, or "gemodel P [R [1-H [1-K]]]" with shares',
      'F:15:30: spec.ports[0].to.rate: got 10, expected a rate with its unit, such as 10mbit or 1gbit',
    ]);
  });

  it('refuses what would have no effect', () => {
    for (const [fields, field, needed] of [
      ['{ jitter: 1ms }', 'jitter', 'a delay beside it'],
      ['{ delay: 1ms, distribution: pareto }', 'distribution', 'a jitter beside it'],
      ['{ reorder: 1% }', 'reorder', 'a delay beside it'],
      ['{ burst: 1kb }', 'burst', 'a rate beside it'],
      ['{ limit: 1kb }', 'limit', 'packets, or a rate beside it'],
      ['{ ceThreshold: 1kb }', 'ceThreshold', 'a rate beside it'],
      ['{ sourceDestCheck: 192.168.10.1 }', 'sourceDestCheck', 'it at a port: the wire is of all'],
    ]) {
      const [line, ...more] = problems(`${NODE}---\n${SEGMENT.replace('{ delay: 5ms, loss: 0.1% }', fields)}`);
      assert.deepEqual(more, []);
      assert.ok(line.includes(`spec.impairments.${field}: `) && line.endsWith(`expected ${needed}`), line);
    }
    assert.match(
      problems(`${NODE}---\n${SEGMENT}    - { node: a }\n`)[0],
      /spec\.ports\[1\]\.node: got "a", expected a node that no other/,
    );
    assert.match(problems(SEGMENT)[0], /got Segment alone, expected one NodeConfig/);
  });

  it('changes some, and leaves the others', () => {
    const from = changeImpairments(UNIMPAIRED, { delay: '5ms', jitter: '1ms', loss: '1%' });
    assert.deepEqual(from, { ...UNIMPAIRED, delay: 5, jitter: 1, loss: 0.01 });
    assert.deepEqual(changeImpairments(from, { loss: '0', rate: '1mbit' }), { ...from, loss: 0, rate: 1e6 });
    assert.throws(
      () => changeImpairments(from, { delay: '5', loss: 'x' }),
      /delay: got "5", expected a time.*; loss: got/,
    );
    assert.throws(() => changeImpairments(from, { delay: '0' }), /jitter: expected a delay beside it/);
    assert.throws(() => changeImpairments(from, { nonsense: '0' }), /got nonsense, expected delay, jitter/);
  });

  it('prints impairments as they are written', () => {
    for (const written of [
      {},
      { delay: '20ms', jitter: '5ms', distribution: 'pareto', loss: '0.1%', reorder: '25%' },
      { loss: 'gemodel 1% 10% 70% 0.1%', duplicate: '1%', corrupt: '0.01%' },
      { rate: '10mbit', burst: '1600b', limit: '30720b', ceThreshold: '1024b' },
      { delay: '200us', limit: '10', mtu: 1400, icmp: 'filtered' },
    ]) {
      const i = impairments.parse(written);
      const words = formatImpairments(i);
      for (const value of Object.values(written)) assert.ok(words.includes(String(value)), `${words}: ${value}`);
      assert.deepEqual(impairments.parse(writtenImpairments(i)), i);
    }
    assert.equal(formatImpairments(UNIMPAIRED), '');
  });
});
