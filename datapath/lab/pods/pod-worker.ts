/** One pod on a lab's node: its namespace, its place at the node's datapath, its containers, its end. */
import { mkdirSync, rmSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { namedPorts } from '../../api/agent/policies.ts';
import type { Cluster } from '../../api/controllers/cluster.ts';
import { identityLabels, identityOf } from '../../api/controllers/identities.ts';
import { type Json, type KubeObject, placeOf } from '../../api/object.ts';
import { podPhase, podStatus } from '../../api/pods/status.ts';
import { ipBatch } from '../../control/ip.ts';
import { namespaceExists } from '../../control/netns.ts';
import { replaceFile } from '../../io/replace-file.ts';
import { memberEnvironment } from '../names.ts';
import { endProcesses, inodesOf, type ProcessIdentity, processesInside } from '../processes.ts';
import { connectInside } from './connect.ts';
import { Container, dataOf, type Surroundings, unsupportedParts } from './container.ts';
import type { NodeAgent } from './node-agent.ts';
import type { PodNames } from './pod-names.ts';

const RETRY_MS = 1000;
const KILL_GRACE_MS = 200;

/** What a pod's worker needs of whoever has it. */
export interface PodHost {
  readonly lab: string;
  readonly cluster: Cluster;
  readonly names: PodNames;
  readonly path: Surroundings['path'];
  readonly environment: NodeJS.ProcessEnv;
  readonly onError: (text: string) => void;
  directoryOf(uid: string): string;
  namespaceFor(pod: KubeObject): string;
  agentOf(pod: KubeObject): NodeAgent | undefined;
  hostIP(pod: KubeObject): string;
  /** Its address may be another's. */
  forget(worker: PodWorker): void;
  /** Takes a pod from its node's datapath, ends what runs in its namespace, and that. */
  removeNetwork(pod: KubeObject, place: string, namespace: string): Promise<void>;
}

/** What is on disk of a pod, so that another process can go on with it. */
export interface PodRecord {
  uid: string;
  place: string;
  namespace: string;
  address: string;
  startTime: string;
  containers: { name: string; restartCount: number; process?: ProcessIdentity }[];
}

export class PodWorker {
  readonly uid: string;
  readonly place: string;
  readonly namespace: string;
  readonly address: string;
  pod: KubeObject;
  readonly containers: Container[];
  private readonly initContainers: Container[];
  private readonly kubelet: PodHost;
  private readonly startTime: string;
  private stopping = false;
  private hasNetwork: boolean;
  private publishing: Promise<void> = Promise.resolve();
  private publishAsked = false;
  private ending: Promise<void> | undefined;
  private hurry: () => void = () => {};

  /** @param record of one that another process has started */
  constructor(kubelet: PodHost, pod: KubeObject, address: string, record?: PodRecord) {
    this.kubelet = kubelet;
    this.pod = pod;
    this.uid = pod.metadata.uid!;
    this.place = placeOf(pod);
    this.address = address;
    this.startTime = record?.startTime ?? kubelet.cluster.now;
    this.namespace = kubelet.namespaceFor(pod);
    this.hasNetwork = record !== undefined;
    mkdirSync(this.directory, { recursive: true, mode: 0o700 });
    const around = this.surroundings();
    const make = (spec: Json): Container => {
      const container = new Container(pod, spec, around, `${this.directory}/${spec.name}.log`);
      const known = record?.containers.find(({ name }) => name === spec.name);
      if (known !== undefined) container.state.restartCount = known.restartCount;
      return container;
    };
    this.containers = pod.spec.containers.map(make);
    this.initContainers = (pod.spec.initContainers ?? []).map(make);
    if (record !== undefined) this.attach();
  }

  private get directory(): string {
    return this.kubelet.directoryOf(this.uid);
  }

  private get isOnHostNetwork(): boolean {
    return this.pod.spec.hostNetwork === true;
  }

  container(name: string): Container | undefined {
    return [...this.containers, ...this.initContainers].find(({ state }) => state.name === name);
  }

  /** Runs the pod until it has ended or is told to end. */
  async run(record?: PodRecord): Promise<void> {
    const { restartPolicy } = this.pod.spec;
    if (record === undefined) {
      for (const part of unsupportedParts(this.pod)) this.event('Warning', 'Unsupported', part);
      await this.setUp();
    }
    this.publish();
    const wasInitialized = record?.containers.some(({ process }) => process !== undefined);
    for (const container of this.initContainers) {
      if (this.stopping) return;
      if (wasInitialized) container.state.state = { terminated: { exitCode: 0, reason: 'Completed' } };
      else await container.run(restartPolicy === 'Never' ? 'Never' : 'OnFailure');
      if (container.state.state.terminated?.exitCode !== 0) return this.publish();
    }
    if (this.stopping) return;
    await Promise.all(
      this.containers.map(container => {
        const known = record?.containers.find(({ name }) => name === container.state.name);
        return container.run(restartPolicy, known?.process);
      }),
    );
    const phase = podPhase(this.pod, this.state());
    if (this.stopping || (phase !== 'Succeeded' && phase !== 'Failed')) return;
    await this.tearDown();
  }

  /** What is new about it; only its labels matter while it runs. */
  update(pod: KubeObject): void {
    const before = this.pod.metadata.labels;
    this.pod = pod;
    if (this.hasNetwork && JSON.stringify(before) !== JSON.stringify(pod.metadata.labels)) this.attach();
  }

  /** Ends it. A second call makes it faster. Returns when nothing is left of it but its object. */
  end(graceMs: number): Promise<void> {
    if (graceMs === 0) this.hurry();
    this.ending ??= this.endNow(graceMs);
    return this.ending;
  }

  private async endNow(graceMs: number): Promise<void> {
    this.stopping = true;
    const all = [...this.initContainers, ...this.containers];
    const running = all.flatMap(({ running }) => (running === undefined ? [] : [running]));
    for (const container of all) container.stop();
    const gone = Promise.all(running.map(({ exit }) => exit));
    if (graceMs > 0) {
      for (const one of running) one.kill('SIGTERM');
      const hurried = new Promise<void>(resolve => {
        this.hurry = resolve;
      });
      await Promise.race([gone, sleep(graceMs, undefined, { ref: false }), hurried]);
    }
    for (const one of running) one.kill('SIGKILL');
    await Promise.race([gone, sleep(KILL_GRACE_MS)]);
    await this.tearDown();
    rmSync(this.directory, { recursive: true, force: true });
  }

  /** Makes its namespace and attaches it; tried again until that is so. */
  private async setUp(): Promise<void> {
    for (;;) {
      if (this.stopping) return;
      try {
        await this.makeNetwork();
        return;
      } catch (error) {
        this.event('Warning', 'FailedCreatePodSandBox', (error as Error).message);
        await sleep(RETRY_MS, undefined, { ref: false });
      }
    }
  }

  private async makeNetwork(): Promise<void> {
    if (this.isOnHostNetwork) {
      this.hasNetwork = true;
      return;
    }
    const { namespace, kubelet } = this;
    kubelet.names.write(namespace, this.pod.metadata.namespace!);
    const env = memberEnvironment(kubelet.lab);
    if (!namespaceExists(namespace)) await ipBatch([`netns add ${namespace}`], { env });
    await ipBatch(['link set lo up'], { netns: namespace, env });
    this.hasNetwork = true;
    this.writeRecord();
    await this.attach();
    await kubelet.agentOf(this.pod)!.flush();
  }

  private async attach(): Promise<void> {
    if (this.isOnHostNetwork) return;
    const { pod, namespace, kubelet } = this;
    kubelet.agentOf(pod)!.set({
      name: this.place,
      netns: namespace,
      device: 'eth0',
      address: `${this.address}/32`,
      labels: pod.metadata.labels ?? {},
      ports: namedPorts(pod),
      identity: await identityOf(kubelet.cluster, identityLabels(pod)),
    });
  }

  private async tearDown(): Promise<void> {
    if (!this.hasNetwork) return;
    this.hasNetwork = false;
    this.kubelet.forget(this);
    if (!this.isOnHostNetwork) await this.kubelet.removeNetwork(this.pod, this.place, this.namespace);
    rmSync(`${this.directory}/pod.json`, { force: true });
  }

  private surroundings(): Surroundings {
    const { kubelet, pod } = this;
    const { metadata } = pod;
    const hostname = this.isOnHostNetwork ? pod.spec.nodeName : (pod.spec.hostname ?? metadata.name);
    return {
      namespace: this.namespace,
      hostname,
      path: kubelet.path,
      env: kubelet.environment,
      zone: kubelet.names.zone,
      sources: {
        podIP: this.address,
        hostIP: kubelet.hostIP(pod),
        data: (kind, name) => dataOf(kubelet.cluster.find(kind, metadata.namespace, name), kind),
      },
      connect: port => connectInside(this.namespace, this.address, port),
      changed: () => {
        this.writeRecord();
        this.publish();
      },
      event: (type, reason, message) => this.event(type, reason, message),
    };
  }

  private writeRecord(): void {
    if (!this.hasNetwork) return;
    const record: PodRecord = {
      uid: this.uid,
      place: this.place,
      namespace: this.namespace,
      address: this.address,
      startTime: this.startTime,
      containers: [...this.initContainers, ...this.containers].map(({ state, running }) => ({
        name: state.name,
        restartCount: state.restartCount,
        ...(running === undefined ? {} : { process: running.identity }),
      })),
    };
    replaceFile(`${this.directory}/pod.json`, JSON.stringify(record));
  }

  private state(): Parameters<typeof podStatus>[1] {
    return {
      containers: this.containers.map(({ state }) => state),
      initContainers: this.initContainers.map(({ state }) => state),
      hostIP: this.kubelet.hostIP(this.pod),
      startTime: this.startTime,
      ...(this.hasNetwork || this.ending !== undefined || this.pod.status?.podIP !== undefined
        ? { podIP: this.address }
        : {}),
    };
  }

  /** Writes its status as it is when its turn comes: changes of one moment are written once. */
  private publish(): void {
    if (this.publishAsked) return;
    this.publishAsked = true;
    this.publishing = this.publishing.then(async () => {
      this.publishAsked = false;
      const { cluster } = this.kubelet;
      const now = cluster.find('Pod', this.pod.metadata.namespace, this.pod.metadata.name);
      if (now?.metadata.uid !== this.uid) return;
      try {
        await cluster.setStatus(now, podStatus(now, this.state(), cluster.now));
      } catch (error) {
        this.kubelet.onError(`${this.place}: ${(error as Error).message}`);
      }
    });
  }

  private event(type: 'Normal' | 'Warning', reason: string, message: string): void {
    this.kubelet.cluster
      .event(this.pod, type, reason, message)
      .catch(error => this.kubelet.onError(`${this.place}: ${(error as Error).message}`));
  }
}

/** Ends every process in a namespace that is a pod's own. */
export async function endInside(namespace: string): Promise<void> {
  await endProcesses(processesInside(inodesOf([namespace])), KILL_GRACE_MS);
}
