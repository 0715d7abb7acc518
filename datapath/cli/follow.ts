/**
 * `tunpath node --kubeconfig FILE --node-name NAME`: a node that follows the API of a cluster. It is an ordinary node beside a
 * client that lists and watches; what the client hears becomes a configuration, which the node is given as `apply` would.
 */
import { existsSync, mkdirSync, rmSync, statSync } from 'node:fs';
import { stringify } from 'yaml';
import { withoutFaulty } from '../api/agent/acceptable.ts';
import { type ClusterObjects, compileNode } from '../api/agent/node-program.ts';
import { ApiClient } from '../api/client/client.ts';
import { Follower } from '../api/client/follow.ts';
import { readKubeconfig } from '../api/client/kubeconfig.ts';
import type { Json, KubeObject } from '../api/object.ts';
import { callNode, RUN_DIR } from '../control/client.ts';
import { Log } from '../control/log.ts';
import { namespaceExists } from '../control/netns.ts';
import type { ApplyResult } from '../control/node.ts';
import { parseYaml } from '../control/parse-yaml.ts';
import { socketPath } from '../control/server.ts';
import { replaceFile } from '../io/replace-file.ts';
import { readText, USAGE, UsageError } from './exit.ts';
import { type NodeFlags, node } from './node.ts';

export interface FollowFlags extends Omit<NodeFlags, 'config'> {
  config?: string[];
  kubeconfig: string;
  nodeName?: string;
  uplink?: string;
}

/** Changes of one moment become one configuration. */
const DEBOUNCE_MS = 50;
/** Namespaces come without anybody saying so. */
const LOOK_AGAIN_MS = 2000;
const APPLY_TIMEOUT_MS = 60_000;

const PATHS: Record<Exclude<keyof ClusterObjects, 'configMaps'>, string> = {
  nodes: '/api/v1/nodes',
  pods: '/api/v1/pods',
  services: '/api/v1/services',
  slices: '/apis/discovery.k8s.io/v1/endpointslices',
  policies: '/apis/networking.k8s.io/v1/networkpolicies',
  namespaces: '/api/v1/namespaces',
  endpoints: '/apis/cilium.io/v2/ciliumendpoints',
  pools: '/apis/crd.projectcalico.org/v1/ippools',
};
/** Where the ConfigMaps of flannel and Cilium are. */
const CONFIG_MAPS = ['kube-flannel', 'kube-system'].map(namespace => `/api/v1/namespaces/${namespace}/configmaps`);

/** @returns the exit code of the node */
export async function followCluster(flags: FollowFlags): Promise<number> {
  const { kubeconfig, nodeName, stateDir } = flags;
  if (nodeName === undefined)
    throw new UsageError("--kubeconfig: expected --node-name NAME beside it: which of the cluster's nodes this is");
  if (flags.dropCapabilities)
    throw new UsageError('--drop-capabilities does not go with --kubeconfig: pods come and go');
  const { base, others } = readBase(flags, nodeName);
  const { name } = base.metadata;
  const client = new ApiClient(readKubeconfig(kubeconfig));
  const log = new Log({ format: flags.logFormat, level: flags.logLevel }).of(name);
  const directory = stateDir ?? RUN_DIR;
  mkdirSync(directory, { recursive: true });
  const agent = new Agent({ base, others, nodeName, client, log, file: `${directory}/${name}.cluster.yaml` });
  try {
    if (!(await agent.begin(stateDir !== undefined))) return USAGE;
    const running = node({ ...flags, config: [agent.file], stateDir: undefined });
    agent.follow();
    return await running;
  } finally {
    agent.stop();
    client.close();
    if (stateDir === undefined) rmSync(agent.file, { force: true });
  }
}

/** What the cluster does not say of the node: its NodeConfig, and documents beside it. */
function readBase({ config, uplink }: FollowFlags, nodeName: string): { base: Json; others: Json[] } {
  if (config === undefined || config.length === 0) {
    if (uplink === undefined) {
      throw new UsageError(
        '--kubeconfig: expected --uplink KIND:INTERFACE, or --config with what the cluster does not say',
      );
    }
    const [kind, device, own] = uplink.split(':');
    if ((kind !== 'raw' && kind !== 'routed') || device === undefined || device === '') {
      throw new UsageError(
        `--uplink ${uplink}: expected raw:INTERFACE or routed:INTERFACE[:DEVICE]; others need --config`,
      );
    }
    const spec = { uplink: { kind, interface: device, ...(kind === 'routed' ? { device: own ?? 'tpu0' } : {}) } };
    return {
      base: { apiVersion: 'tunpath.dev/v1', kind: 'NodeConfig', metadata: { name: nodeName }, spec },
      others: [],
    };
  }
  if (config.length > 1 || uplink !== undefined)
    throw new UsageError('--kubeconfig: expected one --config, or --uplink');
  const parsed = parseYaml(readText(config[0]!), config[0]!);
  if ('faults' in parsed) throw new UsageError(parsed.faults.join('\n'));
  const documents = parsed.values as Json[];
  const bases = documents.filter(document => document?.kind === 'NodeConfig');
  if (bases.length !== 1) throw new UsageError(`${config[0]}: got ${bases.length} NodeConfigs, expected one`);
  const [base] = bases;
  return {
    base: { ...base, metadata: { ...base.metadata, name: base.metadata?.name ?? nodeName }, spec: base.spec ?? {} },
    others: documents.filter(document => document !== base && document !== null),
  };
}

class Agent {
  readonly file: string;
  private readonly base: Json;
  private readonly others: Json[];
  private readonly nodeName: string;
  private readonly log: Log;
  private readonly followers: Record<string, Follower> = {};
  private readonly lists = new Map<string, readonly KubeObject[]>();
  private readonly unsynced = new Set<string>();
  private readonly away = new Map<string, string>();
  private readonly told = new Set<string>();
  private synced: () => void = () => {};
  private heardAway: () => void = () => {};
  private applied = '';
  private follows = false;
  private timer: NodeJS.Timeout | undefined;
  private looking: NodeJS.Timeout | undefined;
  private applying: Promise<void> = Promise.resolve();

  constructor(options: { base: Json; others: Json[]; nodeName: string; client: ApiClient; log: Log; file: string }) {
    const { base, others, nodeName, client, log, file } = options;
    this.base = base;
    this.others = others;
    this.nodeName = nodeName;
    this.log = log;
    this.file = file;
    const paths = { ...PATHS, ...Object.fromEntries(CONFIG_MAPS.map(path => [path, path])) };
    for (const [what, path] of Object.entries(paths)) {
      this.unsynced.add(what);
      this.followers[what] = new Follower(client, path, {
        synced: () => {
          this.unsynced.delete(what);
          this.lists.delete(what in PATHS ? what : 'configMaps');
          if (this.unsynced.size === 0) this.synced();
          this.changed();
        },
        changed: () => {
          this.lists.delete(what in PATHS ? what : 'configMaps');
          this.changed();
        },
        away: why => this.goneAway(what, why),
        back: () => this.cameBack(what),
      });
    }
  }

  /**
   * Waits for what the cluster says, and writes it down.
   * @param remembers what it said last is good where it does not answer
   * @returns false where no node can be made of it, which has been logged
   */
  async begin(remembers: boolean): Promise<boolean> {
    const synced = new Promise<void>(resolve => {
      this.synced = resolve;
    });
    const away = new Promise<void>(resolve => {
      this.heardAway = resolve;
    });
    for (const follower of Object.values(this.followers)) void follower.run();
    if (remembers && existsSync(this.file)) {
      await Promise.race([synced, away]);
      if (this.unsynced.size > 0) {
        this.log.warn(`starts with what the cluster said last, at ${statSync(this.file).mtime.toISOString()}`);
        return true;
      }
    }
    await synced;
    const text = this.compile();
    if (text === null) return false;
    this.write(text);
    this.applied = text;
    return true;
  }

  /** From now on the node is told what changes. */
  follow(): void {
    this.follows = true;
    this.looking = setInterval(() => this.changed(), LOOK_AGAIN_MS);
    this.changed();
  }

  stop(): void {
    for (const follower of Object.values(this.followers)) follower.stop();
    clearInterval(this.looking);
    clearTimeout(this.timer);
    this.follows = false;
  }

  private goneAway(what: string, why: string): void {
    if (this.away.size === 0) {
      this.log.warn(`the API does not answer: ${why}${this.follows ? '; packets flow on as it said last' : ''}`);
    }
    this.away.set(what, why);
    this.heardAway();
  }

  private cameBack(what: string): void {
    this.away.delete(what);
    if (this.away.size === 0) this.log.info('the API answers again');
  }

  private changed(): void {
    // What is not known yet is not nothing.
    if (!this.follows || this.unsynced.size > 0) return;
    this.timer ??= setTimeout(() => {
      this.timer = undefined;
      this.applying = this.applying.then(() => this.apply());
    }, DEBOUNCE_MS);
  }

  /** Lists stay the same lists until there is news of their kind. */
  private objects(): ClusterObjects {
    const list = (name: string, kinds: readonly string[]): readonly KubeObject[] => {
      const known = this.lists.get(name) ?? kinds.flatMap(kind => [...this.followers[kind]!.objects.values()]);
      this.lists.set(name, known);
      return known;
    };
    const kinds = Object.fromEntries(Object.keys(PATHS).map(what => [what, list(what, [what])]));
    return { ...kinds, configMaps: list('configMaps', CONFIG_MAPS) } as unknown as ClusterObjects;
  }

  /** @returns null where a node does not take it, which has been logged */
  private compile(): string | null {
    const { config: wanted, missing } = compileNode(this.base, this.objects(), this.nodeName, namespaceExists);
    const { config, refused, problems } = withoutFaulty(wanted, this.file);
    const lines = [...missing, ...refused.map(({ kind, place, message }) => `${kind} ${place}: ${message}`)];
    for (const line of lines) if (!this.told.has(line)) this.log.warn(line);
    // What is said again after it was right in between is news.
    this.told.clear();
    for (const line of lines) this.told.add(line);
    if (problems.length === 0) return [config, ...this.others].map(document => stringify(document)).join('---\n');
    for (const problem of problems) this.log.problem(problem);
    return null;
  }

  private async apply(): Promise<void> {
    const text = this.compile();
    if (text === null || text === this.applied || !this.follows) return;
    try {
      const request = { text, file: this.file };
      const result = (await callNode(
        socketPath(this.base.metadata.name),
        'apply',
        request,
        APPLY_TIMEOUT_MS,
      )) as ApplyResult;
      for (const problem of result.problems ?? []) this.log.problem(problem);
      for (const { path, message } of result.refused ?? [])
        this.log.error(`${path.join('.')}: ${message}; all stays as it was`);
      this.applied = text;
      if (result.applied !== undefined) this.write(text);
    } catch {
      // It starts, or ends; the next look finds out.
    }
  }

  private write(text: string): void {
    replaceFile(this.file, text, 0o600);
  }
}
