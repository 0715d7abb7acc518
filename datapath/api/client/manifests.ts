/** Kubernetes objects as people write them down: files of several documents, and lists. Pure. */
import { LineCounter } from 'yaml';
import { parseDocuments, TooDeepError } from '../../control/parse-yaml.ts';
import { isMap, type Json, type KubeObject } from '../object.ts';

export interface Manifest {
  object: KubeObject;
  /** FILE:LINE, for messages. */
  place: string;
}

export interface Manifests {
  found: Manifest[];
  /** What is wrong, a line each. */
  problems: string[];
}

/** What a template has where its values should be: Helm's, and the shell's. */
const TEMPLATE = /\{\{.*?\}\}|\$\{\w+\}/;

export function readManifests(text: string, file: string): Manifests {
  const found: Manifest[] = [];
  const problems: string[] = [];
  const lines = new LineCounter();
  let documents: ReturnType<typeof parseDocuments>;
  try {
    documents = parseDocuments(text, { logLevel: 'error' }, lines);
  } catch (error) {
    if (!(error instanceof TooDeepError)) throw error;
    return { found, problems: [`${file}:1: ${error.message}`] };
  }
  for (const document of documents) {
    const lineOf = (offset: number): number => lines.linePos(offset).line;
    if (document.errors.length > 0) {
      const { message, pos } = document.errors[0]!;
      const line = lineOf(pos[0]);
      // A template may be YAML for some lines before it is none.
      const start = text.split('\n').findLastIndex((row, at) => at < line && row.startsWith('---')) + 2;
      problems.push(templateAt(text, file, start) ?? `${file}:${line}: ${message}`);
      continue;
    }
    const value: Json = document.toJS();
    if (value === null || value === undefined) continue;
    const line = lineOf(document.contents?.range?.[0] ?? 0);
    for (const object of itemsOf(value)) {
      const problem = faultOf(object);
      const template = problem === undefined ? undefined : templateAt(text, file, line);
      if (problem === undefined) found.push({ object, place: `${file}:${line}` });
      else problems.push(template ?? `${file}:${line}: ${problem}`);
    }
  }
  return { found, problems };
}

/** A List is the objects in it. */
function itemsOf(value: Json): Json[] {
  return isMap(value) && typeof value.kind === 'string' && value.kind.endsWith('List') && Array.isArray(value.items)
    ? value.items.flatMap(itemsOf)
    : [value];
}

function faultOf(object: Json): string | undefined {
  if (!isMap(object)) return `got ${JSON.stringify(object)?.slice(0, 40)}, expected an object`;
  for (const field of ['apiVersion', 'kind']) {
    if (typeof object[field] !== 'string' || object[field] === '')
      return `${field}: got ${JSON.stringify(object[field])}, expected a text`;
    if (TEMPLATE.test(object[field])) return `${field}: got a template`;
  }
  const name = object.metadata?.name;
  if (typeof name !== 'string' || name === '') return `metadata.name: got ${JSON.stringify(name)}, expected a name`;
  const { namespace } = object.metadata;
  return TEMPLATE.test(`${name} ${namespace}`) ? 'metadata: got a template' : undefined;
}

/** Names a template that has not been rendered, at a line or after it in the same document. */
function templateAt(text: string, file: string, line: number): string | undefined {
  const rows = text.split('\n');
  for (let at = Math.max(0, line - 1); at < rows.length; at++) {
    if (at >= line && rows[at]!.startsWith('---')) return undefined;
    const found = TEMPLATE.exec(rows[at]!)?.[0];
    if (found === undefined) continue;
    const how = found.startsWith('{{') ? 'helm template' : 'envsubst';
    return `${file}:${at + 1}: got an unrendered template ${found}, expected YAML: ${how} makes it`;
  }
  return undefined;
}
