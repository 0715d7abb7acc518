/**
 * The tools of a lab's terminal under their own names: `node main.js LAB TOOL ARGUMENT...`, which scripts in the lab's `bin`
 * call. On which host is in the environment.
 */
import { readFileSync } from 'node:fs';
import { callNode } from '../../control/client.ts';
import type { ResolvedConfig } from '../../control/resolved.ts';
import { readLabState } from '../../lab/lab-state.ts';
import { kubeconfigOf } from '../../lab/names.ts';
import { runOwnClient } from '../../lab/own-client.ts';
import { AGENT_VARIABLE, HOST_VARIABLE } from '../../lab/terminal-files.ts';
import type { CiliumBackend } from '../../observe/cilium-text.ts';
import { iptablesNat } from '../../observe/iptables-text.ts';
import { rowsOf } from '../cilium.ts';
import { print } from '../output.ts';
import { arping } from './arping.ts';
import { calicoctl } from './calicoctl.ts';
import { cilium, hubble } from './cilium.ts';
import { ciliumDbg } from './cilium-dbg.ts';
import { Desk } from './desk.ts';
import { helm } from './helm.ts';
import { ifconfig, ip } from './ip.ts';
import { real } from './run.ts';
import { ssh } from './ssh.ts';

type Tool = (desk: Desk, argv: readonly string[]) => Promise<string | number>;

const TOOLS: Record<string, Tool> = {
  cilium,
  'cilium-dbg': ciliumDbg,
  hubble,
  calicoctl,
  iptables,
  ip,
  ifconfig,
  helm,
};

async function main([lab, tool, ...argv]: string[]): Promise<number> {
  const agent = process.env[AGENT_VARIABLE];
  let desk: Desk | undefined;
  try {
    if (tool === 'kubectl') return await kubectl(lab!, argv);
    if (tool === 'arping') return await arping(argv);
    if (tool === 'ssh') return await ssh({ lab: lab!, topology: readLabState(lab!).topology }, argv);
    desk = new Desk(lab!, agent ?? process.env[HOST_VARIABLE], agent !== undefined);
    const said = await TOOLS[tool!]!(desk, argv);
    if (typeof said === 'number') return said;
    await print(said);
    return 0;
  } catch (error) {
    process.stderr.write(`${tool}: ${(error as Error).message}\n`);
    return 1;
  } finally {
    desk?.close();
  }
}

/** Where the machine has none. */
async function kubectl(lab: string, argv: readonly string[]): Promise<number> {
  const input = argv[argv.indexOf('-f') + 1] === '-' ? readFileSync(0, 'utf8') : '';
  const { stdout, stderr, exitCode } = await runOwnClient(kubeconfigOf(lab), argv, input);
  await print(stdout);
  process.stderr.write(stderr);
  return exitCode;
}

/** `iptables [-t nat] -S [CHAIN]`: what the node's tables amount to. Anything else is the kernel's own. */
async function iptables(desk: Desk, argv: readonly string[]): Promise<string | number> {
  const table = argv[argv.indexOf('-t') + 1];
  const at = argv.findIndex(word => word === '-S' || word === '--list-rules');
  if (argv.indexOf('-t') < 0 || table !== 'nat' || at < 0) {
    return real('iptables', argv);
  }
  const chain = argv[at + 1]?.startsWith('-') ? undefined : argv[at + 1];
  const config = (await callNode(desk.socket, 'config')) as ResolvedConfig;
  const text = iptablesNat(config, await rowsOf<CiliumBackend>(desk.socket, 'endpoints'), chain);
  if (text === null) throw new Error('No chain/target/match by that name.');
  return text;
}

process.exitCode = await main(process.argv.slice(2));
