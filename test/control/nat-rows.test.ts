import { strict as assert } from 'node:assert';
import { natRows, type PortUsage, samplePorts } from '../../datapath/control/nat-rows.ts';
import { PROTO_UDP } from '../../datapath/wire/ipv4.ts';

describe('get nat', () => {
  const usage = (used: number): PortUsage[] => [
    { address: 0x0a000001, dst: 0x08080808, dstPort: 53, protocol: PROTO_UDP, used, of: 1000 },
  ];
  const rows = [
    { what: 'grows', before: 100, now: 200, forecast: 80 },
    { what: 'is new', before: 0, now: 500, forecast: 10 },
    { what: 'stands', before: 200, now: 200, forecast: null },
    { what: 'shrinks', before: 300, now: 200, forecast: null },
    { what: 'is full', before: 900, now: 1000, forecast: 0 },
  ];
  for (const { what, before, now, forecast } of rows) {
    it(`forecasts when the ports of a destination are gone that ${what}`, () => {
      assert.deepEqual(natRows(usage(now), samplePorts(before === 0 ? [] : usage(before), 0), 10_000), [
        {
          address: '10.0.0.1',
          protocol: 'udp',
          destination: '8.8.8.8',
          port: 53,
          used: now,
          free: 1000 - now,
          usedPercent: now / 10,
          exhaustedInSeconds: forecast,
        },
      ]);
    });
  }

  it("counts the ports of the rules that may be meant, not the allocator's", () => {
    const rule = (fields: object) => ({ action: 'MASQUERADE' as const, randomFully: false, ...fields });
    const ten = { low: 61_000, high: 61_009 };
    const cases: [what: string, rules: ReturnType<typeof rule>[], free: number][] = [
      ['one rule', [rule({ ports: ten })], 2],
      ['for another destination', [rule({ ports: ten, to: ['1.0.0.0/8'] })], 992],
      ['but not for this one', [rule({ ports: ten, notTo: ['8.8.0.0/16'] })], 992],
      ['under another address', [rule({ ports: ten, source: '10.0.0.2' })], 992],
      ['under this address', [rule({ ports: ten, source: '10.0.0.1' })], 2],
      ['two that overlap', [rule({ ports: ten }), rule({ ports: { low: 61_005, high: 61_014 } })], 7],
      ['and one without ports', [rule({ ports: ten }), rule({})], 992],
      ['that returns', [rule({ ports: ten, action: 'RETURN' })], 992],
    ];
    for (const [what, rules, free] of cases) {
      const [row] = natRows(usage(8), samplePorts([], 0), 10_000, rules) as { free: number; usedPercent: number }[];
      assert.equal(row.free, free, what);
      assert.equal(row.usedPercent, Math.round((8 / (free + 8)) * 1000) / 10, what);
    }
  });
});
