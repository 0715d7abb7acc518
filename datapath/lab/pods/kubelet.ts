/**
 * Runs the pods that the API puts on a lab's nodes: each in a network namespace of its own that its node's datapath serves.
 * What it has started is written down, so that one that comes after it goes on with the same processes.
 */
import { mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { execa } from 'execa';
import type { Cluster } from '../../api/controllers/cluster.ts';
import { isActive } from '../../api/controllers/cluster.ts';
import { type Controller, EACH_POD } from '../../api/controllers/manager.ts';
import { freePodAddress } from '../../api/controllers/nodes.ts';
import { type KubeObject, placeOf } from '../../api/object.ts';
import { callNode } from '../../control/client.ts';
import { ipBatch } from '../../control/ip.ts';
import { namespaceExists } from '../../control/netns.ts';
import { LAB_POD } from '../api-objects.ts';
import { MEMBER_VARIABLE, memberEnvironment, namespaceOf, socketOf, stateDirOf } from '../names.ts';
import { toolsOf } from '../terminal-files.ts';
import { addressOf, type Topology } from '../topology.ts';
import type { NodeAgent } from './node-agent.ts';
import type { PodNames } from './pod-names.ts';
import { endInside, type PodHost, type PodRecord, PodWorker } from './pod-worker.ts';

/** A pod on its way is looked at again so often. */
const AGAIN_MS = 50;

export interface KubeletOptions {
  lab: string;
  topology: Topology;
  cluster: Cluster;
  agents: ReadonlyMap<string, NodeAgent>;
  names: PodNames;
  network: { isClosed(podCidr: string): boolean };
  onError: (text: string) => void;
}

export class Kubelet implements PodHost {
  readonly lab: string;
  readonly cluster: Cluster;
  readonly names: PodNames;
  readonly onError: (text: string) => void;
  readonly path: { host: string; busybox: string; tools: string };
  private readonly topology: Topology;
  private readonly network: KubeletOptions['network'];
  private readonly agents: ReadonlyMap<string, NodeAgent>;
  /** By the place of the pod. */
  private readonly workers = new Map<string, PodWorker>();
  private readonly leaving = new Set<string>();
  /** Those that came with the lab and are still there, by their places. */
  private readonly labPods = new Map<string, KubeObject>();
  /** Addresses of pods that run, or are about to. */
  private readonly addresses = new Map<string, string>();

  constructor({ lab, topology, cluster, agents, names, network, onError }: KubeletOptions) {
    this.network = network;
    this.lab = lab;
    this.topology = topology;
    this.cluster = cluster;
    this.agents = agents;
    this.names = names;
    this.onError = onError;
    this.path = {
      host: process.env.PATH ?? '/usr/sbin:/usr/bin:/sbin:/bin',
      busybox: `${stateDirOf(lab)}/busybox`,
      tools: toolsOf(lab),
    };
    mkdirSync(this.podsDirectory, { recursive: true, mode: 0o700 });
  }

  /** What every process of a pod has in its environment, whatever its container says. */
  get environment(): NodeJS.ProcessEnv {
    return {
      [MEMBER_VARIABLE]: this.lab,
      LANG: 'C.UTF-8',
      ...(process.env.TERM === undefined ? {} : { TERM: process.env.TERM }),
    };
  }

  private get podsDirectory(): string {
    return `${stateDirOf(this.lab)}/pods`;
  }

  directoryOf(uid: string): string {
    return `${this.podsDirectory}/${uid}`;
  }

  agentOf(pod: KubeObject): NodeAgent | undefined {
    return this.agents.get(pod.spec.nodeName);
  }

  hostIP(pod: KubeObject): string {
    return addressOf(this.topology.nodes.find(({ name }) => name === pod.spec.nodeName)!.address);
  }

  /** The network namespace of a pod's processes. No host of a lab has a dot in its name. */
  namespaceFor({ metadata, spec }: KubeObject): string {
    const own = metadata.annotations?.[LAB_POD];
    if (own !== undefined) return namespaceOf(this.lab, own);
    if (spec.hostNetwork === true) return namespaceOf(this.lab, spec.nodeName);
    return namespaceOf(this.lab, `${metadata.namespace}.${metadata.name}`);
  }

  workerOf(pod: KubeObject): PodWorker | undefined {
    const worker = this.workers.get(placeOf(pod));
    return worker?.uid === pod.metadata.uid ? worker : undefined;
  }

  /** Makes the commands of busybox, where the host has it, for images that have no others. */
  async prepare(): Promise<void> {
    mkdirSync(this.path.busybox, { recursive: true });
    await execa('busybox', ['--install', '-s', this.path.busybox], { reject: false });
  }

  /** Goes on with what another process has left, and ends that whose pods are gone. */
  async adopt(): Promise<void> {
    for (const uid of readdirSync(this.podsDirectory)) {
      let record: PodRecord;
      try {
        record = JSON.parse(readFileSync(`${this.directoryOf(uid)}/pod.json`, 'utf8')) as PodRecord;
      } catch {
        continue; // it has ended, and only its logs are here
      }
      const [namespace, name] = record.place.split('/') as [string, string];
      const pod = this.cluster.find('Pod', namespace, name);
      if (pod?.metadata.uid === uid && namespaceExists(record.namespace)) {
        this.names.follow(record.namespace, namespace);
        this.start(pod, record.address, record);
        continue;
      }
      await this.deleteNamespace(record.namespace);
      rmSync(this.directoryOf(uid), { recursive: true, force: true });
    }
  }

  readonly controller: Controller = {
    name: 'kubelet',
    ...EACH_POD,
    reconcile: async (key, cluster) => {
      const [namespace, name] = key.split('/') as [string, string];
      const pod = cluster.find('Pod', namespace, name);
      const worker = this.workers.get(key);
      if (worker !== undefined && worker.uid !== pod?.metadata.uid) {
        // Deleted by force, and perhaps another of its name is there: that one waits.
        this.endWorker(worker, 0);
        return AGAIN_MS;
      }
      const labPod = this.labPods.get(key);
      if (labPod !== undefined && (labPod.metadata.uid !== pod?.metadata.uid || isLeaving(pod!))) {
        this.labPods.delete(key);
        await this.removeNetwork(labPod, key, this.namespaceFor(labPod));
      }
      if (pod === undefined || this.agentOf(pod) === undefined) return undefined;
      if (!isLeaving(pod)) return this.keep(pod, worker);
      if (worker !== undefined) {
        this.endWorker(worker, (pod.metadata.deletionGracePeriodSeconds ?? 30) * 1000);
        return AGAIN_MS;
      }
      if (this.leaving.has(key)) return AGAIN_MS;
      rmSync(this.directoryOf(pod.metadata.uid!), { recursive: true, force: true });
      await cluster.delete(pod, 0);
      return undefined;
    },
  };

  private async keep(pod: KubeObject, worker: PodWorker | undefined): Promise<number | undefined> {
    if (worker !== undefined) {
      worker.update(pod);
      return undefined;
    }
    if (pod.metadata.annotations?.[LAB_POD] !== undefined) {
      this.labPods.set(placeOf(pod), pod);
      return undefined;
    }
    if (!isActive(pod)) return undefined;
    const address = this.addressFor(pod);
    if (address === undefined) {
      const cidr = this.podCidrOf(pod);
      const why = this.network.isClosed(cidr)
        ? `the IPPool of ${cidr}, the node's block, is disabled`
        : 'no address of the node is left';
      await this.cluster.event(pod, 'Warning', 'FailedCreatePodSandBox', why);
      return 1000;
    }
    this.start(pod, address);
    return undefined;
  }

  private start(pod: KubeObject, address: string, record?: PodRecord): void {
    const worker = new PodWorker(this, pod, address, record);
    this.workers.set(worker.place, worker);
    if (pod.spec.hostNetwork !== true) this.addresses.set(address, worker.uid);
    worker.run(record).catch(error => this.onError(`${worker.place}: ${(error as Error).message}`));
  }

  private endWorker(worker: PodWorker, graceMs: number): void {
    const { place } = worker;
    const isFirst = !this.leaving.has(place);
    this.leaving.add(place);
    const end = worker.end(graceMs);
    if (!isFirst) return;
    end
      .catch(error => this.onError(`${place}: ${(error as Error).message}`))
      .finally(() => {
        this.leaving.delete(place);
        this.workers.delete(place);
        this.forget(worker);
      });
  }

  forget(worker: PodWorker): void {
    if (this.addresses.get(worker.address) === worker.uid) this.addresses.delete(worker.address);
  }

  private addressFor(pod: KubeObject): string | undefined {
    if (pod.spec.hostNetwork === true) return this.hostIP(pod);
    const node = this.topology.nodes.find(({ name }) => name === pod.spec.nodeName)!;
    const own = this.topology.pods.map(({ address }) => address);
    const cidr = this.podCidrOf(pod);
    if (this.network.isClosed(cidr)) return undefined;
    return freePodAddress(cidr, new Set([node.hostAddress, ...own, ...this.addresses.keys()]));
  }

  private podCidrOf({ spec }: KubeObject): string {
    const node = this.topology.nodes.find(({ name }) => name === spec.nodeName)!;
    return this.cluster.find('Node', undefined, node.name)?.spec.podCIDR ?? node.podCidr;
  }

  async removeNetwork(pod: KubeObject, place: string, namespace: string): Promise<void> {
    const agent = this.agentOf(pod);
    agent?.remove(place, namespace);
    await endInside(namespace);
    // Where the node is not there, it has nothing of the pod either.
    await agent?.flush().catch(error => this.onError(`${place}: ${(error as Error).message}`));
    await this.deleteNamespace(namespace);
  }

  private async deleteNamespace(namespace: string): Promise<void> {
    await endInside(namespace);
    if (namespaceExists(namespace)) await ipBatch([`netns del ${namespace}`], { env: memberEnvironment(this.lab) });
    this.names.remove(namespace);
  }

  /** Whether a node's datapath answers. */
  async isAlive(node: string): Promise<boolean> {
    try {
      await callNode(socketOf(this.lab, node), 'status');
      return true;
    } catch {
      return false;
    }
  }
}

function isLeaving(pod: KubeObject): boolean {
  return pod.metadata.deletionTimestamp !== undefined;
}
