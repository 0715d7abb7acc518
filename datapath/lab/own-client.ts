/**
 * A client for machines without kubectl: the verbs of the articles' command lines, in kubectl's words: apply, get, patch,
 * annotate, label and delete.
 */
import { readFileSync } from 'node:fs';
import { ApiClient, StatusError } from '../api/client/client.ts';
import { findApiKind, resourcePath } from '../api/client/discovery.ts';
import { readKubeconfig } from '../api/client/kubeconfig.ts';
import { readManifests } from '../api/client/manifests.ts';
import type { Json } from '../api/object.ts';
import { apiVersionOf, findKind, RESOURCES, type Resource } from '../api/resources.ts';
import type { ExecResult } from './lab.ts';
import { LabError } from './lab-error.ts';

const MANAGER = 'tunpath-lab';
const TABLE = 'application/json;as=Table;v=v1;g=meta.k8s.io';

/**
 * Carries out a command line; what the API refuses is in the exit code.
 * @param argv without `kubectl` itself
 * @param input a manifest, for `apply -f -`; other files are read
 * @throws LabError for what it does not know
 */
export async function runOwnClient(kubeconfig: string, argv: readonly string[], input = ''): Promise<ExecResult> {
  const { plain, flags } = readWords(argv);
  const [verb, ...words] = plain;
  const client = new ApiClient(readKubeconfig(kubeconfig));
  try {
    const stdout = await carryOut(client, verb!, words, flags, input);
    return { stdout, stderr: stdout === '' ? 'No resources found\n' : '', exitCode: 0 };
  } catch (error) {
    if (!(error instanceof StatusError)) throw error;
    return { stdout: '', stderr: `Error from server (${error.reason}): ${error.message}\n`, exitCode: 1 };
  } finally {
    client.close();
  }
}

const VERBS = ['get', 'patch', 'annotate', 'label', 'delete'];

/** Flags that a value follows. */
const VALUED = ['-n', '-o', '-p', '-f', '-l'];

function readWords(argv: readonly string[]): { plain: string[]; flags: Map<string, string> } {
  const plain: string[] = [];
  const flags = new Map<string, string>();
  for (let i = 0; i < argv.length; i++) {
    const word = argv[i]!;
    if (VALUED.includes(word)) flags.set(word, argv[++i]!);
    else if (word.startsWith('-')) flags.set(word, '');
    else plain.push(word);
  }
  return { plain, flags };
}

async function carryOut(
  client: ApiClient,
  verb: string,
  words: readonly string[],
  flags: ReadonlyMap<string, string>,
  input: string,
): Promise<string> {
  const namespace = flags.get('-n') ?? 'default';
  if (verb === 'apply') {
    const file = flags.get('-f');
    if (file === undefined) throw new LabError('kubectl apply: expected -f FILE');
    const { found, problems } = readManifests(
      file === '-' ? input : textOf(file),
      file === '-' ? 'standard input' : file,
    );
    if (problems.length > 0) throw new LabError(`kubectl apply: ${problems.join('; ')}`);
    let said = '';
    for (const { object } of found) said += await apply(client, object, namespace);
    return said;
  }
  if (!VERBS.includes(verb)) {
    throw new LabError(`kubectl ${verb}: there is no kubectl here, and our own client does not know it`);
  }
  if (words[0] === undefined) throw new LabError(`kubectl ${verb}: expected a kind, as in ${verb} pods`);
  const [kind, inline] = words[0].split('/') as [string, string?];
  const [name, changes] = inline === undefined ? [words[1], words.slice(2)] : [inline, words.slice(1)];
  const resource = resourceCalled(kind);
  const path = resourcePath(apiVersionOf(resource), resource, flags.has('-A') ? undefined : namespace, name);
  if (verb === 'get') return get(client, path, flags);
  // Without one the API takes it for all of the kind.
  if (name === undefined)
    throw new LabError(`kubectl ${verb}: expected a name; our own client takes one object at a time`);
  switch (verb) {
    case 'patch':
      return patch(client, resource, path, JSON.parse(flags.get('-p')!), 'patched');
    case 'annotate':
    case 'label': {
      const set = Object.fromEntries(
        changes.map(change => {
          const at = change.indexOf('=');
          return at < 0 ? [change.replace(/-$/, ''), null] : [change.slice(0, at), change.slice(at + 1)];
        }),
      );
      const field = verb === 'label' ? 'labels' : 'annotations';
      return patch(client, resource, path, { metadata: { [field]: set } }, verb === 'label' ? 'labeled' : 'annotated');
    }
    default:
      await client.get(path, { method: 'DELETE' });
      return `${kindOf(resource)} "${name}" deleted${resource.namespaced ? ` from ${namespace} namespace` : ''}\n`;
  }
}

function textOf(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    throw new LabError(`kubectl apply: ${file} cannot be read: ${(error as Error).message}`);
  }
}

async function apply(client: ApiClient, object: Json, namespace: string): Promise<string> {
  const resource = findKind(object.apiVersion, object.kind);
  if (resource === undefined) throw new LabError(`${object.apiVersion} ${object.kind}: the API has no such kind`);
  const { name } = object.metadata;
  const path = resourcePath(object.apiVersion, resource, object.metadata.namespace ?? namespace, name);
  const isThere = (await client.request(path)).status === 200;
  await client.get(path, {
    method: 'PATCH',
    query: { fieldManager: MANAGER, force: 'true' },
    headers: { 'content-type': 'application/apply-patch+yaml' },
    body: object,
  });
  return `${kindOf(resource)}/${name} ${isThere ? 'configured' : 'created'}\n`;
}

async function patch(client: ApiClient, resource: Resource, path: string, body: object, done: string): Promise<string> {
  const made = await client.get(path, {
    method: 'PATCH',
    headers: { 'content-type': 'application/merge-patch+json' },
    body,
  });
  return `${kindOf(resource)}/${made.metadata.name} ${done}\n`;
}

async function get(client: ApiClient, path: string, flags: ReadonlyMap<string, string>): Promise<string> {
  const format = flags.get('-o');
  const query: Record<string, string> = flags.has('-l') ? { labelSelector: flags.get('-l')! } : {};
  if (format === undefined) return tableText(await client.get(path, { query, headers: { accept: TABLE } }), flags);
  const found = await client.get(path, { query });
  if (format === 'json') return `${JSON.stringify(found, null, 4)}\n`;
  const steps = /^jsonpath=\{((?:\.\w+|\[\d+\])+)\}$/.exec(format)?.[1]?.match(/\w+/g);
  if (steps === undefined || steps === null) {
    throw new LabError(`-o ${format}: there is no kubectl here, and our own client knows json and a plain jsonpath`);
  }
  const value = steps.reduce((at: Json, step) => at?.[step], found);
  return value === undefined ? '' : typeof value === 'string' ? value : JSON.stringify(value);
}

function tableText({ columnDefinitions, rows }: Json, flags: ReadonlyMap<string, string>): string {
  if ((rows ?? []).length === 0) return '';
  const shown: number[] = columnDefinitions.flatMap(({ priority }: Json, i: number) => (priority > 0 ? [] : [i]));
  const cells: string[][] = rows.map(({ cells: row }: Json) => shown.map(i => `${row[i]}`));
  const lines = flags.has('--no-headers') ? cells : [shown.map(i => columnDefinitions[i].name.toUpperCase()), ...cells];
  const widths = shown.map((_, i) => Math.max(...lines.map(line => line[i]!.length)));
  return lines
    .map(
      line =>
        `${line
          .map((cell, i) => cell.padEnd(widths[i]!))
          .join('   ')
          .trimEnd()}\n`,
    )
    .join('');
}

const KINDS = RESOURCES.map(resource => ({ ...resource, version: resource.versions[0]! }));

function resourceCalled(name: string): Resource {
  const found = findApiKind(KINDS, name);
  if (found === undefined) throw new LabError(`kubectl: the API has no kind ${name}`);
  return found;
}

/** As kubectl names it: `service`, `ciliumloadbalancerippool.cilium.io`. */
function kindOf({ kind, group }: Resource): string {
  return `${kind.toLowerCase()}${group === '' ? '' : `.${group}`}`;
}
