/**
 * `tunpath apply -f`, `diff -f` and `delete -f` for Kubernetes objects: a client of a cluster's API, by server-side apply. The
 * API is that of --kubeconfig, of KUBECONFIG, or of the only lab.
 */
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { type Answer, type ApiClient, statusError } from '../api/client/client.ts';
import { basePath, resourcePath } from '../api/client/discovery.ts';
import { type Manifest, readManifests } from '../api/client/manifests.ts';
import type { Json, KubeObject } from '../api/object.ts';
import { diffSpecs, formatDifference } from './diff.ts';
import { DONE, NO, readText, USAGE } from './exit.ts';
import { openCluster } from './which-cluster.ts';

export interface ClusterFlags {
  file: string;
  kubeconfig?: string;
  dryRun?: boolean;
  /** What standard input has said. */
  text?: string;
}

const MANAGER = 'tunpath';

/** Whether a text is for a node, not for a cluster. */
export function isForNode(text: string): boolean {
  return /^\s*["']?apiVersion["']?:\s*["']?tunpath\.dev\//m.test(text) || !/^\s*["']?apiVersion["']?:/m.test(text);
}

/** @returns the exit code: 0 done, 1 the API refused something, 2 bad input: then nothing was sent */
export async function applyObjects(flags: ClusterFlags): Promise<number> {
  return withObjects(flags, async (cluster, { object }) => {
    const before = await cluster.find(object);
    const after = await cluster.apply(object, flags.dryRun === true);
    const same = before?.metadata.resourceVersion === after.metadata.resourceVersion;
    const what = before === undefined ? 'created' : same ? 'unchanged' : 'configured';
    process.stdout.write(`${nameOf(object)} ${what}${flags.dryRun === true ? ' (server dry run)' : ''}\n`);
    return true;
  });
}

/** @returns the exit code: 0 no difference, 1 there is one, 2 bad input */
export async function diffObjects(flags: ClusterFlags): Promise<number> {
  return withObjects(flags, async (cluster, { object }) => {
    const before = (await cluster.find(object)) ?? ({} as KubeObject);
    const after = await cluster.apply(object, true);
    const differences = ['metadata', 'spec', 'data'].flatMap(part =>
      diffSpecs(shown(before, part), shown(after, part)).map(one => ({
        ...one,
        path: one.path.replace(/^spec/, part),
      })),
    );
    if (differences.length > 0)
      process.stdout.write(`--- ${nameOf(object)}\n${differences.map(formatDifference).join('')}`);
    return differences.length === 0;
  });
}

/** @returns the exit code: 0 they are gone or go, 1 one was not there, 2 bad input */
export async function deleteObjects(flags: ClusterFlags): Promise<number> {
  return withObjects(
    flags,
    async (cluster, { object }) => {
      if (!(await cluster.delete(object))) {
        process.stderr.write(`tunpath: ${nameOf(object)} not found\n`);
        return false;
      }
      process.stdout.write(`${nameOf(object)} deleted\n`);
      return true;
    },
    true,
  );
}

async function withObjects(
  flags: ClusterFlags,
  each: (cluster: ClusterClient, manifest: Manifest) => Promise<boolean>,
  backwards = false,
): Promise<number> {
  const files = filesOf(flags.file);
  const read = files.map(file => readManifests(flags.text ?? readText(file), file === '-' ? 'standard input' : file));
  const problems = read.flatMap(one => one.problems);
  const found = read.flatMap(one => one.found);
  if (problems.length > 0 || found.length === 0) {
    process.stderr.write(problems.length > 0 ? `${problems.join('\n')}\n` : `tunpath: ${flags.file}: no objects\n`);
    return USAGE;
  }
  const cluster = new ClusterClient(openCluster(flags.kubeconfig));
  let code = DONE;
  try {
    for (const manifest of backwards ? found.toReversed() : found) {
      try {
        if (!(await each(cluster, manifest))) code = NO;
      } catch (error) {
        // Others may be well; a cluster that is not there is so for all.
        if ((error as Error).name !== 'StatusError') throw error;
        process.stderr.write(`${manifest.place}: ${nameOf(manifest.object)}: ${(error as Error).message}\n`);
        code = NO;
      }
    }
  } finally {
    cluster.close();
  }
  return code;
}

function filesOf(file: string): string[] {
  if (file === '-' || !statSync(file, { throwIfNoEntry: false })?.isDirectory()) return [file];
  const files = readdirSync(file)
    .filter(entry => /\.(ya?ml|json)$/.test(entry))
    .sort();
  return files.map(entry => join(file, entry));
}

/** `deployment.apps/web` */
function nameOf({ apiVersion, kind, metadata }: KubeObject): string {
  const slash = apiVersion.indexOf('/');
  return `${kind.toLowerCase()}${slash < 0 ? '' : `.${apiVersion.slice(0, slash)}`}/${metadata.name}`;
}

function shown(object: KubeObject, part: string): Json {
  if (part !== 'metadata') return object[part];
  const { labels, annotations } = object.metadata ?? {};
  return { labels, annotations };
}

class ClusterClient {
  private readonly client: ApiClient;
  private readonly resources = new Map<string, Promise<Json[]>>();

  constructor(client: ApiClient) {
    this.client = client;
  }

  close(): void {
    this.client.close();
  }

  /** @returns undefined where there is none @throws StatusError */
  async find(object: KubeObject): Promise<KubeObject | undefined> {
    const answer = await this.client.request(await this.pathOf(object));
    if (answer.status === 404) return undefined;
    return succeeded(answer);
  }

  /** @throws StatusError */
  async apply(object: KubeObject, dryRun: boolean): Promise<KubeObject> {
    const query = {
      fieldManager: MANAGER,
      force: 'true',
      fieldValidation: 'Warn',
      ...(dryRun ? { dryRun: 'All' } : {}),
    };
    const headers = { 'content-type': 'application/apply-patch+yaml' };
    const answer = await this.client.request(await this.pathOf(object), {
      method: 'PATCH',
      query,
      headers,
      body: object,
    });
    for (const warning of warningsOf(answer)) process.stderr.write(`${nameOf(object)}: ${warning}\n`);
    return succeeded(answer);
  }

  /** @returns whether it was there @throws StatusError */
  async delete(object: KubeObject): Promise<boolean> {
    const body = { propagationPolicy: 'Background' };
    const answer = await this.client.request(await this.pathOf(object), { method: 'DELETE', body });
    if (answer.status === 404) return false;
    succeeded(answer);
    return true;
  }

  /** @throws StatusError for a kind that the API has not */
  private async pathOf({ apiVersion, kind, metadata }: KubeObject): Promise<string> {
    const base = basePath(apiVersion);
    let listed = this.resources.get(base);
    if (listed === undefined) {
      listed = this.client.request(base).then(answer => (answer.status === 404 ? [] : succeeded(answer).resources));
      this.resources.set(base, listed);
    }
    const resource = (await listed).find(one => one.kind === kind && !one.name.includes('/'));
    if (resource === undefined) {
      throw statusError({
        status: 404,
        headers: {},
        text: `the API has no kind ${kind} of ${apiVersion}`,
        json: undefined,
      });
    }
    const namespace = metadata.namespace ?? this.client.access.namespace;
    const { name: plural, namespaced } = resource;
    return resourcePath(apiVersion, { plural, namespaced }, namespace, metadata.name);
  }
}

function succeeded(answer: Answer): Json {
  if (answer.status >= 300) throw statusError(answer);
  return answer.json;
}

/** Of the header Warning: `299 - "text"`. (RFC 7234, section 5.5) */
function warningsOf({ headers }: Answer): string[] {
  return Array.from((headers.warning ?? '').matchAll(/299 \S+ "((?:[^"\\]|\\.)*)"/g), ([, text]) =>
    text!.replace(/\\(.)/g, '$1'),
  );
}
