import { strict as assert } from 'node:assert';
import { findUser, type HostPorts, parseRanges, parseSockets } from '../../datapath/control/host-ports.ts';

const HEAD = '  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode';
const REST = '00000000:00000000 00:00000000 00000000     0        0 1560084 2 0000000032a0d223 0';

describe('control/host-ports', () => {
  it('reads sockets that get IPv4 packets, as the kernel lists them', () => {
    const lines = [
      `   0: 00000000:1F90 00000000:0000 0A ${REST}`,
      `   1: 010AA8C0:0016 030AA8C0:C350 01 ${REST}`,
      `   2: 010AA8C0:EE48 030AA8C0:0050 06 ${REST}`, // TIME_WAIT
      `   3: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A ${REST}`,
      `   4: 0000000000000000FFFF0000010AA8C0:0051 0000000000000000FFFF0000030AA8C0:C351 01 ${REST}`,
      `   5: B80D0120000000000000000001000000:0052 00000000000000000000000000000000:0000 0A ${REST}`,
    ];
    assert.deepEqual(parseSockets('tcp', `${HEAD}\n${lines.join('\n')}\n`), [
      { protocol: 'tcp', port: 8080 },
      { protocol: 'tcp', port: 22, address: '192.168.10.1' },
      { protocol: 'tcp', port: 80 },
      { protocol: 'tcp', port: 81, address: '192.168.10.1' },
    ]);
    // 7 stands for an ordinary UDP socket, and 6 has no meaning there.
    const datagram = `${HEAD}\n   0: 00000000:2118 00000000:0000 06 ${REST}\n`;
    assert.deepEqual(parseSockets('udp', datagram), [{ protocol: 'udp', port: 8472 }]);
    assert.deepEqual(parseSockets('udp', ''), []);
  });

  it('reads lists of ports', () => {
    assert.deepEqual(parseRanges('\n'), []);
    assert.deepEqual(parseRanges('8080,9000-9100\n'), [
      { low: 8080, high: 8080 },
      { low: 9000, high: 9100 },
    ]);
  });

  describe('finds who uses a port, or may', () => {
    const host: HostPorts = {
      ephemeral: { low: 32768, high: 60999 },
      spared: [
        { low: 40010, high: 40020 },
        { low: 40000, high: 40009 },
      ],
      sockets: [
        { protocol: 'tcp', port: 30080 },
        { protocol: 'udp', port: 8472, address: '10.0.0.1' },
        { protocol: 'tcp', port: 61005, address: '192.168.10.1' },
      ],
    };
    const cases: [what: string, protocol: 'tcp' | 'udp', low: number, high: number, says: RegExp | undefined][] = [
      ['a socket of any address', 'tcp', 30080, 30080, /TCP socket on port 30080/],
      ['the other protocol', 'udp', 30080, 30080, undefined],
      ['a socket of another address', 'udp', 8472, 8472, undefined],
      ['a socket inside a range', 'tcp', 61000, 65535, /TCP socket on port 61005/],
      ['a free range', 'udp', 61000, 65535, undefined],
      ['the upper edge of what the kernel gives out', 'udp', 60999, 61100, /port 60999 .*is 32768-60999/],
      ['below it', 'udp', 30000, 32767, undefined],
      ['ports that it spares', 'udp', 40000, 40020, undefined],
      ['one more than it spares', 'udp', 40000, 40021, /port 40021/],
      ['one before', 'udp', 39999, 40020, /port 39999/],
    ];
    for (const [what, protocol, low, high, says] of cases) {
      it(what, () => {
        const user = findUser(host, protocol, '192.168.10.1', { low, high });
        if (says === undefined) assert.equal(user, undefined);
        else assert.match(user ?? '', says);
      });
    }
  });
});
