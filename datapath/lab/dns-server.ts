/**
 * The name server of a lab's cluster, run as its own process inside its pod: A and PTR records of services, from the
 * command line or a file that may change, over UDP. Names of the cluster's domain that it does not know do not exist; others
 * it refuses.
 *
 * Usage: dns-server.js PORT DOMAIN [@FILE] NAME=ADDRESS...   FILE has such records, one a line, and once it is there it stands
 * instead of the others. Prints `listening` on stderr.
 */

import { createSocket } from 'node:dgram';
import { readFileSync, statSync } from 'node:fs';
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
  records: ReadonlyMap<string, readonly string[]>;
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
    for (const data of byName) answers.push({ type: 'A', name: question.name, ttl: TTL_S, data });
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
  return [...records].find(([, known]) => known.includes(address))?.[0];
}

/** `NAME=ADDRESS` -> name in lower case -> addresses */
export function recordsOf(lines: readonly string[]): Map<string, string[]> {
  const records = new Map<string, string[]>();
  for (const line of lines) {
    const [name, address] = line.split('=') as [string, string];
    records.set(name.toLowerCase(), [...(records.get(name.toLowerCase()) ?? []), address]);
  }
  return records;
}

/** Records of a file, read again when it has changed; undefined as long as it is not there. */
function fileRecords(path: string): () => Zone['records'] | undefined {
  let records: Zone['records'] | undefined;
  let read = '';
  return () => {
    const found = statSync(path, { throwIfNoEntry: false });
    const version = `${found?.mtimeMs} ${found?.size}`;
    if (found !== undefined && version !== read) {
      read = version;
      records = recordsOf(
        readFileSync(path, 'utf8')
          .split('\n')
          .filter(line => line !== ''),
      );
    }
    return records;
  };
}

function main(argv: string[]): void {
  const [port, domain, ...records] = argv;
  if (port === undefined || domain === undefined) {
    process.stderr.write('usage: dns-server PORT DOMAIN NAME=ADDRESS...\n');
    process.exitCode = 2;
    return;
  }
  const written = recordsOf(records.filter(record => !record.startsWith('@')));
  const file = records.find(record => record.startsWith('@'));
  const current = file === undefined ? () => undefined : fileRecords(file.slice(1));
  const socket = createSocket('udp4');
  socket.on('message', (message, { address, port: from }) => {
    const answer = answerQuery(message, { domain, records: current() ?? written });
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
