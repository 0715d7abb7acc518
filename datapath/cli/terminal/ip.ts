/** `ip` and `ifconfig` on a lab's node: what the node itself has, for the kernel has only its host port. */
import { addressText, ifconfigText, type NodeNetwork, routeGetText, routeText } from '../../observe/ip-text.ts';
import { type Desk, ToolError } from './desk.ts';
import { real } from './run.ts';

/** IPv4 is all that a node has. */
const KNOWN_FLAGS = ['-4', '-c', '-color', '-br', '-brief', '-d', '-details'];

export async function ip(desk: Desk, argv: readonly string[]): Promise<string | number> {
  const words = argv.filter(word => !word.startsWith('-'));
  const has = (...flags: string[]): boolean => argv.some(word => flags.includes(word));
  const [object = '', verb = 'show', ...rest] = words;
  if (/^a(d|dd|ddr|ddre|ddres|ddress)?$/.test(object) && isShow(verb)) {
    const [device, ...more] = rest[0] === 'dev' ? rest.slice(1) : rest;
    checkShown(argv, more);
    const options = { device, brief: has('-br', '-brief'), v4: has('-4') };
    const text = addressText(await desk.config(), networkOf(desk), options);
    if (text === null) throw new ToolError(`Device "${device}" does not exist.`);
    return text;
  }
  if (/^r(o|ou|out|oute)?$/.test(object) && (isShow(verb) || verb === 'get')) {
    const network = networkOf(desk);
    checkShown(argv, verb === 'get' ? rest.slice(1) : rest);
    if (verb !== 'get') return routeText(await desk.config(), network);
    const text = routeGetText(await desk.config(), network, rest[0] ?? '');
    if (text === null) throw new ToolError(`RTNETLINK answers: Network is unreachable (${rest[0] ?? 'no address'})`);
    return text;
  }
  return real('ip', argv);
}

export async function ifconfig(desk: Desk, argv: readonly string[]): Promise<string | number> {
  if (argv.length > 0)
    throw new ToolError('what the node has is shown as a whole: expected no words; or ip addr show DEVICE');
  return ifconfigText(await desk.config(), networkOf(desk));
}

/** @param more words behind those that are understood. @throws ToolError for what would be shown without heeding it */
function checkShown(argv: readonly string[], more: readonly string[]): void {
  const flag = argv.find(word => word.startsWith('-') && !KNOWN_FLAGS.includes(word));
  if (flag !== undefined)
    throw new ToolError(`${flag}: what the node has is shown with ${KNOWN_FLAGS.join(', ')} alone`);
  if (more.length > 0) throw new ToolError(`${more.join(' ')}: what the node has is shown without that`);
}

function isShow(verb: string): boolean {
  return ['show', 'list', 'ls', 's', 'sh', 'l'].includes(verb);
}

function networkOf({ topology, node }: Desk): NodeNetwork {
  return { podCidr: topology.nodes.find(({ name }) => name === node)!.podCidr };
}
