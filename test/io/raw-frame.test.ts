import assert from 'node:assert/strict';
import fc from 'fast-check';
import {
  innerOfGeneve,
  innerOfVxlan,
  quotesTunnel,
  UDP_HEADERS_LEN,
  writeUdpHeaders,
} from '../../datapath/io/raw-frame.ts';
import { Packet } from '../../datapath/packet/packet.ts';
import { parseIpv4 } from '../../datapath/packet/parse.ts';
import { CONTINUE } from '../../datapath/verdict.ts';
import { icmpEcho, icmpError, ip, ipip, patch, pattern, tcp4, udp4 } from '../fixtures/packets.ts';

const OURS = '192.168.10.1';
const PEER = '192.168.10.2';
const ROUTER = '192.168.10.254';
const PORT = 8472;

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(Uint8Array.from(bytes).buffer);
}

describe('the headers that a UDP socket has taken off', () => {
  it('are written such that the packet is what came, but for its checksum, id and TTL', () => {
    const payload = pattern(333);
    const came = udp4({ src: PEER, dst: OURS, sport: 40001, dport: PORT, payload, noChecksum: true });
    const bytes = new Uint8Array(UDP_HEADERS_LEN + payload.length).fill(0xa5);
    bytes.set(payload, UDP_HEADERS_LEN);
    const view = new DataView(bytes.buffer);
    writeUdpHeaders(view, 0, payload.length, 0xb9, ip(PEER), ip(OURS), (40001 << 16) | PORT);
    const p = new Packet(0, 0);
    p.len = bytes.length;
    assert.equal(parseIpv4(view, p), CONTINUE);
    assert.deepEqual([p.src, p.dst, p.protocol, p.srcPort, p.dstPort], [ip(PEER), ip(OURS), 17, 40001, PORT]);
    assert.equal(bytes[1], 0xb9);
    assert.deepEqual(bytes.subarray(20), came.subarray(20));
  });

  it('hold for an empty datagram and for the longest', () => {
    for (const length of [0, 65507]) {
      const view = new DataView(new ArrayBuffer(UDP_HEADERS_LEN + length));
      writeUdpHeaders(view, 0, length, 0, ip(PEER), ip(OURS), (0xffff << 16) | PORT);
      const p = new Packet(0, 0);
      p.len = view.byteLength;
      assert.equal(parseIpv4(view, p), CONTINUE);
      assert.equal(p.len, UDP_HEADERS_LEN + length);
    }
  });
});

describe('where the inner packet is', () => {
  it('in VXLAN always in the same place', () => assert.equal(innerOfVxlan(100), 122));

  const geneve = (options: number, type: number) => {
    const view = new DataView(new ArrayBuffer(300));
    view.setUint8(0, options);
    view.setUint16(2, type);
    return view;
  };
  const rows: [string, DataView, number, number][] = [
    ['a frame', geneve(0, 0x6558), 300, 22],
    ['a frame behind options', geneve(3, 0x6558), 300, 34],
    ['a bare packet', geneve(0, 0x0800), 300, 8],
    ['the longest options', geneve(0x3f, 0x6558), 300, 274],
    ['options that reach over the end', geneve(0x3f, 0x6558), 200, 200],
    ['half a header', geneve(0, 0x6558), 7, 7],
    ['nothing', geneve(0, 0x6558), 0, 0],
  ];
  for (const [what, view, end, expected] of rows) {
    it(`in GENEVE: ${what}`, () => assert.equal(innerOfGeneve(view, 0, end), expected));
  }
});

describe('an ICMP error about a tunnel packet', () => {
  const inner = tcp4({ payload: pattern(100) });
  const outer = (o: object = {}) => udp4({ src: OURS, dst: PEER, sport: 40000, dport: PORT, payload: inner, ...o });
  const error = (quoted: Uint8Array, type = 3, code = 4) =>
    icmpError(type, code, quoted, { src: ROUTER, dst: OURS, mtu: 1400 });
  const about = (bytes: Uint8Array, port = PORT) => quotesTunnel(viewOf(bytes), 0, bytes.length, ip(OURS), port);

  const rows: [string, Uint8Array, number, boolean][] = [
    ['too big', error(outer()), PORT, true],
    ['too big, 8 bytes quoted', error(outer().subarray(0, 28)), PORT, true],
    ['time exceeded', error(outer(), 11, 0), PORT, true],
    ['of IPIP', error(ipip(inner, { src: OURS, dst: PEER })), 0, true],
    ['of IPIP on a VXLAN node', error(ipip(inner, { src: OURS, dst: PEER })), PORT, false],
    ['of VXLAN on an IPIP node', error(outer()), 0, false],
    ['7 bytes quoted', error(outer().subarray(0, 27)), PORT, false],
    ['of another port', error(outer({ dport: 53 })), PORT, false],
    ['of what somebody else sent', error(outer({ src: PEER })), PORT, false],
    ["of the host's own TCP", error(tcp4({ src: OURS, dst: PEER })), PORT, false],
    ['no error but an echo', icmpEcho({ src: ROUTER, dst: OURS, payload: outer() }), PORT, false],
    ['no ICMP at all', outer(), PORT, false],
    ['a quote of IPv6', error(patch(outer(), 0, 0x65)), PORT, false],
    ['itself of IPv6', patch(error(outer()), 0, 0x65), PORT, false],
    ['a header shorter than one', patch(error(outer()), 0, 0x43), PORT, false],
  ];
  for (const [what, bytes, port, expected] of rows) it(what, () => assert.equal(about(bytes, port), expected));

  it('cut anywhere, changed anywhere, or random: never read outside', () => {
    const whole = error(outer());
    for (let len = 0; len < 56; len++) assert.equal(about(whole.subarray(0, len)), false, `${len}`);
    fc.assert(
      fc.property(fc.nat(whole.length - 1), fc.nat(255), fc.nat(whole.length), (at, byte, len) => {
        about(patch(whole, at, byte).subarray(0, len));
        about(patch(whole, at, byte).subarray(0, len), 0);
      }),
    );
    fc.assert(fc.property(fc.uint8Array({ maxLength: 120 }), bytes => about(bytes) === false || bytes.length >= 56));
  });
});
