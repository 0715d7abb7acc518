/**
 * What running nodes count, in the text format of Prometheus. A scrape asks every node over its control socket, so the
 * loops do nothing for it but read what they count anyway.
 *
 * Names end as Prometheus wants them: `_total` for what only grows, base units (bytes, seconds) elsewhere.
 */
import { Counter, Gauge, Registry } from 'prom-client';
import { ROUND_BOUNDS_US, type RoundRow } from '../drive/rounds.ts';

/** What one node answers to status and get; fields that are not used here are left out. */
export interface NodeSnapshot {
  status: {
    node: string;
    profile: string;
    uptimeSeconds: number;
    tables: { table: string; used: number; size: number }[];
    rounds: RoundRow[];
  };
  counters: { name: string; packets: number; bytes?: number }[];
  ports: {
    name: string;
    kind: string;
    rxPackets: number;
    rxBytes: number;
    rxDropped: number;
    txPackets: number;
    txBytes: number;
    txDropped: number;
  }[];
  nat: { address: string; protocol: string; destination: string; port: number; used: number; free: number }[];
}

export const CONTENT_TYPE = Registry.PROMETHEUS_CONTENT_TYPE;

const PORT_METRICS = [
  [
    'tunpath_port_receive_packets_total',
    'Packets that came in by the port, segments of superpackets counted.',
    'rxPackets',
  ],
  ['tunpath_port_receive_bytes_total', 'Bytes of those packets, as they would be on a wire.', 'rxBytes'],
  [
    'tunpath_port_receive_dropped_total',
    'Packets from the port that were dropped; the reason is in tunpath_drops_total.',
    'rxDropped',
  ],
  ['tunpath_port_transmit_packets_total', 'Packets that went out by the port.', 'txPackets'],
  ['tunpath_port_transmit_bytes_total', 'Bytes of those packets.', 'txBytes'],
  ['tunpath_port_transmit_dropped_total', 'Packets that the device of the port did not take.', 'txDropped'],
] as const;

/** The metrics page of these nodes. `unreachable` are those that did not answer. */
export async function metricsText(
  nodes: readonly NodeSnapshot[],
  unreachable: readonly string[] = [],
): Promise<string> {
  const registry = new Registry();
  const counter = <L extends string>(name: string, help: string, labelNames: L[]) =>
    new Counter({ name, help, labelNames, registers: [registry] });
  const gauge = <L extends string>(name: string, help: string, labelNames: L[]) =>
    new Gauge({ name, help, labelNames, registers: [registry] });

  const up = gauge('tunpath_node_up', '1 if the node answered this scrape.', ['node']);
  const info = gauge('tunpath_node_info', 'Always 1; the labels say how the node runs.', ['node', 'profile']);
  const uptime = gauge('tunpath_node_uptime_seconds', 'Since the node was started.', ['node']);
  const drops = counter('tunpath_drops_total', 'Packets that were dropped, by reason (docs/drops.md).', [
    'node',
    'reason',
  ]);
  const bytes = counter('tunpath_dropped_bytes_total', 'Bytes of the packets that were dropped.', ['node', 'reason']);
  const events = counter('tunpath_events_total', 'What happened to packets besides: encapsulated, fragmented...', [
    'node',
    'event',
  ]);
  const entries = gauge('tunpath_table_entries', 'Entries in a table of the node.', ['node', 'table']);
  const capacity = gauge('tunpath_table_capacity', 'Entries that the table holds at most.', ['node', 'table']);
  const natLabels = ['node', 'address', 'protocol', 'destination', 'port'];
  const natUsed = gauge('tunpath_nat_ports_used', 'Source ports in use towards one destination.', natLabels);
  const natFree = gauge('tunpath_nat_ports_free', 'Source ports left towards one destination.', natLabels);
  const ports = PORT_METRICS.map(([name, help, field]) => ({
    field,
    metric: counter(name, help, ['node', 'port', 'kind']),
  }));

  for (const node of unreachable) up.set({ node }, 0);
  for (const snapshot of nodes) {
    const { node, profile, uptimeSeconds, tables } = snapshot.status;
    up.set({ node }, 1);
    info.set({ node, profile }, 1);
    uptime.set({ node }, uptimeSeconds);
    for (const row of snapshot.counters) {
      if (row.bytes === undefined) events.inc({ node, event: row.name }, row.packets);
      else {
        const reason = row.name.replace(/^drop-/, '');
        drops.inc({ node, reason }, row.packets);
        bytes.inc({ node, reason }, row.bytes);
      }
    }
    for (const { name, kind, ...counts } of snapshot.ports) {
      for (const { field, metric } of ports) metric.inc({ node, port: name, kind }, counts[field]);
    }
    for (const { table, used, size } of tables) {
      entries.set({ node, table }, used);
      capacity.set({ node, table }, size);
    }
    for (const { address, protocol, destination, port, used, free } of snapshot.nat) {
      const labels = { node, address, protocol, destination, port: String(port) };
      natUsed.set(labels, used);
      natFree.set(labels, free);
    }
  }
  return `${await registry.metrics()}\n${roundsText(nodes)}`;
}

const ROUNDS = 'tunpath_loop_round_seconds';

/** The loop has counted already, and prom-client's histograms count by themselves alone. */
function roundsText(nodes: readonly NodeSnapshot[]): string {
  const lines = [
    `# HELP ${ROUNDS} How long the loop took for the packets that were there: so long others wait.`,
    `# TYPE ${ROUNDS} histogram`,
  ];
  for (const { status } of nodes) {
    const { node, rounds } = status;
    const sum = (of: (row: RoundRow) => number, most = Number.POSITIVE_INFINITY) =>
      rounds.reduce((total, row) => total + ((row.upToUs ?? Number.POSITIVE_INFINITY) <= most ? of(row) : 0), 0);
    for (const bound of ROUND_BOUNDS_US) {
      lines.push(`${ROUNDS}_bucket{node="${node}",le="${bound / 1e6}"} ${sum(row => row.rounds, bound)}`);
    }
    const count = sum(row => row.rounds);
    lines.push(
      `${ROUNDS}_bucket{node="${node}",le="+Inf"} ${count}`,
      `${ROUNDS}_sum{node="${node}"} ${sum(row => row.seconds)}`,
      `${ROUNDS}_count{node="${node}"} ${count}`,
    );
  }
  return `${lines.join('\n')}\n`;
}
