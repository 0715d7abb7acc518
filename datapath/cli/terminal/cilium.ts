/** `cilium`, the command line of the cluster (cilium-cli), and `hubble`. */
import type { KubeObject } from '../../api/object.ts';
import { callNode } from '../../control/client.ts';
import { nodeNameOf, socketOf } from '../../lab/names.ts';
import { columns } from '../../observe/cilium-text.ts';
import { ciliumDbg } from './cilium-dbg.ts';
import { type Desk, ToolError } from './desk.ts';
import { runTunpath } from './run.ts';

export async function cilium(desk: Desk, argv: readonly string[]): Promise<string | number> {
  // In the agent's pod it is the agent's.
  if (desk.isAgent) return ciliumDbg(desk, argv);
  const line = argv.filter(word => !word.startsWith('-')).join(' ');
  switch (line) {
    case 'status':
      return statusText(desk);
    case 'config view': {
      const config = await desk.ciliumConfig();
      return columns(Object.entries(config).sort(([a], [b]) => (a < b ? -1 : 1)));
    }
    case 'features status':
      return featuresText(desk);
    default:
      throw new ToolError(`cilium ${line}: not among what a lab has; see docs/terminal.md`);
  }
}

async function statusText(desk: Desk): Promise<string> {
  await desk.ciliumConfig();
  const [daemons, pods] = await Promise.all([
    desk.list('/apis/apps/v1/namespaces/kube-system/daemonsets'),
    desk.list('/api/v1/pods'),
  ]);
  const agents = daemons.find(({ metadata }) => metadata.name === 'cilium');
  const { desiredNumberScheduled: desired = 0, numberReady: ready = 0 } = agents?.status ?? {};
  const own = (pod: KubeObject): boolean => pod.spec.hostNetwork !== true;
  return [
    '    /¯¯\\',
    ` /¯¯\\__/¯¯\\    Cilium:             ${ready === desired ? 'OK' : `${desired - ready} errors`}`,
    ' \\__/¯¯\\__/    Operator:           OK',
    ' /¯¯\\__/¯¯\\    Envoy DaemonSet:    disabled (using embedded mode)',
    ' \\__/¯¯\\__/    Hubble Relay:       disabled',
    '    \\__/       ClusterMesh:        disabled',
    '',
    `DaemonSet              cilium             Desired: ${desired}, Ready: ${ready}/${desired}, Available: ${ready}/${desired}`,
    `Containers:            cilium             Running: ${ready}`,
    `Cluster Pods:          ${pods.filter(own).length}/${pods.filter(own).length} managed by Cilium`,
    '',
  ].join('\n');
}

/** The one feature that the article looks at. */
async function featuresText(desk: Desk): Promise<string> {
  const { nodes } = desk.topology;
  const modes = await Promise.all(
    nodes.map(async ({ name }) => {
      const { spec } = await desk.config(name);
      const [tunnel] = spec.tunnels;
      return tunnel === undefined ? 'direct-routing' : `overlay-${tunnel.protocol}`;
    }),
  );
  const rows = [...new Set(modes)].map(mode => [
    'Yes',
    'cilium_feature_datapath_network',
    `mode=${mode}`,
    ...modes.map(one => (one === mode ? '1' : '0')),
  ]);
  return `Cilium Agents\n${columns([['Uniform', 'Name', 'Labels', ...nodes.map(({ name }) => name)], ...rows])}`;
}

export async function hubble(desk: Desk, argv: readonly string[]): Promise<string | number> {
  if (argv[0] === 'observe') return runTunpath(['observe', '--lab', desk.lab, ...argv.slice(1)]);
  if (argv[0] !== 'status') throw new ToolError(`hubble ${argv[0] ?? ''}: expected status or observe`);
  const flows = await Promise.all(
    desk.topology.nodes.map(async ({ name }) => {
      const status = (await callNode(socketOf(desk.lab, name), 'status')) as {
        flowHistory: { remembered: number; most: number };
      };
      return status.flowHistory;
    }),
  );
  const sum = (of: (one: { remembered: number; most: number }) => number): number =>
    flows.reduce((total, one) => total + of(one), 0);
  return [
    `Healthcheck (via ${nodeNameOf(desk.lab, desk.node)}.hubble.sock): Ok`,
    `Current/Max Flows: ${sum(one => one.remembered)}/${sum(one => one.most)}`,
    `Connected Nodes: ${flows.length}/${flows.length}`,
    '',
  ].join('\n');
}
