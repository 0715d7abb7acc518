/** Rows of `get conntrack` of a running node in the table of the node in memory that stands for it. */
import type { FlowRow, TupleRow } from '../control/nat-rows.ts';
import { adoptFlow } from '../nat/adopt.ts';
import { ip } from '../packet/build.ts';
import type { World } from './world.ts';

/** @returns how many have been copied: there may be no table here, or no room */
export function copyFlows(world: World, node: string, rows: readonly FlowRow[]): number {
  const { datapath } = world.nodes.get(node)!;
  const { flows, nat, policies, now } = datapath;
  if (flows === null) return 0;
  let copied = 0;
  for (const row of rows) {
    const isAllowed = row.policy !== null && row.policy.egress !== 'denied' && row.policy.ingress !== 'denied';
    const adopted = adoptFlow(
      flows,
      nat?.translation ?? null,
      {
        protocol: row.number,
        state: row.state ?? '',
        original: tupleOf(row.original),
        reply: tupleOf(row.reply),
        seenReply: !row.unreplied,
        assured: row.assured,
        snat: row.snat,
        dnat: row.dnat,
        rule: row.rule,
        expires: row.timeout,
      },
      isAllowed ? (policies?.epoch ?? 0) : 0,
      now,
    );
    if (adopted) copied++;
  }
  return copied;
}

function tupleOf({ src, dst, sport, dport, id, type }: TupleRow) {
  return { src: ip(src), dst: ip(dst), sport: sport ?? id ?? 0, dport: dport ?? type ?? 0 };
}
