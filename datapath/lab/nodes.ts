/** Starting the nodes of a lab, all in one process or each in its own, and starting them again. */
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { stringify } from 'yaml';
import { callNode } from '../control/client.ts';
import { ipBatch } from '../control/ip.ts';
import { SCHEMA_LINE } from '../control/schema-file.ts';
import { SEED_VARIABLE } from '../control/seed.ts';
import { flattened } from '../flattened.ts';
import { LabError } from './lab-error.ts';
import { type LabProcesses, READY_TIMEOUT_MS } from './lab-processes.ts';
import {
  type LabNodeConfig,
  type ModeOptions,
  nodeConfig,
  segmentConfigs,
  segmentDevice,
  UPLINK_DEVICE,
} from './modes.ts';
import { memberEnvironment, NODES, namespaceOf, SEGMENTS, SWITCH, socketOf, stateDirOf } from './names.ts';
import type { LabNode, Topology } from './topology.ts';

const MAIN = fileURLToPath(flattened(new URL('../cli/main.js', import.meta.url)));

/** A lab, as far as its nodes are concerned. */
export interface NodePlace {
  name: string;
  topology: Topology;
  options: ModeOptions;
  processes: LabProcesses;
}

export interface NodeOptions {
  /** Of every node's random choices. */
  seed?: number;
  /** Changes a node's configuration before the node starts. */
  adjust?: (config: LabNodeConfig) => void;
}

/** The file with a node's configuration. */
export function configOf(lab: string, node: string): string {
  return `${stateDirOf(lab)}/${node}.yaml`;
}

/** Writes the nodes' configurations and starts them. */
export function startNodes(place: NodePlace, { adjust, seed }: NodeOptions): Promise<void>[] {
  const { name: lab, topology, options } = place;
  for (const node of topology.nodes) {
    const config = nodeConfig(lab, topology, node, options);
    adjust?.(config);
    writeFileSync(configOf(lab, node.name), SCHEMA_LINE + stringify(config));
  }
  const env = seed === undefined ? {} : { [SEED_VARIABLE]: `${seed}` };
  return options.processes ? topology.nodes.map(node => launchNode(place, node, env)) : [launchNodes(place, env)];
}

/** Starts all nodes in one process, as their files say, and joins their segments to the bridges. */
async function launchNodes({ name: lab, topology, options, processes }: NodePlace, env: NodeJS.ProcessEnv) {
  const segments = `${stateDirOf(lab)}/${SEGMENTS}.yaml`;
  const documents = segmentConfigs(topology, options).map(document => stringify(document));
  writeFileSync(segments, documents.join('---\n'));
  const files = [segments, ...topology.nodes.map(({ name }) => configOf(lab, name))];
  const spread = options.loops === undefined ? [] : ['--loops', `${options.loops}`];
  const argv = [process.execPath, MAIN, 'node', ...files.flatMap(file => ['--config', file]), ...spread];
  await processes.start({ host: NODES, argv, readyLine: 'ready', env, at: SWITCH });
  const missing = topology.nodes.filter(({ name }) => !existsSync(socketOf(lab, name)));
  if (missing.length > 0) {
    const log = readFileSync(processes.logOf(NODES), 'utf8').trim();
    throw new LabError(`${missing.map(({ name }) => name).join(', ')} did not start: ${log}`);
  }
  const joins = topology.subnets.map(({ name }) => `link set dev ${segmentDevice(name)} master ${name}`);
  await ipBatch(joins, { netns: namespaceOf(lab, SWITCH), env: memberEnvironment(lab) });
}

/** Starts a node as its file says, and puts its uplink on its bridge. */
async function launchNode({ name: lab, processes }: NodePlace, { name, subnet }: LabNode, env: NodeJS.ProcessEnv) {
  const argv = [process.execPath, MAIN, 'node', '--config', configOf(lab, name)];
  await processes.start({ host: name, argv, readyLine: 'ready', env });

  // The node keeps its TAP by file descriptor, wherever the kernel's side of it goes.
  const member = memberEnvironment(lab);
  const net = namespaceOf(lab, SWITCH);
  const move = `link set dev ${UPLINK_DEVICE} netns ${net} name ${name}`;
  await ipBatch([move], { netns: namespaceOf(lab, name), env: member });
  await ipBatch([`link set dev ${name} master ${subnet} up`], { netns: net, env: member });
  await untilAtHostPort(lab, name);
}

/** The node's processes have its address as soon as the node has seen that its TAP has left their namespace. */
async function untilAtHostPort(lab: string, node: string): Promise<void> {
  const deadline = Date.now() + READY_TIMEOUT_MS;
  for (;;) {
    const { underlay } = (await callNode(socketOf(lab, node), 'status')) as { underlay: { atHostPort: boolean } };
    if (underlay.atHostPort) return;
    if (Date.now() > deadline) throw new LabError(`${node} does not see that its TAP was moved`);
    await sleep(5);
  }
}

/**
 * Ends a node, if it still runs, and starts it again with the configuration that it had. Those of one process go on while
 * one of them is restarted; when the process has died, all of them start again.
 * @returns the nodes that have been started
 * @throws LabError when one does not become ready
 */
export async function restartNode(place: NodePlace, name: string, isUp: boolean): Promise<string[]> {
  const { topology, options, processes } = place;
  const node = topology.nodes.find(candidate => candidate.name === name);
  if (node === undefined) throw new LabError(`lab '${place.name}' has no node '${name}'`, { usage: true });
  if (options.processes) {
    await processes.end(name);
    await launchNode(place, node, {});
    return [name];
  }
  if (isUp && (await restartInProcess(place.name, name))) return [name];
  await processes.end(NODES);
  await launchNodes(place, {});
  return topology.nodes.map(other => other.name);
}

/** @returns whether the node has come back */
async function restartInProcess(lab: string, name: string): Promise<boolean> {
  const path = socketOf(lab, name);
  const socket = (): string | undefined => {
    const stat = statSync(path, { throwIfNoEntry: false });
    return stat === undefined ? undefined : `${stat.ino} ${stat.ctimeMs}`;
  };
  const answers = (): Promise<boolean> =>
    callNode(path, 'status').then(
      () => true,
      () => false,
    );
  const before = socket();
  await callNode(path, 'restart');
  for (const deadline = Date.now() + READY_TIMEOUT_MS; Date.now() < deadline; await sleep(5)) {
    const now = socket();
    if (now !== undefined && now !== before && (await answers())) return true;
  }
  return false;
}
