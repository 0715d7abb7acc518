/**
 * What do many policies cost a packet? The path of a node over memory, with one policy and with many, in turn: packets of
 * flows that are known, and packets that begin one, which are judged.
 *
 *   node dist/bench/policy.js [POLICIES] [-o json]      default 1000
 */
import { formatGrid } from '../datapath/cli/table.ts';
import { formatAddress } from '../datapath/control/address.ts';
import { policy as policySchema } from '../datapath/control/policy-config.ts';
import type { PolicyProgram } from '../datapath/policy/policies.ts';
import { compilePolicy } from '../datapath/program/compile-policy.ts';
import { SYN } from '../datapath/wire/tcp.ts';
import { environment } from './environment.ts';
import { isMainModule } from './main-module.ts';
import { NODE, PODS, World } from './nat-scale/world.ts';
import { type Summary, summarize } from './stats.ts';

const DEFAULT_POLICIES = 1000;
const PAIRS = 15;
const BURST = 64;
const ROUND_PACKETS = 400_000;
/** Flows that are remembered: fewer than are begun in a round, so that the table is as full on both sides. */
const FLOWS = 16_384;
const DESTINATION = 0x0b000001;
const PORT = 443;

/**
 * Policies that each let one pod out to a block and a range of ports of its own; the last of each pod lets it out to where the
 * packets go.
 */
export function manyPolicies(count: number): PolicyProgram {
  const pods = PODS.map((address, i) => ({
    name: `default/p${i}`,
    address: formatAddress(address),
    labels: { app: `p${i}` },
    ports: [],
  }));
  const policies = Array.from({ length: count }, (_, n) => {
    const isLast = n >= count - pods.length;
    const to = isLast ? `${formatAddress(DESTINATION)}/32` : `198.${18 + (n >> 8)}.${n & 255}.0/24`;
    return policySchema.parse({
      name: `n${`${n}`.padStart(6, '0')}`,
      namespace: 'default',
      // A single one is about all pods.
      podSelector: count === 1 ? {} : { matchLabels: { app: `p${n % pods.length}` } },
      policyTypes: ['Egress'],
      egress: [
        { to: [{ ipBlock: { cidr: to } }], ports: [isLast ? { port: PORT } : { port: 1000 + n, endPort: 2000 + n }] },
      ],
    });
  });
  return compilePolicy({ policies, namespaces: [], pods, remotePods: [], own: [NODE] })!;
}

/** A node that sends; `fresh`: every packet begins a flow. */
export class Sender {
  sent = 0;
  written = 0;
  private readonly world: World;

  constructor(policy: PolicyProgram) {
    this.world = new World({ capacity: FLOWS, policy });
    this.world.outside.written = () => {
      this.written++;
    };
  }

  send(packets: number, fresh: boolean): void {
    const { inside } = this.world;
    let left = 0;
    inside.next = segment => {
      if (left-- <= 0) return false;
      const n = this.sent++;
      segment.src = PODS[n % PODS.length];
      segment.dst = DESTINATION;
      // The same source port comes again long after its flow has made room for others.
      segment.sport = fresh ? 1024 + (Math.floor(n / PODS.length) % 60_000) : 1000;
      segment.dport = PORT;
      segment.seq = 1;
      segment.ack = 0;
      // Sent again, it is of the flow that it has begun; nobody answers here.
      segment.flags = SYN;
      return true;
    };
    for (let done = 0; done < packets; done += BURST) {
      left = BURST;
      this.world.work();
    }
  }

  drops(): Map<string, number> {
    return this.world.drops();
  }
}

/** ns of CPU time a packet. */
function timed(sender: Sender, fresh: boolean): number {
  const start = process.cpuUsage();
  sender.send(ROUND_PACKETS, fresh);
  const { user, system } = process.cpuUsage(start);
  return ((user + system) * 1000) / ROUND_PACKETS;
}

interface Result {
  what: string;
  one: Summary;
  many: Summary;
  ratio: Summary;
}

function measure(count: number, fresh: boolean): Result {
  const senders = [new Sender(manyPolicies(1)), new Sender(manyPolicies(count))] as const;
  for (const sender of senders) timed(sender, fresh);
  const samples: [number, number][] = [];
  for (let i = 0; i < PAIRS; i++) {
    // One, many, many, one: what slows the machine for a while slows both.
    const order = i % 2 === 0 ? [0, 1] : [1, 0];
    const pair: [number, number] = [0, 0];
    for (const side of order) pair[side] = timed(senders[side]!, fresh);
    samples.push(pair);
  }
  for (const { sent, written } of senders) if (sent !== written) throw new Error(`${sent - written} packets missing`);
  return {
    what: fresh ? 'a packet that begins a flow' : 'a packet of a known flow',
    one: summarize(samples.map(([one]) => one)),
    many: summarize(samples.map(([, many]) => many)),
    ratio: summarize(samples.map(([one, many]) => many / one)),
  };
}

function main(): void {
  const words = process.argv.slice(2);
  const count = Number(words.find(word => /^\d+$/.test(word)) ?? DEFAULT_POLICIES);
  const results = [measure(count, false), measure(count, true)];
  const env = environment();
  if (words.includes('json')) {
    process.stdout.write(`${JSON.stringify({ environment: env, policies: count, results }, null, 2)}\n`);
    return;
  }
  const rows = results.map(({ what, one, many, ratio }) => [
    what,
    one.median.toFixed(0),
    many.median.toFixed(0),
    ratio.median.toFixed(3),
    `${ratio.ci95[0].toFixed(3)}-${ratio.ci95[1].toFixed(3)}`,
  ]);
  const head = ['WHAT', 'NS, 1 POLICY', `NS, ${count}`, 'RATIO', 'CI95'];
  process.stdout.write(`${formatGrid(head, rows)}${env.cpu}, ${env.cores} cores, node ${env.node}\n`);
}

if (isMainModule(import.meta.url)) main();
