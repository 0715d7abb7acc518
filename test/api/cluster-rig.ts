/** A cluster in memory: an API, its controllers, nodes, and kubelets that only say that pods run. Time is set by hand. */

import { parse } from 'yaml';
import { type Api, openApi } from '../../datapath/api/api.ts';
import { Cluster, isReady, withCondition } from '../../datapath/api/controllers/cluster.ts';
import { startControllers } from '../../datapath/api/controllers/index.ts';
import { type Controller, EACH_POD, Manager } from '../../datapath/api/controllers/manager.ts';
import type { IpamOptions } from '../../datapath/api/controllers/nodes.ts';
import type { Json, KubeObject } from '../../datapath/api/object.ts';
import { RESOURCES } from '../../datapath/api/resources.ts';

const GLOBAL = new Set(RESOURCES.filter(({ namespaced }) => !namespaced).map(({ kind }) => kind));

export const T0 = Date.parse('2026-01-01T00:00:00Z');

export class ClusterRig {
  readonly api: Api;
  readonly cluster: Cluster;
  readonly errors: string[] = [];
  nowMs = T0;
  /** Pods whose names this holds for do not become ready. */
  isBroken: (pod: KubeObject) => boolean = () => false;
  private readonly managers: Manager[] = [];

  private constructor(api: Api) {
    this.api = api;
    this.cluster = new Cluster(api.registry, 'test');
  }

  static async start(
    nodes: readonly string[] = ['a', 'b', 'c'],
    ipam: IpamOptions = { clusterCidr: '10.244.0.0/16' },
  ): Promise<ClusterRig> {
    let rig: ClusterRig | undefined;
    let seed = 1;
    const choose = (count: number) => {
      seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
      return Math.floor((seed / 2 ** 32) * count);
    };
    rig = new ClusterRig(await openApi({ nowMs: () => rig?.nowMs ?? T0, choose }));
    for (const name of nodes) {
      await rig.cluster.create('Node', {
        metadata: { name, labels: { 'topology.kubernetes.io/zone': `z-${name}` } },
        status: { conditions: [{ type: 'Ready', status: 'True' }] },
      });
    }
    const onError = (text: string) => rig.errors.push(text);
    rig.managers.push(startControllers(rig.api.registry, ipam, onError));
    rig.managers.push(new Manager(rig.api.store, rig.cluster, [rig.kubelet()], onError));
    await rig.settle();
    return rig;
  }

  async settle(): Promise<void> {
    // Each may give another something to do.
    for (let round = 0; round < 3; round++) for (const manager of this.managers) await manager.settle();
  }

  /** Lets time pass, and everybody look at everything. */
  async pass(ms: number): Promise<void> {
    this.nowMs += ms;
    for (const manager of this.managers) manager.touch();
    await this.settle();
  }

  async stop(): Promise<void> {
    for (const manager of this.managers) manager.stop();
    await this.api.close();
  }

  /** Creates what a YAML text says, in namespace default where it says none, and waits until nothing is left to do. */
  async create(text: string): Promise<void> {
    for (const document of text.split(/^---$/m)) {
      const object = parse(document) as KubeObject;
      const isGlobal = GLOBAL.has(object.kind);
      if (!isGlobal) object.metadata.namespace ??= 'default';
      // Controllers know each kind in one version.
      await this.cluster.create(object.kind, { ...object, apiVersion: undefined });
    }
    await this.settle();
  }

  async change(kind: string, name: string, change: (object: Json) => void): Promise<void> {
    const object = this.get(kind, name);
    await this.cluster.change(object, current => {
      const copy = structuredClone(current);
      change(copy);
      return copy;
    });
    await this.settle();
  }

  async delete(kind: string, name: string): Promise<void> {
    await this.cluster.delete(this.get(kind, name));
    await this.settle();
  }

  get(kind: string, name: string): KubeObject {
    const found = this.cluster.find(kind, 'default', name) ?? this.cluster.find(kind, undefined, name);
    if (found === undefined) throw new Error(`no ${kind} ${name}`);
    return found;
  }

  pods(label?: string): KubeObject[] {
    return this.cluster.list('Pod').filter(({ metadata }) => label === undefined || metadata.labels?.app === label);
  }

  private kubelet(): Controller {
    let next = 2;
    return {
      name: 'kubelet',
      ...EACH_POD,
      reconcile: async (key, cluster) => {
        const [namespace, name] = key.split('/') as [string, string];
        const pod = cluster.find('Pod', namespace, name);
        if (pod?.spec.nodeName === undefined) return undefined;
        if (pod.metadata.deletionTimestamp !== undefined) {
          await cluster.delete(pod, 0);
          return undefined;
        }
        const ready = this.isBroken(pod) ? 'False' : 'True';
        if (pod.status.podIP !== undefined && isReady(pod) === (ready === 'True')) return undefined;
        await cluster.setStatus(pod, {
          phase: 'Running',
          podIP: pod.status.podIP ?? `10.244.9.${next++}`,
          conditions: withCondition(pod.status.conditions, { type: 'Ready', status: ready }, cluster.now),
        });
        return undefined;
      },
    };
  }
}
