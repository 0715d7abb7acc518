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
});
