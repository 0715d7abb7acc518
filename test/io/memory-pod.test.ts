/** Pods without a process: what they answer, and that every slot goes back to the pool. */
import { strict as assert } from 'node:assert';
import { MemoryPod, type PodApp } from '../../datapath/io/memory-pod.ts';
import type { Packet } from '../../datapath/packet/packet.ts';
import { parseIpv4 } from '../../datapath/packet/parse.ts';
import { Pool } from '../../datapath/packet/pool.ts';
import { verifyChecksum } from '../../datapath/packet/segment.ts';
import { CONTINUE } from '../../datapath/verdict.ts';
import * as icmp from '../../datapath/wire/icmp.ts';
import { headerChecksumOk } from '../../datapath/wire/ipv4.ts';
import * as tcp from '../../datapath/wire/tcp.ts';
import { fragment, icmpEcho, ip, pattern, tcp4, udp4 } from '../fixtures/packets.ts';

const CLIENT = '10.244.2.10';
const POD = '10.244.1.10';

class Bench {
  readonly pool = new Pool(400);
  readonly pod: MemoryPod;
  private readonly slots: Packet[] = [];

  constructor(app: PodApp) {
    this.pod = new MemoryPod(this.pool, { name: 'default/p', address: ip(POD), app, mtu: 1500 });
    for (let i = 0; i < 16; i++) this.slots.push(this.pool.take()!);
  }

  give(bytes: Uint8Array): number {
    const p = this.pool.take()!;
    this.pool.bytes.set(bytes, p.off);
    p.len = bytes.length;
    const error = this.pod.handOver(p);
    if (error !== 0) this.pool.release(p);
    return error;
  }

  /** What the pod sends, parsed; the checksums are right. */
  take(): { packet: Packet; payload: Buffer }[] {
    const n = this.pod.readBurst(this.slots, this.slots.length);
    return this.slots.slice(0, n).map(packet => {
      const { view, bytes } = this.pool;
      assert.equal(parseIpv4(view, packet), CONTINUE);
      assert.ok(headerChecksumOk(view, packet.off, 20));
      assert.ok(verifyChecksum(view, packet));
      const header = packet.protocol === 6 ? tcp.headerLen(view, packet.l4) : 8;
      return { packet, payload: Buffer.from(bytes.slice(packet.l4 + header, packet.off + packet.len)) };
    });
  }

  ask(bytes: Uint8Array): { packet: Packet; payload: Buffer; flags: number; seq: number; ack: number } {
    assert.equal(this.give(bytes), 0);
    const [answer, ...more] = this.take();
    assert.deepEqual(more, []);
    const { view } = this.pool;
    const { l4 } = answer.packet;
    const flags = view.getUint8(l4 + tcp.FLAGS);
    return { ...answer, flags, seq: view.getInt32(l4 + tcp.SEQ), ack: view.getInt32(l4 + tcp.ACK) };
  }

  close(): void {
    this.pod.close();
    for (const p of this.slots) this.pool.release(p);
    assert.equal(this.pool.available, this.pool.packets.length, 'slots lost or doubled');
  }
}

const ends = { src: CLIENT, dst: POD, sport: 40000, dport: 80 };

describe('MemoryPod', () => {
  it('answers echo requests, and tells of the answers to its own', () => {
    const bench = new Bench('sink');
    const { packet, payload } = bench.ask(icmpEcho({ src: CLIENT, dst: POD, icmpId: 7, payload: pattern(99) }));
    assert.deepEqual([packet.src, packet.dst], [ip(POD), ip(CLIENT)]);
    assert.equal(bench.pool.view.getUint8(packet.l4 + icmp.TYPE), icmp.ECHO_REPLY);
    assert.deepEqual(payload, Buffer.from(pattern(99)));
    const answers: number[][] = [];
    bench.pod.onAnswer = (...answer) => answers.push(answer);
    assert.ok(bench.pod.ping(ip(CLIENT), 1234));
    const [{ packet: request }] = bench.take();
    assert.equal(bench.pool.view.getUint16(request.l4 + icmp.ID), 1234);
    bench.give(icmpEcho({ src: CLIENT, dst: POD, type: icmp.ECHO_REPLY, icmpId: 1234 }));
    assert.deepEqual(answers, [[1, ip(CLIENT), 1234]]);
    assert.deepEqual(bench.take(), []);
    bench.close();
  });

  it('echo gives UDP and TCP back as they came', () => {
    const bench = new Bench('echo');
    const { packet, payload } = bench.ask(udp4({ ...ends, payload: pattern(700) }));
    assert.deepEqual([packet.srcPort, packet.dstPort, payload], [80, 40000, Buffer.from(pattern(700))]);
    const back = bench.ask(tcp4({ ...ends, seq: 1000, ack: 5000, flags: tcp.ACK_FLAG, payload: pattern(300) }));
    assert.deepEqual([back.seq, back.ack, back.flags], [5000, 1300, tcp.ACK_FLAG | tcp.PSH]);
    assert.deepEqual(back.payload, Buffer.from(pattern(300)));
    bench.close();
  });

  it('http accepts, answers a request, and answers it alike when it comes again', () => {
    const bench = new Bench('http');
    const syn = tcp4({ ...ends, seq: 99, flags: tcp.SYN });
    const accepted = bench.ask(syn);
    assert.deepEqual([accepted.flags, accepted.ack], [tcp.SYN | tcp.ACK_FLAG, 100]);
    assert.deepEqual([...accepted.payload], [], 'the option is in the header');
    assert.equal(bench.ask(syn).seq, accepted.seq);
    const next = (accepted.seq + 1) | 0;
    bench.give(tcp4({ ...ends, seq: 100, ack: next, flags: tcp.ACK_FLAG }));
    assert.deepEqual(bench.take(), []);
    const request = new TextEncoder().encode('GET / HTTP/1.1\r\n\r\n');
    for (let time = 0; time < 2; time++) {
      const page = bench.ask(tcp4({ ...ends, seq: 100, ack: next, flags: tcp.ACK_FLAG | tcp.PSH, payload: request }));
      assert.deepEqual([page.seq, page.ack], [next, 100 + request.length]);
      assert.equal(page.flags, tcp.ACK_FLAG | tcp.FIN | tcp.PSH);
      assert.match(
        page.payload.toString(),
        /^HTTP\/1\.1 200 OK\r\n[\s\S]*Content-Length: 10\r\n[\s\S]*\r\n\r\ndefault\/p\n$/,
      );
    }
    const end = bench.ask(tcp4({ ...ends, seq: 118, ack: 7, flags: tcp.ACK_FLAG | tcp.FIN }));
    assert.deepEqual([end.seq, end.ack, end.flags], [7, 119, tcp.ACK_FLAG | tcp.FIN]);
    bench.close();
  });

  it('sink acknowledges and counts', () => {
    const bench = new Bench('sink');
    const { seq, ack, payload } = bench.ask(
      tcp4({ ...ends, seq: 5, ack: 77, flags: tcp.ACK_FLAG, payload: pattern(1000) }),
    );
    assert.deepEqual([seq, ack, payload.length], [77, 1005, 0]);
    bench.give(udp4({ ...ends, payload: pattern(50) }));
    assert.deepEqual(bench.take(), []);
    assert.deepEqual([bench.pod.packets, bench.pod.bytes], [2, 1050]);
    bench.close();
  });

  it('takes what it cannot answer, and no more than waits for its answers to be read', () => {
    const bench = new Bench('echo');
    const whole = udp4({ ...ends, payload: pattern(900) });
    for (const offset of [0, 480]) assert.equal(bench.give(fragment(whole, offset, 480)), 0);
    bench.give(tcp4({ ...ends, flags: tcp.RST }));
    assert.deepEqual(bench.take(), []);
    let taken = 0;
    while (bench.give(udp4({ ...ends, payload: pattern(4) })) === 0) taken++;
    assert.equal(taken, bench.pod.pending);
    assert.equal(bench.pod.ping(ip(CLIENT), 1), false);
    bench.close();
  });
});
