/** A lab's topology as people write it (`kind: Topology`), each value by itself. */
import { z } from 'zod';
import { API_VERSION } from '../control/config.ts';
import { impairments } from '../control/netem.ts';
import {
  address,
  choice,
  device,
  filled,
  interfaceAddress,
  labelFault,
  list,
  mac,
  mtu,
  network,
  objectName,
  port,
  portNameFault,
  record,
  text,
  whole,
} from '../control/schema.ts';
import { MODES, PROFILES } from './topology.ts';

export const TOPOLOGY_KIND = 'Topology';

const MAX_IDENTITY = 0xffffff;

/** What becomes part of the name of a device: 15 characters less what the lab adds. */
function shortName(length: number) {
  const expected = `a name of 1 to ${length} lower case letters, digits and inner hyphens`;
  return text(value => (labelFault(value) === undefined && value.length <= length ? undefined : expected));
}

const name = text(labelFault);
const nodeName = shortName(15);
const subnetName = shortName(9);
const routerName = shortName(10);
const command = list(filled('a word')).min(1, 'a program and its arguments').optional();
const labels = z.record(z.string(), z.string('a text (in quotes)'), 'a map of texts');

const subnet = record({
  name: subnetName,
  cidr: network,
  mtu: mtu.default(1500),
  impairments: impairments.optional(),
});

const node = record({
  name: nodeName,
  subnet: subnetName,
  address: address.optional(),
  mac: mac.optional(),
  vtepMac: mac.optional(),
  podCidr: network.optional(),
  hostAddress: address.optional(),
  mtu: mtu.optional(),
});

const pod = record({
  name,
  node: nodeName,
  address: address.optional(),
  identity: whole(1, MAX_IDENTITY).optional(),
  labels: labels.default({}),
  hostname: filled('the name that it gives').optional(),
  port: port.optional(),
  linkLocal: filled('an IPv6 address').optional(),
  dns: z.literal(true, 'true, or nothing').optional(),
  command,
  memory: choice('echo', 'http', 'sink').optional(),
});

const servicePort = record({
  name: text(portNameFault).optional(),
  protocol: choice('TCP', 'UDP').optional(),
  port,
  targetPort: port.optional(),
  nodePort: port.optional(),
});

const service = record({
  name: objectName,
  address,
  ports: list(servicePort).min(1, 'at least one port'),
  selector: labels,
  externalTrafficPolicy: choice('Cluster', 'Local').optional(),
});

const router = record({
  name: routerName,
  legs: list(
    record({ device: device.optional(), subnet: subnetName, address: address.optional(), mtu: mtu.optional() }),
  ).min(1, 'at least one leg'),
  loops: list(record({ device: device.optional(), address: interfaceAddress })).default([]),
  exit: record({ device: device.default('eth0'), address: interfaceAddress, gateway: address }).optional(),
  routes: list(record({ to: network, via: address })).default([]),
});

const END = /^([a-z0-9-]+):([^:/\s]{1,15})$/;

/** `r1:eth1`, as containerlab has it. */
const linkEnd = text(value => (END.test(value) ? undefined : 'ROUTER:DEVICE, such as r1:eth3')).transform(value => {
  const [, router, device] = END.exec(value)!;
  return { router: router!, device: device! };
});

const link = record({
  endpoints: z.tuple([linkEnd, linkEnd], 'two ends, such as [r1:eth3, r2:eth3]'),
  addresses: z.tuple([interfaceAddress, interfaceAddress], 'two addresses with their prefix length').optional(),
  mtu: mtu.default(1500),
});

const host = record({
  name: nodeName,
  subnet: subnetName,
  address: address.optional(),
  hostname: filled('the name that it gives').optional(),
  command,
});

/** As it is written, before anything is chosen. */
export const writtenTopology = record({
  apiVersion: choice(API_VERSION),
  kind: choice(TOPOLOGY_KIND),
  metadata: record({ name }),
  spec: record({
    description: filled('a sentence').optional(),
    mode: choice(...MODES).default('vxlan'),
    profile: choice(...PROFILES).default('linux'),
    masquerade: choice('cilium', 'calico', 'flannel', 'aws').optional(),
    clusterCidr: network.default('10.244.0.0/16'),
    inside: list(network).optional(),
    subnets: list(subnet).min(1, 'at least one subnet'),
    nodes: list(node).min(1, 'at least one node'),
    pods: list(pod).default([]),
    services: list(service).default([]),
    routers: list(router).default([]),
    links: list(link).default([]),
    hosts: list(host).default([]),
    staticRoutes: list(network).default(['0.0.0.0/0']),
  }),
});

export type WrittenTopology = z.output<typeof writtenTopology>;
