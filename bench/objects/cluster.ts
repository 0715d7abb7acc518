/** The objects of a large cluster, and how long it takes until they are what nodes forward by. In memory, no device. */

import { setMaxListeners } from 'node:events';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { compileNode } from '../../datapath/api/agent/node-program.ts';
import { type Api, openApi } from '../../datapath/api/api.ts';
import { ApiClient } from '../../datapath/api/client/client.ts';
import { Cluster, withCondition } from '../../datapath/api/controllers/cluster.ts';
import { startControllers } from '../../datapath/api/controllers/index.ts';
import type { Json, KubeObject } from '../../datapath/api/object.ts';
import { formatAddress } from '../../datapath/control/address.ts';

export interface Size {
  nodes: number;
  pods: number;
  services: number;
  policies: number;
  watches: number;
}

export interface Seen {
  objects: number;
  /** All created, through schemas and rules, into a journal. */
  createMs: number;
  /** Until the controllers have nothing left to do. */
  settleMs: number;
  /** Errors of controllers. */
  errors: number;
  slices: number;
  journalMiB: number;
  /** All pods over a socket, in pages of 500. */
  listMs: number;
  /** From a write until every watch has heard of it. */
  watchMs: number;
  /** The store opened again from its journal. */
  openMs: number;
  /** From there until each node's program is there. */
  programsMs: number;
  /** From a changed Service until each node's program has it. */
  changeMs: number;
  /** Services that are another object in a node's program after the change. */
  changedServices: number;
  heapMiB: number;
  rssMiB: number;
}

const POD_NET = 0x0a800000;
const NODE_NET = 0x0a000000;
const READY = { type: 'Ready', status: 'True' };
const MIB = 1 << 20;

const nodeName = (n: number): string => `n${n}`;

export async function measureCluster(size: Size): Promise<Seen> {
  const directory = mkdtempSync(join(tmpdir(), 'tunpath-objects-'));
  try {
    return await measureIn(directory, size);
  } finally {
    rmSync(directory, { recursive: true });
  }
}

async function measureIn(directory: string, size: Size): Promise<Seen> {
  const store = join(directory, 'store');
  let api = await openApi({ directory: store, limits: { history: 50_000 } });
  const createMs = await taking(() => create(new Cluster(api.registry, 'bench'), size));
  let errors = 0;
  const settleMs = await taking(async () => {
    const manager = startControllers(api.registry, {}, () => errors++);
    await manager.settle();
    manager.stop();
  });
  const slices = api.store.list('endpointslices.discovery.k8s.io').length;
  const objects = api.store.size;
  const socket = join(directory, 'api.sock');
  await api.server.listenUnix(socket);
  const client = new ApiClient({ server: `unix://${socket}`, name: 'bench', namespace: 'default', insecure: false });
  const listMs = await taking(() => listPods(client));
  const watchMs = await watchChange(client, api, size.watches);
  client.close();
  await api.close();
  const journalMiB = statSync(join(store, 'journal')).size / MIB;

  const openMs = await taking(async () => {
    api = await openApi({ directory: store });
  });
  let programs: Json[] = [];
  let agents: Agents | undefined;
  const programsMs = await taking(async () => {
    agents = new Agents(api, size.nodes);
    programs = agents.programs();
  });
  const cluster = new Cluster(api.registry, 'bench');
  const service = cluster.find('Service', 'default', 's0')!;
  await cluster.change(service, object => ({ ...object, spec: { ...object.spec, sessionAffinity: 'ClientIP' } }));
  const before = new Set(programs[0].spec.services);
  const changeMs = await taking(async () => {
    programs = agents!.programs();
  });
  const changedServices = programs[0].spec.services.filter((one: Json) => !before.has(one)).length;
  globalThis.gc?.();
  const { heapUsed, rss } = process.memoryUsage();
  await api.close();
  return {
    objects,
    createMs,
    settleMs,
    errors,
    slices,
    journalMiB,
    listMs,
    watchMs,
    openMs,
    programsMs,
    changeMs,
    changedServices,
    heapMiB: heapUsed / MIB,
    rssMiB: rss / MIB,
  };
}

async function taking(run: () => Promise<unknown>): Promise<number> {
  const began = performance.now();
  await run();
  return performance.now() - began;
}

/** Node n has pods n, n + nodes and so on; service s leads to the pods of app s. */
async function create(cluster: Cluster, { nodes, pods, services, policies }: Size): Promise<void> {
  for (let n = 0; n < nodes; n++) {
    const podCIDR = `${formatAddress(POD_NET + 256 * n)}/24`;
    await cluster.create('Node', {
      metadata: { name: nodeName(n) },
      spec: { podCIDR, podCIDRs: [podCIDR] },
      status: { addresses: [{ type: 'InternalIP', address: formatAddress(NODE_NET + 1 + n) }], conditions: [READY] },
    });
  }
  for (let p = 0; p < pods; p++) {
    const metadata = { name: `p${p}`, namespace: 'default', labels: { app: `a${p % services}`, tier: `t${p % 10}` } };
    const containers = [{ name: 'web', image: 'traefik/whoami', ports: [{ name: 'http', containerPort: 80 }] }];
    const pod = (await cluster.create('Pod', { metadata, spec: { nodeName: nodeName(p % nodes), containers } }))!;
    const podIP = formatAddress(POD_NET + 256 * (p % nodes) + 2 + Math.floor(p / nodes));
    await cluster.setStatus(pod, { phase: 'Running', podIP, conditions: withCondition([], READY, cluster.now) });
  }
  for (let s = 0; s < services; s++) {
    const ports = [{ name: 'http', port: 80, targetPort: 'http' }];
    await cluster.create('Service', {
      metadata: { name: `s${s}`, namespace: 'default' },
      spec: { selector: { app: `a${s}` }, ports },
    });
  }
  for (let p = 0; p < policies; p++) {
    const from = [{ podSelector: { matchLabels: { tier: `t${p % 10}` } } }];
    await cluster.create('NetworkPolicy', {
      metadata: { name: `np${p}`, namespace: 'default' },
      spec: { podSelector: { matchLabels: { app: `a${p}` } }, ingress: [{ from }] },
    });
  }
}

async function listPods(client: ApiClient): Promise<void> {
  let query: Record<string, string> = { limit: '500' };
  for (;;) {
    const { metadata } = await client.get('/api/v1/pods', { query });
    if (!metadata.continue) return;
    query = { limit: '500', continue: metadata.continue };
  }
}

async function watchChange(client: ApiClient, api: Api, watches: number): Promise<number> {
  const query = { watch: 'true', resourceVersion: `${api.store.revision}` };
  const ends = new AbortController();
  setMaxListeners(watches, ends.signal);
  let opened = 0;
  let isOpen = (): void => {};
  const allOpen = new Promise<void>(resolve => {
    isOpen = resolve;
  });
  const heard = Array.from({ length: watches }, async () => {
    const opens = (): void => {
      if (++opened === watches) isOpen();
    };
    for await (const line of client.lines('/api/v1/services', { query, signal: ends.signal }, opens)) return line;
    return '';
  });
  await Promise.race([allOpen, Promise.all(heard)]);
  const cluster = new Cluster(api.registry, 'bench');
  const service = cluster.find('Service', 'default', 's0')!;
  const ms = await taking(async () => {
    await cluster.change(service, object => ({ ...object, spec: { ...object.spec, externalIPs: ['192.0.2.1'] } }));
    await Promise.all(heard);
  });
  ends.abort();
  return ms;
}

/** The nodes' agents, in one process: each follows the same lists, which stay until there is news of their kind. */
class Agents {
  private readonly api: Api;
  private readonly bases: Json[];
  private readonly lists = new Map<string, KubeObject[]>();

  constructor(api: Api, nodes: number) {
    this.api = api;
    this.bases = Array.from({ length: nodes }, (_, n) => {
      const address = `${formatAddress(NODE_NET + 1 + n)}/16`;
      const uplink = { kind: 'tap', device: 'ul0', mac: '02:00:00:00:00:01', address };
      return { metadata: { name: nodeName(n) }, spec: { uplink } };
    });
    api.store.listen(({ storage }) => this.lists.delete(storage));
  }

  programs(): Json[] {
    const objects = {
      nodes: this.list('nodes'),
      pods: this.list('pods'),
      services: this.list('services'),
      slices: this.list('endpointslices.discovery.k8s.io'),
      policies: this.list('networkpolicies.networking.k8s.io'),
      namespaces: this.list('namespaces'),
      configMaps: this.list('configmaps'),
      endpoints: this.list('ciliumendpoints.cilium.io'),
      pools: this.list('ippools.projectcalico.org'),
    };
    return this.bases.map(base => compileNode(base, objects, base.metadata.name, () => true).config);
  }

  private list(storage: string): KubeObject[] {
    const known = this.lists.get(storage) ?? [...this.api.store.values(storage)];
    this.lists.set(storage, known);
    return known;
  }
}
