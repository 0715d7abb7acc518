/** rtnetlink messages: what is read of well-formed ones, and that no other does harm. */
import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import {
  addressesRequest,
  allLinksRequest,
  errorOf,
  linkRequest,
  messagesIn,
  newNsidRequest,
  nsidRequest,
  parseDefaultRoute,
  parseLink,
  parseLinkAddress,
  parseNsid,
  routesRequest,
  setLinkRequest,
} from '../../datapath/io/netlink-message.ts';

/** An attribute as bytes, by hand: length, type, value, padding. */
function attribute(type: number, ...value: number[]): number[] {
  const length = 4 + value.length;
  return [length & 0xff, length >> 8, type & 0xff, type >> 8, ...value, ...Array(-length & 3).fill(0)];
}

function message(type: number, ...body: number[]): number[] {
  const length = 16 + body.length;
  const rest = Array(-length & 3).fill(0);
  return [length & 0xff, length >> 8, 0, 0, type, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, ...body, ...rest];
}

const text = (value: string) => [...Buffer.from(`${value}\0`)];
const viewOf = (bytes: number[]) => new DataView(Uint8Array.from(bytes).buffer);

/** ifinfomsg: family, pad, type, index 5, flags UP | LOWER_UP, change. */
const IFINFO = [0, 0, 1, 0, 5, 0, 0, 0, 0x01, 0x00, 0x01, 0x00, 0, 0, 0, 0];
const ETH0 = message(
  16,
  ...IFINFO,
  ...attribute(3, ...text('eth0')),
  ...attribute(4, 0xdc, 0x05, 0, 0),
  ...attribute(10, 9, 0, 0, 0),
  ...attribute(5, 6, 0, 0, 0),
  ...attribute(1, 2, 0, 0, 0, 0, 0xab),
  ...attribute(18 | 0x8000, ...attribute(1, ...text('veth'))),
);
/** ifaddrmsg: family, length, flags, scope, index. */
const ADDRESS = message(20, 2, 24, 0x80, 0, 5, 0, 0, 0, ...attribute(1, 10, 0, 0, 9), ...attribute(2, 10, 0, 0, 1));
/** rtmsg: family, lengths, tos, table main, protocol, scope, type unicast, flags. */
const RTMSG = [2, 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0];
const DEFAULT = message(
  24,
  ...RTMSG,
  ...attribute(5, 192, 168, 10, 254),
  ...attribute(4, 5, 0, 0, 0),
  ...attribute(6, 100, 0, 0, 0),
);
const NSID = message(88, 0, 0, 0, 0, ...attribute(1, 3, 0, 0, 0));

const parsers = [parseLink, parseLinkAddress, parseDefaultRoute, parseNsid, errorOf] as const;

describe('rtnetlink messages', () => {
  it('reads a link', () => {
    const view = viewOf(ETH0);
    const [only, ...more] = messagesIn(view, view.byteLength);
    assert.deepEqual([only.type, only.sequence, more.length], [16, 7, 0]);
    assert.deepEqual(parseLink(view, only), {
      index: 5,
      name: 'eth0',
      up: true,
      running: true,
      mtu: 1500,
      mac: '02:00:00:00:00:ab',
      master: 9,
      below: 6,
      kind: 'veth',
    });
  });

  it('reads an address: the own one, not the far end’s', () => {
    const view = viewOf(ADDRESS);
    const [only] = messagesIn(view, view.byteLength);
    assert.deepEqual(parseLinkAddress(view, only), { index: 5, address: 0x0a000001, length: 24 });
  });

  it('reads a default route, and no other', () => {
    const view = viewOf(DEFAULT);
    const [only] = messagesIn(view, view.byteLength);
    assert.deepEqual(parseDefaultRoute(view, only), { index: 5, gateway: 0xc0a80afe | 0, metric: 100 });
    const change = (...edits: [at: number, value: number][]) => {
      const other = viewOf(DEFAULT);
      for (const [at, value] of edits) other.setUint8(16 + at, value);
      return parseDefaultRoute(other, only);
    };
    assert.equal(change([1, 24]), undefined, 'a network');
    assert.equal(change([4, 255]), undefined, 'table local');
    assert.equal(change([7, 7]), undefined, 'unreachable');
    assert.equal(change([0, 10]), undefined, 'IPv6');
  });

  it('reads the id of a namespace, and errors', () => {
    const view = viewOf([...NSID, ...message(2, 0xed, 0xff, 0xff, 0xff), ...message(2, 0, 0, 0, 0)]);
    const [nsid, error, acknowledged] = messagesIn(view, view.byteLength);
    assert.equal(parseNsid(view, nsid), 3);
    assert.equal(errorOf(view, error), 19);
    assert.equal(errorOf(view, acknowledged), 0);
  });

  it('finds every message of a datagram', () => {
    fc.assert(
      fc.property(fc.array(fc.constantFrom(ETH0, ADDRESS, DEFAULT, NSID), { maxLength: 20 }), datagrams => {
        const view = viewOf(datagrams.flat());
        const found = [...messagesIn(view, view.byteLength)];
        assert.deepEqual(
          found.map(({ type }) => type),
          datagrams.map(bytes => bytes[4]),
        );
      }),
    );
  });

  it('takes any bytes: no exception, nothing outside of them', () => {
    const damaged = fc
      .tuple(
        fc.constantFrom(ETH0, ADDRESS, DEFAULT, NSID),
        fc.array(fc.tuple(fc.nat(199), fc.nat(255)), { maxLength: 8 }),
        fc.nat(200),
      )
      .map(([bytes, edits, length]) => {
        const copy = bytes.slice(0, length);
        for (const [at, value] of edits) if (at < copy.length) copy[at] = value;
        return copy;
      });
    const random = fc.uint8Array({ maxLength: 300 }).map(bytes => [...bytes]);
    fc.assert(
      fc.property(fc.oneof(damaged, random), bytes => {
        // Exactly as long as the datagram: a read past it throws.
        const view = viewOf(bytes);
        for (const found of messagesIn(view, view.byteLength)) {
          assert.ok(found.from <= found.to && found.to <= view.byteLength);
          for (const parse of parsers) parse(view, found);
        }
      }),
      { numRuns: 5000 },
    );
  });

  it('builds requests whose lengths are right', () => {
    for (const bytes of [
      linkRequest(1, 'eth0', null),
      linkRequest(2, 'a-name-of-15-by', 4),
      allLinksRequest(3),
      addressesRequest(4, null),
      addressesRequest(5, 0),
      routesRequest(6),
      nsidRequest(7, 12),
      newNsidRequest(8, 12),
      setLinkRequest(9, 5, { mac: '02:00:00:00:00:01', mtu: 1400, up: true }),
      setLinkRequest(10, 5, {}),
    ]) {
      const view = new DataView(bytes.buffer);
      const [only, ...more] = messagesIn(view, view.byteLength);
      assert.equal(more.length, 0);
      assert.equal(only.to, bytes.length);
      assert.equal(view.getUint16(6, true) & 1, 1, 'NLM_F_REQUEST');
    }
    const named = new DataView(linkRequest(1, 'eth0', null).buffer);
    const [only] = messagesIn(named, named.byteLength);
    assert.equal(parseLink(named, only)?.name, 'eth0');
  });
});
