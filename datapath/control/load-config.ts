/**
 * From the text of a configuration file to a checked configuration, or to everything that is wrong with it, each
 * problem with the line and column it stands at. Touches nothing: no file, no device.
 */
import { type Document, isAlias, isMap, isNode, isScalar, isSeq, visit } from 'yaml';
import type { z } from 'zod';
import { checkSpec } from './check-config.ts';
import { type Draft, formatPath, type Path } from './check-draft.ts';
import {
  API_VERSION,
  completeConfig,
  KIND,
  type NodeConfig,
  type WrittenConfig,
  writtenConfig,
  writtenForm,
} from './config.ts';
import { nearest } from './nearest.ts';
import { faultWords, parseDocuments, TooDeepError } from './parse-yaml.ts';
import { SEGMENT_KIND, type SegmentConfig, segmentConfig } from './segment-config.ts';
import { UNDERLAY_KIND, type UnderlayConfig, underlayConfig } from './underlay.ts';

export interface Problem {
  file: string;
  line: number; // from 1
  column: number; // from 1
  path: string; // "spec.pods[0].address"; empty for the document as a whole
  message: string; // "got X, expected Y"
}

export type LoadResult =
  | { config: NodeConfig; segments: SegmentConfig[]; warnings: Problem[]; problems?: undefined }
  | { config?: undefined; segments?: undefined; warnings?: undefined; problems: Problem[] };

/** One "FILE:LINE:COLUMN: PATH: got X, expected Y" per line, without a last line feed. */
export function formatProblems(problems: readonly Problem[]): string {
  return problems
    .map(({ file, line, column, path, message }) => {
      return `${file}:${line}:${column}: ${path === '' ? '' : `${path}: `}${message}`;
    })
    .join('\n');
}

/**
 * Reads one NodeConfig from YAML (1.2, anchors and merge keys allowed).
 * @param text the whole file
 * @param file its name, for the problems
 */
export function loadConfig(text: string, file: string): LoadResult {
  const positionOf = makePositions(text);
  const problems: Problem[] = [];
  const add: Add = (offset, path, message) => {
    problems.push({ file, ...positionOf(offset), path: formatPath(path), message });
  };
  let config: NodeConfig | undefined;
  const segments: SegmentConfig[] = [];
  let own: Document.Parsed | undefined;
  const documents = soundDocuments(text, add);
  for (const document of documents) {
    if (kindOf(document) === SEGMENT_KIND) {
      const segment = readDocument(document, SEGMENT, add);
      if (segment !== undefined) segments.push(segment);
    } else if (own === undefined) {
      own = document;
      config = readDocument(document, NODE_CONFIG, add);
    } else addFurtherDocument(document, add);
  }
  if (own === undefined && problems.length === 0) {
    add(0, [], `got ${documents.length === 0 ? 'nothing' : `${SEGMENT_KIND} alone`}, expected one ${KIND}`);
  }
  if (problems.length === 0 && config !== undefined && own !== undefined) {
    const warnings = warningsAbout(config, own).map(
      ({ offset, path, message }): Problem => ({ file, ...positionOf(offset), path: formatPath(path), message }),
    );
    return { config, segments, warnings };
  }
  problems.sort((a, b) => a.line - b.line || a.column - b.column);
  return { problems };
}

/** The kind that a document is most likely meant to be, of those that stand beside a NodeConfig; undefined: none of them. */
function kindOf(document: Document.Parsed): string | undefined {
  const kind = isMap(document.contents) ? document.get('kind') : undefined;
  const meant = typeof kind === 'string' ? nearest(kind, [KIND, UNDERLAY_KIND, SEGMENT_KIND]) : undefined;
  return meant === KIND ? undefined : meant;
}

export interface Documents {
  configs: { config: NodeConfig; at: DocumentPlace }[];
  underlays: { underlay: UnderlayConfig; at: DocumentPlace }[];
  segments: { segment: SegmentConfig; at: DocumentPlace }[];
  problems: Problem[];
}

/** Where a document stands, for problemIn. */
export interface DocumentPlace {
  file: string;
  text: string;
  /** Position among the documents of the file that hold anything. */
  index: number;
}

/** Reads any number of NodeConfig, Underlay and Segment documents from one file. */
export function loadDocuments(text: string, file: string): Documents {
  const positionOf = makePositions(text);
  const loaded: Documents = { configs: [], underlays: [], segments: [], problems: [] };
  const add: Add = (offset, path, message) => {
    loaded.problems.push({ file, ...positionOf(offset), path: formatPath(path), message });
  };
  for (const [index, document] of soundDocuments(text, add).entries()) {
    const at = { file, text, index };
    const kind = kindOf(document);
    if (kind === SEGMENT_KIND) {
      const segment = readDocument(document, SEGMENT, add);
      if (segment !== undefined) loaded.segments.push({ segment, at });
    } else if (kind === UNDERLAY_KIND) {
      const underlay = readDocument(document, UNDERLAY, add);
      if (underlay !== undefined) loaded.underlays.push({ underlay, at });
    } else {
      const config = readDocument(document, NODE_CONFIG, add);
      if (config !== undefined) loaded.configs.push({ config, at });
    }
  }
  loaded.problems.sort((a, b) => a.line - b.line || a.column - b.column);
  return loaded;
}

/** Reads one document of a kind that others define, and nothing else, from a file. */
export function loadDocument<T>(
  text: string,
  file: string,
  kind: DocumentKind<T>,
): { value: T; problems?: undefined } | { value?: undefined; problems: Problem[] } {
  const positionOf = makePositions(text);
  const problems: Problem[] = [];
  const add: Add = (offset, path, message) => {
    problems.push({ file, ...positionOf(offset), path: formatPath(path), message });
  };
  const [document, ...more] = soundDocuments(text, add);
  for (const other of more) add(locate(other, [], false), [], `got another document, expected one ${kind.kind} alone`);
  if (document === undefined && problems.length === 0) add(0, [], `got nothing, expected one ${kind.kind}`);
  const value = document === undefined ? undefined : readDocument(document, kind, add);
  if (problems.length === 0 && value !== undefined) return { value };
  problems.sort((a, b) => a.line - b.line || a.column - b.column);
  return { problems };
}

/** A problem with a value of a document that is valid in itself but does not fit the others. */
export function problemIn(
  { file, text, index }: DocumentPlace,
  path: readonly PropertyKey[],
  message: string,
): Problem {
  const document = soundDocuments(text, () => {})[index];
  const offset = document === undefined ? 0 : locate(document, path, false);
  return { file, ...makePositions(text)(offset), path: formatPath(path), message };
}

/** A problem with a value of a configuration that is valid in itself, for a file that loadConfig has accepted. */
export function problemAt(text: string, file: string, path: readonly PropertyKey[], message: string): Problem {
  const index = soundDocuments(text, () => {}).findIndex(document => kindOf(document) !== SEGMENT_KIND);
  return problemIn({ file, text, index }, path, message);
}

/** Line and column, from 1, of an offset into `text`. (The parser's own LineCounter errs behind a syntax error.) */
function makePositions(text: string): (offset: number) => { line: number; column: number } {
  const starts = [0];
  for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n', end + 1)) starts.push(end + 1);
  return offset => {
    const at = Math.min(offset, text.length);
    let line = starts.length; // the last one that starts at or before `at`, by halving
    for (let low = 1; low < line; ) {
      const middle = (low + line + 1) >> 1;
      if (starts[middle - 1] <= at) low = middle;
      else line = middle - 1;
    }
    return { line, column: at - starts[line - 1] + 1 };
  };
}

type Add = (offset: number, path: readonly PropertyKey[], message: string) => void;

// ---- YAML -----------------------------------------------------------------------------------------------------------

/** The documents that hold anything. Syntax errors are added as problems; what has one is not looked into further. */
function soundDocuments(text: string, add: Add): Document.Parsed[] {
  let documents: Document.Parsed[];
  try {
    // Duplicate keys are found by findDuplicateKeys, which can tell their path.
    documents = parseDocuments(text, { merge: true, stringKeys: true, uniqueKeys: false, logLevel: 'error' });
  } catch (error) {
    if (!(error instanceof TooDeepError)) throw error;
    add(0, [], `${error.message}, expected a configuration`);
    return [];
  }
  const sound: Document.Parsed[] = [];
  for (const document of documents) {
    for (const error of [...document.errors, ...document.warnings]) {
      add(error.pos[0], [], faultWords(error));
    }
    if (document.errors.length + document.warnings.length > 0) continue;
    if (document.contents === null || (isScalar(document.contents) && document.contents.value === null)) continue;
    sound.push(document);
  }
  return sound;
}

function findDuplicateKeys(document: Document.Parsed, add: Add): void {
  visit(document, {
    Map(_, map, ancestors) {
      const seen = new Set<string>();
      for (const { key } of map.items) {
        const name = keyName(key);
        if (!isScalar(key) || (name === '<<' && key.type === 'PLAIN')) continue;
        if (seen.has(name)) {
          const path = [...pathOf([...ancestors, map]), name];
          add(key.range?.[0] ?? 0, path, `got the field "${name}" again, expected each field once`);
        }
        seen.add(name);
      }
    },
  });
}

/** The way from the root to the last of `ancestors`, as `visit` lists them: documents, maps, pairs, lists. */
function pathOf(ancestors: readonly unknown[]): PropertyKey[] {
  const path: PropertyKey[] = [];
  ancestors.forEach((node, i) => {
    if (isSeq(node) && i + 1 < ancestors.length) path.push(node.items.indexOf(ancestors[i + 1]));
    else if (typeof node === 'object' && node !== null && 'key' in node) path.push(keyName(node.key));
  });
  return path;
}

function keyName(key: unknown): string {
  return isScalar(key) ? String(key.value ?? '') : String(key);
}

/**
 * Where the value at `path` stands, as an offset into the text: the value itself if it is a scalar or a list item, else
 * its key; for a field that is not there, its parent. Values that came through an alias or a merge stand where they
 * were written if that can be followed, else where they were asked for.
 */
function locate(document: Document.Parsed, path: readonly PropertyKey[], atKey: boolean): number {
  let node: unknown = document.contents;
  let offset = startOf(node) ?? 0;
  for (const [i, step] of path.entries()) {
    if (isAlias(node)) node = node.resolve(document);
    if (isSeq(node)) {
      node = node.items[Number(step)];
      if (node === undefined) break;
      offset = startOf(node) ?? offset;
    } else if (isMap(node)) {
      const pair = node.items.findLast(({ key }) => keyName(key) === String(step));
      if (pair === undefined) break;
      node = pair.value;
      offset = startOf(pair.key) ?? offset;
      const isLast = i === path.length - 1;
      const filled = isAlias(node) || (isScalar(node) && node.source !== '');
      if (isLast && !atKey && filled) offset = startOf(node) ?? offset;
    } else {
      break;
    }
  }
  return offset;
}

function startOf(node: unknown): number | undefined {
  return isNode(node) ? (node.range?.[0] ?? undefined) : undefined;
}

// ---- documents ------------------------------------------------------------------------------------------------------

/** A file with more unknown fields is of another kind: the first of them tell, and each takes a search of the document. */
const MAX_UNKNOWN = 100;

/** The configuration of a document; what is wrong goes to `add`. The result counts only if nothing was added. */
function readDocument<T>(document: Document.Parsed, { kind, schema }: DocumentKind<T>, add: Add): T | undefined {
  findDuplicateKeys(document, add);
  const value = plainValue(document, add);
  if (value === undefined) return undefined;
  if (isOtherKind(value, kind)) {
    add(locate(document, ['kind'], false), ['kind'], `got ${describe(value.kind)}, expected ${kind}`);
    return undefined;
  }
  const result = schema.safeParse(value);
  if (result.success) return result.data;

  let unknown = 0;
  const said = new Set<string>(); // one problem per value: what follows from it is not worth a line
  const addOnce = (path: readonly PropertyKey[], atKey: boolean, message: string) => {
    const key = JSON.stringify(path);
    if (!said.has(key)) add(locate(document, path, atKey), path, message);
    said.add(key);
  };
  for (const issue of result.error.issues) {
    if (issue.code === 'unrecognized_keys') {
      for (const name of issue.keys.slice(0, Math.max(0, MAX_UNKNOWN - unknown)))
        addOnce([...issue.path, name], true, explainUnknown(name, issue.message));
      unknown += issue.keys.length;
    } else {
      const { path, found } = follow(value, issue.path);
      addOnce(path, false, `got ${describe(found)}, expected ${issue.message}`);
    }
  }
  if (unknown > MAX_UNKNOWN) {
    add(locate(document, [], false), [], `got ${unknown} unknown fields, of which ${MAX_UNKNOWN} are named here`);
  }
  return undefined;
}

function addFurtherDocument(document: Document.Parsed, add: Add): void {
  const kind = isMap(document.contents) ? document.get('kind') : undefined;
  const offset = locate(document, kind === undefined ? [] : ['kind'], false);
  if (kind === KIND) add(offset, ['kind'], `got a second ${KIND}, expected one per file`);
  else add(offset, ['kind'], `got ${describe(kind)}, expected one ${KIND} and nothing else in the file`);
}

/** The document as plain maps, lists and scalars. Aliases to nothing, to themselves or in masses are problems. */
function plainValue(document: Document.Parsed, add: Add): unknown {
  const before = { count: 0 };
  visit(document, {
    Alias(_, alias, ancestors) {
      const target = alias.resolve(document);
      if (target !== undefined && !ancestors.includes(target)) return;
      before.count++;
      add(
        startOf(alias) ?? 0,
        pathOf([...ancestors, alias]),
        `got *${alias.source}, expected an anchor that stands before it`,
      );
    },
  });
  if (before.count > 0) return undefined;
  try {
    return document.toJS({ maxAliasCount: 100_000 });
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    add(
      startOf(document.contents) ?? 0,
      [],
      `got aliases or merges that cannot be resolved, expected plain values: ${error.message}`,
    );
    return undefined;
  }
}

/** True for a document that is something else altogether, such as a Pod: then its fields are not worth a line each. */
function isOtherKind(value: unknown, expected: string): value is { kind: string } {
  if (typeof value !== 'object' || value === null) return false;
  const { apiVersion, kind } = value as Record<string, unknown>;
  return apiVersion !== API_VERSION && typeof kind === 'string' && nearest(kind, [expected]) === undefined;
}

/**
 * The schema, then the checks across values. Those run also where single values were refused, on what is left without
 * these, so that one run reports everything; hence `when`.
 */
const nodeConfig = writtenConfig
  .superRefine(
    (written, context) => {
      const refused: Path[] = [];
      for (const issue of context.issues) {
        const path = (issue.path ?? []) as Path;
        if (path.length === 0 && issue.code === 'invalid_type') return; // no map at all
        if (issue.code !== 'unrecognized_keys')
          remove(written, issue.code === 'invalid_union' ? path.slice(0, -1) : path);
        refused.push(path);
      }
      const { spec } = written as Draft<WrittenConfig>;
      if (spec === undefined) return;
      checkSpec(
        spec,
        refused,
        (path, expected) => {
          context.addIssue({ code: 'custom', path: ['spec', ...path], message: expected });
        },
        () => {},
      );
    },
    { when: () => true },
  )
  .transform(completeConfig);

/** What is right, but may not be meant: "got X, which ...". */
function warningsAbout(config: NodeConfig, document: Document.Parsed) {
  const warnings: { offset: number; path: Path; message: string }[] = [];
  const warn = (at: Path, says: string) => {
    const path = ['spec', ...at];
    const { found } = follow(config, path);
    warnings.push({ offset: locate(document, path, false), path, message: `got ${describe(found)}, which ${says}` });
  };
  checkSpec(writtenForm(config.spec), [], () => {}, warn);
  return warnings;
}

/** A kind of document: its name, and what it must look like. */
export interface DocumentKind<T> {
  kind: string;
  schema: z.ZodType<T>;
}

const NODE_CONFIG: DocumentKind<NodeConfig> = { kind: KIND, schema: nodeConfig };
const UNDERLAY: DocumentKind<UnderlayConfig> = { kind: UNDERLAY_KIND, schema: underlayConfig };
const SEGMENT: DocumentKind<SegmentConfig> = { kind: SEGMENT_KIND, schema: segmentConfig };

/** Takes the value at `path` out of a parsed configuration; list items leave an empty place, so that indices stay. */
function remove(value: unknown, path: Path): void {
  let parent = value as Record<string | number, unknown>;
  for (const step of path.slice(0, -1)) {
    if (typeof parent !== 'object' || parent === null) return;
    parent = parent[step] as Record<string | number, unknown>;
  }
  const last = path.at(-1);
  if (typeof parent === 'object' && parent !== null && last !== undefined) parent[last] = undefined;
}

// ---- words ----------------------------------------------------------------------------------------------------------

/** @param known the names of the fields there are, with commas */
function explainUnknown(name: string, known: string): string {
  const suggestion = nearest(name, known.split(', '));
  const hint = suggestion === undefined ? '' : ` (did you mean "${suggestion}"?)`;
  return `got the unknown field ${JSON.stringify(shorten(name))}, expected ${known.includes(',') ? 'one of ' : ''}${known}${hint}`;
}

/** The value at `path`, and how much of the path leads through maps and lists: a scalar has no inside to point at. */
function follow(value: unknown, path: readonly PropertyKey[]): { path: readonly PropertyKey[]; found: unknown } {
  let found = value;
  for (const [i, step] of path.entries()) {
    if (typeof found !== 'object' || found === null) return { path: path.slice(0, i), found };
    found = Object.hasOwn(found, step) ? (found as Record<PropertyKey, unknown>)[step] : undefined;
  }
  return { path, found };
}

const SHOWN = 60;

function shorten(text: string): string {
  return text.length <= SHOWN ? text : `${text.slice(0, SHOWN - 3)}...`;
}

/** A found value in a few words. */
function describe(value: unknown): string {
  if (value === undefined || value === null) return 'nothing';
  if (typeof value === 'string') return JSON.stringify(shorten(value));
  if (Array.isArray(value)) {
    const isFlat = value.length > 0 && value.length <= 8 && value.every(item => typeof item !== 'object');
    return isFlat ? shorten(`[${value.map(describe).join(', ')}]`) : `a list of ${value.length}`;
  }
  return typeof value === 'object' ? 'a map' : String(value);
}
