/**
 * `uplink.kind: routed`: the host keeps its interface, address and MAC, and so does the datapath. Rules on the interface
 * lead what is the datapath's to its TAP (steering.ts), and what it writes there out by the interface.
 */
import { closeHandle } from '../../io/handle.ts';
import { missingNftables, Nftables } from '../../io/nftables.ts';
import { openTunTap } from '../../io/tuntap.ts';
import { parseMac } from '../address.ts';
import { formatPath } from '../check-draft.ts';
import type { UplinkConfig } from '../config.ts';
import { readHostPorts } from '../host-ports.ts';
import { defaultGateway, findInterface, readInterfaces, readRoutes } from '../interfaces.ts';
import { ipBatch } from '../ip.ts';
import { QUEUE_PACKETS, withoutIpv6 } from '../kernel-side.ts';
import { type Claims, claimsOf, findConflicts, mergeClaims, RESERVED_PORTS } from './claims.ts';
import { linkOfTun, lookAtInterface, switchedOff } from './look.ts';
import { mergeRanges, steeringNodes, steeringTable, tableName } from './steering.ts';
import type { StatusLine, UplinkKind } from './uplink.ts';

const INTERFACE = 'spec.uplink.interface';

type Written = Extract<UplinkConfig, { kind: 'routed' }>;

export const routed: UplinkKind<Written> = {
  async resolve(written, { spec }) {
    const { interface: name, device } = written;
    const found = findInterface(await readInterfaces(), name, INTERFACE);
    if (typeof found === 'string') return [found];
    const mac = parseMac(found.mac);
    if (mac === undefined || (mac.hi | mac.lo) === 0) return [`${INTERFACE}: ${name} is not an Ethernet interface`];
    const [address] = found.addresses;
    if (address === undefined) return [`${INTERFACE}: ${name} has no IPv4 address (ip address add ... dev ${name})`];
    return {
      kind: 'routed',
      device,
      address,
      mac: found.mac,
      gateway: defaultGateway(await readRoutes(), name),
      mtu: found.mtu,
      onHostPort: false,
      ofKernel: true,
      ports: spec.masquerade.find(rule => rule.ports !== undefined)?.ports ?? RESERVED_PORTS,
      interfaceIndex: found.index,
      written,
    };
  },

  async look(netlink, config, handle) {
    const sight = await lookAtInterface(netlink, config, () =>
      routed.resolve(config.spec.uplink.written as Written, config),
    );
    const { device } = config.spec.uplink;
    if (handle === null) return { ...sight, stale: true };
    const own = linkOfTun(netlink, handle);
    if (own !== undefined) return own.link.up ? sight : switchedOff(sight, own.link.name);
    return sight.state === 'up'
      ? { ...sight, state: 'gone', why: `${device} is gone`, stale: true }
      : { ...sight, stale: true };
  },

  async findObstacles(config) {
    const { device, written } = config.spec.uplink;
    const missing = missingNftables();
    const other = missing === undefined ? otherNodeOn(interfaceOf(written), config.metadata.name) : undefined;
    const taken = (await readInterfaces()).some(({ name }) => name === device);
    return [
      ...(missing === undefined ? [] : [`spec.uplink.kind: routed steers by nftables, and ${missing}`]),
      ...(other === undefined ? [] : [`${INTERFACE}: node ${other} steers on ${interfaceOf(written)} already`]),
      ...(taken ? [`spec.uplink.device: there is an interface ${device} already`] : []),
      ...findConflicts(claimsOf(config), readHostPorts()).map(({ path, message }) => `${formatPath(path)}: ${message}`),
    ];
  },

  async open(config, allowed) {
    const { device, mtu, written } = config.spec.uplink;
    const { name } = config.metadata;
    const networkInterface = interfaceOf(written);
    let claims = claimsOf(config);
    const handle = openTunTap({ kind: 'tap', name: device, mtu, allowed });
    const nftables = new Nftables();
    const steer = (steered: Claims) => nftables.run(steeringTable(name, device, networkInterface, steered));
    try {
      withoutIpv6(device);
      await ipBatch([`link set dev ${device} mtu ${mtu} txqueuelen ${QUEUE_PACKETS} up`]);
      steer(claims);
    } catch (error) {
      nftables.close();
      closeHandle(handle);
      throw error;
    }
    return {
      handle,
      status: () => statusLines(claims, tableName(name), nftables),
      findRefusals: to => findConflicts(claimsOf(to), readHostPorts(), claims),
      async serve(...configs) {
        const wanted = configs.map(claimsOf).reduce(mergeClaims);
        steer(wanted);
        claims = wanted;
      },
      async close() {
        nftables.close();
      },
    };
  },
};

function interfaceOf(written: UplinkConfig): string {
  return (written as Extract<UplinkConfig, { kind: 'routed' }>).interface;
}

/** Two nodes with one address would take each other's packets. @returns the name of the other one */
function otherNodeOn(networkInterface: string, name: string): string | undefined {
  const nftables = new Nftables();
  try {
    return steeringNodes(nftables.run('list chains netdev'), networkInterface).find(node => node !== name);
  } finally {
    nftables.close();
  }
}

function statusLines(claims: Claims, table: string, nftables: Nftables): StatusLine[] {
  const rules = nftables.run(`list table netdev ${table}`).trimEnd().replaceAll('\t', '  ').split('\n');
  const reserved = mergeRanges(claims.reserved).map(({ low, high }) => `${low}-${high}`);
  return [
    ...(reserved.length === 0
      ? []
      : [
          {
            what: 'reserved',
            how: `TCP, UDP and SCTP ports and ICMP identifiers ${reserved.join(', ')} of ${claims.address}`,
          },
          { what: 'masquerade', how: 'of these protocols only: what answers to others goes to the host' },
        ]),
    { what: 'steering', how: 'these rules, owned by the node: nobody else can change them, and they go when it ends' },
    ...rules.filter(line => line !== '').map(line => ({ what: 'rule', how: line })),
  ];
}
