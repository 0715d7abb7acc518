import assert from 'node:assert/strict';

import { DESIGN, edit, refused } from './config-text.ts';

/** One mistake each, made in the configuration of the design, and all that must be said about it. */
const MISTAKES: { what: string; edits: [string, string][]; problems: string[] }[] = [
  {
    what: 'another apiVersion',
    edits: [['tunpath.dev/v1', 'tunpath.dev/v2']],
    problems: ['1:13: apiVersion: got "tunpath.dev/v2", expected tunpath.dev/v1'],
  },
  {
    what: 'a mistyped kind',
    edits: [['kind: NodeConfig', 'kind: NodeConfg']],
    problems: ['2:7: kind: got "NodeConfg", expected NodeConfig'],
  },
  {
    what: 'a name that is no DNS label',
    edits: [['name: a }', 'name: Node_A }']],
    problems: [
      '3:19: metadata.name: got "Node_A", expected a DNS label: 1 to 63 lower case letters, digits and inner hyphens',
    ],
  },
  {
    what: 'no name',
    edits: [['{ name: a }', '{}']],
    problems: [
      '3:1: metadata.name: got nothing, expected a DNS label: 1 to 63 lower case letters, digits and inner hyphens',
    ],
  },
  {
    what: 'no uplink kind',
    edits: [['    kind: tap\n', '']],
    problems: ['5:3: spec.uplink.kind: got nothing, expected one of tap, raw, macvtap, routed, segment'],
  },
  {
    what: 'an unknown uplink kind',
    edits: [['kind: tap\n', 'kind: macvtp\n']],
    problems: [
      '6:11: spec.uplink.kind: got "macvtp", expected one of tap, raw, macvtap, routed, segment (did you mean "macvtap"?)',
    ],
  },
  {
    what: 'an unknown field with a likely name',
    edits: [['gateway: 192', 'gatewy: 192']],
    problems: [
      '10:5: spec.uplink.gatewy: got the unknown field "gatewy", expected one of kind, device, mac, address, gateway, mtu (did you mean "gateway"?)',
    ],
  },
  {
    what: 'an unknown field without one',
    edits: [['    mtu: 1500', '    mtu: 1500\n    colour: blue']],
    problems: [
      '12:5: spec.uplink.colour: got the unknown field "colour", expected one of kind, device, mac, address, gateway, mtu',
    ],
  },
  {
    what: 'a missing field',
    edits: [['    device: ul0 ', '    #']],
    problems: [
      '5:3: spec.uplink.device: got nothing, expected a device name: 1 to 15 bytes without blank, slash, colon or percent, and not lo, all or default',
    ],
  },
  {
    what: 'a device name too long',
    edits: [['device: tp0', 'device: tp0123456789abcd']],
    problems: [
      '12:19: spec.host.device: got "tp0123456789abcd", expected a device name: 1 to 15 bytes without blank, slash, colon or percent, and not lo, all or default',
    ],
  },
  {
    what: 'a device name with a slash',
    edits: [['device: tp0', 'device: a/b']],
    problems: [
      '12:19: spec.host.device: got "a/b", expected a device name: 1 to 15 bytes without blank, slash, colon or percent, and not lo, all or default',
    ],
  },
  {
    what: 'the same device twice in the node',
    edits: [['device: tp0', 'device: ul0']],
    problems: [
      '12:19: spec.host.device: got "ul0", expected a device name not yet used in this namespace (spec.uplink.device has it)',
    ],
  },
  {
    what: 'a malformed MAC',
    edits: [['mac: 02:00:00:00:00:01', 'mac: 02:00:00:00:01']],
    problems: ['8:10: spec.uplink.mac: got "02:00:00:00:01", expected a MAC address such as 02:00:00:00:00:01'],
  },
  {
    what: 'a group MAC',
    edits: [['mac: 02:00:00:00:00:01', 'mac: 03:00:00:00:00:01']],
    problems: [
      '8:10: spec.uplink.mac: got "03:00:00:00:00:01", expected the MAC address of one station, not a group address',
    ],
  },
  {
    what: 'a zero MAC',
    edits: [['mac: 02:00:00:00:00:01', 'mac: 00:00:00:00:00:00']],
    problems: ['8:10: spec.uplink.mac: got "00:00:00:00:00:00", expected a MAC address other than zero'],
  },
  {
    what: 'an uplink address without length',
    edits: [['192.168.10.1/24', '192.168.10.1']],
    problems: [
      '9:14: spec.uplink.address: got "192.168.10.1", expected an address with its prefix length, such as 192.168.10.1/24',
    ],
  },
  {
    what: 'an uplink address that is the network',
    edits: [['192.168.10.1/24', '192.168.10.0/24']],
    problems: [
      '9:14: spec.uplink.address: got "192.168.10.0/24", expected a host address, not the address of the network 192.168.10.0/24',
    ],
  },
  {
    what: 'an uplink address that is the broadcast',
    edits: [['192.168.10.1/24', '192.168.10.255/24']],
    problems: [
      '9:14: spec.uplink.address: got "192.168.10.255/24", expected a host address, not the broadcast address of 192.168.10.0/24',
    ],
  },
  {
    what: 'a multicast uplink address',
    edits: [['192.168.10.1/24', '224.0.0.5/24']],
    problems: ['9:14: spec.uplink.address: got "224.0.0.5/24", expected a host address, not a multicast address'],
  },
  {
    what: 'a loopback uplink address',
    edits: [['192.168.10.1/24', '127.0.0.1/8']],
    problems: ['9:14: spec.uplink.address: got "127.0.0.1/8", expected a host address, not a loopback address'],
  },
  {
    what: 'an octal address',
    edits: [['address: 10.244.1.10/32', 'address: 010.244.1.10']],
    problems: ['14:61: spec.pods[0].address: got "010.244.1.10", expected an IPv4 address such as 10.244.1.10'],
  },
  {
    what: 'a short address',
    edits: [['address: 10.244.1.10/32', 'address: 10.244']],
    problems: ['14:61: spec.pods[0].address: got 10.244, expected an IPv4 address such as 10.244.1.10'],
  },
  {
    what: 'a pod address with a subnet',
    edits: [['address: 10.244.1.10/32', 'address: 10.244.1.10/24']],
    problems: [
      '14:61: spec.pods[0].address: got "10.244.1.10/24", expected an address without a prefix length, or with /32',
    ],
  },
  {
    what: 'a gateway outside the subnet',
    edits: [['gateway: 192.168.10.254', 'gateway: 192.168.11.254']],
    problems: [
      '10:14: spec.uplink.gateway: got "192.168.11.254", expected an address in the subnet of spec.uplink.address',
    ],
  },
  {
    what: 'a gateway that is the node',
    edits: [['gateway: 192.168.10.254', 'gateway: 192.168.10.1']],
    problems: [
      '10:14: spec.uplink.gateway: got "192.168.10.1", expected another node\'s address, not the uplink\'s own',
    ],
  },
  {
    what: 'an MTU out of range',
    edits: [['mtu: 1500', 'mtu: 67']],
    problems: ['11:10: spec.uplink.mtu: got 67, expected a whole number from 68 to 65535'],
  },
  {
    what: 'an MTU that is no number',
    edits: [['mtu: 1500', 'mtu: "1500"']],
    problems: ['11:10: spec.uplink.mtu: got "1500", expected a whole number from 68 to 65535'],
  },
  {
    what: 'an MTU too small for the tunnel',
    edits: [['mtu: 1500', 'mtu: 117']],
    problems: ['11:10: spec.uplink.mtu: got 117, expected at least 118: vxlan adds 50 bytes, IPv4 needs 68'],
  },
  {
    what: 'a pod with the address of the host',
    edits: [['address: 10.244.1.10/32', 'address: 10.244.1.1']],
    problems: [
      '14:61: spec.pods[0].address: got "10.244.1.1", expected an address of its own (spec.host.address is the same)',
    ],
  },
  {
    what: 'a pod with the address of the node',
    edits: [['address: 10.244.1.10/32', 'address: 192.168.10.1']],
    problems: [
      '14:61: spec.pods[0].address: got "192.168.10.1", expected an address of its own (spec.uplink.address is the same)',
    ],
  },
  {
    what: 'identity 0',
    edits: [['identity: 21500', 'identity: 0']],
    problems: ['14:109: spec.pods[0].identity: got 0, expected a whole number from 1 to 16777215'],
  },
  {
    what: 'an identity beyond 24 bits',
    edits: [['identity: 21500', 'identity: 16777216']],
    problems: ['14:109: spec.pods[0].identity: got 16777216, expected a whole number from 1 to 16777215'],
  },
  {
    what: 'a label that is a number',
    edits: [['app: web', 'app: 1']],
    problems: ['14:92: spec.pods[0].labels.app: got 1, expected a text (in quotes)'],
  },
  {
    what: 'an unknown protocol',
    edits: [['protocol: vxlan', 'protocol: vxlann']],
    problems: [
      '16:15: spec.tunnel.protocol: got "vxlann", expected one of none, ipip, vxlan, geneve (did you mean "vxlan"?)',
    ],
  },
  {
    what: 'options for VXLAN',
    edits: [['    port: 8472\n', '    port: 8472\n    options: [{ class: 0x14b, type: 1 }]\n']],
    problems: ['18:5: spec.tunnel.options: got a list of 1, expected no options: VXLAN has none (GENEVE has)'],
  },
  {
    what: 'options without quotes, with half a word, and out of range',
    edits: [
      [
        '    protocol: vxlan\n',
        '    protocol: geneve\n    options:\n      - { class: 0x14b, type: 1, data: 01020304 }\n      - { class: 65536, type: 256, data: "0a0b" }\n',
      ],
    ],
    problems: [
      '18:40: spec.tunnel.options[0].data: got 1020304, expected up to 124 bytes in words of 4, as hex digits in quotes: "0a60000a00000050"',
      '19:18: spec.tunnel.options[1].class: got 65536, expected a whole number from 0 to 65535',
      '19:31: spec.tunnel.options[1].type: got 256, expected a whole number from 0 to 255',
      '19:42: spec.tunnel.options[1].data: got "0a0b", expected up to 124 bytes in words of 4, as hex digits in quotes: "0a60000a00000050"',
    ],
  },
  {
    what: 'more options than the header has room for',
    edits: [
      [
        '    protocol: vxlan\n',
        `    protocol: geneve\n    options: [{ class: 1, type: 1, data: "${'00'.repeat(124)}" }, { class: 1, type: 2, data: "${'00'.repeat(124)}" }]\n`,
      ],
    ],
    problems: [
      '17:5: spec.tunnel.options: got a list of 2, expected at most 252 bytes, headers of 4 included (these are 256)',
    ],
  },
  {
    what: 'VXLAN fields for IPIP',
    edits: [['protocol: vxlan', 'protocol: ipip']],
    problems: [
      '17:11: spec.tunnel.port: got 8472, expected no port: IPIP has no UDP header',
      '18:10: spec.tunnel.vni: got 1, expected no vni: IPIP has no network identifier',
      '19:10: spec.tunnel.mac: got "02:42:0a:f4:01:00", expected no mac: IPIP carries no Ethernet header',
      '21:39: spec.tunnel.peers[0].mac: got "02:42:0a:f4:02:00", expected no mac: IPIP carries no Ethernet header',
    ],
  },
  {
    what: 'peers without a tunnel',
    edits: [
      [
        "    protocol: vxlan\n    port: 8472\n    vni: 1                     # or: identity (the sender's security identity)\n    mac: 02:42:0a:f4:01:00     # our VTEP MAC (inner Ethernet source)\n",
        '    protocol: none\n',
      ],
    ],
    problems: [
      '17:5: spec.tunnel.peers: got a list of 1, expected no peers: tunnel.protocol is none',
      '21:54: spec.routes[0].encap: got true, expected false: tunnel.protocol is none',
    ],
  },
  {
    what: 'routes without a tunnel',
    edits: [['peers:\n      - { address: 192.168.10.2, mac: 02:42:0a:f4:02:00 }\n    acceptFrom', 'acceptFrom']],
    problems: ['22:33: spec.routes[0].via: got "192.168.10.2", expected the address of a tunnel peer (there are none)'],
  },
  {
    what: 'a VNI beyond 24 bits',
    edits: [['vni: 1 ', 'vni: 16777216 ']],
    problems: ['18:10: spec.tunnel.vni: got 16777216, expected identity, or a whole number from 0 to 16777215'],
  },
  {
    what: 'a peer that is this node',
    edits: [['address: 192.168.10.2,', 'address: 192.168.10.1,']],
    problems: [
      '21:20: spec.tunnel.peers[0].address: got "192.168.10.1", expected another node\'s address, not the uplink\'s own',
      '24:33: spec.routes[0].via: got "192.168.10.2", expected the address of a tunnel peer (192.168.10.1)',
    ],
  },
  {
    what: 'the same peer twice',
    edits: [['    acceptFrom: peers', '      - { address: 192.168.10.2 }\n    acceptFrom: peers']],
    problems: [
      '22:20: spec.tunnel.peers[1].address: got "192.168.10.2", expected an address no other peer has (spec.tunnel.peers[0].address is the same)',
    ],
  },
  {
    what: 'a peer with our MAC',
    edits: [['mac: 02:42:0a:f4:02:00', 'mac: 02:42:0A:F4:01:00']],
    problems: [
      '21:39: spec.tunnel.peers[0].mac: got "02:42:0A:F4:01:00", expected a MAC address of its own (this node has it)',
    ],
  },
  {
    what: 'a peer out of reach',
    edits: [
      ['    gateway: 192.168.10.254    # optional\n', ''],
      ['    acceptFrom: peers', '      - { address: 192.168.20.2 }\n    acceptFrom: peers'],
      ['    - { to: 0.0.0.0/0, via: 192.168.10.254 }\n', ''],
    ],
    problems: [
      '21:20: spec.tunnel.peers[1].address: got "192.168.20.2", expected a peer in the subnet of spec.uplink.address, or reached through the gateway or a route without encap',
    ],
  },
  {
    what: 'identities by VNI, and a pod without',
    edits: [
      ['vni: 1 ', 'vni: identity '],
      [', identity: 21500', ''],
    ],
    problems: ['14:7: spec.pods[0].identity: got nothing, expected an identity: tunnel.vni is identity (as given)'],
  },
  {
    what: 'host bits in a route',
    edits: [['to: 10.244.2.0/24', 'to: 10.244.2.1/24']],
    problems: [
      '24:13: spec.routes[0].to: got "10.244.2.1/24", expected a network without host bits (did you mean "10.244.2.0/24"?)',
    ],
  },
  {
    what: 'a route to an address',
    edits: [['to: 10.244.2.0/24', 'to: 10.244.2.7']],
    problems: [
      '24:13: spec.routes[0].to: got "10.244.2.7", expected a network with its prefix length (did you mean "10.244.2.7/32"?)',
    ],
  },
  {
    what: 'a route through no address',
    edits: [['via: 192.168.10.254', 'via: eth0']],
    problems: ['25:29: spec.routes[1].via: got "eth0", expected an IPv4 address such as 10.244.1.10'],
  },
  {
    what: 'several tunnels whose packets nothing tells apart',
    edits: [
      [
        '  routes:',
        `  tunnels:
    - { name: a, protocol: ipip, peers: [{ address: 192.168.10.2 }] }
    - { name: b, protocol: ipip }
    - { name: c, protocol: geneve, port: 8472 }
    - { name: a, protocol: vxlan, port: 8472, vni: 1 }
    - { name: d, protocol: vxlan, vni: 2 }
  routes:`,
      ],
    ],
    problems: [
      '25:28: spec.tunnels[1].protocol: got "ipip", expected vxlan or geneve: spec.tunnels[0] is IPIP, and nothing tells the packets of two apart',
      '26:42: spec.tunnels[2].port: got 8472, expected another port than 8472: spec.tunnel has it for vxlan',
      '27:15: spec.tunnels[3].name: got "a", expected a name no other tunnel has (spec.tunnels[0].name has it)',
      '27:41: spec.tunnels[3].port: got 8472, expected another port than 8472: spec.tunnels[2] has it for geneve',
      '27:52: spec.tunnels[3].vni: got 1, expected another VNI or another port: spec.tunnel has vxlan port 8472 with VNI 1',
      '28:7: spec.tunnels[4].port: got nothing, expected another port than 8472: spec.tunnels[2] has it for geneve',
      '30:54: spec.routes[0].encap: got true, expected the name of a tunnel, for there are several: vxlan, a, b, c, a, d',
    ],
  },
  {
    what: 'routes into tunnels that there are not, or to nobody in them',
    edits: [
      ['  routes:', '  tunnels:\n    - { name: a, protocol: ipip }\n  routes:'],
      ['via: 192.168.10.2, encap: true', 'via: 192.168.10.2, encap: a'],
      ['{ to: 0.0.0.0/0, via: 192.168.10.254 }', '{ to: 0.0.0.0/0, via: 192.168.10.2, encap: b }'],
    ],
    problems: [
      '26:33: spec.routes[0].via: got "192.168.10.2", expected the address of a tunnel peer (there are none)',
      '27:50: spec.routes[1].encap: got "b", expected false or one of vxlan, a',
    ],
  },
  {
    what: 'an encap route through no peer',
    edits: [['via: 192.168.10.2,', 'via: 192.168.10.3,']],
    problems: ['24:33: spec.routes[0].via: got "192.168.10.3", expected the address of a tunnel peer (192.168.10.2)'],
  },
  {
    what: 'a next hop out of reach',
    edits: [
      ['    gateway: 192.168.10.254    # optional\n', ''],
      ['via: 192.168.10.254 }', 'via: 192.168.11.254 }'],
    ],
    problems: [
      '24:29: spec.routes[1].via: got "192.168.11.254", expected a next hop in the subnet of spec.uplink.address, or reached through the gateway or a route without encap',
    ],
  },
  {
    what: 'next hops in a circle',
    edits: [
      [
        'via: 192.168.10.254 }',
        'via: 192.168.10.254 }\n    - { to: 10.1.0.0/16, via: 10.2.0.1 }\n    - { to: 10.2.0.0/16, via: 10.1.0.1 }',
      ],
    ],
    problems: [
      '26:31: spec.routes[2].via: got "10.2.0.1", expected a next hop in the subnet of spec.uplink.address, or reached through the gateway or a route without encap',
      '27:31: spec.routes[3].via: got "10.1.0.1", expected a next hop in the subnet of spec.uplink.address, or reached through the gateway or a route without encap',
    ],
  },
  {
    what: 'a next hop that is a pod',
    edits: [['via: 192.168.10.254 }', 'via: 10.244.1.10 }']],
    problems: [
      '25:29: spec.routes[1].via: got "10.244.1.10", expected the address of another host (spec.pods[0].address is the same)',
    ],
  },
  {
    what: 'the same route twice',
    edits: [['to: 0.0.0.0/0', 'to: 10.244.2.0/24']],
    problems: [
      '25:13: spec.routes[1].to: got "10.244.2.0/24", expected a network no other route has (spec.routes[0].to has it)',
    ],
  },
  {
    what: 'an unknown profile',
    edits: [['profile: linux', 'profile: flanel']],
    problems: [
      '26:12: spec.profile: got "flanel", expected one of linux, cilium, calico, flannel, rfc (did you mean "flannel"?)',
    ],
  },
  {
    what: 'an unknown offload',
    edits: [['offload: auto', 'offload: [csum, gro]']],
    problems: ['27:3: spec.offload: got ["csum", "gro"], expected auto, none, or a list of csum, tso, uso, tunnel'],
  },
  {
    what: 'host bits in a masquerade rule',
    edits: [['from: 10.244.0.0/16', 'from: 10.244.1.0/16']],
    problems: [
      '29:15: spec.masquerade[0].from: got "10.244.1.0/16", expected a network without host bits (did you mean "10.244.0.0/16"?)',
    ],
  },
  {
    what: 'an empty list in a masquerade rule',
    edits: [['notTo: [10.244.0.0/16, 224.0.0.0/4]', 'notTo: []']],
    problems: ['29:30: spec.masquerade[0].notTo: got a list of 0, expected at least one network'],
  },
  {
    what: 'a mark outside its mask',
    edits: [['randomFully: true', 'mark: 0x4000/0x8000']],
    problems: [
      '29:73: spec.masquerade[0].mark: got "0x4000/0x8000", expected VALUE or VALUE/MASK of 32 bits, such as 0x4000/0x4000, with no bit of the value outside the mask',
    ],
  },
  {
    what: 'a port range upside down',
    edits: [['randomFully: true', 'ports: 60999-32768']],
    problems: [
      '29:74: spec.masquerade[0].ports: got "60999-32768", expected a range LOW-HIGH of ports, such as 32768-60999',
    ],
  },
  {
    what: 'RETURN with things only MASQUERADE has',
    edits: [['randomFully: true', 'action: RETURN, randomFully: true, source: 192.168.10.1, ports: 1-2']],
    problems: [
      '29:96: spec.masquerade[0].randomFully: got true, expected no randomFully: RETURN translates nothing',
      '29:110: spec.masquerade[0].source: got "192.168.10.1", expected no source: RETURN translates nothing',
      '29:131: spec.masquerade[0].ports: got "1-2", expected no ports: RETURN translates nothing',
    ],
  },
  {
    what: 'a service with the address of a pod',
    edits: [['addresses: [10.96.0.10]', 'addresses: [10.244.1.10]']],
    problems: [
      '33:19: spec.services[0].addresses[0]: got "10.244.1.10", expected an address of its own (spec.pods[0].address is the same)',
    ],
  },
  {
    what: 'a short address of a LoadBalancer, which may be either',
    edits: [['type: ClusterIP', 'type: LoadBalancer']],
    problems: [
      '33:7: spec.services[0].addresses: got ["10.96.0.10"], expected clusterIP or loadBalancerIPs instead: type is LoadBalancer, so this may be the cluster\'s address or the balancer\'s',
    ],
  },
  {
    what: 'both forms of addresses',
    edits: [['type: ClusterIP', 'clusterIP: 10.96.0.11']],
    problems: [
      '33:7: spec.services[0].addresses: got ["10.96.0.10"], expected no addresses beside clusterIP: it is clusterIP, loadBalancerIPs and externalIPs, or addresses',
    ],
  },
  {
    what: 'addresses of a load balancer that is none',
    edits: [
      ['type: ClusterIP', 'loadBalancerIPs: [192.168.10.211]'],
      ['addresses: [10.96.0.10]', 'type: ClusterIP'],
    ],
    problems: [
      '32:7: spec.services[0].loadBalancerIPs: got ["192.168.10.211"], expected no addresses of a load balancer: type is not LoadBalancer',
    ],
  },
  {
    what: 'service addresses that belong to others: a peer, a pod elsewhere, a network behind a pod, an endpoint',
    edits: [
      ['addresses: [10.96.0.10]', 'addresses: [192.168.10.2, 10.244.2.99, 10.50.0.1, 10.77.0.1]'],
      ['labels:', 'networks: [10.50.0.0/16], labels:'],
      ['address: 10.244.2.10 }]', 'address: 10.77.0.1 }]'],
    ],
    problems: [
      '33:19: spec.services[0].addresses[0]: got "192.168.10.2", expected an address of its own (spec.tunnel.peers[0] has it)',
      '33:33: spec.services[0].addresses[1]: got "10.244.2.99", expected an address of its own: spec.routes[0] leads to the pod that has it',
      '33:46: spec.services[0].addresses[2]: got "10.50.0.1", expected an address of its own: spec.pods[0].networks[0] leads to the pod that has it',
      '33:57: spec.services[0].addresses[3]: got "10.77.0.1", expected an address other than an endpoint\'s (spec.services[0].endpoints[1] is the same)',
    ],
  },
  {
    what: 'a MAC for a pod without Ethernet',
    edits: [['labels:', 'kind: tun, mac: 02:00:00:00:00:09, labels:']],
    problems: [
      '14:93: spec.pods[0].mac: got "02:00:00:00:00:09", expected no MAC: kind is tun, which has no Ethernet (tap and veth have)',
    ],
  },
  {
    what: 'a kind of pod that there is not',
    edits: [['labels:', 'kind: macvlan, labels:']],
    problems: ['14:83: spec.pods[0].kind: got "macvlan", expected one of tun, tap, veth, memory'],
  },
  {
    what: 'a pod in memory with a namespace',
    edits: [['labels:', 'kind: memory, labels:']],
    problems: [
      '14:34: spec.pods[0].netns: got "p1", expected no netns: kind is memory',
      '14:46: spec.pods[0].device: got "eth0", expected no device: kind is memory',
    ],
  },
  {
    what: 'a named target port that nobody has, and a port of several',
    edits: [
      ['targetPort: 8080 }', 'targetPort: web }, { name: dns, port: 53 }'],
      [
        '{ address: 10.244.2.10 }]',
        '{ address: 10.244.2.10, port: 8080 }, { address: 10.244.2.11, ports: { htpp: 80 } }]',
      ],
    ],
    problems: [
      '35:19: spec.services[0].endpoints[0]: got a map, expected a port: no pod of this node with the address 10.244.1.10 has a TCP port named web (spec.services[0].ports[0].targetPort)',
      '35:75: spec.services[0].endpoints[1].port: got 8080, expected ports by their names in the service, such as ports: { http: 8080 }: the service has 2',
      '35:122: spec.services[0].endpoints[2].ports.htpp: got 80, expected the name of a port of the service (http, dns)',
    ],
  },
  {
    what: 'node port addresses that the node has not',
    edits: [['  profile: linux', '  nodePortAddresses: [10.0.0.0/24]\n  profile: linux']],
    problems: [
      '26:3: spec.nodePortAddresses: got ["10.0.0.0/24"], expected a network with an address of this node (192.168.10.1, 10.244.1.1)',
    ],
  },
  {
    what: 'a namespace that is no name and no path',
    edits: [['netns: p1', 'netns: run/netns/p1']],
    problems: [
      '14:34: spec.pods[0].netns: got "run/netns/p1", expected the name of a network namespace, as "ip netns" lists it, or a path such as /proc/PID/ns/net',
    ],
  },
  {
    what: 'policies with peers, blocks and ports that the API refuses',
    edits: [
      [
        '  profile: linux',
        '  policies: [{ name: db, ingress: [{ from: [{ ipBlock: { cidr: 10.0.0.0/8, except: [10.0.0.0/8, 11.0.0.0/9] }, podSelector: {} }, {}], ports: [{ port: http, endPort: 90 }, { port: 90, endPort: 80 }] }] }]\n  profile: linux',
      ],
    ],
    problems: [
      '26:45: spec.policies[0].ingress[0].from[0]: got a map, expected an ipBlock, or podSelector and namespaceSelector: not both',
      '26:85: spec.policies[0].ingress[0].from[0].ipBlock.except[0]: got "10.0.0.0/8", expected a smaller network within 10.0.0.0/8',
      '26:97: spec.policies[0].ingress[0].from[0].ipBlock.except[1]: got "11.0.0.0/9", expected a smaller network within 10.0.0.0/8',
      '26:131: spec.policies[0].ingress[0].from[1]: got a map, expected a podSelector, a namespaceSelector or an ipBlock',
      '26:167: spec.policies[0].ingress[0].ports[0].endPort: got 90, expected no endPort without a port that is a number',
      '26:194: spec.policies[0].ingress[0].ports[1].endPort: got 80, expected a port from 90 on',
    ],
  },
  {
    what: 'a service nobody can reach',
    edits: [['addresses: [10.96.0.10]', 'addresses: []']],
    problems: [
      '33:7: spec.services[0].addresses: got a list of 0, expected at least one address: the service has no external address and no node port either',
    ],
  },
  {
    what: 'a service without ports',
    edits: [['ports: [{ name: http, protocol: TCP, port: 80, targetPort: 8080 }]', 'ports: []']],
    problems: ['34:7: spec.services[0].ports: got a list of 0, expected at least one port'],
  },
  {
    what: 'a service port twice',
    edits: [['targetPort: 8080 }', 'targetPort: 8080 }, { port: 80 }']],
    problems: [
      '34:82: spec.services[0].ports[1].port: got 80, expected an address, protocol and port no other service has (spec.services[0].ports[0].port has it)',
    ],
  },
  {
    what: 'a node port out of range',
    edits: [
      ['type: ClusterIP', 'type: NodePort'],
      ['targetPort: 8080', 'nodePort: 8080'],
    ],
    problems: [
      '34:64: spec.services[0].ports[0].nodePort: got 8080, expected a whole number from 30000 to 32767, which is spec.nodePortRange',
    ],
  },
  {
    what: 'a node port twice',
    edits: [
      ['type: ClusterIP', 'type: NodePort'],
      ['targetPort: 8080 }', 'nodePort: 30080 }, { name: other, port: 81, nodePort: 30080 }'],
    ],
    problems: [
      '34:108: spec.services[0].ports[1].nodePort: got 30080, expected a node port not yet used for this protocol (spec.services[0].ports[0].nodePort has it)',
    ],
  },
  {
    what: 'a node port of a ClusterIP service',
    edits: [['targetPort: 8080', 'nodePort: 30080']],
    problems: ['34:64: spec.services[0].ports[0].nodePort: got 30080, expected no nodePort: type is ClusterIP'],
  },
  {
    what: 'no node port in a NodePort service',
    edits: [['type: ClusterIP', 'type: NodePort']],
    problems: ['34:15: spec.services[0].ports[0].nodePort: got nothing, expected a node port: type is NodePort'],
  },
  {
    what: 'a multicast endpoint',
    edits: [['address: 10.244.2.10 }]', 'address: 224.0.0.1 }]']],
    problems: [
      '35:56: spec.services[0].endpoints[1].address: got "224.0.0.1", expected a host address, not a multicast address',
    ],
  },
  {
    what: 'an endpoint twice',
    edits: [['address: 10.244.2.10 }]', 'address: 10.244.1.10 }]']],
    problems: [
      '35:56: spec.services[0].endpoints[1].address: got "10.244.1.10", expected an address and port no other endpoint of the service has (spec.services[0].endpoints[0].address has it)',
    ],
  },
  {
    what: 'source ranges without a load balancer',
    edits: [['type: ClusterIP', 'loadBalancerSourceRanges: [10.0.0.0/8]']],
    problems: [
      '32:7: spec.services[0].loadBalancerSourceRanges: got ["10.0.0.0/8"], expected no source ranges: type is not LoadBalancer',
    ],
  },
  {
    what: 'a service twice',
    edits: [
      [
        '    - name: default/web\n',
        '    - { name: default/web, addresses: [10.96.0.10], ports: [{ port: 80 }] }\n    - name: default/web\n',
      ],
    ],
    problems: [
      '32:13: spec.services[1].name: got "default/web", expected a name no other service has (spec.services[0].name has it)',
      '35:50: spec.services[1].ports[0].port: got 80, expected an address, protocol and port no other service has (spec.services[0].ports[0].port has it)',
    ],
  },
  {
    what: 'a duplicate key',
    edits: [['    mtu: 1500', '    mtu: 1500\n    mtu: 1400']],
    problems: ['12:5: spec.uplink.mtu: got the field "mtu" again, expected each field once'],
  },
  {
    what: 'an empty value',
    edits: [['profile: linux', 'profile:']],
    problems: ['26:3: spec.profile: got nothing, expected one of linux, cilium, calico, flannel, rfc'],
  },
  {
    what: 'a list for a map',
    edits: [['host: { device: tp0, address: 10.244.1.1/32 }', 'host: []']],
    problems: ['12:3: spec.host: got a list of 0, expected a map'],
  },
  {
    what: 'a map for a list',
    edits: [
      [
        '    - { to: 10.244.2.0/24, via: 192.168.10.2, encap: true }\n    - { to: 0.0.0.0/0, via: 192.168.10.254 }',
        '    to: 10.244.2.0/24',
      ],
    ],
    problems: ['23:3: spec.routes: got a map, expected a list'],
  },
  {
    what: 'an alias before its anchor',
    edits: [['profile: linux', 'profile: *linux']],
    problems: ['26:12: spec.profile: got *linux, expected an anchor that stands before it'],
  },
  {
    what: 'an unclosed bracket',
    edits: [['offload: auto', 'offload: [csum']],
    problems: [
      '28:3: got a YAML error, expected valid YAML: flow sequence in block collection must be sufficiently indented and end with a ]',
    ],
  },
  {
    what: 'a tag',
    edits: [['profile: linux', 'profile: !my linux']],
    problems: ['26:12: got a YAML error, expected valid YAML: unresolved tag: !my'],
  },
  {
    what: 'another document',
    edits: [
      [
        '      endpoints: [{ address: 10.244.1.10 }, { address: 10.244.2.10 }]\n',
        '      endpoints: []\n---\nkind: Pod\n',
      ],
    ],
    problems: ['37:7: kind: got "Pod", expected one NodeConfig and nothing else in the file'],
  },
];

describe('control/load-config: one mistake each', () => {
  for (const { what, edits, problems } of MISTAKES) {
    it(what, () => {
      assert.deepEqual(refused(edit(DESIGN, edits)), problems);
    });
  }
});
