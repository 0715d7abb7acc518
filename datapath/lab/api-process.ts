/**
 * The API of a lab, as a process of its own: `api-process.js LAB`. It listens, writes the kubeconfig, runs the controllers and
 * the pods, and keeps every node's datapath as the objects say. Prints `ready` on stderr. What it holds is in a journal and in
 * records of its pods, so that it may be killed and started again: clients find it where it was, and pods run on.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { cpus, release, totalmem } from 'node:os';
import { openApi } from '../api/api.ts';
import { Cluster } from '../api/controllers/cluster.ts';
import { startControllers } from '../api/controllers/index.ts';
import { Manager } from '../api/controllers/manager.ts';
import { makeCredentials, makeToken, writeKubeconfig } from '../api/kubeconfig.ts';
import type { ApiServer, Credentials } from '../api/server/server.ts';
import { Etcd } from '../api/store/etcd.ts';
import { podStreams } from '../api/streams/pod-streams.ts';
import { replaceFile } from '../io/replace-file.ts';
import { announceServices } from './announcers.ts';
import { nodeObject, podObject, podStatus, serviceObjects } from './api-objects.ts';
import { LabNetwork } from './lab-network.ts';
import { readLabState } from './lab-state.ts';
import { renewLeases } from './leases.ts';
import type { ModeOptions } from './modes.ts';
import { apiDirOf, kubeconfigOf, namespaceOf, stateDirOf, zoneFileOf } from './names.ts';
import { Kubelet } from './pods/kubelet.ts';
import { NodeAgent } from './pods/node-agent.ts';
import { PodNames } from './pods/pod-names.ts';
import { labRuntime } from './pods/runtime.ts';
import { agentObjects, switchObjects } from './switches.ts';
import { addressOf, type Topology } from './topology.ts';

const CALICO = ['projectcalico.org', 'crd.projectcalico.org'];

const lab = process.argv[2]!;

async function main(): Promise<void> {
  const { topology, options } = readLabState(lab);
  const access = await accessOf(`${stateDirOf(lab)}/access.json`);
  let kubelet: Kubelet | undefined;
  const api = await openApi({
    ...(options.etcd === undefined ? { directory: `${stateDirOf(lab)}/api` } : { backend: await inEtcd(options.etcd) }),
    token: access.token,
    // Both systems have ippools.
    untold: topology.profile === 'cilium' ? CALICO : [],
    streams: registry =>
      podStreams(
        registry,
        labRuntime(lab, () => kubelet),
      ),
  });
  const cluster = new Cluster(api.registry, 'tunpath-lab');
  await seed(cluster, topology, options);
  const onError = (text: string) => process.stderr.write(`${text}\n`);
  const placed = topology.pods.filter(({ memory }) => memory === undefined);
  const own = new Set(placed.map(({ name }) => namespaceOf(lab, name)));
  const agents = new Map(
    topology.nodes.map(({ name }) => [name, new NodeAgent(lab, topology, name, cluster, own, onError)]),
  );
  const names = new PodNames(
    cluster,
    zoneFileOf(lab),
    topology.pods.some(({ dns }) => dns),
  );
  const network = new LabNetwork(cluster, topology, options, agents, lab);
  kubelet = new Kubelet({ lab, topology, cluster, agents, names, network, onError });
  for (const pod of placed) names.follow(namespaceOf(lab, pod.name), 'default');
  // Before a node hears anything: what runs already stays attached.
  await Promise.all([kubelet.adopt(), kubelet.prepare()]);
  const leases = await renewLeases(kubelet, [...agents.keys()]);
  const controllers = startControllers(api.registry, {}, onError);
  const pods = new Manager(api.store, cluster, [kubelet.controller, network.controller], onError);
  const announcers = announceServices(lab, cluster, [...agents.keys()], onError);
  await controllers.settle();
  for (const agent of agents.values()) agent.changed();
  names.refresh();
  api.store.listen(({ storage }) => {
    announcers.heard(storage);
    if (NodeAgent.follows(storage)) for (const agent of agents.values()) agent.changed();
    if (storage !== 'services' && storage !== 'endpointslices.discovery.k8s.io') return;
    names.changed();
  });
  await api.server.listenUnix(`${apiDirOf(lab)}/api.sock`);
  const port = await listen(api.server, access);
  writeKubeconfig(kubeconfigOf(lab), { name: lab, port, cert: access.credentials.cert, token: access.token });
  process.stderr.write('ready\n');
  const stop = (): void => {
    controllers.stop();
    pods.stop();
    leases.stop();
    announcers.stop();
    void api.close().finally(() => process.exit(0));
  };
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);
}

/** Of a lab that was there before under this name, etcd may hold the objects still. */
async function inEtcd(address: string): Promise<Etcd> {
  const etcd = new Etcd({ address, prefix: `/tunpath/${lab}` });
  const started = `${stateDirOf(lab)}/etcd`;
  if (!existsSync(started)) await etcd.clear();
  writeFileSync(started, address);
  return etcd;
}

interface Access {
  token: string;
  credentials: Credentials;
  /** Where it listened before. */
  port: number;
}

/** Those of the process before this one, so that the kubeconfigs of clients stay good. */
async function accessOf(path: string): Promise<Access> {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as Access;
  } catch {
    return { token: makeToken(), credentials: await makeCredentials(), port: 0 };
  }
}

async function listen(server: ApiServer, access: Access): Promise<number> {
  const port = await server.listenTls(access.port, access.credentials).catch(error => {
    // Somebody else has it by now.
    if (access.port === 0) throw error;
    return server.listenTls(0, access.credentials);
  });
  replaceFile(`${stateDirOf(lab)}/access.json`, JSON.stringify({ ...access, port }), 0o600);
  return port;
}

/** What the lab is; whatever is there already, from before a restart, stays as it is. */
async function seed(cluster: Cluster, topology: Topology, options: ModeOptions): Promise<void> {
  const { now } = cluster;
  if (cluster.list('Node').length > 0) return;
  const machine = { kernel: release(), cpus: cpus().length, memoryKi: Math.floor(totalmem() / 1024) };
  for (const node of topology.nodes) await cluster.create('Node', nodeObject(node, now, machine));
  for (const { kind, object } of [...switchObjects(topology, options), ...agentObjects(topology, options)]) {
    await cluster.create(kind, object);
  }
  for (const service of serviceObjects(topology)) await cluster.create('Service', service);
  for (const pod of topology.pods) {
    const made = await cluster.create('Pod', podObject(pod));
    const node = topology.nodes.find(({ name }) => name === pod.node)!;
    if (made !== undefined) await cluster.setStatus(made, podStatus(pod, addressOf(node.address), now));
  }
}

await main();
