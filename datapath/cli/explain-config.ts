/** `tunpath explain-config [PATH]`: the reference of the configuration, as text, as a page and as a JSON Schema. */
import { CONFIG_KINDS, editorSchema, type Field, fieldsOf, type ReferenceKind } from '../control/reference.ts';
import { TOPOLOGY_REFERENCE } from '../lab/topology-texts.ts';
import { DONE, UsageError } from './exit.ts';
import { didYouMean } from './manners.ts';
import { print } from './output.ts';
import { wrapText } from './table.ts';

/** Every kind of file that people write. */
export const REFERENCE_KINDS: readonly ReferenceKind[] = [...CONFIG_KINDS, TOPOLOGY_REFERENCE];

export async function explainConfig(
  path: string,
  { recursive, format }: { recursive?: boolean; format: 'text' | 'markdown' | 'schema' },
): Promise<number> {
  if (format === 'markdown') await print(referencePage());
  else if (format === 'schema') await print(`${JSON.stringify(editorSchema(REFERENCE_KINDS), null, 2)}\n`);
  else await print(explain(path, recursive === true));
  return DONE;
}

/** @throws UsageError for a path that leads nowhere */
export function explain(text: string, recursive: boolean): string {
  const { kind, path } = splitKind(text);
  const all = fieldsOf(kind);
  const plain = (field: string) => field.replaceAll('[]', '');
  const field = path === '' ? undefined : all.find(candidate => plain(candidate.path) === plain(path));
  if (path !== '' && field === undefined) {
    const paths = all.map(candidate => plain(candidate.path));
    const parent = plain(path).replace(/\.?[^.]+$/, '');
    const inSpec = `spec.${plain(path)}`;
    const near = paths.includes(inSpec) ? ` (did you mean ${inSpec}?)` : didYouMean(plain(path), paths);
    const below = paths.filter(candidate => candidate.replace(/\.?[^.]+$/, '') === parent);
    throw new UsageError(
      `no field '${path}' in ${kind.kind}${near}${below.length > 0 ? `: ${parent || 'the document'} has ${below.map(lastOf).join(', ')}` : ''}`,
    );
  }
  const lines = [`KIND:     ${kind.kind}`];
  if (field !== undefined) {
    lines.push(`FIELD:    ${field.path}`, `TYPE:     ${field.type}`);
    lines.push(`DEFAULT:  ${field.default ?? (field.required ? 'none, it is required' : 'none')}`);
    if (field.only !== undefined) lines.push(`ONLY:     ${field.only}`);
    lines.push('', wrapText(field.text, '  '));
  }
  const prefix = field === undefined ? '' : `${field.path}${field.type.startsWith('list') ? '[]' : ''}.`;
  const below = all.filter(
    candidate =>
      candidate.path.startsWith(prefix) &&
      (recursive || !/[.]/.test(candidate.path.slice(prefix.length).replaceAll('[]', ''))),
  );
  if (below.length > 0) lines.push('', 'FIELDS:');
  for (const { path: own, type, required, text: meaning } of below) {
    const name = own.slice(prefix.length);
    const margin = '  '.repeat(name.split('.').length);
    lines.push(`${margin}${lastOf(name)}  <${type}>${required ? ' required' : ''}`, wrapText(meaning, `${margin}  `));
  }
  return `${lines.join('\n')}\n`;
}

function lastOf(path: string): string {
  return path.split('.').at(-1) as string;
}

/** `segment.spec.mtu` is of a Segment; without a kind it is of a NodeConfig. */
function splitKind(text: string): { kind: ReferenceKind; path: string } {
  const [first, ...rest] = text.split('.');
  const kind = REFERENCE_KINDS.find(candidate => candidate.kind.toLowerCase() === first!.toLowerCase());
  return kind === undefined ? { kind: REFERENCE_KINDS[0], path: text } : { kind, path: rest.join('.') };
}

/** docs/configuration.md */
export function referencePage(): string {
  const lines = [
    '# Configuration',
    '',
    'Made by `npm run docs` from the schema that also checks what is loaded. In a terminal: `tunpath explain-config spec.mtu`.',
    'Editors with a YAML language server check a file whose first line is',
    '`# yaml-language-server: $schema=PATH/docs/configuration.schema.json`; `tunpath host init`, `tunpath example` and `tunpath lab topology` write it.',
  ];
  for (const kind of REFERENCE_KINDS) {
    lines.push('', `## ${kind.kind}`, '', '| field | type | default | meaning |', '| --- | --- | --- | --- |');
    for (const field of fieldsOf(kind)) lines.push(rowOf(field));
  }
  return `${lines.join('\n')}\n`;
}

function rowOf({ path, type, default: value, required, only, text }: Field): string {
  const cell = (words: string) => words.replaceAll('|', '\\|');
  const initial = value === undefined ? (required ? 'required' : '') : `\`${value}\``;
  const where = only === undefined ? '' : ` Only ${only}.`;
  return `| \`${path}\` | ${cell(type)} | ${cell(initial)} | ${cell(text)}${where} |`;
}
