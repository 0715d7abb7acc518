/** `tunpath host init` and `tunpath host check`: what this machine is like, and whether a pair of nodes works. */

import { writeFileSync } from 'node:fs';
import { parseAddress, parseCidr } from '../control/address.ts';
import { missingCapabilities } from '../control/capabilities.ts';
import { formatProblems, loadConfig } from '../control/load-config.ts';
import { describeFileError } from '../control/read-text.ts';
import { SCHEMA_LINE } from '../control/schema-file.ts';
import { resolveUplink, uplinkObstacles } from '../control/uplink/index.ts';
import { type Facts, gatherFacts } from '../host/facts.ts';
import { judgeChecksums, judgeConflicts, judgeDrops, judgePair, judgePorts, type Row } from '../host/judge-pair.ts';
import { candidates, planNode } from '../host/plan.ts';
import { probePairs } from '../host/probe-pair.ts';
import type { Request, UplinkKindName } from '../host/request.ts';
import { writeConfig } from '../host/write-config.ts';
import { LabError } from '../lab/lab-error.ts';
import { listNodes, pickNode, socketPathOf } from './client.ts';
import { DONE, NO, UsageError } from './exit.ts';
import type { Format } from './format.ts';
import { type Column, printRows } from './table.ts';

export interface InitFlags {
  interface?: string;
  uplink: string;
  tunnel: string;
  port?: string;
  peer: string[];
  pod: string[];
  name?: string;
  podCidr?: string;
  address?: string;
  output?: string;
  force?: boolean;
}

/** @returns the exit code: 0 written, 1 something stands in the way. @throws UsageError for a flag that is wrong */
export async function init(flags: InitFlags): Promise<number> {
  const request = readRequest(flags);
  needRoot('host init');
  const facts = await gatherFacts(request.peers.map(({ address }) => address));
  const refused: string[] = [];
  for (const kind of candidates(request)) {
    const { text, obstacles } = await tryKind(facts, request, kind);
    if (text !== undefined) return write(SCHEMA_LINE + text, flags);
    const prefix = candidates(request).length > 1 ? `uplink ${kind}: ` : '';
    refused.push(...obstacles.map(obstacle => prefix + obstacle));
  }
  process.stderr.write(refused.map(line => `${line}\n`).join(''));
  return NO;
}

/** What an ordinary user can see is not what a node will meet. @throws LabError */
function needRoot(what: string): void {
  const missing = missingCapabilities(['CAP_NET_ADMIN']);
  if (missing.length > 0) throw new LabError(`${what} needs ${missing.join(' and ')}: run it as root`);
}

/** A configuration with this kind of uplink, checked as a start would check it; or why there is none. */
async function tryKind(
  facts: Facts,
  request: Request,
  kind: UplinkKindName,
): Promise<{ text: string; obstacles?: undefined } | { text?: undefined; obstacles: string[] }> {
  const { plan, obstacles } = planNode(facts, request, kind);
  if (plan === undefined) return { obstacles };
  const text = writeConfig(plan);
  const loaded = loadConfig(text, 'configuration');
  if (loaded.problems !== undefined) return { obstacles: formatProblems(loaded.problems).split('\n') };
  const resolved = await resolveUplink(loaded.config);
  const found = resolved.config === undefined ? resolved.obstacles : await uplinkObstacles(resolved.config);
  return found.length > 0 ? { obstacles: found } : { text };
}

function write(text: string, { output, force }: InitFlags): number {
  if (output === undefined) {
    process.stdout.write(text);
    return DONE;
  }
  try {
    writeFileSync(output, text, { flag: force === true ? 'w' : 'wx' });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST')
      throw new UsageError(`--output ${output}: ${describeFileError(error)}`);
    throw new UsageError(`${output} is there already: --force replaces it`);
  }
  process.stderr.write(`${output} written\n`);
  return DONE;
}

const COLUMNS: Column<Row>[] = [
  { title: 'CHECK', value: row => row.check },
  { title: 'PEER', value: row => row.peer },
  { title: 'RESULT', value: row => row.result },
  { title: 'SEEN', value: row => row.seen },
  { title: 'WHAT-TO-DO', value: row => row.todo },
];

export interface CheckFlags {
  node?: string;
  peer: string[];
  output: Format;
}

/** @returns the exit code: 0 nothing fails, 1 something does */
export async function check(flags: CheckFlags): Promise<number> {
  needRoot('host check');
  const socket = socketPathOf(pickNode(flags.node, listNodes()));
  const peers = flags.peer.map(text => text.split('='));
  for (const address of peers.flat()) {
    if (parseAddress(address) === undefined) throw new UsageError(`--peer ${address}: expected an address`);
  }
  const targets = new Map(peers.flatMap(([peer, target]) => (target === undefined ? [] : [[peer, target] as const])));
  const { ports, conflicts, pairs, counted } = await probePairs(
    socket,
    peers.map(([peer]) => peer),
    targets,
  );
  const rows = [
    ...judgePorts(ports),
    ...judgeConflicts(conflicts),
    ...pairs.flatMap(judgePair),
    judgeChecksums(counted),
    judgeDrops(counted),
  ];
  await printRows(flags.output, rows, COLUMNS);
  return rows.some(({ result }) => result === 'fail') ? NO : DONE;
}

function readRequest(flags: InitFlags): Request {
  const { interface: name, uplink, tunnel, podCidr, address } = flags;
  const network = (text: string | undefined, flag: string) => {
    const cidr = text === undefined ? undefined : parseCidr(text);
    if (text === undefined) return;
    if (cidr === undefined || cidr.address !== cidr.prefix || cidr.length > 28 || cidr.length < 8) {
      throw new UsageError(`${flag} ${text}: expected a network such as 10.244.1.0/24, from /8 to /28`);
    }
  };
  network(podCidr, '--pod-cidr');
  if (address !== undefined && (parseCidr(address) === undefined || !address.includes('/'))) {
    throw new UsageError(`--address ${address}: expected an address with its prefix length, such as 192.168.10.21/24`);
  }
  if (flags.name !== undefined && !/^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/.test(flags.name)) {
    throw new UsageError(`--name ${flags.name}: expected 1 to 63 lower case letters, digits and inner hyphens`);
  }
  const port = flags.port === undefined ? undefined : Number(flags.port);
  if (port !== undefined && !(Number.isInteger(port) && port >= 1 && port <= 65535)) {
    throw new UsageError(`--port ${flags.port}: expected a whole number from 1 to 65535`);
  }
  const peers = flags.peer.map(text => {
    const [peer, cidr] = text.split('=');
    if (parseAddress(peer) === undefined) {
      throw new UsageError(`--peer ${text}: expected ADDRESS, or ADDRESS=NETWORK where the network is its pods'`);
    }
    network(cidr, `--peer ${peer}=`);
    return { address: peer, podCidr: cidr };
  });
  return {
    interface: name,
    uplink: uplink as Request['uplink'],
    tunnel: tunnel as Request['tunnel'],
    port,
    peers,
    name: flags.name,
    podCidr,
    address,
    pods: flags.pod,
  };
}
