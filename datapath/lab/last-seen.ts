/** Where packets were seen last, by the counters of the nodes before and after. */

/** Counters of one node at one time. */
export interface Sample {
  /** Rows of `get ports`. */
  ports: { name: string; kind: string; rxPackets: number; txPackets: number }[];
  /** Rows of `get counters`. */
  counters: { name: string; packets: number }[];
}

/** Names of what is on the way: the pods' ports at both ends. */
export interface Way {
  from: { node: string; pod: string };
  to: { node: string; pod: string };
}

/** A share of a burst that must have been counted somewhere for it to have been there. */
const SHARE = 0.75;

/**
 * @param before,after  by node
 * @param sent packets between the two
 */
export function findLastSeen(before: Map<string, Sample>, after: Map<string, Sample>, way: Way, sent: number): string {
  const { from, to } = way;
  const enough = (packets: number) => packets >= sent * SHARE;
  const port = (node: string, counter: 'rxPackets' | 'txPackets', is: (row: Sample['ports'][number]) => boolean) => {
    const count = (sample: Sample | undefined) => sample?.ports.find(is)?.[counter] ?? 0;
    return enough(count(after.get(node)) - count(before.get(node)));
  };
  const isPod = (name: string) => (row: Sample['ports'][number]) => row.kind === 'pod' && row.name === name;
  const isUplink = (row: Sample['ports'][number]) => row.kind === 'uplink';

  if (!port(from.node, 'rxPackets', isPod(from.pod))) return `never came from ${from.pod}: its own kernel kept them`;
  const dropped = (node: string) => {
    const reason = dropReason(before.get(node), after.get(node), enough);
    return reason === null ? '' : `: ${reason}`;
  };
  if (port(to.node, 'txPackets', isPod(to.pod)))
    return `given to ${to.pod} by ${to.node}: lost behind that, or the answers were`;
  if (from.node === to.node) return `lost in ${from.node}${dropped(from.node)}`;
  if (port(to.node, 'rxPackets', isUplink)) return `came in at ${to.node} and went no further${dropped(to.node)}`;
  if (port(from.node, 'txPackets', isUplink))
    return `left ${from.node}, never came to ${to.node}: lost on the underlay between them`;
  return `lost in ${from.node}${dropped(from.node)}`;
}

/** The drop reason that has counted enough; null if none has. */
function dropReason(
  before: Sample | undefined,
  after: Sample | undefined,
  enough: (packets: number) => boolean,
): string | null {
  const was = new Map(before?.counters.map(({ name, packets }) => [name, packets]));
  const reasons = after?.counters.filter(
    ({ name, packets }) => name.startsWith('drop-') && enough(packets - (was.get(name) ?? 0)),
  );
  return reasons?.[0]?.name ?? null;
}
