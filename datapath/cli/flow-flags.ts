/** Which flows `tunpath get conntrack` shows. Apart from get.ts, which starts sooner without what reads addresses. */
import { networkTest } from '../control/address.ts';
import { type FlowRow, PROTOCOL_NAMES } from '../control/nat-rows.ts';
import { STATE_NAMES } from '../flow/timeouts.ts';
import { UsageError } from './exit.ts';
import { didYouMean } from './manners.ts';
import type { Row } from './select.ts';

/** Options of `get conntrack`, named as those of conntrack(8). */
export interface FlowFlags {
  src?: string;
  dst?: string;
  replySrc?: string;
  replyDst?: string;
  proto?: string;
  sport?: string;
  dport?: string;
  replyPortSrc?: string;
  replyPortDst?: string;
  state?: string;
  status?: string;
  srcNat?: string | true;
  dstNat?: string | true;
}

/** @returns whether a flow is one of those that the flags mean. @throws UsageError for a flag that is wrong */
export function flowFilter(flags: FlowFlags): (row: Row) => boolean {
  const tests: ((flow: FlowRow) => boolean)[] = [];
  const address = (text: string | undefined, option: string, of: (flow: FlowRow) => string) => {
    if (text === undefined) return;
    const isIn = inNetwork(text, option);
    tests.push(flow => isIn(of(flow)));
  };
  const port = (text: string | undefined, option: string, of: (flow: FlowRow) => number | undefined) => {
    if (text === undefined) return;
    const number = Number(text);
    if (!Number.isInteger(number) || number < 0 || number > 65535) {
      throw new UsageError(`${option} ${text}: expected a port from 0 to 65535`);
    }
    tests.push(flow => of(flow) === number);
  };
  address(flags.src, '--src', ({ original }) => original.src);
  address(flags.dst, '--dst', ({ original }) => original.dst);
  address(flags.replySrc, '--reply-src', ({ reply }) => reply.src);
  address(flags.replyDst, '--reply-dst', ({ reply }) => reply.dst);
  port(flags.sport, '--sport', ({ original }) => original.sport);
  port(flags.dport, '--dport', ({ original }) => original.dport);
  port(flags.replyPortSrc, '--reply-port-src', ({ reply }) => reply.sport);
  port(flags.replyPortDst, '--reply-port-dst', ({ reply }) => reply.dport);
  const { proto, state, status, srcNat, dstNat } = flags;
  if (proto !== undefined) {
    const wanted = proto.toLowerCase();
    const names = [...PROTOCOL_NAMES.values()];
    if (!names.includes(wanted) && !(/^\d+$/.test(wanted) && Number(wanted) < 256)) {
      throw new UsageError(`--proto ${proto}: expected one of ${names.join(', ')}, or a number up to 255`);
    }
    tests.push(({ protocol, number }) => protocol === wanted || String(number) === wanted);
  }
  if (state !== undefined) {
    const wanted = state.toUpperCase();
    if (wanted === '' || !STATE_NAMES.includes(wanted)) {
      const names = [...new Set(STATE_NAMES)].filter(name => name !== '' && name !== 'NONE');
      throw new UsageError(`--state ${state}${didYouMean(wanted, names)}: expected one of ${names.join(', ')}`);
    }
    tests.push(flow => flow.state === wanted);
  }
  for (const word of status?.toUpperCase().split(',') ?? []) tests.push(statusTest(word));
  // As conntrack(8): the address that a flow got, where one is given.
  if (srcNat !== undefined) tests.push(({ snat }) => snat);
  if (typeof srcNat === 'string') address(srcNat, '--src-nat', ({ reply }) => reply.dst);
  if (dstNat !== undefined) tests.push(({ dnat }) => dnat);
  if (typeof dstNat === 'string') address(dstNat, '--dst-nat', ({ reply }) => reply.src);
  return row => tests.every(test => test(row as unknown as FlowRow));
}

const STATUSES: Record<string, (flow: FlowRow) => boolean> = {
  ASSURED: ({ assured }) => assured,
  SEEN_REPLY: ({ unreplied }) => !unreplied,
  UNREPLIED: ({ unreplied }) => unreplied,
  SRC_NAT: ({ snat }) => snat,
  DST_NAT: ({ dnat }) => dnat,
};

function statusTest(word: string): (flow: FlowRow) => boolean {
  if (!Object.hasOwn(STATUSES, word)) {
    throw new UsageError(`--status ${word}: expected one of ${Object.keys(STATUSES).join(', ')}`);
  }
  return STATUSES[word];
}

function inNetwork(text: string, option: string): (address: string) => boolean {
  const isIn = networkTest(text);
  if (isIn === undefined)
    throw new UsageError(`${option} ${text}: expected an address or a network such as 10.0.0.0/8`);
  return isIn;
}
