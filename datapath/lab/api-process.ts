/**
 * The API of a lab, as a process of its own: `api-process.js LAB`. It listens, writes the kubeconfig, runs the controllers,
 * and keeps every node's services as the objects say. Prints `ready` on stderr. What it holds is in a journal, so that it may
 * be killed and started again.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { release } from 'node:os';
import { parse, stringify } from 'yaml';
import { compileServices } from '../api/agent/services.ts';
import { openApi } from '../api/api.ts';
import { Cluster } from '../api/controllers/cluster.ts';
import { startControllers } from '../api/controllers/index.ts';
import { Manager } from '../api/controllers/manager.ts';
import { makeCredentials, makeToken, writeKubeconfig } from '../api/kubeconfig.ts';
import { podStreams } from '../api/streams/pod-streams.ts';
import { callNode } from '../control/client.ts';
import type { ApplyResult } from '../control/node.ts';
import { nodeObject, podObject, podStatus, serviceObjects } from './api-objects.ts';
import { strayPods } from './api-pods.ts';
import { apiDirOf, kubeconfigOf, nodeNameOf, socketOf, stateDirOf } from './names.ts';
import { labRuntime } from './pod-runtime.ts';
import { addressOf, type Topology } from './topology.ts';

/** Changes of one moment go to the nodes together. */
const DEBOUNCE_MS = 20;
const RETRY_MS = 1000;
const APPLY_TIMEOUT_MS = 60_000;

const lab = process.argv[2]!;

async function main(): Promise<void> {
  const { topology } = JSON.parse(readFileSync(`${stateDirOf(lab)}/lab.json`, 'utf8')) as { topology: Topology };
  const token = makeToken();
  const [api, credentials] = await Promise.all([
    openApi({
      directory: `${stateDirOf(lab)}/api`,
      token,
      streams: registry => podStreams(registry, labRuntime(lab)),
    }),
    makeCredentials(),
  ]);
  const cluster = new Cluster(api.registry, 'tunpath-lab');
  await seed(cluster, topology);
  const onError = (text: string) => process.stderr.write(`${text}\n`);
  const controllers = startControllers(api.registry, {}, onError);
  const pods = new Manager(api.store, cluster, [strayPods], onError);
  await controllers.settle();
  const nodes = topology.nodes.map(({ name }) => new NodeServices(cluster, name));
  api.store.listen(({ storage }) => {
    if (storage !== 'services' && storage !== 'endpointslices.discovery.k8s.io') return;
    for (const node of nodes) node.changed();
  });
  await api.server.listenUnix(`${apiDirOf(lab)}/api.sock`);
  const port = await api.server.listenTls(0, credentials);
  writeKubeconfig(kubeconfigOf(lab), { name: lab, port, cert: credentials.cert, token });
  process.stderr.write('ready\n');
  const stop = (): void => {
    controllers.stop();
    pods.stop();
    void api.close().finally(() => process.exit(0));
  };
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);
}

/** What the lab is; whatever is there already, from before a restart, stays as it is. */
async function seed(cluster: Cluster, topology: Topology): Promise<void> {
  const { now } = cluster;
  if (cluster.list('Node').length > 0) return;
  for (const node of topology.nodes) await cluster.create('Node', nodeObject(node, now, release()));
  for (const service of serviceObjects(topology)) await cluster.create('Service', service);
  for (const pod of topology.pods) {
    const made = await cluster.create('Pod', podObject(pod));
    const node = topology.nodes.find(({ name }) => name === pod.node)!;
    if (made !== undefined) await cluster.setStatus(made, podStatus(pod, addressOf(node.address), now));
  }
}

/** Keeps the services of one node's datapath as the API has them; everything else of its configuration stays. */
class NodeServices {
  private readonly cluster: Cluster;
  private readonly name: string;
  private applied = '';
  private timer: NodeJS.Timeout | undefined;
  private running = false;
  private again = false;

  constructor(cluster: Cluster, name: string) {
    this.cluster = cluster;
    this.name = name;
    this.changed();
  }

  changed(): void {
    this.timer ??= setTimeout(() => void this.run(), DEBOUNCE_MS);
  }

  private async run(): Promise<void> {
    this.timer = undefined;
    if (this.running) {
      this.again = true;
      return;
    }
    this.running = true;
    try {
      await this.apply();
    } catch (error) {
      process.stderr.write(`${this.name}: ${(error as Error).message}\n`);
      setTimeout(() => this.changed(), RETRY_MS);
    }
    this.running = false;
    if (this.again) {
      this.again = false;
      this.changed();
    }
  }

  private async apply(): Promise<void> {
    const { services, refused } = compileServices(
      // The API is no pod, and nobody is behind its cluster address.
      this.cluster
        .list('Service')
        .filter(({ metadata }) => metadata.name !== 'kubernetes' || metadata.namespace !== 'default'),
      this.cluster.list('EndpointSlice'),
      name => nodeNameOf(lab, name),
    );
    const path = `${stateDirOf(lab)}/${this.name}.yaml`;
    const config = parse(readFileSync(path, 'utf8')) as { spec: { services: unknown } };
    config.spec.services = services;
    const text = stringify(config);
    if (text === this.applied) return;
    const result = (await callNode(
      socketOf(lab, this.name),
      'apply',
      { text, file: path },
      APPLY_TIMEOUT_MS,
    )) as ApplyResult;
    // The same again would be refused again; the next change is tried.
    this.applied = text;
    const faults = [
      ...refused.map(({ place, message }) => `${place}: ${message}`),
      ...(result.problems ?? result.refused ?? []).map(({ message }) => message),
    ];
    const node = this.cluster.find('Node', undefined, this.name);
    if (result.applied === undefined && node !== undefined) {
      await this.cluster.event(node, 'Warning', 'FailedToApply', `services stay as they were: ${faults.join('; ')}`);
    } else if (result.applied !== undefined) {
      // What the lab's other commands read is what the node runs.
      writeFileSync(path, text);
    }
    for (const { place, message } of refused) {
      const [namespace, name] = place.split('/') as [string, string];
      const service = this.cluster.find('Service', namespace, name);
      if (service !== undefined) await this.cluster.event(service, 'Warning', 'NotForwarded', message);
    }
  }
}

await main();
