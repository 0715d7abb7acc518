/** flannel's file on a lab's nodes: `/run/flannel/subnet.env`. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { loadConfig } from '../control/load-config.ts';
import { configuredOverhead } from '../program/compile-tunnel.ts';
import type { Lab } from './lab.ts';
import { LabError } from './lab-error.ts';
import { stateDirOf } from './names.ts';
import { borrowDirectory } from './remains.ts';
import { systemOf } from './switches.ts';
import type { LabNode, Topology } from './topology.ts';

const UNDERLAY_MTU = 1500;
const MOUNT_POINT = '/run/flannel';

/**
 * What a command on a node of flannel's is started through: there it finds `/run/flannel/subnet.env`. The directory is made
 * on the machine, and what is mounted over it is the command's own.
 */
export function aroundCommand(lab: Lab, host: string): string[] {
  const node = lab.topology.nodes.find(({ name }) => name === host);
  if (node === undefined || systemOf(lab.topology, lab.options) !== 'flannel') return [];
  const directory = `${stateDirOf(lab.name)}/flannel-${host}`;
  mkdirSync(directory, { recursive: true });
  writeFileSync(
    `${directory}/subnet.env`,
    subnetEnv(lab.topology, node, tunnelMtu(`${stateDirOf(lab.name)}/${host}.yaml`)),
  );
  borrowDirectory(lab.name, MOUNT_POINT);
  const script = `mount --bind "$1" ${MOUNT_POINT} && shift && exec "$@"`;
  return ['sh', '-c', script, 'sh', directory];
}

/** As flanneld writes it. Pure. */
export function subnetEnv({ clusterCidr }: Topology, { podCidr, hostAddress }: LabNode, mtu: number): string {
  const length = podCidr.slice(podCidr.indexOf('/'));
  return [
    `FLANNEL_NETWORK=${clusterCidr}`,
    `FLANNEL_SUBNET=${hostAddress}${length}`,
    `FLANNEL_MTU=${mtu}`,
    'FLANNEL_IPMASQ=true',
    '',
  ].join('\n');
}

function tunnelMtu(file: string): number {
  const { config } = loadConfig(readFileSync(file, 'utf8'), file);
  if (config === undefined) throw new LabError(`${file}: not a configuration that a node takes`);
  const { tunnels, uplink } = config.spec;
  return (
    (uplink.kind === 'segment' ? (uplink.mtu ?? UNDERLAY_MTU) : UNDERLAY_MTU) -
    Math.max(0, ...tunnels.map(configuredOverhead))
  );
}
