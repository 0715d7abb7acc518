/** Topologies in files: the built-in ones and people's own. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Document, isMap, isSeq, visit } from 'yaml';
import type { Path } from '../control/check-draft.ts';
import { API_VERSION } from '../control/config.ts';
import { formatProblems, loadDocument, type Problem } from '../control/load-config.ts';
import { writtenImpairments } from '../control/netem.ts';
import { SCHEMA_LINE } from '../control/schema-file.ts';
import { LabError } from './lab-error.ts';
import { addressOf, type Topology } from './topology.ts';
import { checkTopology } from './topology-check.ts';
import { completeTopology } from './topology-defaults.ts';
import { TOPOLOGY_KIND, writtenTopology } from './topology-form.ts';

/** The built-in ones lie among the sources, also in a package. */
const DIRECTORY = fileURLToPath(new URL('../../../datapath/lab/topologies/', import.meta.url));
const SUFFIX = '.yaml';
const LINE_WIDTH = 128;

/** The form, then the checks across values, then what nobody has said. */
const schema = writtenTopology
  .superRefine(
    (written, context) => {
      // A field that there is not says nothing of the others.
      const refused: Path[] = context.issues
        .filter(({ code }) => code !== 'unrecognized_keys')
        .map(({ path }) => (path ?? []) as Path);
      checkTopology(written, (path, expected) => {
        if (refused.some(other => other.every((step, i) => step === path[i]))) return;
        context.addIssue({ code: 'custom', path, message: expected });
      });
    },
    { when: () => true },
  )
  .transform((written, context) =>
    completeTopology(written, (path, expected) => {
      context.addIssue({ code: 'custom', path, message: expected });
    }),
  );

/** Reads a topology. @param file its name, for the problems */
export function loadTopology(
  text: string,
  file: string,
): { topology: Topology; problems?: undefined } | { topology?: undefined; problems: Problem[] } {
  const { value, problems } = loadDocument(text, file, { kind: TOPOLOGY_KIND, schema });
  return value === undefined ? { problems: problems! } : { topology: value };
}

/** Names of the topologies that `--topology` takes. */
export function topologyNames(): string[] {
  return readdirSync(DIRECTORY)
    .filter(file => file.endsWith(SUFFIX))
    .map(file => file.slice(0, -SUFFIX.length))
    .sort();
}

/** The file of a built-in topology as it is, but with the whole path of its schema. */
export function topologyText(name: string): string {
  return readFileSync(`${DIRECTORY}${name}${SUFFIX}`, 'utf8').replace(/^# yaml-language-server:.*\n/, SCHEMA_LINE);
}

/** @throws LabError for a name that none has */
export function topologyNamed(name: string): Topology {
  const file = `${DIRECTORY}${name}${SUFFIX}`;
  if (!/^[a-z0-9-]+$/.test(name) || !existsSync(file)) {
    throw new LabError(`topology '${name}': expected one of ${topologyNames().join(', ')}`, { usage: true });
  }
  const { topology, problems } = loadTopology(readFileSync(file, 'utf8'), file);
  if (topology === undefined) throw new LabError(formatProblems(problems));
  return topology;
}

/** The built-in ones by name, each read when it is asked for. */
export const TOPOLOGIES: Readonly<Record<string, Topology>> = Object.create(
  null,
  Object.fromEntries(
    topologyNames().map(name => {
      let topology: Topology | undefined;
      return [name, { enumerable: true, get: () => (topology ??= topologyNamed(name)) }];
    }),
  ),
);

/** A topology as a file that says everything, also what was chosen. */
export function printTopology(topology: Topology): string {
  const document = new Document({
    apiVersion: API_VERSION,
    kind: TOPOLOGY_KIND,
    metadata: { name: topology.name },
    spec: written(topology),
  });
  visit(document, {
    Seq(_, list) {
      // A line for each short item.
      for (const item of list.items) {
        if (isMap(item) && JSON.stringify(item.toJSON()).length < LINE_WIDTH - 16) item.flow = true;
      }
      if (!list.items.some(item => isMap(item) || isSeq(item))) list.flow = true;
    },
    Pair(_, { key, value }) {
      if (isMap(value) && ['metadata', 'labels', 'selector', 'exit', 'impairments'].includes(String(key)))
        value.flow = true;
    },
  });
  return SCHEMA_LINE + document.toString({ lineWidth: LINE_WIDTH, flowCollectionPadding: true });
}

/** The spec of its file: what a subnet says of all on it is not said again. */
function written(topology: Topology): object {
  const { name, subnets, nodes, routers, links, hosts, ...rest } = topology;
  const plain = <T extends { address: string }>(item: T): T => ({ ...item, address: addressOf(item.address) });
  return {
    ...rest,
    subnets: subnets.map(({ impairments, ...subnet }) => ({
      ...subnet,
      ...(impairments === undefined ? {} : { impairments: writtenImpairments(impairments) }),
    })),
    nodes: nodes.map(plain),
    routers: routers.map(router => ({ ...router, legs: router.legs.map(plain) })),
    links: links.map(({ ends, mtu }) => ({
      endpoints: ends.map(({ router, device }) => `${router}:${device}`),
      addresses: ends.map(({ address }) => address),
      mtu,
    })),
    hosts: hosts.map(plain),
  };
}
