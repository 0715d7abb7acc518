/**
 * A lab as data: hosts, subnets, pods and one router between them. Everything the lab makes follows from one value of
 * `Topology`; the three below rebuild the clusters of the articles. Names are device names in the switch (15 characters).
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
  /** IPv6 address it lists in its answer, which decides the answer's length. */
  linkLocal?: string;
}

export interface LabRouter {
  name: string;
  /** One leg per subnet; `device` is the name inside the router. */
  legs: { device: string; bridge: string; address: string }[];
  /** Networks that only the router has. The first one carries its web server. */
  loops: { device: string; address: string }[];
  /** Where everything goes that the router does not know: a host that forwards nothing and answers nothing. */
  exit: { device: string; address: string; gateway: string };
}

export interface Topology {
  name: string;
  /** What the systems of the article behave like when `--profile` does not say otherwise; see modes.ts. */
  profile: 'cilium' | 'calico' | 'flannel';
  /** Covers every pod CIDR. */
  clusterCidr: string;
  subnets: Subnet[];
  nodes: LabNode[];
  pods: LabPod[];
  router: LabRouter;
  /** What every node sends to the router besides what its mode adds. */
  staticRoutes: string[];
}

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
  router,
  staticRoutes: ['10.10.0.0/16', '172.20.0.0/16', '0.0.0.0/0'],
};

/** Article 000. The pod addresses and their hosts are printed; the blocks are Calico's /26 around them. */
const calico: Topology = {
  name: 'calico',
  profile: 'calico',
  clusterCidr: '172.16.0.0/16',
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
  router,
  staticRoutes: ['0.0.0.0/0'],
};

/** Article 004: three nodes in one subnet, one pod each. Only the pod CIDRs are printed there. */
const flannel: Topology = {
  name: 'flannel',
  profile: 'flannel',
  clusterCidr: '10.244.0.0/16',
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
  pods: [0, 1, 2].map(index => ({
    name: `busybox${index}`,
    node: index === 0 ? 'master' : `worker${index}`,
    address: `10.244.${index}.2`,
    identity: 2000 + index,
    labels: { app: 'busybox' },
    hostname: `busybox${index}`,
  })),
  router,
  staticRoutes: ['0.0.0.0/0'],
};

/** The topologies that `--topology` names. */
export const TOPOLOGIES: Readonly<Record<string, Topology>> = { cilium, calico, flannel };

/** `192.168.10.100/24` -> `192.168.10.100` */
export function addressOf(cidr: string): string {
  return cidr.slice(0, cidr.indexOf('/'));
}

/** The router's address on a node's subnet. */
export function gatewayOf(topology: Topology, node: LabNode): string {
  const leg = topology.router.legs.find(candidate => candidate.bridge === node.bridge);
  if (leg === undefined) throw new Error(`${topology.name}: the router has no leg on ${node.bridge}`);
  return addressOf(leg.address);
}

/** The router's web server. */
export function routerWebAddress(topology: Topology): string {
  return addressOf(topology.router.loops[0]!.address);
}
