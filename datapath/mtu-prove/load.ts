/** Reads what `tunpath mtu prove -f` names, and checks what no single document can: names, addresses and links between them. */
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { type NodeConfig, tunnelPath } from '../control/config.ts';
import { type DocumentPlace, loadDocuments, type Problem, problemIn } from '../control/load-config.ts';
import { nearest } from '../control/nearest.ts';
import { readText } from '../control/read-text.ts';
import {
  type ResolvedConfig,
  type ResolvedUplink,
  resolveSegment,
  resolveTap,
  withUplink,
} from '../control/resolved.ts';
import type { SegmentConfig } from '../control/segment-config.ts';
import type { UnderlayConfig } from '../control/underlay.ts';
import { parseCidr } from '../control/validated.ts';

export interface Inputs {
  configs: ResolvedConfig[];
  underlays: UnderlayConfig[];
  segments: SegmentConfig[];
  problems: Problem[];
}

/** What a MAC address that only the kernel knows stands as: nothing here depends on it. */
const SOME_MAC = '02:00:00:00:00:01';

/** @param names files, and directories of which all *.yaml, *.yml and *.json are taken */
export function loadInputs(names: readonly string[]): Inputs {
  return inputsOf(names.flatMap(filesOf).map(file => ({ file, text: readText(file) })));
}

/** @param files names, for the problems, and what they say */
export function inputsOf(files: readonly { file: string; text: string }[]): Inputs {
  const inputs: Inputs = { configs: [], underlays: [], segments: [], problems: [] };
  const nodes: { config: NodeConfig; at: DocumentPlace }[] = [];
  const underlays: { underlay: UnderlayConfig; at: DocumentPlace }[] = [];
  const segments: { segment: SegmentConfig; at: DocumentPlace }[] = [];
  for (const { file, text } of files) {
    const loaded = loadDocuments(text, file);
    nodes.push(...loaded.configs);
    underlays.push(...loaded.underlays);
    segments.push(...loaded.segments);
    inputs.problems.push(...loaded.problems);
  }
  for (const { config, at } of nodes) {
    const uplink = resolveFromFile(config);
    if (uplink === undefined) {
      const message = `got ${config.spec.uplink.kind}, expected tap, segment, or macvtap with an mtu: the others have those of the host's interface`;
      inputs.problems.push(problemIn(at, ['spec', 'uplink', 'kind'], message));
    } else {
      inputs.configs.push(withUplink(config, uplink));
    }
  }
  inputs.underlays = underlays.map(({ underlay }) => underlay);
  for (const { segment, at } of segments) {
    const { name } = segment.metadata;
    if (!inputs.segments.some(known => known.metadata.name === name)) inputs.segments.push(segment);
    else inputs.problems.push(problemIn(at, ['metadata', 'name'], `got "${name}" again, expected each segment once`));
  }
  checkNodes(nodes, inputs.problems);
  checkLinks(nodes, underlays, inputs.problems);
  return inputs;
}

function filesOf(name: string): string[] {
  if (!statSync(name).isDirectory()) return [name];
  return readdirSync(name)
    .filter(entry => /\.(ya?ml|json)$/.test(entry))
    .sort()
    .map(entry => join(name, entry));
}

/** The uplink where the file says all of it that matters; undefined for an interface of the host. */
function resolveFromFile({ spec: { uplink } }: NodeConfig): ResolvedUplink | undefined {
  switch (uplink.kind) {
    case 'tap':
      return resolveTap(uplink);
    case 'segment':
      return resolveSegment(uplink);
    case 'macvtap':
      if (uplink.mtu === undefined) return undefined;
      return {
        ...uplink,
        mtu: uplink.mtu,
        device: uplink.device ?? uplink.interface,
        mac: uplink.mac ?? SOME_MAC,
        onHostPort: true,
        written: uplink,
      };
    default:
      return undefined;
  }
}

function checkNodes(nodes: readonly { config: NodeConfig; at: DocumentPlace }[], problems: Problem[]): void {
  const names = new Map<string, string>();
  /** Of nodes, host ports and pods alike. */
  const addresses = new Map<number, string>();
  const macs = new Map<string, string>();
  for (const { config, at } of nodes) {
    const { metadata, spec } = config;
    const add = (path: PropertyKey[], message: string) => problems.push(problemIn(at, path, message));
    const claim = (path: PropertyKey[], text: string, who: string, by: string) => {
      const { address } = parseCidr(text);
      const owner = addresses.get(address);
      if (owner !== undefined) add(path, `got ${text}, expected an address no other ${who} has (${owner} has it)`);
      addresses.set(address, by);
    };
    const claimMac = (path: PropertyKey[], mac: string | undefined, among: string) => {
      if (mac === undefined) return;
      const owner = macs.get(`${mac} ${among}`);
      if (owner !== undefined) add(path, `got ${mac}, expected a MAC no other node has (${owner} has it)`);
      macs.set(`${mac} ${among}`, metadata.name);
    };
    const other = names.get(metadata.name);
    if (other !== undefined) {
      add(['metadata', 'name'], `got ${metadata.name}, expected a name no other node has (${other} has it)`);
    }
    names.set(metadata.name, at.file);
    const { uplink, host, pods, tunnels } = spec;
    if ('address' in uplink) {
      claim(['spec', 'uplink', 'address'], uplink.address, 'node', metadata.name);
      // One MAC twice does no harm on two segments.
      const { prefix, length } = parseCidr(uplink.address);
      claimMac(['spec', 'uplink', 'mac'], uplink.mac, `${prefix}/${length}`);
    }
    for (const tunnel of tunnels) {
      if (tunnel.mac !== undefined) claimMac([...tunnelPath(spec, tunnel), 'mac'], tunnel.mac, `tunnel ${tunnel.name}`);
    }
    // A host port may have the node's own address.
    if (host !== undefined && !('address' in uplink && host.address.split('/')[0] === uplink.address.split('/')[0])) {
      claim(['spec', 'host', 'address'], host.address, 'node', metadata.name);
    }
    pods.forEach((pod, i) => {
      claim(['spec', 'pods', i, 'address'], pod.address, 'pod', `${pod.name} on ${metadata.name}`);
    });
  }
}

/** A name on one link only that is no node is a mistake: a router joins two. */
function checkLinks(
  nodes: readonly { config: NodeConfig }[],
  underlays: readonly { underlay: UnderlayConfig; at: DocumentPlace }[],
  problems: Problem[],
): void {
  const known = nodes.map(({ config }) => config.metadata.name);
  const times = new Map<string, number>();
  for (const { underlay } of underlays) {
    for (const name of underlay.spec.links.flatMap(({ between }) => between)) {
      times.set(name, (times.get(name) ?? 0) + 1);
    }
  }
  for (const { underlay, at } of underlays) {
    underlay.spec.links.forEach(({ between }, i) => {
      between.forEach((name, end) => {
        if (known.includes(name) || (times.get(name) ?? 0) > 1) return;
        const meant = nearest(name, known);
        const hint = meant === undefined ? '' : ` (did you mean "${meant}"?)`;
        const message = `got "${name}", expected a node, or a router that another link names, too${hint}`;
        problems.push(problemIn(at, ['spec', 'links', i, 'between', end], message));
      });
    });
  }
}
