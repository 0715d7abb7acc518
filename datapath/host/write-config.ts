/** A plan as text: a NodeConfig in YAML with the reasons as comments. Pure. */
import { stringify } from 'yaml';
import { API_VERSION, KIND } from '../control/config.ts';
import type { Plan } from './plan.ts';

/** Columns of a comment. */
const WIDTH = 110;

export function writeConfig(plan: Plan): string {
  const { uplink, host, pods, tunnel, routes, masquerade } = plan;
  const parts: [string, { value: unknown; why: string[] } | null][] = [
    ['uplink', uplink],
    ['host', host],
    ['pods', pods],
    ['tunnel', tunnel],
    ['routes', routes],
    ['masquerade', masquerade],
  ];
  const lines = [
    ...comment(
      ['Written by `tunpath host init`, from what it found here:', ...plan.findings.map(line => `- ${line}`)],
      '',
    ),
    stringify({ apiVersion: API_VERSION, kind: KIND, metadata: { name: plan.name } }).trimEnd(),
    'spec:',
  ];
  for (const [name, part] of parts) {
    if (part === null) continue;
    lines.push(...comment(part.why, '  '), indent(inFlow({ [name]: part.value })));
  }
  return `${lines.join('\n')}\n`;
}

/** Maps on one line inside lists and for short parts, as the README writes them. */
function inFlow(value: object): string {
  const [[name, part]] = Object.entries(value);
  if (Array.isArray(part)) {
    if (part.length === 0) return `${name}: []`;
    return [`${name}:`, ...part.map(item => `  - ${flow(item)}`)].join('\n');
  }
  return `${name}: ${flow(part)}`;
}

function flow(value: unknown): string {
  // Padded braces and bare brackets, as everywhere here; no text in a plan has either.
  const text = stringify(value, { collectionStyle: 'flow', lineWidth: 0 }).trimEnd();
  return text.replaceAll('[ ', '[').replaceAll(' ]', ']');
}

function indent(text: string): string {
  return text
    .split('\n')
    .map(line => `  ${line}`)
    .join('\n');
}

function comment(texts: readonly string[], margin: string): string[] {
  return texts.flatMap(text => wrap(text).map(line => `${margin}# ${line}`.trimEnd()));
}

/** Breaks between words; what follows the first line is set in by two where the text is an item of a list. */
function wrap(text: string): string[] {
  const hang = /^ *- /.test(text) ? '  ' : '';
  const lines: string[] = [];
  let line = '';
  // What is set in is an example, to be copied as it is.
  if (text.startsWith('  ')) return [text];
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > WIDTH) {
      lines.push(line);
      line = hang + word;
    } else line = line === '' ? word : `${line} ${word}`;
  }
  return [...lines, line];
}
