import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type CapturedPacket, CaptureFile } from '../../datapath/io/capture-file.ts';
import { FileWriter } from '../../datapath/io/file-writer.ts';
import { LINK_ETHERNET, LINK_RAW, PcapWriter } from '../../datapath/io/pcap.ts';
import { DIRECTION_IN, DIRECTION_OUT, PcapngWriter } from '../../datapath/io/pcapng.ts';
import { arpFrame, ethernet, fragment, icmpEcho, ip, pattern, udp4 } from '../fixtures/packets.ts';
import { MAIN } from '../fixtures/program.ts';

const POD = '10.244.1.10';
const CONFIG = `apiVersion: tunpath.dev/v1
kind: NodeConfig
metadata: { name: a }
spec:
  uplink: { kind: tap, device: ul0, mac: 02:00:00:00:00:01, address: 192.168.10.1/24, gateway: 192.168.10.254 }
  host: { device: tp0, address: 10.244.1.1/32 }
  pods:
    - { name: default/p1, netns: p1, device: eth0, address: ${POD} }
  tunnel: { protocol: vxlan, port: 8472, vni: 7, peers: [{ address: 192.168.10.2 }] }
  routes:
    - { to: 10.244.2.0/24, via: 192.168.10.2, encap: true }
  masquerade:
    - { from: [10.244.0.0/16], notTo: [10.244.0.0/16] }
`;

interface Row {
  frame: number;
  port: string | null;
  verdict: string;
  reasons: string[];
  to: string[];
}

describe('replay', () => {
  let dir = '';
  before(() => {
    dir = mkdtempSync(join(tmpdir(), 'tunpath-replay-'));
    writeFileSync(join(dir, 'a.yaml'), CONFIG);
  });
  after(() => rmSync(dir, { recursive: true }));

  const path = (name: string) => join(dir, name);
  const replay = (...argv: string[]) =>
    spawnSync(process.execPath, [MAIN, 'replay', ...argv], { encoding: 'utf8', cwd: dir });
  const rowsOf = (...argv: string[]): Row[] => {
    const { stdout, stderr, status } = replay(...argv, '--packets', '-o', 'json');
    assert.equal(status, 0, stderr);
    return (JSON.parse(stdout) as Row[]).map(({ frame, port, verdict, reasons, to }) => ({
      frame,
      port,
      verdict,
      reasons,
      to,
    }));
  };
  /** Raw IP packets, each with its second. */
  const save = (name: string, packets: [second: number, packet: Uint8Array][], linkType = LINK_RAW): string => {
    const writer = new PcapWriter(path(name), linkType);
    for (const [second, packet] of packets) writer.write(1_790_000_000_000 + second * 1000, packet);
    writer.close();
    return path(name);
  };
  const read = (file: string): CapturedPacket[] => {
    const capture = new CaptureFile(file);
    const packets: CapturedPacket[] = [];
    for (let p = capture.next(); p !== null; p = capture.next()) packets.push({ ...p, bytes: p.bytes.slice() });
    capture.close();
    return packets;
  };

  const toRemote = udp4({ src: POD, dst: '10.244.2.20', payload: pattern(30) });
  const toServer = udp4({ src: POD, dst: '203.0.113.5', sport: 4000, dport: 53 });
  const fromServer = udp4({ src: '203.0.113.5', dst: '192.168.10.1', sport: 53, dport: 4000 });

  it('enters packets where their source lives, and says what became of each', () => {
    const file = save('in.pcap', [
      [0, toRemote],
      [1, icmpEcho({ src: POD, dst: '0.1.2.3' })],
      [2, icmpEcho({ src: '10.244.1.1', dst: POD })],
      [3, udp4({ src: '192.168.10.9', dst: '192.168.10.8' })],
      [4, fragment(udp4({ src: POD, dst: '203.0.113.5', payload: pattern(100) }), 40, 68)],
    ]);
    assert.deepEqual(rowsOf(file, '--config', 'a.yaml'), [
      { frame: 1, port: 'default/p1', verdict: 'forwarded', reasons: [], to: ['uplink'] },
      { frame: 2, port: 'default/p1', verdict: 'dropped', reasons: ['drop-route-refused'], to: ['default/p1'] },
      { frame: 3, port: 'tp0', verdict: 'forwarded', reasons: [], to: ['default/p1'] },
      { frame: 4, port: 'uplink', verdict: 'dropped', reasons: ['drop-not-routed'], to: [] },
      { frame: 5, port: 'default/p1', verdict: 'held', reasons: [], to: [] },
    ]);
    const { stdout } = replay(file, '--config', 'a.yaml', '-o', 'json');
    const report = JSON.parse(stdout) as { counters: { name: string }[] };
    // The lonely fragment is given up by the timers that run on behind the last packet.
    assert.ok(report.counters.some(({ name }) => name === 'drop-fragment-timeout'));
  });

  it('runs by the time of the file: an answer after 29 s belongs to its flow, after 31 s to none', () => {
    for (const [wait, to] of [
      [29, 'default/p1'],
      [31, 'tp0'],
    ] as const) {
      const file = save('in.pcap', [
        [0, toServer],
        [wait, fromServer],
      ]);
      const [, answer] = rowsOf(file, '--config', 'a.yaml');
      assert.deepEqual(answer.to, [to], `${wait} s`);
    }
  });

  it('writes a pcapng that is the same twice, has both sides of every packet, and replays again', () => {
    const file = save('in.pcap', [
      [0, toServer],
      [0.5, fromServer],
      [1, toRemote],
    ]);
    for (const out of ['1.pcapng', '2.pcapng']) replay(file, '--config', 'a.yaml', '-w', out);
    assert.deepEqual(readFileSync(path('1.pcapng')), readFileSync(path('2.pcapng')));
    const packets = read(path('1.pcapng'));
    assert.deepEqual(
      packets.map(p => [p.interface, p.direction, p.comment, p.seconds - 1_790_000_000]),
      [
        ['default/p1', DIRECTION_IN, 'forwarded', 0],
        ['uplink', DIRECTION_OUT, 'of frame 1', 0],
        ['uplink', DIRECTION_IN, 'forwarded', 0],
        ['default/p1', DIRECTION_OUT, 'of frame 2', 0],
        ['default/p1', DIRECTION_IN, 'forwarded', 1],
        ['uplink', DIRECTION_OUT, 'of frame 3', 1],
      ],
    );
    replay('1.pcapng', '--config', 'a.yaml', '-w', '3.pcapng');
    const again = read(path('3.pcapng'));
    assert.deepEqual(
      again.map(p => [p.interface, Buffer.from(p.bytes).toString('hex')]),
      packets.map(p => [p.interface, Buffer.from(p.bytes).toString('hex')]),
    );
    const other = replay(file, '--config', 'a.yaml', '-w', '4.pcapng', '--seed', '2');
    assert.equal(other.status, 0);
    assert.notDeepEqual(readFileSync(path('1.pcapng')), readFileSync(path('4.pcapng')));
  });

  it('takes interfaces by name, Ethernet at the uplink, and nothing that the node itself had sent', () => {
    const file = new FileWriter(path('in.pcapng'));
    const writer = new PcapngWriter(block => file.write(block));
    writer.addInterface({ name: 'default/p1', linkType: LINK_RAW });
    writer.addInterface({ name: 'bridge', linkType: LINK_ETHERNET });
    const at = { seconds: 1, nanoseconds: 0 };
    const [node, peer] = ['02:00:00:00:00:01', '02:00:00:00:00:02'];
    const ping = icmpEcho({ src: '192.168.10.2', dst: '10.244.1.1' });
    writer.packet({ interfaceId: 0, ...at, bytes: udp4({ src: '10.9.9.9', dst: '10.244.2.20' }) });
    writer.packet({ interfaceId: 0, ...at, bytes: toRemote, direction: DIRECTION_OUT });
    writer.packet({ interfaceId: 1, ...at, bytes: ethernet(ping, { src: peer, dst: node }) });
    writer.packet({ interfaceId: 1, ...at, bytes: ethernet(ping, { src: node, dst: peer }) });
    const asked = { oper: 1, sha: peer, spa: '192.168.10.2', tpa: '192.168.10.1' };
    writer.packet({ interfaceId: 1, ...at, bytes: arpFrame(asked) });
    file.close();
    assert.deepEqual(rowsOf('in.pcapng', '--config', 'a.yaml'), [
      { frame: 1, port: 'default/p1', verdict: 'dropped', reasons: ['drop-invalid-source'], to: [] },
      { frame: 2, port: null, verdict: 'skipped', reasons: ['sent by the node'], to: [] },
      { frame: 3, port: 'uplink', verdict: 'forwarded', reasons: [], to: ['tp0'] },
      { frame: 4, port: null, verdict: 'skipped', reasons: ['sent by the node'], to: [] },
      { frame: 5, port: 'uplink', verdict: 'forwarded', reasons: [], to: ['uplink'] },
    ]);
  });

  it('without answers to ARP a packet waits, and its sender hears of it', () => {
    const rows = rowsOf(save('in.pcap', [[0, toRemote]]), '--config', 'a.yaml', '--no-arp');
    assert.deepEqual([rows[0].verdict, rows[0].to], ['forwarded', ['uplink']], 'the request');
    const { stdout } = replay('in.pcap', '--config', 'a.yaml', '--no-arp', '-o', 'json');
    const { counters } = JSON.parse(stdout) as { counters: { name: string; packets: number }[] };
    assert.ok(counters.some(({ name }) => name === 'drop-neighbor-unreachable'));
  });

  it('compares two configurations packet by packet', () => {
    writeFileSync(path('b.yaml'), CONFIG.replace('vni: 7', 'vni: 8'));
    const file = save('in.pcap', [
      [0, toServer],
      [1, toRemote],
    ]);
    const same = replay(file, '--config', 'a.yaml', '--compare', 'a.yaml');
    assert.deepEqual([same.status, same.stdout], [0, '']);
    const other = replay(file, '--config', 'a.yaml', '--compare', 'b.yaml', '-o', 'json');
    assert.equal(other.status, 1);
    assert.deepEqual(
      (JSON.parse(other.stdout) as { frame: number }[]).map(({ frame }) => frame),
      [2],
    );
  });

  const wrong: [what: string, argv: string[], message: RegExp][] = [
    ['a file that is not there', ['nosuch.pcap', '--config', 'a.yaml'], /^tunpath: nosuch\.pcap: no such file/],
    ['a file that is no capture', ['a.yaml', '--config', 'a.yaml'], /^tunpath: a\.yaml: byte 0: not a capture file/],
    ['a configuration that is not there', ['in.pcap', '--config', 'x.yaml'], /^tunpath: x\.yaml: no such file/],
    ['a wrong configuration', ['in.pcap', '--config', 'wrong.yaml'], /^wrong\.yaml:\d+:\d+: spec/],
    [
      'a port that is not there',
      ['in.pcap', '--config', 'a.yaml', '--port', 'p9'],
      /--port: got p9, expected one of default\/p1, tp0, uplink/,
    ],
    ['a node that is not there', ['in.pcap', '--config', 'a.yaml', '--node', 'b'], /got --node b, expected one of a/],
    ['a seed that is no number', ['in.pcap', '--config', 'a.yaml', '--seed', 'x'], /--seed x: expected a whole number/],
    [
      'a place that cannot be written',
      ['in.pcap', '--config', 'a.yaml', '-w', 'no/such/dir'],
      /no\/such\/dir: no such file/,
    ],
  ];
  for (const [what, argv, message] of wrong) {
    it(`refuses ${what}`, () => {
      save('in.pcap', [[0, toRemote]]);
      writeFileSync(path('wrong.yaml'), CONFIG.replace('vni: 7', 'vni: -7'));
      const { status, stdout, stderr } = replay(...argv);
      assert.equal(status, 2, stderr);
      assert.equal(stdout, '');
      assert.match(stderr, message);
    });
  }

  it('names the byte where a capture breaks off', () => {
    const file = save('in.pcap', [[0, toRemote]]);
    writeFileSync(file, readFileSync(file).subarray(0, -1));
    const { status, stderr } = replay(file, '--config', 'a.yaml');
    assert.equal(status, 2);
    assert.match(stderr, /in\.pcap: byte 24: record of 58 bytes cut off after 57/);
  });

  it('a packet of the pod keeps its bytes through the tunnel', () => {
    replay(save('in.pcap', [[0, toRemote]]), '--config', 'a.yaml', '-w', 'out.pcapng');
    const sent = read(path('out.pcapng')).find(p => p.direction === DIRECTION_OUT)!;
    const inner = sent.bytes.subarray(14 + 50);
    assert.deepEqual([...inner.subarray(20)], [...toRemote.subarray(20)]);
    const view = new DataView(sent.bytes.buffer, sent.bytes.byteOffset);
    assert.equal(view.getInt32(14 + 16), ip('192.168.10.2'));
  });
});
