import { strict as assert } from 'node:assert';
import { loadConfig } from '../../datapath/control/load-config.ts';
import { type Facts, type Nic, parseUdpPorts } from '../../datapath/host/facts.ts';
import { parseIptables } from '../../datapath/host/firewall.ts';
import { candidates, planNode } from '../../datapath/host/plan.ts';
import { podNetworks, type Request, type UplinkKindName } from '../../datapath/host/request.ts';
import { writeConfig } from '../../datapath/host/write-config.ts';

const OFFLOADS = ['csum', 'tso', 'uso'];

function nic(more: Partial<Nic> = {}): Nic {
  return {
    index: 2,
    name: 'eth0',
    mac: '52:54:00:00:00:01',
    mtu: 1500,
    up: true,
    running: true,
    addresses: ['192.168.10.5/24'],
    driver: 'e1000e',
    wireless: false,
    reversePathFilter: 2,
    ...more,
  };
}

const LOOPBACK = nic({ index: 1, name: 'lo', mtu: 65536, addresses: ['127.0.0.1/8'], driver: undefined });

/** A machine in a rack: one NIC, a default route, nothing else. */
function machine(more: Partial<Facts> = {}): Facts {
  return {
    hostname: 'Rack_1.example.org',
    kernel: '6.1.0',
    tun: OFFLOADS,
    tap: OFFLOADS,
    interfaces: [LOOPBACK, nic()],
    routes: [
      { to: 'default', gateway: '192.168.10.254', device: 'eth0', metric: 0 },
      { to: '192.168.10.0/24', device: 'eth0', metric: 0, source: '192.168.10.5' },
    ],
    toPeers: new Map(),
    forwarding: false,
    udpPorts: [{ port: 53, address: '127.0.0.53' }],
    cni: [],
    namespaces: [],
    machine: '',
    firewall: parseIptables(''),
    ...more,
  };
}

function request(more: Partial<Request> = {}): Request {
  return { uplink: 'auto', tunnel: 'vxlan', peers: [{ address: '192.168.10.6' }], pods: [], ...more };
}

function written(kind: UplinkKindName, facts = machine(), asked = request()): string {
  const { plan, obstacles } = planNode(facts, asked, kind);
  assert.deepEqual(obstacles, undefined);
  return writeConfig(plan!);
}

function spec(text: string) {
  const { config, problems } = loadConfig(text, 'test');
  assert.equal(problems, undefined, `${JSON.stringify(problems)}\n${text}`);
  return config!;
}

describe('host init', () => {
  it('writes a configuration that loads, for every uplink and tunnel', () => {
    for (const kind of ['raw', 'routed', 'macvtap'] as const) {
      for (const tunnel of ['vxlan', 'geneve', 'ipip'] as const) {
        for (const peers of [[], [{ address: '192.168.10.6' }, { address: '192.168.10.7', podCidr: '10.9.0.0/16' }]]) {
          const asked = request({ tunnel, peers, address: '192.168.10.21/24', pods: ['p1', 'My_Pod'], port: 4789 });
          const { spec: found, metadata } = spec(written(kind, machine(), asked));
          assert.equal(metadata.name, 'rack-1');
          assert.equal(found.uplink.kind, kind);
          assert.equal(found.tunnels[0].protocol, tunnel);
          assert.equal(found.tunnels[0].port, tunnel === 'ipip' ? undefined : 4789);
          assert.deepEqual(
            found.tunnels[0].peers.map(peer => peer.address),
            peers.map(peer => peer.address),
          );
          assert.deepEqual(
            found.routes.map(route => route.to),
            ['10.244.6.0/24', '10.9.0.0/16'].slice(0, peers.length),
          );
          const last = kind === 'macvtap' ? 21 : 5;
          assert.equal(found.host?.address, `10.244.${last}.1/32`);
          assert.deepEqual(
            found.pods.map(pod => [pod.name, pod.netns, pod.address]),
            [
              ['default/p1', 'p1', `10.244.${last}.10`],
              ['default/my-pod', 'My_Pod', `10.244.${last}.11`],
            ],
          );
          assert.equal(found.masquerade.length, kind === 'raw' ? 0 : 1);
        }
      }
    }
  });

  it('says in comments what it found and why', () => {
    const facts = machine({
      machine: 'Amazon EC2 m5.large',
      interfaces: [LOOPBACK, nic({ driver: 'ena', mtu: 9001 }), nic({ name: 'cni0', index: 3, addresses: [] })],
      cni: ['10-flannel.conflist'],
      firewall: null,
    });
    assert.equal(
      written('routed', facts),
      `# Written by \`tunpath host init\`, from what it found here:
# - Linux 6.1.0 on Amazon EC2 m5.large
# - eth0: ena, MTU 9001, 192.168.10.5/24, default route by 192.168.10.254
# - offloads: TUN csum, tso, uso; TAP csum, tso, uso
# - the network of eth0 is Amazon EC2, which forwards no foreign MAC
# - another network of pods is here, and left alone: /etc/cni/net.d/10-flannel.conflist, cni0
# - firewall: neither nft nor iptables could be asked
# - rp_filter loose on eth0, ip_forward off: neither is changed, nor needed
apiVersion: tunpath.dev/v1
kind: NodeConfig
metadata:
  name: rack-1
spec:
  # The host keeps its address; rules on eth0 lead the tunnel's packets to the datapath.
  uplink: { kind: routed, interface: eth0, device: tpr0 }
  # By this device the host itself reaches every pod.
  host: { device: tp0, address: 10.244.5.1/32 }
  # A pod is a network namespace (ip netns add p1) with an address of 10.244.5.0/24:
  #   - { name: default/p1, netns: p1, device: eth0, address: 10.244.5.10 }
  pods: []
  # Pods have an MTU of 8951: vxlan adds 50 bytes, and eth0 takes 9001.
  # Peers name this node as 192.168.10.5; between them UDP port 8472 must pass.
  tunnel: { protocol: vxlan, peers: [{ address: 192.168.10.6 }] }
  routes:
    - { to: 10.244.6.0/24, via: 192.168.10.6, encap: true }
  # What pods send to elsewhere leaves with the node's address.
  masquerade:
    - { from: 10.244.5.0/24, notTo: [10.244.0.0/16, 224.0.0.0/4], randomFully: true }
`,
    );
  });

  it('tries what keeps the host’s address, or a macvtap where it is given one', () => {
    assert.deepEqual(candidates(request()), ['routed', 'raw']);
    assert.deepEqual(candidates(request({ address: '192.168.10.21/24' })), ['macvtap']);
    assert.deepEqual(candidates(request({ uplink: 'raw' })), ['raw']);
  });

  it('a macvtap gets the gateway only where its subnet has it', () => {
    const gateway = (address: string) => {
      const { uplink } = spec(written('macvtap', machine(), request({ address, peers: [] }))).spec;
      return 'gateway' in uplink ? uplink.gateway : undefined;
    };
    assert.equal(gateway('192.168.10.21/24'), '192.168.10.254');
    assert.equal(gateway('192.168.30.21/24'), undefined);
  });

  it('takes the interface that leads to the peer, where the default route leads into a NAT or a VPN', () => {
    for (const [device, address] of [
      ['enp0s8', '192.168.56.11/24'],
      ['stor0', '10.40.0.11/24'],
    ]) {
      const facts = machine({
        interfaces: [
          LOOPBACK,
          nic({ addresses: ['10.0.2.15/24'] }),
          nic({ name: 'wg0', kind: 'wireguard' }),
          nic({ name: device, addresses: [address] }),
        ],
        toPeers: new Map([['10.9.8.12', { device }]]),
      });
      const { uplink, host, routes } = spec(
        written('routed', facts, request({ peers: [{ address: '10.9.8.12' }] })),
      ).spec;
      assert.equal('interface' in uplink && uplink.interface, device);
      assert.equal(host?.address, '10.244.11.1/32');
      assert.deepEqual(
        routes.map(({ to }) => to),
        ['10.244.12.0/24'],
      );
    }
  });

  it('gives nodes whose addresses end alike networks of their own, and each node comes to the same', () => {
    const all = ['192.168.20.5', '10.0.0.5', '172.16.0.6', '192.168.30.5', '10.0.0.255', '172.16.9.255'];
    const expected = new Map([
      ['10.0.0.5', '10.244.5.0/24'],
      ['10.0.0.255', '10.244.255.0/24'],
      ['172.16.0.6', '10.244.6.0/24'],
      ['172.16.9.255', '10.244.0.0/24'],
      ['192.168.20.5', '10.244.7.0/24'],
      ['192.168.30.5', '10.244.8.0/24'],
    ]);
    for (let i = 0; i < all.length; i++) {
      const network = podNetworks([`${all[i]}/24`, ...all.filter((_, j) => j !== i)]);
      for (const address of all) assert.equal(network(address), expected.get(address), `${address} on ${all[i]}`);
    }
  });

  it('takes free names for its devices, and its own routes for no obstacle', () => {
    const facts = machine({
      interfaces: [LOOPBACK, nic(), nic({ name: 'tp0', index: 4, addresses: ['10.244.5.1/32'], kind: 'tun' })],
      routes: [...machine().routes, { to: '10.244.5.10', device: 'tp0', metric: 4278 }],
    });
    assert.equal(spec(written('routed', facts)).spec.host?.device, 'tp1');
  });

  describe('says what stands in the way', () => {
    const other = nic({ name: 'eth1', index: 3, addresses: ['192.168.20.5/24'] });
    const cases: [string, Partial<Facts>, Partial<Request>, UplinkKindName, RegExp[]][] = [
      [
        'no TUN',
        { tun: { error: '/dev/net/tun: ENOENT' }, tap: { error: '/dev/net/tun: ENOENT' } },
        {},
        'raw',
        [/no TUN device can be made: .*ENOENT/],
      ],
      ['no NIC', { interfaces: [LOOPBACK] }, {}, 'raw', [/no interface is up with an IPv4 address/]],
      [
        'a NIC that is not there',
        {},
        { interface: 'eth7' },
        'raw',
        [/--interface eth7: there is none, expected one of eth0/],
      ],
      [
        'two NICs, and no default route',
        { interfaces: [LOOPBACK, nic(), other], routes: [] },
        {},
        'raw',
        [/expected --interface with one of eth0, eth1/],
      ],
      [
        'a NIC that is down',
        { interfaces: [nic({ up: false, running: false })] },
        { interface: 'eth0' },
        'raw',
        [/eth0 is down: ip link set eth0 up/],
      ],
      ['no carrier', { interfaces: [nic({ running: false })] }, {}, 'raw', [/no carrier/]],
      [
        'no address',
        { interfaces: [nic({ addresses: [] })] },
        { interface: 'eth0' },
        'routed',
        [/eth0 has no IPv4 address/],
      ],
      [
        'flannel has the port',
        { interfaces: [nic(), nic({ name: 'flannel.1', kind: 'vxlan', tunnelPort: 8472 })] },
        {},
        'raw',
        [/UDP port 8472 belongs to the kernel's flannel\.1: .*--port .*--tunnel geneve/],
      ],
      [
        'a process has the port',
        { udpPorts: [{ port: 6081, address: '0.0.0.0' }] },
        { tunnel: 'geneve' },
        'routed',
        [/UDP port 6081 belongs to a process, at 0\.0\.0\.0/],
      ],
      [
        'a macvtap without an address',
        {},
        { uplink: 'macvtap' },
        'macvtap',
        [/--address with a free one of 192\.168\.10\.0\/24/],
      ],
      [
        'a macvtap on a wireless NIC',
        { interfaces: [nic({ wireless: true })] },
        { address: '192.168.10.21/24' },
        'macvtap',
        [/wireless/],
      ],
      [
        'a macvtap in a cloud',
        { machine: 'Google Google Compute Engine' },
        { address: '192.168.10.21/24' },
        'macvtap',
        [/Google Cloud, which forwards no MAC but its own/],
      ],
      [
        'a macvtap beside a /32',
        { interfaces: [nic({ addresses: ['10.0.0.5/32'] })] },
        { address: '10.0.0.21/32' },
        'macvtap',
        [/routes every address by itself/],
      ],
      [
        'the pods’ network is taken',
        { routes: [...machine().routes, { to: '10.244.5.0/24', device: 'cni0', metric: 0 }] },
        {},
        'raw',
        [/10\.244\.5\.0\/24 overlaps 10\.244\.5\.0\/24, which this host reaches by cni0: expected another --pod-cidr/],
      ],
      [
        'the peer’s is',
        { routes: [{ to: '10.244.0.0/16', device: 'tun0', metric: 0 }] },
        { podCidr: '10.9.0.0/24' },
        'raw',
        [/--peer 192\.168\.10\.6: .*overlaps 10\.244\.0\.0\/16, .* by tun0: expected --peer 192\.168\.10\.6=NETWORK/],
      ],
      [
        'two with one network',
        {},
        {
          peers: [
            { address: '192.168.20.9', podCidr: '10.244.5.0/24' },
            { address: '192.168.30.9', podCidr: '10.244.5.0/25' },
          ],
        },
        'raw',
        [/192\.168\.20\.9: .*10\.244\.5\.0\/24, is that of this node/, /192\.168\.30\.9: .*is that of 192\.168\.20\.9/],
      ],
      [
        'no route to a peer',
        { toPeers: new Map([['192.168.10.6', null]]) },
        {},
        'raw',
        [/--peer 192\.168\.10\.6: this host has no route to it/],
      ],
      [
        'peers by several interfaces',
        {
          toPeers: new Map([
            ['192.168.10.6', { device: 'eth0' }],
            ['192.168.20.6', { device: 'eth1' }],
          ]),
          interfaces: [nic(), other],
        },
        { peers: [{ address: '192.168.10.6' }, { address: '192.168.20.6' }] },
        'raw',
        [/192\.168\.10\.6 by eth0, 192\.168\.20\.6 by eth1/],
      ],
      [
        'itself as a peer',
        {},
        { peers: [{ address: '192.168.10.5' }] },
        'raw',
        [/--peer 192\.168\.10\.5 is this node itself/],
      ],
    ];
    for (const [what, facts, asked, kind, says] of cases) {
      it(what, () => {
        const { obstacles = [] } = planNode(machine(facts), request(asked), kind);
        assert.equal(obstacles.length, says.length, obstacles.join('\n'));
        for (const [i, pattern] of says.entries()) assert.match(obstacles[i], pattern);
      });
    }
  });

  describe('the host’s firewall', () => {
    const closed = parseIptables(
      '*filter\n:INPUT DROP [0:0]\n-A INPUT -s 192.168.10.6/32 -p udp --dport 6081 -j ACCEPT\nCOMMIT',
    );
    const obstacles = (kind: UplinkKindName, asked: Partial<Request> = {}) =>
      planNode(machine({ firewall: closed }), request({ address: '192.168.10.21/24', ...asked }), kind).obstacles;

    it('drops what sockets would get', () =>
      assert.deepEqual(obstacles('raw'), [
        'the firewall drops UDP port 8472 from 192.168.10.6 in iptables filter INPUT: add a rule there that accepts it',
      ]));
    it('drops protocol 4', () =>
      assert.match(obstacles('raw', { tunnel: 'ipip' })![0], /IP protocol 4 from 192\.168\.10\.6/));
    it('accepts the port that it names', () => assert.equal(obstacles('raw', { tunnel: 'geneve' }), undefined));
    it('judges every peer', () =>
      assert.match(
        obstacles('raw', { tunnel: 'geneve', peers: [{ address: '192.168.10.6' }, { address: '192.168.10.7' }] })![0],
        /from 192\.168\.10\.7/,
      ));
    it('sees nothing of what is taken before', () =>
      assert.deepEqual([obstacles('macvtap'), obstacles('routed')], [undefined, undefined]));
    it('is said to be unclear where it is', () => {
      const firewall = parseIptables('*filter\n:INPUT DROP [0:0]\n-A INPUT -m mark --mark 0x1 -j ACCEPT\nCOMMIT');
      assert.match(
        written('raw', machine({ firewall })),
        /# - whether the firewall lets UDP port 8472 .* cannot be told/,
      );
    });
  });

  it('reads /proc/net/udp', () => {
    const text = `   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  137: 3500007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000   101        0 20133 2 0000000000000000 0
  262: 00000000:2118 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 0 2 0000000000000000 0
   12: 00000000000000000000000000000000:17C1 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 1 2 0 0
`;
    assert.deepEqual(parseUdpPorts(text), [
      { port: 53, address: '127.0.0.53' },
      { port: 8472, address: '0.0.0.0' },
      { port: 6081, address: '0.0.0.0' },
    ]);
  });
});
