/** Where a lab's parts are called what. One prefix for all, so that labs never meet each other or the host's own namespaces. */
import { RUN_DIR } from '../control/client.ts';
import { LabError } from './lab-error.ts';

/** Where iproute2 keeps namespaces by name. */
export const NETNS_DIR = '/run/netns';

/** Name of the switch namespace among a lab's hosts; no node, pod or router may have it. */
export const SWITCH = 'net';

/** Name of the namespace behind the router's exit. */
export const AWAY = 'away';

/** What the API is called among a lab's processes, and its log; the process with all nodes; and the file with their segments. */
export const API_LOG = 'api';
export const NODES = 'nodes';
export const SEGMENTS = 'segments';

/**
 * Letters and digits only: with a dash, lab `a` would own the namespaces of lab `a-b`.
 * @throws LabError for anything else.
 */
export function checkLabName(name: string): string {
  if (!/^[a-z0-9]{1,16}$/.test(name)) {
    throw new LabError(`lab name '${name}': expected 1 to 16 lower-case letters and digits`, { usage: true });
  }
  return name;
}

export function namespacePrefix(lab: string): string {
  return `tp-${lab}-`;
}

export function namespaceOf(lab: string, host: string): string {
  return namespacePrefix(lab) + host;
}

/** Holds lab.json, the nodes' configurations and every process's log. */
export function stateDirOf(lab: string): string {
  return `${RUN_DIR}/lab-${lab}`;
}

/** Names and addresses of the services that the lab's API has, for name servers. */
export function zoneFileOf(lab: string): string {
  return `${stateDirOf(lab)}/zone`;
}

/** Holds the API's socket and kubeconfig, where people look for them. */
export function apiDirOf(lab: string): string {
  return `${RUN_DIR}/${lab}`;
}

export function kubeconfigOf(lab: string): string {
  return `${apiDirOf(lab)}/kubeconfig`;
}

/** `metadata.name` of a node, and so the name of its control socket: unique among all labs. */
export function nodeNameOf(lab: string, node: string): string {
  return namespaceOf(lab, node);
}

/** Control socket of a node. */
export function socketOf(lab: string, node: string): string {
  return `${RUN_DIR}/${nodeNameOf(lab, node)}.sock`;
}

/** In the environment of every process that a lab starts, with the lab's name: so it is found wherever it is. */
export const MEMBER_VARIABLE = 'TUNPATH_LAB_MEMBER';

export function memberEnvironment(lab: string): NodeJS.ProcessEnv {
  return { ...process.env, [MEMBER_VARIABLE]: lab };
}
