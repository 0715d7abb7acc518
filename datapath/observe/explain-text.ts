/** What explain has found out, for people: the steps one below the other, and several configurations side by side. */
import { STEP_NAMES, STEP_REWRITE, STEP_TUNNEL } from '../path/watcher.ts';
import { VERDICT_NAMES } from '../verdict.ts';
import type { Explained, Outcome } from './explain.ts';
import { type Change, type HeaderOptions, headersOf, type Moment } from './headers.ts';
import { pageOf, REASONS } from './reasons.ts';
import type { Sent, Step, Visit } from './world.ts';

const NAME_WIDTH = 17;
const INDENT = ' '.repeat(NAME_WIDTH + 7);

/** The whole trip. @param title of its first line */
export function explainText(found: Explained, title: string, options: HeaderOptions = {}): string {
  const lines = [`${title}: ${packetLine(found.visits[0]?.came, options)}`];
  for (const visit of found.visits) lines.push('', ...visitLines(visit, options));
  lines.push('', ...endLines(found));
  return `${lines.join('\n')}\n`;
}

/** Lines of one trip's text that the text of another does not have. */
export function differentLines(text: string, other: string): string {
  const known = new Set(other.split('\n'));
  return text
    .split('\n')
    .filter(line => !known.has(line))
    .map(line => `${line}\n`)
    .join('');
}

/** `10.244.1.10 > 10.96.0.10, ttl 64, DF, 44 bytes; tcp 40000 > 80, SYN` */
export function packetLine(moment: Moment | undefined, options: HeaderOptions): string {
  if (moment === undefined) return 'it did not enter';
  const headers = headersOf(moment.bytes, moment.layer, options).filter(({ name }) => name !== 'ethernet');
  if (headers.length === 0) return `${moment.bytes.length} bytes, no IPv4`;
  return headers.map(({ name, text }) => (name === 'ipv4' ? text : `${name} ${text}`)).join('; ');
}

function visitLines({ node, port, isOwn, steps, sent, dropped, came }: Visit, options: HeaderOptions): string[] {
  const what = isOwn ? `, what a node says about it: ${packetLine(came, options)}` : '';
  const lines = [`node ${node}, in by ${port}${what}`];
  for (const step of steps) {
    if (step.isOwn && !isOwn) continue;
    lines.push(`  ${numberOf(step)}  ${STEP_NAMES[step.number].padEnd(NAME_WIDTH)} ${resultText(step)}`.trimEnd());
    lines.push(...step.changes.map(change => `${INDENT}${changeText(change)}`));
  }
  for (const one of sent) {
    const own = one.isOwn && !isOwn ? ' the node says' : '';
    lines.push(`  out by ${one.port}, ${one.bytes.length} bytes:${own} ${packetLine(one, options)}`);
    lines.push(...one.changes.map(change => `${INDENT}${changeText(change)}`));
  }
  for (const { reason } of dropped.filter(drop => !drop.isOwn || isOwn)) lines.push(`  dropped: ${reason}`);
  return lines;
}

/** Of the list in forward.ts; those that it has no number for have none here. */
function numberOf({ number }: Step): string {
  return (number === STEP_TUNNEL || number === STEP_REWRITE ? '' : String(number)).padStart(2);
}

function resultText({ result, used }: Step): string {
  const mark = result === 'go-on' ? '' : `${result.toUpperCase()} `;
  return `${mark.startsWith('DROP-') ? `${result} ` : mark}${used}`;
}

function changeText({ what, before, after, beforeHex, afterHex, at }: Change): string {
  if (what === 'put in front') return `+ ${after}`;
  if (what === 'taken off') return `- ${before}`;
  return `@${at} ${what} ${before} -> ${after} [${beforeHex} -> ${afterHex}]`;
}

const SENTENCES: Readonly<Record<Outcome, string>> = {
  delivered: 'delivered to',
  left: 'left by',
  answered: 'answered by the node itself, at',
  consumed: 'taken by the node itself, at',
  held: 'held for the rest of its datagram, at',
  refused: 'refused: came by',
  lost: 'lost on the wire',
};

function endLines({ outcome, at, reasons, arrivals }: Explained): string[] {
  const where = at === null ? '' : ` ${at.port} of node ${at.node}`;
  const pieces = arrivals.filter(({ isOwn }) => !isOwn);
  const count = pieces.length > 1 ? `, in ${pieces.length} pieces` : '';
  const lines = [`${SENTENCES[outcome]}${where}${count}`];
  for (const reason of reasons) lines.push(...reasonLines(reason));
  return lines;
}

/** The reason with its number, what it means, and where that is documented. */
function reasonLines(reason: string): string[] {
  const { meaning, cause, look } = REASONS[reason];
  return [
    `  ${reason} (${VERDICT_NAMES.indexOf(reason)}): ${meaning}`,
    `  usual cause: ${cause}`,
    `  look at: ${look}`,
    `  ${pageOf(reason)}`,
  ];
}

/** One configuration among several, in a row. */
export interface Variant {
  name: string;
  outcome: Outcome;
  reasons: string[];
  /** Outcome of the answer; null where none was asked for, or there is nothing to answer. */
  answer: Outcome | null;
  /** Header names of what first left by an uplink, outermost first; '' where nothing did. */
  wire: string;
  /** Bytes of each packet that left by the first uplink, without Ethernet. */
  bytes: number[];
  /** Nodes in order, and where it ended. */
  path: string;
}

export function variantOf(name: string, found: Explained, answer: Explained | null, options: HeaderOptions): Variant {
  const own = found.visits.filter(({ isOwn }) => !isOwn);
  const sent = own.map(visit => uplinkSent(visit)).find(list => list.length > 0) ?? [];
  const headers = sent.length === 0 ? [] : headersOf(sent[0].bytes, sent[0].layer, options);
  return {
    name,
    outcome: found.outcome,
    reasons: found.reasons,
    answer: answer?.outcome ?? null,
    wire: headers
      .map(one => one.name)
      .slice(1)
      .join(' '),
    bytes: sent.map(({ bytes, layer }) => bytes.length - (layer === 2 ? ETHERNET : 0)),
    path: [...own.map(({ node }) => node), found.at?.port ?? ''].join(' '),
  };
}

const ETHERNET = 14;

function uplinkSent({ sent }: Visit): Sent[] {
  return sent.filter(({ port, isOwn, layer }) => port === 'uplink' && layer === 2 && !isOwn);
}
