/** What makes a lab's hosts the machines of the articles: their tools, by name. */
import { chmodSync, existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { delimiter } from 'node:path';
import { fileURLToPath } from 'node:url';
import { flattened } from '../flattened.ts';
import { findKubectl } from './find-kubectl.ts';
import { API_LOG, kubeconfigOf, memberEnvironment, stateDirOf } from './names.ts';

/** The host that a tool is used on. */
export const HOST_VARIABLE = 'TUNPATH_HOST';
/** The node of the agent's pod that it is used in. */
export const AGENT_VARIABLE = 'K8S_NODE_NAME';

const TOOLS = ['kubectl', 'cilium', 'cilium-dbg', 'hubble', 'calicoctl', 'iptables', 'helm', 'ssh', 'arping'];
/** On nodes, views of ours; elsewhere the machine's own, without a detour. */
const NODE_TOOLS = ['ip', 'ifconfig'];
const TERMINAL = fileURLToPath(flattened(new URL('../cli/terminal/main.js', import.meta.url)));

/** Where the machine itself has a tool; undefined where it has none. Not by the PATH: ours is in front there. */
export function machineTool(name: string): string | undefined {
  return ['/usr/sbin', '/sbin', '/usr/bin', '/bin'].map(one => `${one}/${name}`).find(path => existsSync(path));
}

export function toolsOf(lab: string): string {
  return `${stateDirOf(lab)}/bin`;
}

/** Scripts of the tools' names. */
export function writeTools(lab: string, nodes: readonly string[]): void {
  const directory = toolsOf(lab);
  mkdirSync(directory, { recursive: true });
  const write = (name: string, lines: string): void => {
    writeFileSync(`${directory}/${name}`, `#!/bin/sh\n${lines}\n`);
    chmodSync(`${directory}/${name}`, 0o755);
  };
  const terminal = (tool: string): string => `exec '${process.execPath}' '${TERMINAL}' ${lab} ${tool} "$@"`;
  for (const tool of TOOLS) write(tool, terminal(tool));
  for (const tool of NODE_TOOLS) {
    const own = machineTool(tool);
    const real = own === undefined ? `echo '${tool}: this machine has none' >&2; exit 127` : `exec ${own} "$@"`;
    // A command on another host is started by `ip netns`.
    const cases = [
      `*:netns) ${real} ;;`,
      `${nodes.map(node => `${node}:*`).join('|')}) ${terminal(tool)} ;;`,
      `*) ${real} ;;`,
    ];
    write(tool, `case "$${HOST_VARIABLE}:$1" in\n${cases.join('\n')}\nesac`);
  }
  // Everybody is root on a lab's hosts, and no password is asked for.
  const words = 'while :; do case "$1" in -[ugpCDhrRT]) shift 2 ;; -*) shift ;; *) break ;; esac; done';
  write('sudo', `${words}\n[ $# -gt 0 ] || exec "\${SHELL:-sh}"\nexec "$@"`);
  write('sshpass', '[ "$1" = -p ] && shift\nshift\nexec "$@"');
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
  const own = toolsOf(lab) + delimiter;
  return {
    ...memberEnvironment(lab),
    PATH: path.startsWith(own) ? path : own + path,
    KUBECONFIG: kubeconfigOf(lab),
    [HOST_VARIABLE]: host,
  };
}
