/** What makes a lab's hosts the machines of the articles: their tools, by name. */
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { delimiter } from 'node:path';
import { fileURLToPath } from 'node:url';
import { flattened } from '../flattened.ts';
import { findKubectl } from './find-kubectl.ts';
import { API_LOG, kubeconfigOf, memberEnvironment, stateDirOf } from './names.ts';

/** The host that a tool is used on. */
export const HOST_VARIABLE = 'TUNPATH_HOST';
/** The node of the agent's pod that it is used in. */
export const AGENT_VARIABLE = 'K8S_NODE_NAME';

const TOOLS = ['kubectl', 'cilium', 'cilium-dbg', 'hubble', 'calicoctl', 'iptables'];
const TERMINAL = fileURLToPath(flattened(new URL('../cli/terminal/main.js', import.meta.url)));

export function toolsOf(lab: string): string {
  return `${stateDirOf(lab)}/bin`;
}

/** Scripts of the tools' names. */
export function writeTools(lab: string): void {
  const directory = toolsOf(lab);
  mkdirSync(directory, { recursive: true });
  const write = (name: string, lines: string): void => {
    writeFileSync(`${directory}/${name}`, `#!/bin/sh\n${lines}\n`);
    chmodSync(`${directory}/${name}`, 0o755);
  };
  for (const tool of TOOLS) write(tool, `exec '${process.execPath}' '${TERMINAL}' ${lab} ${tool} "$@"`);
  const kubectl = findKubectl();
  if (kubectl !== undefined) {
    // The API listens on the loopback of the namespace that it runs in; which process it is may change.
    const pid = `sed -n '/"host": "${API_LOG}"/{n;s/[^0-9]*\\([0-9]*\\).*/\\1/p}' '${stateDirOf(lab)}/lab.json'`;
    write('kubectl', `exec nsenter --net="/proc/$(${pid})/ns/net" '${kubectl}' "$@"`);
  }
  // As the articles call it for short.
  write('k', `exec '${directory}/kubectl' "$@"`);
}

/** Of a command or shell on a host. */
export function terminalEnvironment(lab: string, host: string): NodeJS.ProcessEnv {
  const path = process.env.PATH ?? '/usr/sbin:/usr/bin:/sbin:/bin';
  return {
    ...memberEnvironment(lab),
    PATH: `${toolsOf(lab)}${delimiter}${path}`,
    KUBECONFIG: kubeconfigOf(lab),
    [HOST_VARIABLE]: host,
  };
}
