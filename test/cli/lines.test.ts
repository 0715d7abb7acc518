import assert from 'node:assert/strict';
import { formatRoute } from '../../datapath/cli/lines.ts';

describe('formatRoute', () => {
  const tunnel = { to: '10.244.2.0/24', kind: 'tunnel', via: '192.168.10.2', device: 'vxlan', mtu: 1450 };
  const rows: [what: string, row: Parameters<typeof formatRoute>[0], line: string][] = [
    ['a tunnel', { ...tunnel, tooBig: 'signal' }, '10.244.2.0/24 via 192.168.10.2 dev vxlan mtu 1450'],
    [
      'one that cuts what does not fit',
      { ...tunnel, tooBig: 'fragment-inner' },
      '10.244.2.0/24 via 192.168.10.2 dev vxlan mtu 1450 # too big: fragment-inner',
    ],
    [
      'a pod',
      { to: '10.244.1.10', kind: 'pod', via: null, device: 'eth0', mtu: 65535, tooBig: 'signal', pod: 'default/p1' },
      '10.244.1.10 dev eth0 scope link # default/p1',
    ],
  ];
  for (const [what, row, line] of rows) it(what, () => assert.equal(formatRoute(row), line));
});
