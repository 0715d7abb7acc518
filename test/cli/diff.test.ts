import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { diffSpecs, formatDifference } from '../../datapath/cli/diff.ts';

describe('tunpath diff', () => {
  const before = {
    mtu: { tooBig: 'signal' },
    services: [
      { name: 'default/web', ports: [{ port: 80 }], endpoints: [{ address: '10.0.0.1' }] },
      { name: 'default/old', ports: [] },
    ],
    routes: [{ to: '10.244.2.0/24', via: '192.168.10.2' }],
    networks: ['a', 'b'],
  };

  const lines = (after: object) => diffSpecs(before, after).map(formatDifference).join('');

  it('says place by place what is new, gone and different, list items by what names them', () => {
    // biome-ignore lint/suspicious/noExplicitAny: edited freely
    const after: any = structuredClone(before);
    after.mtu.tooBig = 'fragment-outer';
    after.services[0].ports[0].port = 8080;
    after.services[0].endpoints.push({ address: '10.0.0.2' });
    after.services[1] = { name: 'default/new', ports: [] };
    after.networks.pop();
    after.loop = { busyPoll: 50 };
    assert.equal(
      lines(after),
      [
        '-spec.mtu.tooBig: signal',
        '+spec.mtu.tooBig: fragment-outer',
        '-spec.services[default/web].ports[0].port: 80',
        '+spec.services[default/web].ports[0].port: 8080',
        '+spec.services[default/web].endpoints[10.0.0.2]: { address: 10.0.0.2 }',
        '-spec.services[default/old]: { name: default/old, ports: [] }',
        '+spec.services[default/new]: { name: default/new, ports: [] }',
        '-spec.networks: [a, b]',
        '+spec.networks: [a]',
        '+spec.loop: { busyPoll: 50 }',
        '',
      ].join('\n'),
    );
  });

  it('says where only the order is another', () => {
    const after = { ...before, services: [...before.services].reverse() };
    assert.match(lines(after), /^-spec\.services \(order\): \[default\/web, default\/old\]$/m);
  });

  it('finds a difference exactly where there is one', () => {
    const value = fc.letrec(tie => ({
      any: fc.oneof(
        { depthSize: 'small' },
        fc.integer(),
        fc.constantFrom('a', 'b'),
        fc.array(tie('any'), { maxLength: 3 }),
        fc.dictionary(fc.constantFrom('name', 'to', 'x'), tie('any'), { maxKeys: 3, noNullPrototype: true }),
      ),
    })).any;
    fc.assert(
      fc.property(value, value, (a, b) => {
        let same = true;
        try {
          assert.deepStrictEqual(a, b);
        } catch {
          same = false;
        }
        assert.equal(diffSpecs(a, b).length === 0, same);
      }),
    );
  });
});
