/** Rows that people know as lines of another tool: routes as `ip route` prints them, flows as `conntrack -L`. */
import type { FlowRow, TupleRow } from '../control/nat-rows.ts';

interface RouteRow {
  to: string;
  kind: string;
  via: string | null;
  device: string | null;
  mtu: number;
  tooBig: string;
  pod?: string;
}

/** Beyond this a route's MTU says nothing. */
const NO_MTU = 65535;

/** `10.244.2.0/24 via 192.168.10.2 dev vxlan mtu 1450`, and behind it what becomes of longer packets, unless their sender is told. */
export function formatRoute(row: RouteRow): string {
  const mtu = row.mtu < NO_MTU ? ` mtu ${row.mtu}` : '';
  const tooBig = row.tooBig === 'signal' ? '' : ` # too big: ${row.tooBig}`;
  switch (row.kind) {
    case 'refuse':
      return `unreachable ${row.to}`;
    case 'host':
      if (row.via !== null) return `${row.to} via ${row.via} dev ${row.device}`;
      return `local ${row.to}${row.device === null ? '' : ` dev ${row.device}`}`;
    case 'pod':
      return `${row.to} dev ${row.device} scope link${mtu} # ${row.pod}`;
    case 'onlink':
      return `${row.to} dev ${row.device} scope link${mtu}`;
    default:
      return `${row.to} via ${row.via} dev ${row.device}${mtu}${tooBig}`;
  }
}

/** The columns of `conntrack -L`. */
export function formatConntrack(row: FlowRow): string {
  const parts = [`${row.protocol.padEnd(8)} ${row.number} ${row.timeout}`];
  if (row.state !== null) parts.push(row.state);
  parts.push(formatTuple(row.original, row.number));
  if (row.unreplied) parts.push('[UNREPLIED]');
  parts.push(formatTuple(row.reply, row.number));
  if (row.assured) parts.push('[ASSURED]');
  parts.push('mark=0 use=1');
  return parts.join(' ');
}

const PORTED = new Set([6, 17, 132]);

function formatTuple(tuple: TupleRow, protocol: number): string {
  const addresses = `src=${tuple.src} dst=${tuple.dst}`;
  if (tuple.id !== undefined) return `${addresses} type=${tuple.type} code=0 id=${tuple.id}`;
  return PORTED.has(protocol) ? `${addresses} sport=${tuple.sport} dport=${tuple.dport}` : addresses;
}
