/** `tunpath example`: files to start from, and what to type. */

import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describeFileError } from '../control/read-text.ts';
import { SCHEMA_LINE } from '../control/schema-file.ts';
import { DONE, UsageError } from './exit.ts';

interface Example {
  what: string;
  files: Record<string, string>;
  /** What to type, in order. */
  commands: [command: string, what: string][];
}

const SEGMENT = `apiVersion: tunpath.dev/v1
kind: Segment
metadata: { name: lan10 }
spec: { mtu: 1500 }
---
`;

/** Node \`name\` with one pod, on a wire with another node \`peer\`. */
function nodeFile(name: string, own: number, peer: number, before: string): string {
  return `${SCHEMA_LINE}${before}apiVersion: tunpath.dev/v1
kind: NodeConfig
metadata: { name: ${name} }
spec:
  uplink: { kind: segment, segment: lan10, mac: 02:00:00:00:00:0${own}, address: 192.168.10.${own}/24 }
  pods:
    - { name: default/p${own}, netns: p${own}, device: eth0, address: 10.244.${own}.10 }
  tunnel:
    protocol: vxlan # none, ipip, vxlan, geneve
    peers: [{ address: 192.168.10.${peer} }]
  routes:
    - { to: 10.244.${peer}.0/24, via: 192.168.10.${peer}, encap: true }
`;
}

/** All of it by itself. */
const SCRIPT = `#!/bin/sh
# Two nodes, a ping from pod to pod, and nothing left of it. As root.
set -e
cd "$(dirname "$0")"
ip netns add p1
ip netns add p2
tunpath node --config a.yaml --config b.yaml 2>node.log &
node=$!
trap 'kill $node; wait $node; ip netns del p1; ip netns del p2' EXIT
until grep -q ^ready node.log; do kill -0 $node || { cat node.log; exit 1; }; sleep 0.1; done
ip netns exec p1 ping -c 3 10.244.2.10
`;

export const EXAMPLE_FILES: Readonly<Record<string, Example>> = {
  'two-nodes': {
    what: 'two nodes with a pod each, a wire between them in the process, and a VXLAN tunnel over it',
    files: { 'a.yaml': nodeFile('a', 1, 2, SEGMENT), 'b.yaml': nodeFile('b', 2, 1, ''), 'run.sh': SCRIPT },
    commands: [
      ['ip netns add p1 && ip netns add p2', 'the pods'],
      ['tunpath node --config a.yaml --config b.yaml &', '"ready" when packets flow'],
      ['ip netns exec p1 ping -c 3 10.244.2.10', 'from pod to pod, through the tunnel'],
      ['tunpath observe --first 4 & sleep 1; ip netns exec p1 ping -c 1 10.244.2.10', 'what the nodes see of it'],
      ['tunpath segment set lan10 --delay 20ms', 'a slower wire'],
      ['ip netns exec p1 ping -c 3 10.244.2.10', '40 ms there and back'],
      ['kill %1; ip netns del p1; ip netns del p2', 'the end'],
    ],
  },
};

export async function example(name: string | undefined, { directory }: { directory: string }): Promise<number> {
  if (name === undefined) {
    for (const [known, { what }] of Object.entries(EXAMPLE_FILES)) process.stdout.write(`${known}: ${what}\n`);
    return DONE;
  }
  const { files, commands } = EXAMPLE_FILES[name];
  try {
    mkdirSync(directory, { recursive: true });
    // What is there already is somebody's.
    for (const [file, text] of Object.entries(files)) writeFileSync(join(directory, file), text, { flag: 'wx' });
  } catch (error) {
    const { path = directory } = error as NodeJS.ErrnoException;
    throw new UsageError(`${path}: ${describeFileError(error)}: expected --directory with one that has no such file`);
  }
  process.stderr.write(
    `written: ${Object.keys(files)
      .map(file => join(directory, file))
      .join(', ')}\n`,
  );
  if (directory !== '.') process.stdout.write(`cd ${directory}\n`);
  const width = Math.max(...commands.map(([command]) => command.length));
  for (const [command, what] of commands) process.stdout.write(`${command.padEnd(width)}  # ${what}\n`);
  return DONE;
}
