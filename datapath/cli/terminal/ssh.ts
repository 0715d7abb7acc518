/** `ssh HOST [COMMAND]` between the hosts of a lab: no sshd runs on them, their namespaces are on this machine. */
import { machinesOf } from '../../lab/topology.ts';
import { type Desk, ToolError } from './desk.ts';
import { runTunpath } from './run.ts';

/** Options of ssh's that a value follows (ssh.1). */
const VALUED = /^-[BbcDEeFIiJLlmOopQRSWw]$/;

export async function ssh(desk: Pick<Desk, 'lab' | 'topology'>, argv: readonly string[]): Promise<number> {
  let i = 0;
  while (argv[i]?.startsWith('-')) i += VALUED.test(argv[i]!) ? 2 : 1;
  const target = argv[i];
  if (target === undefined) throw new ToolError('expected [USER@]HOST and a command');
  const name = target.slice(target.indexOf('@') + 1);
  const host = hostNamed(desk, name);
  const command = argv.slice(i + 1);
  if (command.length === 0) return runTunpath(['lab', 'shell', '--name', desk.lab, host]);
  // As sshd does: the words are one line for the shell of the other side.
  return runTunpath(['lab', 'exec', '--name', desk.lab, host, '--', 'sh', '-c', command.join(' ')]);
}

/** By name, or by an address of its own on a subnet. */
function hostNamed({ topology }: Pick<Desk, 'topology'>, name: string): string {
  const known = machinesOf(topology);
  const found = known.find(one => one.name === name || one.addresses.includes(name));
  if (found === undefined) {
    const names = known.map(one => one.name).join(', ');
    throw new ToolError(`Could not resolve hostname ${name}: expected one of ${names}`);
  }
  return found.name;
}
