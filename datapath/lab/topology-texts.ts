/** What each field of a topology means, for the reference. */
import { FIELD_TEXTS } from '../control/field-texts.ts';
import type { ReferenceKind } from '../control/reference.ts';
import { TOPOLOGY_KIND, writtenTopology } from './topology-form.ts';

/** The impairments of a subnet are those of a segment. */
const IMPAIRMENTS = Object.entries(FIELD_TEXTS.Segment!)
  .filter(([path]) => path.startsWith('spec.impairments'))
  .map(([path, text]) => [path.replace(/^spec\./, 'spec.subnets[].'), text]);

const TEXTS: Readonly<Record<string, string>> = {
  apiVersion: 'Version of this form.',
  kind: 'What the document describes.',
  metadata: 'What it is called.',
  'metadata.name': 'Name of the topology.',
  spec: 'The lab.',
  'spec.description': 'What it is, in a sentence.',
  'spec.mode': 'How packets go from node to node; `lab up --mode` says another.',
  'spec.profile': 'Whose habits the nodes have; `lab up --profile` says another.',
  'spec.masquerade':
    'Whose rules say which packets leave under the address of their node; default: as the profile has it.',
  'spec.clusterCidr': 'Network of all pods.',
  'spec.inside': 'Networks that pods reach under their own address; default: clusterCidr.',
  'spec.subnets': 'Ethernets, each with the hosts that say they are on it.',
  'spec.subnets[].name': 'Name of the segment, and of the bridge beside it.',
  'spec.subnets[].cidr': 'Its network.',
  'spec.subnets[].mtu': 'Longest IP packet on it, bytes.',
  ...Object.fromEntries(IMPAIRMENTS),
  'spec.nodes': 'Nodes, each with a datapath.',
  'spec.nodes[].name': 'Its name; its namespace is tp-LAB-NAME.',
  'spec.nodes[].subnet': 'The subnet that its uplink is on.',
  'spec.nodes[].address': 'Address there; default: a free one from .10 on.',
  'spec.nodes[].mac': 'MAC there; default: 02:00 and the four bytes of its address.',
  'spec.nodes[].vtepMac': 'MAC of its end of a tunnel; default: 02:42 and the four bytes of its address.',
  'spec.nodes[].podCidr': 'Network of its pods; default: the next /24 of clusterCidr.',
  'spec.nodes[].hostAddress': 'Its own address towards pods; default: the first of podCidr.',
  'spec.nodes[].mtu': 'Longest IP packet of its uplink, bytes; default: that of the subnet.',
  'spec.pods': 'Pods that are there from the beginning; kubectl adds others.',
  'spec.pods[].name': 'Its name, in the namespace default.',
  'spec.pods[].node': 'The node that it is on.',
  'spec.pods[].address': "Its address; default: a free one of the node's podCidr from .10 on.",
  'spec.pods[].identity': 'Security identity; default: 1001 and on.',
  'spec.pods[].labels': 'Its labels.',
  'spec.pods[].hostname': 'The pod answers HTTP with this name, and says who asks.',
  'spec.pods[].port': 'Where it answers HTTP; default: 80.',
  'spec.pods[].linkLocal': 'An IPv6 address that its answers list.',
  'spec.pods[].dns': "The pod is the cluster's name server, on UDP port 53.",
  'spec.pods[].command': 'Runs in the pod as long as the lab is up: a program of the host and its arguments.',
  'spec.pods[].memory':
    'The pod has no process and no namespace: its node answers. echo sends UDP and TCP back, http answers each request with the name of the pod, sink takes all.',
  'spec.services': 'Services of all nodes.',
  'spec.services[].name': 'Namespace and name; without a namespace: of default.',
  'spec.services[].address': 'Its cluster address.',
  'spec.services[].ports': 'Its ports.',
  'spec.services[].ports[].name': 'Name of the port.',
  'spec.services[].ports[].protocol': 'Its protocol; default: TCP.',
  'spec.services[].ports[].port': 'The port of the service.',
  'spec.services[].ports[].targetPort': 'The port of its pods; default: the same.',
  'spec.services[].ports[].nodePort': 'The port on every node; default: none.',
  'spec.services[].selector': 'Labels of the pods behind it.',
  'spec.services[].externalTrafficPolicy': 'Whether a node sends what comes to its port to its own pods alone.',
  'spec.routers':
    "Routers between subnets: namespaces in which the host's kernel forwards. They know all networks of the lab, but not those of pods.",
  'spec.routers[].name': 'Its name; its namespace is tp-LAB-NAME.',
  'spec.routers[].legs': 'The subnets that it is on.',
  'spec.routers[].legs[].device': 'Name of the device; default: eth1 and on.',
  'spec.routers[].legs[].subnet': 'The subnet.',
  'spec.routers[].legs[].address': 'Its address there; default: the first that is free.',
  'spec.routers[].legs[].mtu': 'MTU of the device, bytes; default: that of the subnet.',
  'spec.routers[].loops': 'Networks that it alone has; on the first it answers HTTP, and says who asks.',
  'spec.routers[].loops[].device': 'Name of the device; default: loop1 and on.',
  'spec.routers[].loops[].address': 'Its address there, with the length of the network.',
  'spec.routers[].exit':
    'Where it sends what it does not know, to a host that answers nothing; default: to the nearest router with an exit.',
  'spec.routers[].exit.device': 'Name of the device.',
  'spec.routers[].exit.address': 'Its address there, with the length of the network.',
  'spec.routers[].exit.gateway': 'Address of that host.',
  'spec.routers[].routes': 'What it knows besides: podCIDRs, for a lab without tunnels.',
  'spec.routers[].routes[].to': 'Destinations.',
  'spec.routers[].routes[].via': 'Next hop.',
  'spec.links': 'Cables between two routers.',
  'spec.links[].endpoints': 'Its ends, each ROUTER:DEVICE.',
  'spec.links[].addresses': 'Addresses of the ends, with the length of their network; default: of 100.64.0.0/10.',
  'spec.links[].mtu': 'Longest IP packet on it, bytes.',
  'spec.hosts': 'Hosts outside of the cluster.',
  'spec.hosts[].name': 'Its name; its namespace is tp-LAB-NAME.',
  'spec.hosts[].subnet': 'The subnet that it is on; its default route leads to the router there.',
  'spec.hosts[].address': 'Its address there; default: a free one from .100 on.',
  'spec.hosts[].hostname': 'It answers HTTP on port 80 with this name, and says who asks.',
  'spec.hosts[].command': 'Runs on it as long as the lab is up.',
  'spec.staticRoutes': 'What every node sends to the router of its subnet, besides what its mode says.',
};

export const TOPOLOGY_REFERENCE: ReferenceKind = { kind: TOPOLOGY_KIND, schema: writtenTopology, texts: TEXTS };
