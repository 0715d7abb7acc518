/**
 * A lab as data: hosts, subnets, pods and one router between them. Everything the lab makes follows from one value of
 * `Topology`; those below rebuild the clusters of the articles. Names are device names in the switch (15 characters).
 */

/** One bridge in the switch namespace: the layer 2 that the hosts of a subnet share. */
export interface Subnet {
  bridge: string;
  /** `192.168.10.0/24` */
  cidr: string;
}

export interface LabNode {
  name: string;
  bridge: string;
  /** On the underlay, with prefix length. */
  address: string;
  mac: string;
  /** MAC of its VXLAN or GENEVE endpoint. */
  vtepMac: string;
  podCidr: string;
  /** Address of the node on the pod network: what its own processes send from towards pods. */
  hostAddress: string;
}

export interface LabPod {
  name: string;
  node: string;
  address: string;
  /** Security identity: the VNI of what the pod sends when the mode takes the VNI from it. */
  identity: number;
  labels: Record<string, string>;
  /** Set where the pod answers HTTP on port 80; the name it gives there. */
  hostname?: string;
  /** Where it answers HTTP, if not on port 80. */
  port?: number;
  /** IPv6 address it lists in its answer, which decides the answer's length. */
  linkLocal?: string;
  /** Set where the pod is the cluster's name server, on UDP port 53. */
  dns?: true;
}

/** A service as every node has it. Its endpoints are the pods that have all labels of `selector`. */
export interface LabService {
  name: string;
  /** Cluster address. */
  address: string;
  ports: { name?: string; protocol?: 'TCP' | 'UDP'; port: number; targetPort?: number; nodePort?: number }[];
  selector: Record<string, string>;
  externalTrafficPolicy?: 'Cluster' | 'Local';
}

/** Whose rules decide which pods' packets leave under their node's address; the rules are in masquerade.ts. */
export type MasqueradeStyle = 'cilium' | 'calico' | 'flannel' | 'aws';

export interface LabRouter {
  name: string;
  /** One leg per subnet; `device` is the name inside the router. */
  legs: { device: string; bridge: string; address: string }[];
  /** Networks that only the router has. The first one carries its web server. */
  loops: { device: string; address: string }[];
  /** Where everything goes that the router does not know: a host that forwards nothing and answers nothing. */
  exit: { device: string; address: string; gateway: string };
  /** What it knows of pods; by default nothing. */
  routes?: { to: string; via: string }[];
}

export interface Topology {
  name: string;
  /** What the systems of the article behave like when `--profile` does not say otherwise; see modes.ts. */
  profile: 'cilium' | 'calico' | 'flannel' | 'linux';
  /** Covers every pod CIDR. */
  clusterCidr: string;
  masquerade: MasqueradeStyle;
  /** Networks that pods reach under their own addresses: Cilium's native routing CIDR, Calico's pools, a VPC. */
  inside: string[];
  subnets: Subnet[];
  nodes: LabNode[];
  pods: LabPod[];
  services: LabService[];
  router: LabRouter;
  /** What every node sends to the router besides what its mode adds. */
  staticRoutes: string[];
}

export const CLUSTER_DOMAIN = 'cluster.local';

const router: LabRouter = {
  name: 'router',
  legs: [
    { device: 'eth1', bridge: 'br10', address: '192.168.10.200/24' },
    { device: 'eth2', bridge: 'br20', address: '192.168.20.200/24' },
  ],
  loops: [
    { device: 'loop1', address: '10.10.1.200/24' },
    { device: 'loop2', address: '10.10.2.200/24' },
  ],
  exit: { device: 'eth0', address: '10.0.2.15/24', gateway: '10.0.2.2' },
};

const subnets: Subnet[] = [
  { bridge: 'br10', cidr: '192.168.10.0/24' },
  { bridge: 'br20', cidr: '192.168.20.0/24' },
];

/**
 * Article 001. Addresses, names, identities, underlay MACs and VXLAN MACs are printed there; k8s-w0's underlay MAC is not.
 *
 * Of the link-local addresses only the one on k8s-ctr is printed. That of webpod-697b545f57-24ck5 has 24 characters,
 * which is what its answer of 441 bytes in the frame leaves for it.
 */
const cilium: Topology = {
  name: 'cilium',
  profile: 'cilium',
  clusterCidr: '172.20.0.0/16',
  masquerade: 'cilium',
  inside: ['172.20.0.0/16'],
  subnets,
  nodes: [
    {
      name: 'k8s-ctr',
      bridge: 'br10',
      address: '192.168.10.100/24',
      mac: '08:00:27:42:b2:8c',
      vtepMac: '42:59:64:e0:f6:38',
      podCidr: '172.20.0.0/24',
      hostAddress: '172.20.0.201',
    },
    {
      name: 'k8s-w1',
      bridge: 'br10',
      address: '192.168.10.101/24',
      mac: '08:00:27:8e:9b:f8',
      vtepMac: '02:c4:af:d7:83:fc',
      podCidr: '172.20.1.0/24',
      hostAddress: '172.20.1.197',
    },
    {
      name: 'k8s-w0',
      bridge: 'br20',
      address: '192.168.20.100/24',
      mac: '08:00:27:00:20:64',
      vtepMac: 'ee:f6:72:2b:b9:b9',
      podCidr: '172.20.2.0/24',
      hostAddress: '172.20.2.25',
    },
  ],
  pods: [
    { name: 'curl-pod', node: 'k8s-ctr', address: '172.20.0.89', identity: 21500, labels: { app: 'curl' } },
    {
      name: 'webpod-ctr',
      node: 'k8s-ctr',
      address: '172.20.0.131',
      identity: 17081,
      labels: { app: 'webpod' },
      hostname: 'webpod-697b545f57-b46tz',
      linkLocal: 'fe80::48ca:7aff:fee8:da55',
    },
    {
      name: 'webpod-w1',
      node: 'k8s-w1',
      address: '172.20.1.217',
      identity: 17081,
      labels: { app: 'webpod' },
      hostname: 'webpod-697b545f57-66grn',
      linkLocal: 'fe80::48ca:7aff:fee8:da56',
    },
    {
      name: 'webpod-w0',
      node: 'k8s-w0',
      address: '172.20.2.73',
      identity: 17081,
      labels: { app: 'webpod' },
      hostname: 'webpod-697b545f57-24ck5',
      linkLocal: 'fe80::8ca:7aff:fee8:da57',
    },
  ],
  services: [
    {
      name: 'default/webpod',
      address: '10.96.129.95',
      ports: [{ port: 80, nodePort: 32203 }],
      selector: { app: 'webpod' },
    },
  ],
  router,
  staticRoutes: ['10.10.0.0/16', '172.20.0.0/16', '0.0.0.0/0'],
};

/**
 * Articles 000 and 002. The pod addresses and their hosts are printed in 000; the blocks are Calico's /26 around them. The
 * service of 002 has no address there.
 */
const calico: Topology = {
  name: 'calico',
  profile: 'calico',
  clusterCidr: '172.16.0.0/16',
  masquerade: 'calico',
  inside: ['172.16.0.0/16'],
  subnets,
  nodes: [
    {
      name: 'k8s-w1',
      bridge: 'br10',
      address: '192.168.10.101/24',
      mac: '02:00:c0:a8:0a:65',
      vtepMac: '66:00:c0:a8:0a:65',
      podCidr: '172.16.158.0/26',
      hostAddress: '172.16.158.0',
    },
    {
      name: 'k8s-w2',
      bridge: 'br10',
      address: '192.168.10.102/24',
      mac: '02:00:c0:a8:0a:66',
      vtepMac: '66:00:c0:a8:0a:66',
      podCidr: '172.16.184.0/26',
      hostAddress: '172.16.184.0',
    },
    {
      name: 'k8s-w0',
      bridge: 'br20',
      address: '192.168.20.100/24',
      mac: '02:00:c0:a8:14:64',
      vtepMac: '66:00:c0:a8:14:64',
      podCidr: '172.16.34.0/26',
      hostAddress: '172.16.34.0',
    },
  ],
  pods: [
    {
      name: 'pod1',
      node: 'k8s-w1',
      address: '172.16.158.3',
      identity: 1001,
      labels: { app: 'pod1' },
      hostname: 'pod1',
    },
    {
      name: 'pod2',
      node: 'k8s-w2',
      address: '172.16.184.4',
      identity: 1002,
      labels: { app: 'pod2' },
      hostname: 'pod2',
    },
    { name: 'pod3', node: 'k8s-w0', address: '172.16.34.1', identity: 1003, labels: { app: 'pod3' }, hostname: 'pod3' },
  ],
  services: [{ name: 'default/db', address: '10.96.44.20', ports: [{ port: 80 }], selector: { app: 'pod2' } }],
  router,
  staticRoutes: ['0.0.0.0/0'],
};

/**
 * Article 004: three nodes in one subnet, one pod each, and CoreDNS on the master. Only the pod CIDRs are printed there;
 * the address of the cluster DNS is what kubeadm makes of 10.96.0.0/12.
 */
const flannel: Topology = {
  name: 'flannel',
  profile: 'flannel',
  clusterCidr: '10.244.0.0/16',
  masquerade: 'flannel',
  inside: ['10.244.0.0/16'],
  subnets,
  nodes: [0, 1, 2].map(index => ({
    name: index === 0 ? 'master' : `worker${index}`,
    bridge: 'br10',
    address: `192.168.10.${10 + index}/24`,
    mac: `02:00:c0:a8:0a:0${index + 1}`,
    vtepMac: `66:00:0a:f4:0${index}:00`,
    podCidr: `10.244.${index}.0/24`,
    hostAddress: `10.244.${index}.1`,
  })),
  pods: [
    ...[0, 1, 2].map(index => ({
      name: `busybox${index}`,
      node: index === 0 ? 'master' : `worker${index}`,
      address: `10.244.${index}.2`,
      identity: 2000 + index,
      labels: { app: 'busybox' },
      hostname: `busybox${index}`,
    })),
    {
      name: 'coredns',
      node: 'master',
      address: '10.244.0.3',
      identity: 2003,
      labels: { 'k8s-app': 'kube-dns' },
      dns: true,
    },
  ],
  services: [
    {
      name: 'kube-system/kube-dns',
      address: '10.96.0.10',
      ports: [{ name: 'dns', protocol: 'UDP', port: 53 }],
      selector: { 'k8s-app': 'kube-dns' },
    },
    { name: 'default/busybox', address: '10.96.100.10', ports: [{ port: 80 }], selector: { app: 'busybox' } },
  ],
  router,
  staticRoutes: ['0.0.0.0/0'],
};

/** Pods of a node own a /28 of its subnet, as the VPC CNI's prefix delegation has it. */
const awsNodes: LabNode[] = [
  { name: 'node1', bridge: 'br10', host: '192.168.10.101', podCidr: '192.168.10.16/28' },
  { name: 'node2', bridge: 'br10', host: '192.168.10.102', podCidr: '192.168.10.32/28' },
  { name: 'node3', bridge: 'br20', host: '192.168.20.101', podCidr: '192.168.20.16/28' },
].map(({ name, bridge, host, podCidr }, index) => ({
  name,
  bridge,
  address: `${host}/24`,
  mac: `02:00:c0:a8:00:0${index + 1}`,
  vtepMac: `66:00:c0:a8:00:0${index + 1}`,
  podCidr,
  hostAddress: host,
}));

/**
 * Article 003: EKS with the VPC CNI. Pods have addresses of the VPC 192.168.0.0/16, and its route table, here the
 * router's, knows on which node they are. Only names and ports of deployment and service are printed there.
 */
const aws: Topology = {
  name: 'aws',
  profile: 'linux',
  clusterCidr: '192.168.0.0/16',
  masquerade: 'aws',
  inside: ['192.168.0.0/16'],
  subnets,
  nodes: awsNodes,
  pods: [
    { name: 'echo1', node: 'node1', address: '192.168.10.18', identity: 3001 },
    { name: 'echo3', node: 'node3', address: '192.168.20.18', identity: 3003 },
    { name: 'netshoot', node: 'node2', address: '192.168.10.34', identity: 3002 },
  ].map(pod =>
    pod.name === 'netshoot'
      ? { ...pod, labels: { app: 'netshoot' } }
      : { ...pod, labels: { app: 'deploy-websrv' }, hostname: pod.name, port: 8080 },
  ),
  services: [
    {
      name: 'default/svc-nlb',
      address: '10.100.12.7',
      ports: [{ port: 80, targetPort: 8080, nodePort: 31080 }],
      selector: { app: 'deploy-websrv' },
    },
    {
      name: 'default/svc-nlb-local',
      address: '10.100.12.8',
      ports: [{ port: 80, targetPort: 8080, nodePort: 31081 }],
      selector: { app: 'deploy-websrv' },
      externalTrafficPolicy: 'Local',
    },
  ],
  router: {
    ...router,
    // The subnet of an internal load balancer.
    loops: [...router.loops, { device: 'nlb', address: '192.168.30.10/24' }],
    routes: awsNodes.map(node => ({ to: node.podCidr, via: addressOf(node.address) })),
  },
  staticRoutes: ['0.0.0.0/0'],
};

/** The topologies that `--topology` names. */
export const TOPOLOGIES: Readonly<Record<string, Topology>> = { cilium, calico, flannel, aws };

/** `192.168.10.100/24` -> `192.168.10.100` */
export function addressOf(cidr: string): string {
  return cidr.slice(0, cidr.indexOf('/'));
}

/** Names of everything in it that has a namespace. */
export function hostsOf({ nodes, pods, router }: Topology): string[] {
  return [...nodes.map(node => node.name), ...pods.map(pod => pod.name), router.name];
}

/** The router's address on a node's subnet. */
export function gatewayOf(topology: Topology, node: LabNode): string {
  const leg = topology.router.legs.find(candidate => candidate.bridge === node.bridge);
  if (leg === undefined) throw new Error(`${topology.name}: the router has no leg on ${node.bridge}`);
  return addressOf(leg.address);
}

/** Addresses of the pods behind a service. */
export function endpointsOf(topology: Topology, service: LabService): string[] {
  const wanted = Object.entries(service.selector);
  return topology.pods
    .filter(({ labels }) => wanted.every(([key, value]) => labels[key] === value))
    .map(pod => pod.address);
}

/** @throws Error when the topology has no such service. */
export function serviceOf(topology: Topology, name: string): LabService {
  const service = topology.services.find(candidate => candidate.name === name);
  if (service === undefined) throw new Error(`${topology.name}: no service ${name}`);
  return service;
}

/** `default/webpod` -> `webpod.default.svc.cluster.local`, its name in the cluster's DNS */
export function dnsNameOf(service: LabService): string {
  const [namespace, name] = service.name.split('/');
  return `${name}.${namespace}.svc.${CLUSTER_DOMAIN}`;
}

/** The router's web server. */
export function routerWebAddress(topology: Topology): string {
  return addressOf(topology.router.loops[0]!.address);
}
