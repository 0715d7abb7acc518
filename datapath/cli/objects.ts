/** `tunpath get` and `tunpath describe` of Kubernetes objects, as kubectl prints them: a client of a cluster's API. */
import { setTimeout as sleep } from 'node:timers/promises';
import { type ApiClient, StatusError } from '../api/client/client.ts';
import { type ApiKind, collectionPath, discoverKinds, findApiKind } from '../api/client/discovery.ts';
import type { Json, KubeObject } from '../api/object.ts';
import { nearest } from '../control/nearest.ts';
import { describeObject } from './describe-object.ts';
import { DONE, NO, UsageError } from './exit.ts';
import type { Format } from './format.ts';
import { ALL_KINDS } from './kinds.ts';
import { ObjectTable, type ServerTable } from './object-table.ts';
import { print } from './output.ts';
import { sortRows } from './select.ts';
import { printDocument } from './table.ts';
import { openCluster } from './which-cluster.ts';

export interface ObjectFlags {
  kubeconfig?: string;
  namespace?: string;
  allNamespaces?: boolean;
  selector?: string;
  watch?: boolean;
  sortBy?: string;
  output: Format | 'name';
}

/** What one kind is asked for. */
interface Question {
  kind: ApiKind;
  name: string | undefined;
}

const PAGE = '500';
const TABLE = 'application/json;as=Table;v=v1;g=meta.k8s.io,application/json';
const WATCH_SECONDS = '600';
/** Between one watch and the next, so that an API that ends each at once is not asked without end. */
const AGAIN_MS = 200;

/** @returns the exit code: 0 done, 1 what is named is not there, 2 bad input */
export async function getObjects(kindText: string, name: string | undefined, flags: ObjectFlags): Promise<number> {
  return withCluster(flags, async client => {
    const questions = await questionsOf(client, kindText, name, flags);
    const asker = new Asker(client, flags);
    if (flags.watch === true) {
      if (questions.length > 1) throw new UsageError(`get ${kindText} -w: expected one kind to watch`);
      return watchObjects(asker, questions[0]!, flags);
    }
    return isTable(flags.output)
      ? printTables(asker, questions, flags)
      : printObjects(asker, questions, flags.output, flags.sortBy);
  });
}

/** @returns the exit code, as of getObjects */
export async function describeObjects(kindText: string, name: string | undefined, flags: ObjectFlags): Promise<number> {
  return withCluster(flags, async client => {
    const questions = await questionsOf(client, kindText, name, flags);
    const asker = new Asker(client, flags);
    if (!isTable(flags.output)) return printObjects(asker, questions, flags.output, undefined);
    const texts: string[] = [];
    for (const { kind, name: wanted } of questions) {
      for (const object of await asker.objects(kind, wanted)) {
        texts.push(describeObject(object, await asker.relatedTo(object)));
      }
    }
    if (texts.length === 0) process.stderr.write(nothingFound(questions, asker.namespace));
    await print(texts.join('\n\n'));
    return DONE;
  });
}

async function withCluster(flags: ObjectFlags, run: (client: ApiClient) => Promise<number>): Promise<number> {
  const client = openCluster(flags.kubeconfig);
  try {
    return await run(client);
  } catch (error) {
    if (!(error instanceof StatusError)) throw error;
    process.stderr.write(`tunpath: ${error.message}\n`);
    return NO;
  } finally {
    client.close();
  }
}

/** KIND, KIND.GROUP, KIND,KIND, KIND/NAME, or a category such as `all`. @throws UsageError */
async function questionsOf(
  client: ApiClient,
  kindText: string,
  name: string | undefined,
  flags: ObjectFlags,
): Promise<Question[]> {
  const kinds = await discoverKinds(client);
  const found = kindText.split(',').flatMap(word => {
    const [kindWord, ownName] = word.split('/') as [string, string | undefined];
    const kind = findApiKind(kinds, kindWord);
    if (kind !== undefined) return [{ kind, name: ownName ?? name }];
    const category = kinds.filter(({ categories }) => categories.includes(kindWord.toLowerCase()));
    if (category.length > 0 && ownName === undefined) return category.map(one => ({ kind: one, name }));
    throw unknownKind(kindWord, kinds);
  });
  const named = found.some(question => question.name !== undefined);
  if (named && flags.selector !== undefined)
    throw new UsageError(`--selector ${flags.selector}: expected it without a name`);
  if (named && flags.allNamespaces) throw new UsageError('--all-namespaces: expected it without a name');
  return found;
}

function unknownKind(word: string, kinds: readonly ApiKind[]): UsageError {
  const ofApi = kinds.flatMap(({ plural, singular, shortNames }) => [plural, singular, ...shortNames]);
  const meant = nearest(word, [...ofApi, ...ALL_KINDS.flatMap(({ name, aliases }) => [name, ...aliases])]);
  const hint = meant === undefined ? '' : ` (did you mean ${meant}?)`;
  return new UsageError(
    `no kind '${word}'${hint}: the API has ${[...new Set(kinds.map(({ plural }) => plural))].join(', ')}`,
  );
}

/** Asks the API for objects of a kind, in the namespace and by the selector of the flags. */
class Asker {
  readonly client: ApiClient;
  /** Undefined: all of them. */
  readonly namespace: string | undefined;
  private readonly selector: string | undefined;

  constructor(client: ApiClient, { namespace, allNamespaces, selector }: ObjectFlags) {
    this.client = client;
    this.namespace = allNamespaces ? undefined : (namespace ?? client.access.namespace);
    this.selector = selector;
  }

  path(kind: ApiKind, name?: string): string {
    const collection = collectionPath(kind, this.namespace);
    return name === undefined ? collection : `${collection}/${encodeURIComponent(name)}`;
  }

  query(more: Record<string, string> = {}): Record<string, string> {
    return this.selector === undefined ? more : { labelSelector: this.selector, ...more };
  }

  /** All pages of a list. @param each called with each page @returns the revision of the list */
  async pages(
    kind: ApiKind,
    query: Record<string, string>,
    accept: string,
    each: (page: Json) => void,
  ): Promise<string> {
    for (let more: Record<string, string> = {}; ; ) {
      const page = await this.client.get(this.path(kind), {
        headers: { accept },
        query: this.query({ limit: PAGE, ...query, ...more }),
      });
      each(page);
      const next = page?.metadata?.continue;
      if (next === undefined || next === '') return page?.metadata?.resourceVersion ?? '';
      more = { continue: next };
    }
  }

  async objects(kind: ApiKind, name: string | undefined, query: Record<string, string> = {}): Promise<KubeObject[]> {
    if (name !== undefined) return [await this.client.get(this.path(kind, name))];
    const found: KubeObject[] = [];
    await this.pages(kind, query, 'application/json', page => {
      // Items of a list do not say what they are.
      const apiVersion = kind.group === '' ? kind.version : `${kind.group}/${kind.version}`;
      for (const item of page?.items ?? []) found.push({ apiVersion, kind: kind.kind, ...item });
    });
    return found;
  }

  async table(kind: ApiKind, name: string | undefined, withObjects: boolean): Promise<ServerTable> {
    const include: Record<string, string> = withObjects ? { includeObject: 'Object' } : {};
    const options = { headers: { accept: TABLE }, query: include };
    if (name !== undefined) return tableOrThrow(await this.client.get(this.path(kind, name), options));
    const whole: ServerTable = { columnDefinitions: [], rows: [], metadata: {} };
    const revision = await this.pages(kind, include, TABLE, page => {
      const { columnDefinitions, rows } = tableOrThrow(page);
      if (columnDefinitions.length > 0) whole.columnDefinitions = columnDefinitions;
      for (const row of rows) whole.rows.push(row);
    });
    return { ...whole, metadata: { resourceVersion: revision } };
  }

  /** Events of an object, and what else a reader asks of it. */
  async relatedTo({ kind, metadata }: KubeObject): Promise<{ events: KubeObject[]; slices: KubeObject[] }> {
    const { name, uid, namespace } = metadata;
    const fieldSelector = `involvedObject.kind=${kind},involvedObject.name=${name},involvedObject.uid=${uid}`;
    // Those of objects without a namespace are in default.
    const events = await this.client.get(`/api/v1/namespaces/${namespace ?? 'default'}/events`, {
      query: { fieldSelector },
    });
    if (kind !== 'Service') return { events: events?.items ?? [], slices: [] };
    const slices = await this.client.get(`/apis/discovery.k8s.io/v1/namespaces/${namespace}/endpointslices`, {
      query: { labelSelector: `kubernetes.io/service-name=${name}` },
    });
    return { events: events?.items ?? [], slices: slices?.items ?? [] };
  }
}

function tableOrThrow(answer: Json): ServerTable {
  if (answer?.kind !== 'Table') throw new StatusError(406, 'NotAcceptable', 'the API does not make tables');
  return {
    columnDefinitions: answer.columnDefinitions ?? [],
    rows: answer.rows ?? [],
    metadata: answer.metadata ?? {},
  };
}

function isTable(output: Format | 'name'): output is 'table' | 'wide' {
  return output === 'table' || output === 'wide';
}

function nothingFound(questions: readonly Question[], namespace: string | undefined): string {
  const inside = questions.every(({ kind }) => kind.namespaced) && namespace !== undefined;
  return inside ? `No resources found in ${namespace} namespace.\n` : 'No resources found\n';
}

async function printTables(asker: Asker, questions: readonly Question[], flags: ObjectFlags): Promise<number> {
  const several = questions.length > 1;
  let printed = 0;
  for (const { kind, name } of questions) {
    const answer = await asker.table(kind, name, flags.sortBy !== undefined);
    if (answer.rows.length === 0) continue;
    if (flags.sortBy !== undefined) {
      const byObject = new Map(answer.rows.map(row => [row.object, row]));
      answer.rows = sortRows([...byObject.keys()] as never, flags.sortBy).map(object => byObject.get(object as never)!);
    }
    const table = new ObjectTable(tableOptions(asker, kind, flags, several));
    await print(`${printed++ > 0 ? '\n' : ''}${table.text(answer)}`);
  }
  if (printed === 0) process.stderr.write(nothingFound(questions, asker.namespace));
  return DONE;
}

function tableOptions(asker: Asker, kind: ApiKind, { output }: ObjectFlags, several: boolean) {
  return {
    wide: output === 'wide',
    withNamespace: kind.namespaced && asker.namespace === undefined,
    prefix: several ? `${wordOf(kind)}/` : '',
  };
}

/** `deployment.apps` */
function wordOf({ singular, group }: ApiKind): string {
  return group === '' ? singular : `${singular}.${group}`;
}

async function printObjects(
  asker: Asker,
  questions: readonly Question[],
  output: 'json' | 'jsonl' | 'yaml' | 'name',
  sortBy: string | undefined,
): Promise<number> {
  const named = questions.length === 1 && questions[0]!.name !== undefined;
  const all: KubeObject[] = [];
  for (const { kind, name } of questions) {
    let objects = await asker.objects(kind, name);
    if (sortBy !== undefined) objects = sortRows(objects as never, sortBy) as never;
    if (output === 'name') await print(objects.map(({ metadata }) => `${wordOf(kind)}/${metadata.name}\n`).join(''));
    else all.push(...objects.map(shown));
  }
  if (output === 'name') return DONE;
  if (output === 'jsonl') await print(all.map(object => `${JSON.stringify(object)}\n`).join(''));
  else if (named) await printDocument(output, all[0]);
  else await printDocument(output, { apiVersion: 'v1', items: all, kind: 'List', metadata: { resourceVersion: '' } });
  return DONE;
}

/** As kubectl shows objects: who wrote which field is left out. */
function shown(object: KubeObject): KubeObject {
  const { managedFields, ...metadata } = object.metadata;
  return { ...object, metadata };
}

/** What there is, and then each that is new, different or gone, until the command is ended. */
async function watchObjects(asker: Asker, { kind, name }: Question, flags: ObjectFlags): Promise<number> {
  const { output } = flags;
  const asTable = isTable(output);
  const table = new ObjectTable(tableOptions(asker, kind, flags, false));
  /** resourceVersion of each object as it was shown. */
  const known = new Map<string, string>();
  const isNew = ({ metadata }: KubeObject): boolean => {
    const place = `${metadata.namespace}/${metadata.name}`;
    if (known.get(place) === metadata.resourceVersion) return false;
    known.set(place, metadata.resourceVersion!);
    return true;
  };
  const show = async (answer: Json): Promise<void> => {
    if (asTable) {
      const found = tableOrThrow(answer);
      await print(table.text({ ...found, rows: found.rows.filter(({ object }) => isNew(object)) }));
    } else if (isNew(answer)) {
      if (output === 'name') await print(`${wordOf(kind)}/${answer.metadata.name}\n`);
      else await printDocument(output, shown(answer));
    }
  };
  const list = async (): Promise<string> => {
    const fields: Record<string, string> = name === undefined ? {} : { fieldSelector: `metadata.name=${name}` };
    if (name !== undefined) await asker.objects(kind, name);
    const pages: Json[] = [];
    const revision = await asker.pages(kind, fields, asTable ? TABLE : 'application/json', page => pages.push(page));
    for (const page of pages) {
      if (asTable) await show(page);
      else
        for (const item of page.items ?? []) {
          await show({
            apiVersion: kind.group === '' ? kind.version : `${kind.group}/${kind.version}`,
            kind: kind.kind,
            ...item,
          });
        }
    }
    return revision;
  };
  for (let revision = await list(); ; await sleep(AGAIN_MS)) {
    try {
      const query = asker.query({
        watch: 'true',
        allowWatchBookmarks: 'true',
        resourceVersion: revision,
        timeoutSeconds: WATCH_SECONDS,
        ...(name === undefined ? {} : { fieldSelector: `metadata.name=${name}` }),
      });
      const headers = { accept: asTable ? TABLE : 'application/json' };
      for await (const line of asker.client.lines(asker.path(kind), { query, headers })) {
        const { type, object } = JSON.parse(line) as { type: string; object: Json };
        if (type === 'ERROR') throw new StatusError(object?.code ?? 500, object?.reason ?? '', object?.message ?? '');
        if (type !== 'BOOKMARK') await show(object);
        revision = object.metadata?.resourceVersion ?? revision;
        if (asTable && type !== 'BOOKMARK')
          revision = object.rows?.at(-1)?.object?.metadata?.resourceVersion ?? revision;
      }
    } catch (error) {
      // Its history does not reach back so far.
      if (!(error instanceof StatusError) || error.code !== 410) throw error;
      revision = await list();
    }
  }
}
