/** The raw uplink's device over sockets of the loopback, which need no root: what it makes of datagrams, trains and ICMP. */
import assert from 'node:assert/strict';
import koffi from 'koffi';
import { EINVAL } from '../../datapath/io/errors.ts';
import * as libc from '../../datapath/io/libc.ts';
import { RawUplink } from '../../datapath/io/raw.ts';
import type { Packet } from '../../datapath/packet/packet.ts';
import { Pool } from '../../datapath/packet/pool.ts';
import { FLAG_NEEDS_CSUM, GSO_UDP_L4 } from '../../datapath/wire/virtio-net.ts';
import { arpFrame, bytesOf, icmpError, ip, load, pattern, tcp4, udp4 } from '../fixtures/packets.ts';

const LOOPBACK = '127.0.0.1';
const SOL_IP = 0;
const IP_TOS = 1;
const IP_RECVTOS = 13;
const SOL_UDP = 17;
const UDP_SEGMENT = 103;
const UDP_GRO = 104;
const CE = 3;

const system = koffi.load('libc.so.6');
const getsockname = system.func('int getsockname(int fd, _Out_ uint8_t *name, _Inout_ uint32_t *length)');
const socketpair = system.func('int socketpair(int domain, int type, int protocol, _Out_ int *fds)');
const send = system.func('intptr_t send(int fd, const void *data, size_t len, int flags)');
const connect = system.func('int connect(int fd, const void *name, uint32_t length)');

function set(fd: number, level: number, option: number, value: number): void {
  const bytes = Int32Array.of(value);
  assert.equal(libc.setsockopt(fd, level, option, libc.addressOf(bytes), 4), 0, `option ${option}`);
}

function nameOf(port: number): Uint8Array {
  const name = new Uint8Array(16);
  const view = new DataView(name.buffer);
  view.setUint16(0, libc.AF_INET, true);
  view.setUint16(2, port);
  view.setInt32(4, ip(LOOPBACK));
  return name;
}

function boundUdp(): { fd: number; port: number } {
  const fd = libc.socket(libc.AF_INET, libc.SOCK_DGRAM | libc.SOCK_NONBLOCK, 0);
  assert.equal(libc.bind(fd, libc.addressOf(nameOf(0)), 16), 0);
  const name = new Uint8Array(16);
  assert.equal(getsockname(fd, name, [16]), 0);
  return { fd, port: new DataView(name.buffer).getUint16(2) };
}

describe('the raw uplink over loopback sockets', () => {
  let pool: Pool;
  let slots: Packet[];
  let device: RawUplink;
  let sender: { fd: number; port: number };
  let port: number;
  let errors: number;
  /** Datagram sockets in pairs: what is written to one end is read whole from the other, as from a raw socket. */
  let ends: number[];

  const open = (protocol: 'ipip' | 'vxlan' | 'geneve') => {
    pool = new Pool(80);
    slots = Array.from({ length: 64 }, () => pool.take()!);
    const pair = () => {
      const fds = [0, 0];
      assert.equal(socketpair(libc.AF_UNIX, libc.SOCK_DGRAM | libc.SOCK_NONBLOCK, 0, fds), 0);
      return fds;
    };
    const [errorFd, toErrors] = pair();
    errors = toErrors;
    ends = [toErrors];
    let receiveFd: number;
    if (protocol === 'ipip') {
      const [in_, out] = pair();
      receiveFd = in_;
      sender = { fd: out, port: 0 };
      port = 0;
    } else {
      const receiver = boundUdp();
      receiveFd = receiver.fd;
      port = receiver.port;
      set(receiveFd, SOL_IP, IP_RECVTOS, 1);
      set(receiveFd, SOL_UDP, UDP_GRO, 1);
      sender = boundUdp();
      assert.equal(connect(sender.fd, nameOf(port), 16), 0);
    }
    ends.push(sender.fd);
    device = new RawUplink(
      {
        kind: 'raw',
        name: 'lo',
        mtu: 1500,
        offloads: 0,
        refused: [],
        fd: libc.eventfd(0, 0),
        sendFd: libc.eventfd(0, 0),
        receiveFd,
        errorFd,
        protocol,
        udpPort: port,
        address: ip(LOOPBACK),
        innerMtu: 1450,
        mac: { hi: 0x0200, lo: 1 },
        kernelMac: { hi: 0xeeee, lo: 0xeeeeeeee | 0 },
      },
      pool,
    );
  };
  const read = () => {
    for (const p of slots) p.reset(128);
    const n = device.readBurst(slots, slots.length);
    return slots.slice(0, n);
  };
  const put = (fd: number, bytes: Uint8Array) => assert.equal(send(fd, bytes, bytes.length, 0), bytes.length);
  const FRAME = Uint8Array.of(2, 0, 0, 0, 0, 1, 0xee, 0xee, 0xee, 0xee, 0xee, 0xee, 8, 0);

  afterEach(() => {
    device.close();
    for (const fd of ends) libc.close(fd);
  });

  it('puts the headers back in front of a datagram, its TOS included', () => {
    open('vxlan');
    set(sender.fd, SOL_IP, IP_TOS, 0x28 | CE);
    put(sender.fd, pattern(100));
    put(sender.fd, pattern(0));
    const [first, empty, ...more] = read();
    assert.deepEqual(more, []);
    const bytes = bytesOf(pool, first);
    assert.deepEqual(bytes.subarray(0, 14), FRAME);
    const whole = udp4({
      src: LOOPBACK,
      dst: LOOPBACK,
      sport: sender.port,
      dport: port,
      payload: pattern(100),
      noChecksum: true,
    });
    assert.deepEqual(bytes.subarray(34), whole.subarray(20));
    assert.equal(bytes[15], 0x28 | CE);
    assert.equal(empty.len, 14 + 28);
    assert.deepEqual(read(), []);
  });

  it('gives a train as a train, and a lone datagram as one', () => {
    open('geneve');
    set(sender.fd, SOL_UDP, UDP_SEGMENT, 1000);
    put(sender.fd, pattern(5500));
    put(sender.fd, pattern(1000));
    const [train, lone, ...more] = read();
    assert.deepEqual(more, []);
    assert.deepEqual([train.len, train.gsoType, train.gsoSize], [14 + 28 + 5500, GSO_UDP_L4, 1000]);
    assert.deepEqual([train.vnetFlags, train.csumStart, train.csumOffset], [FLAG_NEEDS_CSUM, train.off + 34, 6]);
    assert.deepEqual(bytesOf(pool, train).subarray(42), pattern(5500));
    assert.deepEqual([lone.len, lone.gsoType, lone.vnetFlags], [14 + 28 + 1000, 0, 0]);
  });

  it('reads whole packets for IPIP, also those that are none', () => {
    open('ipip');
    const packet = tcp4({ payload: pattern(50) });
    put(sender.fd, packet);
    put(sender.fd, pattern(3));
    const [first, second] = read();
    assert.deepEqual(bytesOf(pool, first).subarray(14), packet);
    assert.equal(second.len, 14 + 3);
  });

  it('gives errors about tunnel packets and keeps the rest to itself', () => {
    open('vxlan');
    const quoted = udp4({ src: LOOPBACK, dst: '192.0.2.1', sport: 40000, dport: port, payload: pattern(60) });
    const own = udp4({ src: LOOPBACK, dst: '192.0.2.1', sport: 40000, dport: 53, payload: pattern(60) });
    const error = icmpError(3, 4, quoted, { src: '192.0.2.9', dst: LOOPBACK, mtu: 1400 });
    put(errors, icmpError(3, 3, own, { src: '192.0.2.9', dst: LOOPBACK }));
    put(errors, pattern(5));
    put(errors, error);
    const [only, ...more] = read();
    assert.deepEqual(more, []);
    assert.deepEqual(bytesOf(pool, only).subarray(14), error);
  });

  it('looks for errors under load, too', () => {
    open('vxlan');
    const quoted = udp4({ src: LOOPBACK, dst: '192.0.2.1', sport: 40000, dport: port, payload: pattern(60) });
    put(errors, icmpError(3, 4, quoted, { src: '192.0.2.9', dst: LOOPBACK, mtu: 1400 }));
    let seen = 0;
    for (let i = 0; i < 40; i++) {
      put(sender.fd, pattern(100));
      seen += read().filter(p => pool.view.getUint8(p.off + 14 + 9) === 1).length;
    }
    assert.equal(seen, 1);
  });

  it('refuses to write what is no IPv4', () => {
    open('vxlan');
    const p = load(pool, arpFrame({ tpa: '192.168.10.2' }));
    assert.equal(device.write(p), EINVAL);
  });
});
