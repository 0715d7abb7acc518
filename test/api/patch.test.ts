import assert from 'node:assert/strict';
import fc from 'fast-check';
import type { KubeObject } from '../../datapath/api/object.ts';
import { serverSideApply } from '../../datapath/api/patch/apply.ts';
import { fromFieldsV1, leavesOf, toFieldsV1, trackUpdate } from '../../datapath/api/patch/fields.ts';
import { jsonMerge } from '../../datapath/api/patch/merge.ts';
import { strategicMerge } from '../../datapath/api/patch/strategic.ts';
import { resourceOf } from '../../datapath/api/resources.ts';
import { kindSchema } from '../../datapath/api/schema/definitions.ts';
import { findFaults, prune } from '../../datapath/api/schema/validate.ts';
import { parseFieldSelector, parseLabelSelector } from '../../datapath/api/selector.ts';

const SERVICE = resourceOf('v1', 'Service');
const POD = resourceOf('v1', 'Pod');
const serviceSchema = kindSchema(SERVICE, 'v1');
const podSchema = kindSchema(POD, 'v1');

describe('JSON merge patch', () => {
  // RFC 7386, appendix A.
  for (const [target, patch, result] of [
    [{ a: 'b' }, { a: 'c' }, { a: 'c' }],
    [{ a: 'b' }, { b: 'c' }, { a: 'b', b: 'c' }],
    [{ a: 'b' }, { a: null }, {}],
    [{ a: 'b', b: 'c' }, { a: null }, { b: 'c' }],
    [{ a: ['b'] }, { a: 'c' }, { a: 'c' }],
    [{ a: 'c' }, { a: ['b'] }, { a: ['b'] }],
    [{ a: { b: 'c' } }, { a: { b: 'd', c: null } }, { a: { b: 'd' } }],
    [{ a: [{ b: 'c' }] }, { a: [1] }, { a: [1] }],
    [
      ['a', 'b'],
      ['c', 'd'],
      ['c', 'd'],
    ],
    [{ a: 'b' }, ['c'], ['c']],
    [{ a: 'foo' }, null, null],
    [{ e: null }, { a: 1 }, { e: null, a: 1 }],
    [[1, 2], { a: 'b', c: null }, { a: 'b' }],
    [{}, { a: { bb: { ccc: null } } }, { a: { bb: {} } }],
  ]) {
    it(`${JSON.stringify(target)} and ${JSON.stringify(patch)}`, () =>
      assert.deepEqual(jsonMerge(target, patch), result));
  }
});

describe('strategic merge patch', () => {
  const pod = {
    spec: {
      nodeSelector: { a: 'b' },
      containers: [
        { name: 'one', image: 'a', env: [{ name: 'A', value: '1' }] },
        { name: 'two', image: 'b' },
      ],
      tolerations: [{ key: 'x' }],
    },
    metadata: { finalizers: ['f1', 'f2'] },
  };
  const rows: [what: string, patch: object, result: (pod: never) => unknown, expected: unknown][] = [
    [
      'merges elements by their key',
      { spec: { containers: [{ name: 'one', image: 'c' }] } },
      ({ spec }: typeof pod) => spec.containers.map(({ name, image }) => `${name}=${image}`),
      ['one=c', 'two=b'],
    ],
    [
      'merges lists in lists',
      { spec: { containers: [{ name: 'one', env: [{ name: 'B', value: '2' }] }] } },
      ({ spec }: typeof pod) => spec.containers[0]!.env,
      [
        { name: 'A', value: '1' },
        { name: 'B', value: '2' },
      ],
    ],
    [
      'deletes an element',
      { spec: { containers: [{ name: 'one', $patch: 'delete' }] } },
      ({ spec }: typeof pod) => spec.containers.map(({ name }) => name),
      ['two'],
    ],
    [
      'puts elements in order',
      {
        spec: {
          '$setElementOrder/containers': [{ name: 'two' }, { name: 'three' }],
          containers: [{ name: 'three', image: 'd' }],
        },
      },
      ({ spec }: typeof pod) => spec.containers.map(({ name }) => name),
      ['one', 'two', 'three'],
    ],
    [
      'replaces a list without keys',
      { spec: { tolerations: [{ key: 'y' }] } },
      ({ spec }: typeof pod) => spec.tolerations,
      [{ key: 'y' }],
    ],
    [
      'replaces a map that says so',
      { spec: { nodeSelector: { $patch: 'replace', c: 'd' } } },
      ({ spec }: typeof pod) => spec.nodeSelector,
      { c: 'd' },
    ],
    [
      'takes words out of a list of words',
      { metadata: { '$deleteFromPrimitiveList/finalizers': ['f1'] } },
      ({ metadata }: typeof pod) => metadata.finalizers,
      ['f2'],
    ],
    [
      'adds words',
      { metadata: { finalizers: ['f3'] } },
      ({ metadata }: typeof pod) => metadata.finalizers,
      ['f1', 'f2', 'f3'],
    ],
    ['removes a field', { spec: { nodeSelector: null } }, ({ spec }: typeof pod) => spec.nodeSelector, undefined],
  ];
  for (const [what, patch, result, expected] of rows) {
    it(what, () => {
      const before = structuredClone(pod);
      assert.deepEqual(result(strategicMerge(pod, patch, podSchema) as never), expected);
      assert.deepEqual(pod, before, 'the object itself stays as it is');
    });
  }
  it('an element without its key is refused', () => {
    assert.throws(
      () => strategicMerge(pod, { spec: { containers: [{ image: 'x' }] } }, podSchema),
      /declared merge key: name/,
    );
  });
});

function service(ports: object[], labels?: Record<string, string>): KubeObject {
  return { apiVersion: 'v1', kind: 'Service', metadata: { name: 's', ...(labels ? { labels } : {}) }, spec: { ports } };
}

const writer = (manager: string) => ({ manager, apiVersion: 'v1', time: '2026-01-01T00:00:00Z' });

describe('server-side apply', () => {
  const http = { name: 'http', port: 80, protocol: 'TCP', targetPort: 8080 };
  const dns = { name: 'dns', port: 53, protocol: 'UDP' };

  it('managers of different elements do not meet', () => {
    const one = serverSideApply(undefined, service([http]), serviceSchema, writer('one'), false);
    const both = serverSideApply(one, service([dns]), serviceSchema, writer('two'), false);
    assert.deepEqual(both.spec.ports, [http, dns]);
    const left = serverSideApply(both, service([]), serviceSchema, writer('one'), false);
    assert.deepEqual(left.spec.ports, [dns]);
  });

  it('a field that another has set otherwise is a conflict, unless forced', () => {
    const one = serverSideApply(undefined, service([http]), serviceSchema, writer('one'), false);
    const other = { ...http, targetPort: 9090 };
    assert.throws(
      () => serverSideApply(one, service([other]), serviceSchema, writer('two'), false),
      /conflict with "one": \.spec\.ports\[port=80,protocol="TCP"\]\.targetPort/,
    );
    const forced = serverSideApply(one, service([other]), serviceSchema, writer('two'), true);
    assert.equal(forced.spec.ports[0].targetPort, 9090);
    // And is the other's now.
    assert.throws(
      () => serverSideApply(forced, service([http]), serviceSchema, writer('one'), false),
      /conflict with "two"/,
    );
  });

  it('the same said twice changes nothing', () => {
    const one = serverSideApply(undefined, service([http], { a: 'b' }), serviceSchema, writer('one'), false);
    const again = serverSideApply(
      one,
      service([http], { a: 'b' }),
      serviceSchema,
      { ...writer('one'), time: 'later' },
      false,
    );
    assert.deepEqual(again, one);
  });

  it('who updates a field manages it', () => {
    const one = serverSideApply(undefined, service([http], { a: 'b' }), serviceSchema, writer('one'), false);
    const changed = { ...one, metadata: { ...one.metadata, labels: { a: 'c' } } };
    const managedFields = trackUpdate(one, changed, serviceSchema, writer('editor'));
    assert.deepEqual(
      managedFields.map(({ manager, operation }) => `${manager} ${operation}`),
      ['one Apply', 'editor Update'],
    );
    assert.ok(fromFieldsV1(managedFields[1]!.fieldsV1).has('f:metadata\nf:labels\nf:a'));
    assert.ok(!fromFieldsV1(managedFields[0]!.fieldsV1).has('f:metadata\nf:labels\nf:a'));
  });

  it('any set of fields is the same after it was written as FieldsV1', () => {
    const names = fc.constantFrom('a', 'b', 'c');
    const label = fc.dictionary(names, names);
    const port = fc.record({
      port: fc.integer({ min: 1, max: 9 }),
      protocol: fc.constantFrom('TCP', 'UDP'),
      name: names,
    });
    fc.assert(
      fc.property(fc.array(port), label, (ports, labels) => {
        const places = new Set(leavesOf(service(ports, labels), serviceSchema).keys());
        assert.deepEqual(fromFieldsV1(toFieldsV1(places)), places);
      }),
    );
  });
});

describe('schemas', () => {
  it('name what they do not know, with its place', () => {
    const wrong = { ...service([{ port: 80, prot: 'TCP' }]), speck: {} };
    const { object, unknown } = prune(wrong, SERVICE, 'v1');
    assert.deepEqual(unknown, ['spec.ports[0].prot', 'speck']);
    assert.deepEqual(object, service([{ port: 80 }]));
  });
  it('say what a value should have been', async () => {
    const faults = await findFaults(service([{ port: 'http', protocol: 'ICMP' }]), SERVICE, 'v1');
    assert.deepEqual(faults.map(({ field }) => field).sort(), ['spec.ports[0].port', 'spec.ports[0].protocol']);
    assert.match(
      faults.map(({ message }) => message).join(),
      /Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"/,
    );
  });
});

describe('selectors', () => {
  const labels = { app: 'web', tier: 'front', n: '5' };
  for (const [text, expected] of [
    ['', true],
    ['app=web', true],
    ['app==web,tier!=back', true],
    ['app!=web', false],
    ['other!=x', true],
    ['tier in (front, back)', true],
    ['tier notin (front)', false],
    ['app', true],
    ['!app', false],
    ['!other,app', true],
    ['n>4,n<6', true],
    ['n>5', false],
  ] as const) {
    it(`${text || 'nothing'}: ${expected}`, () => assert.equal(parseLabelSelector(text)(labels), expected));
  }
  for (const text of ['app=web=x', 'in (a)', ',', 'app in a', '!app=web']) {
    it(`${text} is refused`, () => assert.throws(() => parseLabelSelector(text), /unable to parse requirement/));
  }
  it('by field', () => {
    const pod = { apiVersion: 'v1', kind: 'Pod', metadata: { name: 'p' }, spec: { nodeName: 'a' } };
    assert.ok(parseFieldSelector('spec.nodeName=a,status.phase!=Running', 'Pod')(pod));
    assert.ok(!parseFieldSelector('metadata.name!=p', 'Pod')(pod));
    assert.throws(() => parseFieldSelector('spec.hostname=a', 'Pod'), /field label not supported: spec.hostname/);
  });
});
