/**
 * The name server of a lab's cluster, run as its own process inside its pod: A and PTR records of services, from the
 * command line, over UDP. Names of the cluster's domain that it does not know do not exist; others it refuses.
 *
 * Usage: dns-server.js PORT DOMAIN NAME=ADDRESS...   Prints `listening` on stderr.
 */

import { createSocket } from 'node:dgram';
import { pathToFileURL } from 'node:url';
import { type Answer, AUTHORITATIVE_ANSWER, decode, encode, type Packet, RECURSION_DESIRED } from 'dns-packet';

/** As in kubeadm's Corefile. */
const TTL_S = 30;
const NXDOMAIN = 3;
const REFUSED = 5;

export interface Zone {
  /** `cluster.local` */
  domain: string;
  /** Name in lower case -> IPv4 address. */
  records: ReadonlyMap<string, string>;
}

/** The answer to one message, or null if there is nothing to say: it is no query, or none that can be read. */
export function answerQuery(message: Buffer, zone: Zone): Buffer | null {
  let query: Packet & { id?: number };
  try {
    query = decode(message);
  } catch {
    return null;
  }
  const question = query.questions?.[0];
  if (query.type !== 'query' || question === undefined) return null;

  const name = question.name.toLowerCase();
  const byName = zone.records.get(name);
  const byAddress = nameOfReverse(name, zone);
  const answers: Answer[] = [];
  if (question.type === 'A' && byName !== undefined) {
    answers.push({ type: 'A', name: question.name, ttl: TTL_S, data: byName });
  }
  if (question.type === 'PTR' && byAddress !== undefined) {
    answers.push({ type: 'PTR', name: question.name, ttl: TTL_S, data: byAddress });
  }
  const known = byName !== undefined || byAddress !== undefined;
  const ours = known || name === zone.domain || name.endsWith(`.${zone.domain}`);
  const code = known ? 0 : ours ? NXDOMAIN : REFUSED;
  return encode({
    type: 'response',
    id: query.id ?? 0,
    // dns-packet takes the response code as part of the flags.
    flags: (ours ? AUTHORITATIVE_ANSWER : 0) | ((query.flags ?? 0) & RECURSION_DESIRED) | code,
    questions: [question],
    answers,
  });
}

/** `10.0.96.10.in-addr.arpa` -> the name of 10.96.0.10 */
function nameOfReverse(name: string, { records }: Zone): string | undefined {
  const match = /^([\d.]+)\.in-addr\.arpa$/.exec(name);
  if (match === null) return undefined;
  const address = match[1]!.split('.').reverse().join('.');
  return [...records].find(([, known]) => known === address)?.[0];
}

function main(argv: string[]): void {
  const [port, domain, ...records] = argv;
  if (port === undefined || domain === undefined) {
    process.stderr.write('usage: dns-server PORT DOMAIN NAME=ADDRESS...\n');
    process.exitCode = 2;
    return;
  }
  const zone = { domain, records: new Map(records.map(record => record.split('=') as [string, string])) };
  const socket = createSocket('udp4');
  socket.on('message', (message, { address, port: from }) => {
    const answer = answerQuery(message, zone);
    if (answer !== null) socket.send(answer, from, address);
  });
  socket.on('error', error => {
    process.stderr.write(`dns-server: ${error.message}\n`);
    process.exit(1);
  });
  socket.bind(Number(port), '0.0.0.0', () => process.stderr.write('listening\n'));
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  main(process.argv.slice(2));
}
