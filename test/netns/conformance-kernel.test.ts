/**
 * The conformance checks, held against this machine's kernel: what the table calls "as Linux" is what Linux does. Every check
 * that needs no more than VXLAN and NAT sends the kernel the packets that it sends the datapath in profile linux, and must
 * see the same.
 */
import { strict as assert } from 'node:assert';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import type { Check } from '../../datapath/conformance/check.ts';
import { type CheckNode, NODE, type NodeOptions, POD, SERVER, Testbed } from '../../datapath/conformance/node.ts';
import { CLAUSES } from '../../datapath/conformance/registry.ts';
import { runClause } from '../../datapath/conformance/run.ts';
import { inNamespace } from '../../datapath/control/netns.ts';
import { tcp4 } from '../fixtures/packets.ts';
import { KernelTestbed, refuseUnsupported, Unsupported } from './kernel-subject.ts';
import { Rig } from './rig.ts';

/** What the kernel does otherwise than our profile linux, which means it so. */
const CHOSEN: { what: RegExp; kernel: string; why: string }[] = [
  {
    what: /^7348 §7 a rogue that is no peer/,
    kernel: 'delivered',
    why: 'a VXLAN device takes packets from anybody; ours takes them from peers, unless told otherwise',
  },
  {
    what: /^7348 §7 a pod cannot pose as a VTEP/,
    kernel: 'delivered',
    why: "the kernel alone does not mind; Calico's rules do",
  },
  {
    what: /^5508 REQ-5 from inside, about no mapping/,
    kernel: 'delivered',
    why: 'what conntrack calls invalid leaves untranslated (kubernetes#74839); ours never does',
  },
  {
    what: /^5508 REQ-8 no outside port is left/,
    kernel: 'nothing came out',
    why: 'the kernel drops it in silence',
  },
  {
    what: /^5508 REQ-10 a.3/,
    kernel: 'ICMP 0/0 to p1',
    why: 'here the kernel is the host port as well, and answers',
  },
  {
    what: /^5508 REQ-11/,
    kernel: 'delivered',
    why: 'what conntrack calls invalid leaves untranslated; ours never does',
  },
];

/** Timers that no test can wait for: what the kernel has them set to. File below /proc/sys/net, value, the rows it stands for. */
const TIMERS: [file: string, value: string, row: RegExp][] = [
  ['netfilter/nf_conntrack_udp_timeout', '30', /^4787 REQ-5 a mapping lives/],
  ['netfilter/nf_conntrack_udp_timeout_stream', '120', /^4787 REQ-5 the same for one with packets both ways/],
  ['netfilter/nf_conntrack_icmp_timeout', '30', /^5508 REQ-2/],
  ['netfilter/nf_conntrack_tcp_timeout_syn_sent', '120', /^5382 REQ-5 a half-open/],
  ['netfilter/nf_conntrack_tcp_timeout_last_ack', '30', /^5382 REQ-5 a closing/],
  ['netfilter/nf_conntrack_tcp_timeout_close', '10', /^7857 §2.2 .* established before/],
  ['ipv4/ipfrag_time', '30', /^1122 §3.3.2 an incomplete/],
  ['ipv4/route/min_pmtu', '552', /^1191 (§3 no message lowers|§5)/],
  ['ipv4/ip_local_port_range', '32768\t60999', /^7348 §5 the source port is a dynamic one/],
];

/** Rows that neither this kernel nor a test of seconds can confirm. */
const NOT_HERE: [row: RegExp, why: string][] = [
  [/^(8926|2003) |(geneve|ipip): /, 'this kernel is built without GENEVE and IPIP'],
  [/^6040 §4.2 combinations/, 'the kernel logs them; it has no counter'],
  [/^5508 REQ-8 the table/, "nf_conntrack_max is the whole machine's"],
];

const checks = CLAUSES.filter((clause): clause is Check => 'run' in clause);
const nameOf = (check: Check) => `${check.rfc} ${check.clause} ${check.requirement}`;

/** The kernel gives no reasons, and shows nothing of what it keeps for itself. */
function plain(seen: string): string {
  return seen.replace(/dropped: [\w-]+|sent to host/g, 'nothing came out').replace(/\bdrop\b/g, 'lost');
}

/** The checks that can be had of the kernel, each with what it sees of the datapath. */
function asked(): { check: Check; ours: string }[] {
  return checks.flatMap(check => {
    const bed = new AskingTestbed('linux');
    try {
      return [{ check, ours: check.run(bed) }];
    } catch (error) {
      if (error instanceof Unsupported) return [];
      throw error;
    }
  });
}

/** The datapath's own nodes, as far as the kernel could be the same. */
class AskingTestbed extends Testbed {
  override node(options: NodeOptions = {}): CheckNode {
    refuseUnsupported(options);
    const node = super.node(options);
    node.wait = () => {
      throw new Unsupported('its time is real');
    };
    node.event = () => {
      throw new Unsupported('it counts otherwise');
    };
    return node;
  }
}

describe("the conformance checks against this machine's kernel", function () {
  this.timeout(180_000);
  let rig: Rig;
  const confirmed = new Set<string>();
  const met = new Set<RegExp>();

  before(async () => {
    rig = new Rig('conf');
    await rig.namespace('sysctl');
    // On one processor the kernel handles packets strictly in the order in which they are sent, markers last.
    execFileSync('taskset', ['-cp', '0', `${process.pid}`], { stdio: 'ignore' });
  });
  after(async () => {
    execFileSync('taskset', ['-p', 'ffffffff', `${process.pid}`], { stdio: 'ignore' });
    await rig.close();
  });

  for (const { check, ours } of asked()) {
    it(nameOf(check), () => {
      const bed = new KernelTestbed(rig);
      let kernel: string;
      try {
        kernel = check.run(bed.asTestbed);
      } finally {
        bed.close();
      }
      const chosen = CHOSEN.find(({ what }) => what.test(nameOf(check)));
      if (chosen !== undefined) met.add(chosen.what);
      assert.equal(plain(kernel), chosen?.kernel ?? plain(ours), chosen?.why);
      confirmed.add(nameOf(check));
    });
  }

  it('7857 §2.2: a flow that a RST is the first answer to is gone at once', () => {
    const bed = new KernelTestbed(rig);
    try {
      const node = bed.node({ nat: true });
      const syn = tcp4({ src: POD, sport: 40_000, dst: SERVER, dport: 80, flags: 2, seq: 1000 });
      const refused = { src: SERVER, sport: 80, dst: NODE, dport: 40_000, flags: 0x14, seq: 0, ack: 1001 };
      const answers = () => node.exchange('wire', tcp4(refused)).filter(({ side }) => side === 'p1').length;
      assert.equal(node.exchange('p1', syn).length, 1);
      assert.deepEqual([answers(), answers()], [1, 0]);
    } finally {
      bed.close();
    }
    for (const check of checks) if (/refused by its server/.test(nameOf(check))) confirmed.add(nameOf(check));
  });

  for (const [file, value, row] of TIMERS) {
    it(`net/${file} is ${value}`, () => {
      const path = `/proc/sys/net/${file}`;
      const text = inNamespace(rig.full('sysctl'), () => readFileSync(path, 'utf8')).trim();
      assert.equal(text, value);
      for (const check of checks) if (row.test(nameOf(check))) confirmed.add(nameOf(check));
    });
  }

  it('has confirmed every row that says "as Linux", but for those that this kernel has no device for', () => {
    const asLinux = checks.filter(check => runClause(check, 'linux').result === 'as Linux').map(nameOf);
    const open = asLinux.filter(name => !confirmed.has(name) && !NOT_HERE.some(([row]) => row.test(name)));
    assert.deepEqual(open, []);
    assert.deepEqual(
      CHOSEN.filter(({ what }) => !met.has(what)).map(({ what }) => String(what)),
      [],
    );
    assert.ok(confirmed.size > 80, `${confirmed.size} rows`);
  });
});
