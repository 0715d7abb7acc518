/**
 * The kernel as referee: the same packets through Linux's conntrack and NAT, and through the whole datapath. What comes
 * out must be the same packet for packet, byte for byte, and at the end so must the flow tables be; the network and its
 * rules are in referee/network.ts, the sequences in referee/sequences.ts and referee/scripts.ts.
 *
 *   SEED=n         other random sequences        SEQUENCES=n    as many of them
 */
import { strict as assert } from 'node:assert';
import { isIcmpError, transportOk } from './referee/compare.ts';
import { tupleOf } from './referee/conversation.ts';
import { type KernelFlow, KernelNode } from './referee/kernel.ts';
import { OurNode } from './referee/ours.ts';
import { type Chosen, describeMismatch, type Mismatch, Referee } from './referee/run.ts';
import { allSequences } from './referee/sequences.ts';
import { Rig } from './rig.ts';

const SEED = Number(process.env.SEED ?? 20261121);
const RANDOM = Number(process.env.SEQUENCES ?? 600);

/** Bytes of the quoted packet behind its IP header; -1 where nothing is quoted. */
function quotedBytes(packet: Uint8Array): number {
  const quote = (packet[0] & 15) * 4 + 8;
  return isIcmpError(packet) ? packet.length - quote - (packet[quote] & 15) * 4 : -1;
}

function quotedByte(packet: Uint8Array, at: number): number {
  return packet[(packet[0] & 15) * 4 + 8 + at];
}

/** What is different on purpose, and why. Everything else is equal. */
const CHOSEN: readonly Chosen[] = [
  {
    name: 'wrong checksum',
    why: 'Linux verifies checksums in conntrack (nf_conntrack_checksum) and calls the packet invalid. We would have to read the payload of every packet: the checksum is updated, so it stays wrong, and the receiver drops it.',
    is: m =>
      m.what !== '' && m.kernel.length === 0 && m.ours.length === 1 && !isIcmpError(m.input) && !transportOk(m.input),
  },
  {
    name: 'answer of a backend to nobody',
    why: "Linux picks up a connection in the middle, also from its server's side, and sends it on with the backend's address, which the client never spoke to (kubernetes#74839).",
    is: m => m.reason === 'drop-ct-backend-pickup',
  },
  {
    name: 'quote without the 8 bytes',
    why: 'RFC 792 has errors quote 8 bytes behind the IP header. Linux looks at the ports only, and lets the error pass where nothing has to be translated.',
    is: m => m.what !== '' && m.reason === 'drop-ct-invalid-icmp-quote' && quotedBytes(m.input) < 8,
  },
  {
    name: 'quote of IP version 6',
    why: 'Linux does not look at the version of the packet in an error.',
    is: m => m.what !== '' && m.reason === 'drop-ct-invalid-icmp-quote' && quotedByte(m.input, 0) >> 4 !== 4,
  },
  {
    name: 'checksum in a quote of half a TCP header',
    why: 'Linux updates the checksum of a quoted TCP segment only if its whole header is there, we do wherever the checksum is.',
    goesOn: true,
    is: m =>
      /^byte/.test(m.what) && quotedBytes(m.input) >= 18 && quotedBytes(m.input) < 20 && quotedByte(m.input, 9) === 6,
  },
  {
    name: 'code of an ICMP query',
    why: 'Linux has the code in the tuple, where RFC 792 and RFC 5508 have only identifiers: an answer with another code than the question is invalid to it.',
    is: m =>
      m.what !== '' &&
      m.kernel.length === 0 &&
      ((m.input[9] === 1 && m.step.what.includes('type 0')) || m.step.what.includes('other port')),
  },
  {
    name: 'hop count in a quote of our own',
    why: 'Linux takes the hop off behind the MTU check and before the rule that rejects; we take it off before the one and behind the other.',
    goesOn: true,
    is: m => m.what === 'hop count',
  },
];

/**
 * Flows by protocol and original tuple, without what depends on time or chance: whether a datagram's flow is a stream
 * already, and ports that the node has chosen.
 */
function flowsOf(flows: readonly KernelFlow[]): Map<string, string> {
  return new Map(
    flows.map(({ protocol, original, reply, state, unreplied, assured }) => {
      // "src:sport dst:dport", for ICMP "src dst id type": the client's port, and what the far end answers to.
      const isIcmp = protocol === 1;
      const [own] = (isIcmp ? / (\d+) \d+$/ : /:\d+ /).exec(original) ?? [''];
      const [far] = (isIcmp ? / (\d+) \d+$/ : /:\d+$/).exec(reply) ?? [''];
      const chosen = /\d+/.exec(own)?.[0] !== /\d+/.exec(far)?.[0];
      const to = chosen ? `${reply.slice(0, -far.length)} chosen` : reply;
      const seen = `${unreplied ? ' unreplied' : ''}${assured && protocol === 6 ? ' assured' : ''}`;
      return [`${protocol} ${original}`, `${to} ${state}${seen}`];
    }),
  );
}

describe(`the kernel as referee of NAT (SEED=${SEED})`, function () {
  this.timeout(120_000);
  let rig: Rig;
  before(() => {
    rig = new Rig('nr');
  });
  after(() => rig.close());

  it('what is not listed is equal: every packet, and the flows at the end', async () => {
    const kernel = await KernelNode.make(rig, 'a', true);
    try {
      const ours = new OurNode(SEED);
      const referee = new Referee(kernel, ours, CHOSEN);
      const sequences = allSequences(SEED, RANDOM);
      assert.ok(sequences.length > 300);
      const found: Mismatch[] = [];
      let unlucky = 0;
      for (const sequence of sequences) {
        const mismatch = referee.run(sequence);
        if (mismatch === null || mismatch === 'listed') continue;
        // A port that one of them has chosen for an earlier flow may be that of a later client.
        if (mismatch.what.startsWith('port') && mismatch.step === sequence.steps[0] && ++unlucky <= 2) continue;
        found.push(mismatch);
      }
      assert.equal(found.length, 0, `${found.length} differ:\n${found.slice(0, 3).map(describeMismatch).join('\n')}`);
      assert.ok(referee.passed > 5000 && referee.refused > 1000, `${referee.passed} passed, ${referee.refused} not`);
      assert.deepEqual(
        CHOSEN.filter(({ name }) => !referee.met.has(name)),
        [],
        'listed, but not met',
      );

      const theirs = flowsOf(await kernel.flows());
      const own = flowsOf(ours.flows());
      for (const flows of [theirs, own]) {
        for (const key of flows.keys()) {
          if (key.split(/[ :]/).some(port => referee.unequal.has(Number(port)))) flows.delete(key);
        }
      }
      const onlyOurs = [...own].filter(([key]) => !theirs.has(key));
      const onlyTheirs = [...theirs].filter(([key]) => !own.has(key));
      assert.deepEqual(onlyTheirs, []);
      // Linux forgets a flow whose first packet did not leave; ours exists from the routing on, and times out.
      assert.deepEqual(
        onlyOurs.filter(([, flow]) => !flow.includes('unreplied')),
        [],
      );
      assert.ok(theirs.size > 1000, `${theirs.size} flows`);
      assert.deepEqual(
        [...theirs].filter(([key, flow]) => own.get(key) !== flow).map(([key, flow]) => [key, flow, own.get(key)]),
        [],
      );
    } finally {
      kernel.close();
    }
  });

  it('without the rule that drops them, the kernel sends invalid packets out as they came; we do not', async () => {
    const kernel = await KernelNode.make(rig, 'b', false);
    try {
      const referee = new Referee(kernel, new OurNode(SEED), CHOSEN);
      const leaks = allSequences(SEED, 0)
        .filter(({ name }) => name.startsWith('TCP, masqueraded'))
        .map(sequence => referee.run(sequence))
        .filter(mismatch => mismatch !== null && mismatch !== 'listed')
        // Inwards it meets the kernel's own TCP, which is no difference in what leaves; a wrong checksum leaves both.
        .filter(({ kernel, input }) => kernel.length > 0 && transportOk(input));
      assert.ok(leaks.length > 5, `${leaks.length} leaks`);
      for (const { kernel, ours, input, reason } of leaks) {
        assert.deepEqual([ours.length, kernel.length], [0, 1]);
        assert.match(reason, /^drop-ct-invalid-tcp-/);
        const sources = [kernel[0].bytes, input].map(packet => tupleOf(packet).src);
        assert.equal(sources[0], sources[1], "under the client's own address");
      }
    } finally {
      kernel.close();
    }
  });
});
