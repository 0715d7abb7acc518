/**
 * Who reaches whom through a service, and under which source address, over real connections: every kind of client, every kind
 * of backend, every kind of address, both policies. The kernel with kube-proxy's rules does the same in the same run; profile
 * linux must be as it is, cilium as its sources say.
 *
 *     pa, pa2      a                 sw                  b      pb
 *      eth0 ---- node ---- ul0 --- bridge --- ul0 ---- node -- eth0
 *   10.244.1.10,  192.168.10.1       |        192.168.10.2   10.244.2.10
 *   10.244.1.11                 out 192.168.10.9, with routes to the services by way of a
 */
import { strict as assert } from 'node:assert';
import { setTimeout as sleep } from 'node:timers/promises';
import { type KernelService, kubeProxyTable } from './kube-proxy.ts';
import { Rig, type Running, until } from './rig.ts';

const A = '192.168.10.1';
const B = '192.168.10.2';
const OUT = '192.168.10.9';
const PODS = { pa: '10.244.1.10', pa2: '10.244.1.11', pb: '10.244.2.10' };
const HOSTS = { a: '10.244.1.1', b: '10.244.2.1' };
const POD_NETWORK = '10.244.0.0/16';
const PORT = 8080;
/** As which a node sees itself through a service of ours that leads back to it. */
const LOOPBACK = '169.254.42.1';

const CLIENTS = { pod: 'pa', node: 'a', 'other node': 'b', outside: 'out' } as const;
type Client = keyof typeof CLIENTS;
const BACKENDS = {
  'the pod itself': PODS.pa,
  'pod of this node': PODS.pa2,
  'pod elsewhere': PODS.pb,
  'node itself': A,
  'other node': B,
  outside: OUT,
} as const;
type Backend = keyof typeof BACKENDS;
const KINDS = ['ClusterIP', 'NodePort', 'LoadBalancer', 'externalIP'] as const;
const POLICIES = ['Cluster', 'Local'] as const;

interface Case {
  backend: Backend;
  policy: (typeof POLICIES)[number];
  /** By kind, as asked from anywhere. */
  targets: Record<(typeof KINDS)[number], string>;
  service: Omit<KernelService, 'local'>;
}

const CASES: Case[] = Object.entries(BACKENDS).flatMap(([backend, address], i) =>
  POLICIES.map((policy, j) => {
    const n = 10 + 2 * i + j;
    const nodePort = 30000 + n;
    const service = {
      clusterIP: `10.96.0.${n}`,
      loadBalancerIP: `198.51.100.${n}`,
      externalIP: `203.0.113.${n}`,
      port: 80,
      nodePort,
      endpoint: `${address}:${PORT}`,
      externalPolicy: policy,
    };
    const targets = {
      ClusterIP: `${service.clusterIP}:80`,
      NodePort: `${A}:${nodePort}`,
      LoadBalancer: `${service.loadBalancerIP}:80`,
      externalIP: `${service.externalIP}:80`,
    };
    return { backend: backend as Backend, policy, targets, service };
  }),
);

/** Whose the address is that a backend saw. Which of its addresses a node takes towards itself is its own affair. */
const WHOSE: Record<string, string> = {
  [PODS.pa]: 'pod',
  [A]: 'node',
  [B]: 'other node',
  [OUT]: 'outside',
  [HOSTS.a]: 'node towards pods',
  [HOSTS.b]: 'other node towards pods',
  // flannel.1 of a kernel's node
  '10.244.1.0': 'node towards pods',
  '10.244.2.0': 'other node towards pods',
};

const rowName = (client: Client, { backend, policy }: Case, kind: string) =>
  `${client} -> ${kind} (${policy}) -> ${backend}`;

/** The service as it is on node `side`: which endpoints are local differs. */
function isLocalTo(side: 'a' | 'b', backend: Backend): boolean {
  const sides: Record<Backend, string> = {
    'the pod itself': 'a',
    'pod of this node': 'a',
    'pod elsewhere': 'b',
    'node itself': 'a',
    'other node': 'b',
    outside: 'none',
  };
  return sides[backend] === side;
}

/**
 * Cilium with kube-proxy replacement, by its sources (cilium/cilium, bpf/):
 *   __sock4_xlate_fwd (bpf_sock.c)     a pod or a node connects to the backend itself, so nothing is left to masquerade
 *   nodeport_svc_lb4 (lib/nodeport.h)  from outside: SNAT where __lookup_ip4_endpoint(backend) finds none; the node is one
 *   snat_v4_needs_masquerade (lib/nat.h)  what a pod sends out of the cluster's network has the node's address
 *   lb4_svc_is_routable (lib/lb.h)     a cluster address is dropped from outside (DROP_IS_CLUSTER_IP), without lbExternalClusterIP
 * The socket layer does not touch an external address that is not the node's (sock4_skip_xlate), which is not asked here.
 */
function byCilium(client: Client, { backend, policy }: Case, kind: string, kubeProxy: string): string {
  // The socket layer chooses the backend in connect(), so a pod keeps its address; outside of all pods it is masqueraded as ever.
  if (client === 'pod') {
    if (backend === 'the pod itself') return 'node towards pods';
    return backend === 'outside' || backend === 'other node' ? 'node' : 'pod';
  }
  if (client === 'outside' && kind === 'ClusterIP') return 'silent';
  // A node port of another node is asked from outside, as by anybody.
  const fromOutside = client === 'outside' || (client === 'other node' && kind === 'NodePort');
  if (!fromOutside) return kubeProxy;
  const self = client === 'outside' ? 'outside' : 'other node';
  const onNode = isLocalTo('a', backend);
  if (onNode) return self; // nodeport_lb4: no SNAT for a local backend, whatever the policy
  if (policy === 'Local' && kind !== 'ClusterIP') return 'silent';
  return kubeProxy;
}

describe('services: client x backend x address x policy', function () {
  this.timeout(180_000);

  /** What everybody saw, by row. */
  type Table = Record<string, string>;

  async function answering(rig: Rig): Promise<void> {
    const servers = ['pa', 'pa2', 'pb', 'a', 'b', 'out'].map(name => rig.program(name, 'ask', 'answer', `${PORT}`));
    await Promise.all(servers.map((server: Running) => server.until('listening')));
  }

  async function askAll(rig: Rig): Promise<Table> {
    const table: Table = {};
    // A connection from everybody to everybody first: neighbours are known then.
    for (const [client, name] of Object.entries(CLIENTS) as [Client, string][]) {
      const rows = CASES.flatMap(one =>
        KINDS.map(kind => [rowName(client, one, kind), one.targets[kind], one.backend] as const),
      );
      const said = JSON.parse(
        await rig.runProgram(name, 'ask', 'ask', ...rows.map(([, target]) => target)),
      ) as string[];
      rows.forEach(([row, , backend], i) => {
        // A node that asks itself sees an address that is nobody else's.
        const whose = said[i] === LOOPBACK ? client : (WHOSE[said[i]] ?? said[i]);
        const itself = client === 'node' && backend === 'node itself';
        table[row] = itself && whose.startsWith('node') ? 'node' : whose;
      });
    }
    return table;
  }

  async function outside(rig: Rig): Promise<void> {
    await rig.ip('sw', [
      `link add to-out type veth peer name eth0 netns ${rig.full('out')}`,
      'link set to-out master br0 up',
    ]);
    await rig.ip('out', [
      'link set eth0 up',
      `addr add ${OUT}/24 dev eth0`,
      ...['10.96.0.0/16', '198.51.100.0/24', '203.0.113.0/24', '10.244.1.0/24'].map(to => `route add ${to} via ${A}`),
      `route add 10.244.2.0/24 via ${B}`,
    ]);
  }

  async function ours(profile: string): Promise<Table> {
    const rig = new Rig('sx');
    try {
      await rig.namespace('a', 'b', 'pa', 'pa2', 'pb', 'out');
      await rig.bridge('sw');
      await outside(rig);
      const services = CASES.map(({ backend, service }, i) => ({
        name: `default/s${i}`,
        type: 'LoadBalancer',
        clusterIP: service.clusterIP,
        loadBalancerIPs: [service.loadBalancerIP],
        externalIPs: [service.externalIP],
        ports: [{ port: service.port, targetPort: PORT, nodePort: service.nodePort }],
        endpoints: [
          {
            address: BACKENDS[backend],
            ...(isLocalTo('a', backend)
              ? { nodeName: rig.full('a') }
              : isLocalTo('b', backend)
                ? { nodeName: rig.full('b') }
                : {}),
          },
        ],
        externalTrafficPolicy: service.externalPolicy,
      }));
      const spec = (side: 'a' | 'b', pods: (keyof typeof PODS)[]) => ({
        uplink: { kind: 'tap', device: 'ul0', mac: `02:00:00:00:00:0${side}`, address: `${side === 'a' ? A : B}/24` },
        host: { device: 'tp0', address: `${HOSTS[side]}/32` },
        pods: pods.map(pod => ({ name: pod, netns: rig.full(pod), device: 'eth0', address: PODS[pod] })),
        tunnel: { protocol: 'vxlan', vni: 1, peers: [{ address: side === 'a' ? B : A }] },
        routes: [{ to: side === 'a' ? '10.244.2.0/24' : '10.244.1.0/24', via: side === 'a' ? B : A, encap: true }],
        profile,
        masquerade: [{ from: POD_NETWORK, notTo: [POD_NETWORK] }],
        services,
      });
      await rig.node('a', spec('a', ['pa', 'pa2']));
      await rig.node('b', spec('b', ['pb']));
      await rig.plug('a', 'ul0', 'sw', 'ul-a');
      await rig.plug('b', 'ul0', 'sw', 'ul-b');
      await answering(rig);
      await until('the nodes to reach each other', async () => {
        return (await rig.exec('pa', 'ping', '-n', '-c1', '-W1', PODS.pb)).code === 0;
      });
      return await askAll(rig);
    } finally {
      await rig.close();
    }
  }

  async function kernels(): Promise<Table> {
    const rig = new Rig('sk');
    try {
      await rig.namespace('a', 'b', 'pa', 'pa2', 'pb', 'out');
      await rig.bridge('sw');
      await outside(rig);
      const macs = { a: '02:42:0a:f4:01:00', b: '02:42:0a:f4:02:00' };
      for (const [side, other, pods] of [
        ['a', 'b', ['pa', 'pa2']],
        ['b', 'a', ['pb']],
      ] as const) {
        const n = side === 'a' ? 1 : 2;
        const own = side === 'a' ? A : B;
        const peer = side === 'a' ? B : A;
        await rig.ip('sw', [
          `link add to-${side} type veth peer name eth0 netns ${rig.full(side)}`,
          `link set to-${side} master br0 up`,
        ]);
        await rig.ip(
          side,
          [
            'link set eth0 up',
            `addr add ${own}/24 dev eth0`,
            'link add cni0 type bridge',
            'link set cni0 up mtu 1450',
            `addr add ${HOSTS[side]}/24 dev cni0`,
            `link add flannel.1 address ${macs[side]} type vxlan id 1 local ${own} dev eth0 dstport 8472 nolearning`,
            `addr add 10.244.${n}.0/32 dev flannel.1`,
            'link set flannel.1 up',
            `route add 10.244.${3 - n}.0/24 via 10.244.${3 - n}.0 dev flannel.1 onlink`,
            `neigh add 10.244.${3 - n}.0 lladdr ${macs[other]} dev flannel.1 nud permanent`,
            // What is for a service leaves by the default route until it is translated.
            `route add default via ${OUT}`,
            ...pods.flatMap(pod => [
              `link add v-${pod} type veth peer name eth0 netns ${rig.full(pod)}`,
              `link set v-${pod} master cni0 up`,
              // A pod may reach itself through a service.
              `link set v-${pod} type bridge_slave hairpin on`,
            ]),
          ],
          { 'net/ipv4/ip_forward': 1 },
        );
        await rig.run(side, 'bridge', 'fdb', 'add', macs[other], 'dev', 'flannel.1', 'dst', peer);
        for (const pod of pods) {
          await rig.ip(pod, [
            'link set eth0 mtu 1450 up',
            `addr add ${PODS[pod]}/24 dev eth0`,
            `route add default via ${HOSTS[side]}`,
          ]);
        }
        const table = kubeProxyTable(
          CASES.map(({ backend, service }) => ({ ...service, local: isLocalTo(side, backend) })),
          own,
          POD_NETWORK,
          [`ip saddr ${POD_NETWORK} ip daddr != ${POD_NETWORK} masquerade`],
        );
        await rig.run(side, 'nft', table);
      }
      await answering(rig);
      await until('the nodes to reach each other', async () => {
        return (await rig.exec('pa', 'ping', '-n', '-c1', '-W1', PODS.pb)).code === 0;
      });
      await sleep(200);
      return await askAll(rig);
    } finally {
      await rig.close();
    }
  }

  let kernel: Table;
  before(async () => {
    kernel = await kernels();
  });

  it('the kernel with kube-proxy’s rules answers wherever it should', () => {
    const silent = Object.entries(kernel).filter(([, seen]) => seen === 'silent');
    assert.ok(silent.length > 0 && silent.every(([row]) => row.includes('(Local)')), JSON.stringify(silent));
    assert.ok(Object.values(kernel).every(seen => seen === 'silent' || Object.values(WHOSE).includes(seen)));
  });

  it('profile linux does as the kernel with kube-proxy’s rules', async () => {
    assert.deepEqual(await ours('linux'), kernel);
  });

  it('profile cilium keeps addresses as Cilium does', async () => {
    const wanted: Table = {};
    for (const client of Object.keys(CLIENTS) as Client[]) {
      for (const one of CASES) {
        for (const kind of KINDS) {
          const row = rowName(client, one, kind);
          wanted[row] = byCilium(client, one, kind, kernel[row]);
        }
      }
    }
    assert.deepEqual(await ours('cilium'), wanted);
  });
});
