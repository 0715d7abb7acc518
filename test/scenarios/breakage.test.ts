/** A datapath that is wrong in one way must fail the scenario that shows it, in the check that is about it. */

import assert from 'node:assert/strict';
import { Lab } from '../../datapath/lab/lab.ts';
import type { LabNodeConfig } from '../../datapath/lab/modes.ts';
import { runScenario } from '../../datapath/lab/scenario.ts';
import { SCENARIOS } from '../../datapath/lab/scenarios/index.ts';

const LAB = `k${process.pid}`;

interface Breakage {
  what: string;
  scenario: string;
  adjust: (spec: LabNodeConfig['spec']) => void;
  /** Checks that must fail, by a part of their name. */
  fails: string[];
}

const BREAKAGES: Breakage[] = [
  {
    what: "one VNI for all instead of the sender's identity",
    scenario: 'cilium-geneve',
    adjust: spec => {
      spec.tunnel.vni = 21500;
    },
    fails: ['router: tcpdump udp port 6081', 'VNI, back', 'tunnel header, back'],
  },
  {
    what: 'the outer header that RFCs wish for: DF, DSCP and source ports; and unknown peers accepted',
    scenario: 'cilium-vxlan',
    adjust: spec => {
      spec.profile = 'rfc';
      spec.tunnel.acceptFrom = 'any';
    },
    fails: [
      'outer DF',
      'outer DSCP and ECN',
      'outer source ports, lowest and highest',
      'TTL of the answers',
      'a stranger sends a tunnel packet from its own address 192.168.20.66: at webpod-w0',
    ],
  },
  {
    what: 'a fixed outer TTL and DF where both are the inner ones; and unknown peers accepted',
    scenario: 'calico-ipip',
    adjust: spec => {
      spec.profile = 'cilium';
      spec.tunnel.acceptFrom = 'any';
    },
    fails: [
      'outer TTL above the inner',
      'outer DF, where the inner is 1',
      'a stranger sends a tunnel packet from its own address 192.168.20.66: at pod3',
    ],
  },
  {
    what: 'backends asked at a port where none listens',
    scenario: 'cilium-clusterip',
    adjust: spec => {
      for (const service of spec.services) service.ports = service.ports.map(port => ({ ...port, targetPort: 81 }));
    },
    fails: ['k8s-ctr: lb list', '100 requests over 3 backends', 'RemoteAddr', 'k8s-ctr: addresses inside the tunnel'],
  },
  {
    what: "every client under the node's address, as kube-proxy has it",
    scenario: 'cilium-nodeport',
    adjust: spec => {
      spec.profile = 'linux';
      spec.tunnel.port = 6081;
    },
    fails: ['k8s-ctr: RemoteAddr', 'k8s-w1: RemoteAddr', 'k8s-w0: RemoteAddr'],
  },
  {
    what: "the service's address routed to the backend, not rewritten",
    scenario: 'kubeproxy-dnat',
    adjust: spec => {
      if (spec.uplink.address !== '192.168.10.102/24') {
        spec.routes.push({ to: '10.96.44.20/32', via: '192.168.10.102', encap: true });
      }
      spec.services = [];
    },
    fails: ['pod1 asks the service', 'pod2: addresses in its packets', 'ICMP about a port'],
  },
  {
    what: 'the first rule without its mark match, as the article prints it',
    scenario: 'flannel-masquerade',
    adjust: spec => {
      spec.masquerade[0] = { action: 'RETURN' };
    },
    fails: [
      'worker1: rule 1',
      'busybox1 pings 10.10.1.200: matched at worker1',
      'busybox1 pings 10.10.1.200: answers',
      'worker1: tcpdump -i eth0 icmp',
      '--random-fully',
    ],
  },
  {
    what: 'CoreDNS asked at another port',
    scenario: 'flannel-dns',
    adjust: spec => {
      spec.services[0]!.ports[0]!.targetPort = 54;
    },
    fails: ['busybox1: dig', 'coredns: addresses in its packets', 'busybox2: dig -x'],
  },
  {
    what: 'the second pool forgotten',
    scenario: 'calico-nat-outgoing',
    adjust: spec => {
      spec.masquerade[0]!.notTo!.pop();
    },
    fails: ['pod1: curl http://10.10.2.200/ exits with', 'router: who asks for 10.10.2.200'],
  },
  {
    what: 'everything masqueraded that leaves a node',
    scenario: 'aws-native',
    adjust: spec => {
      delete spec.masquerade[0]!.notTo;
    },
    fails: ['netshoot asks echo1', 'node2: addresses on the wire, echo3', 'netshoot asks 192.168.10.200, in the VPC'],
  },
  {
    what: 'externalTrafficPolicy Local for all, so that a node without a pod drops',
    scenario: 'aws-nlb-targets',
    adjust: spec => {
      for (const service of spec.services) service.externalTrafficPolicy = 'Local';
    },
    fails: ['instance target: requests answered', 'instance target: the request on node2', 'instance target: hops'],
  },
  {
    what: 'pods of the own subnet in the tunnel as well, as with ipipMode Always',
    scenario: 'calico-src-dst-check',
    adjust: spec => {
      for (const route of spec.routes) if (route.to.startsWith('172.16.')) route.encap = true;
    },
    fails: ['check on: pod1 pings pod2', 'drop-wire-source-dest-check counts', 'k8s-w1: what it gives the fabric'],
  },
  {
    what: 'nodes with other MAC addresses',
    scenario: 'cilium-l2-announce',
    adjust: spec => {
      spec.uplink.mac = spec.uplink.mac.replace('08:00:27', '0a:00:27');
    },
    fails: ['gratuitous ARP, as request and as reply', 'who answers for 192.168.10.211', 'its neighbour'],
  },
];

describe('a broken datapath fails the scenario', function () {
  this.timeout(240_000);
  afterEach(() => Lab.down(LAB));

  for (const { what, scenario: name, adjust, fails } of BREAKAGES) {
    it(`${name}: ${what}`, async () => {
      const scenario = SCENARIOS.find(candidate => candidate.name === name)!;
      const result = await runScenario(scenario, { labName: LAB, adjust: config => adjust(config.spec) });
      assert.equal(result.pass, false);
      const failed = result.checks.filter(check => !check.pass).map(check => check.what);
      for (const part of fails) {
        assert.ok(
          failed.some(check => check.includes(part)),
          `'${part}' passed; failed: ${failed.join('; ')}`,
        );
      }
    });
  }
});
