/**
 * `uplink.kind: macvtap`: a device of our own on the host's NIC, with its own MAC and address on that segment
 * (Linux drivers/net/macvlan.c, macvtap.c, tap.c). It does not go with its descriptor, so we remove it; one that a killed
 * node left behind is known by its alias.
 */
import { createHash, randomInt } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { execa } from 'execa';
import { closeHandle } from '../../io/handle.ts';
import { openMacvtap, type TunTapHandle } from '../../io/tuntap.ts';
import type { UplinkConfig } from '../config.ts';
import { findInterface, type Interface, readInterfaces } from '../interfaces.ts';
import { ipBatch } from '../ip.ts';
import { QUEUE_PACKETS, withoutIpv6 } from '../kernel-side.ts';
import type { ResolvedConfig } from '../resolved.ts';
import { lookAtInterface, switchedOff } from './look.ts';
import type { StatusLine, UplinkKind } from './uplink.ts';

type Written = Extract<UplinkConfig, { kind: 'macvtap' }>;

export const macvtap: UplinkKind<Written> = {
  async resolve(written, config) {
    const interfaces = await readInterfaces();
    const parent = findInterface(interfaces, written.interface, 'spec.uplink.interface');
    if (typeof parent === 'string') return [parent];
    return {
      kind: 'macvtap',
      device: written.device ?? chooseName(interfaces, config.metadata.name),
      address: written.address,
      mac: written.mac ?? chooseMac(parent.mac, written.address, config.metadata.name),
      gateway: written.gateway,
      mtu: written.mtu ?? parent.mtu,
      onHostPort: false,
      claims: true,
      interfaceIndex: parent.index,
      written,
    };
  },

  async look(netlink, config, handle) {
    const { uplink } = config.spec;
    const sight = await lookAtInterface(netlink, config, () => macvtap.resolve(uplink.written as Written, config));
    if (handle === null) return { ...sight, stale: true };
    const own = netlink.link(uplink.device);
    if (own === undefined) {
      return sight.state === 'up'
        ? { ...sight, state: 'gone', why: `${uplink.device} is gone`, stale: true }
        : { ...sight, stale: true };
    }
    if (sight.uplink === undefined) return sight;
    if (!own.up) return switchedOff(sight, uplink.device);
    // A frame for the MAC that others know would not come here any more.
    if (own.mac !== uplink.mac) netlink.setLink(own.index, { mac: uplink.mac });
    // The kernel lowers it with the NIC's, and leaves it there (macvlan_device_event()).
    const mtu = Math.min(sight.uplink.mtu, netlink.link((uplink.written as Written).interface)?.mtu ?? own.mtu);
    if (own.mtu < mtu && sight.state === 'up') netlink.setLink(own.index, { mtu });
    // What others know us by stays, also where the NIC has another MAC.
    return { ...sight, uplink: { ...sight.uplink, mtu, mac: uplink.mac, device: uplink.device } };
  },

  async findObstacles(config) {
    return obstaclesAmong(await readInterfaces(), config);
  },

  async open({ metadata, spec }, allowed) {
    const { uplink } = spec;
    const parent = (uplink.written as Written).interface;
    for (const { name } of (await readInterfaces()).filter(isLeftBy(metadata.name)))
      await ipBatch([`link del ${name}`]);
    await ipBatch([
      `link add link ${parent} name ${uplink.device} index ${chooseIndex()} address ${uplink.mac} mtu ${uplink.mtu} ` +
        `txqueuelen ${QUEUE_PACKETS} type macvtap mode bridge`,
    ]);
    let handle: TunTapHandle | null = null;
    try {
      await ipBatch([`link set dev ${uplink.device} alias ${aliasOf(metadata.name)}`]);
      withoutIpv6(uplink.device);
      handle = await openDevice(uplink.device, uplink.mtu, allowed);
      await ipBatch([`link set dev ${uplink.device} up`]);
    } catch (error) {
      if (handle !== null) closeHandle(handle);
      await ipBatch([`link del ${uplink.device}`]).catch(() => {});
      throw error;
    }
    return {
      handle,
      status: () => describe(uplink.device, parent, uplink.address),
      close: () => remove(metadata.name),
    };
  },
};

/** Marks a macvtap as the one of a node. Without a blank: `ip -batch` would split it. */
function aliasOf(node: string): string {
  return `tunpath:${node}`;
}

function isLeftBy(node: string): (candidate: Interface) => boolean {
  return ({ kind, alias }) => kind === 'macvtap' && alias === aliasOf(node);
}

/** A name that is free, or will be when what a killed node left is removed. */
function chooseName(interfaces: readonly Interface[], node: string): string {
  const left = interfaces.find(isLeftBy(node));
  if (left !== undefined) return left.name;
  const taken = new Set(interfaces.map(({ name }) => name));
  let i = 0;
  while (taken.has(`tpv${i}`)) i++;
  return `tpv${i}`;
}

/** The same at every start, so that neighbours need not learn it anew; locally administered, one station. */
function chooseMac(parent: string, address: string, node: string): string {
  const bytes = createHash('sha256').update(`${parent} ${address} ${node}`).digest().subarray(0, 6);
  bytes[0] = (bytes[0] & 0xfc) | 0x02;
  return [...bytes].map(byte => byte.toString(16).padStart(2, '0')).join(':');
}

/** Above what the kernel gives out by itself, and room for many. */
const [LEAST_INDEX, MOST_INDEX] = [1 << 20, 1 << 30];

/**
 * The index of a device names its /dev/tapN. There is one /dev for all network namespaces, each of which counts from 1: of two
 * macvtaps with one index only the first has its node. So ours gets an index that no other has.
 */
function chooseIndex(): number {
  for (;;) {
    const index = randomInt(LEAST_INDEX, MOST_INDEX);
    if (!existsSync(`/dev/tap${index}`)) return index;
  }
}

/** What stands in the way of a macvtap on this machine. Pure. */
export function obstaclesAmong(interfaces: readonly Interface[], { metadata, spec }: ResolvedConfig): string[] {
  const { device, address: cidr, mtu, written } = spec.uplink;
  const parent = interfaces.find(({ name }) => name === (written as Written).interface)!;
  const [address] = cidr.split('/');
  const obstacles: string[] = [];
  if (parent.master !== undefined) {
    obstacles.push(
      `spec.uplink.interface: ${parent.name} belongs to ${parent.master}, and the kernel puts no macvtap there: expected ${parent.master} itself`,
    );
  }
  if (mtu > parent.mtu) {
    obstacles.push(`spec.uplink.mtu: got ${mtu}, expected at most ${parent.mtu}, the MTU of ${parent.name}`);
  }
  const taken = interfaces.find(({ name }) => name === device);
  if (taken !== undefined && !isLeftBy(metadata.name)(taken)) {
    obstacles.push(`spec.uplink.device: there is a device ${device} already, expected a free name`);
  }
  const owner = interfaces.find(({ addresses }) => addresses.some(own => own.split('/')[0] === address));
  if (owner !== undefined) {
    obstacles.push(
      `spec.uplink.address: ${address} is the host's own, on ${owner.name}: expected another one of that segment ` +
        '(kind raw or routed use the address that the host has)',
    );
  }
  if (spec.host?.address.split('/')[0] === address) {
    obstacles.push(
      `spec.host.address: the host would answer ARP for ${address} on ${parent.name} as well, with another MAC: ` +
        'expected an address other than spec.uplink.address',
    );
  }
  return obstacles;
}

/** Opens the character device of a macvtap. */
async function openDevice(name: string, mtu: number, allowed: number): Promise<TunTapHandle> {
  const { index, mac } = (await readInterfaces()).find(candidate => candidate.name === name)!;
  const usual = `/dev/tap${index}`;
  // It came with the device: chooseIndex() has seen to it that no other's is there.
  if (existsSync(usual)) return openMacvtap({ path: usual, name, mtu, allowed });

  // The kernel makes it in devtmpfs; a container has a /dev of its own.
  const [major, minor] = (await readDeviceNumber(name, index, mac)).split(':').map(Number);
  const reasons: string[] = [];
  for (const directory of ['/dev', '/run/tunpath']) {
    const path = join(directory, `.tunpath-${process.pid}`);
    try {
      mkdirSync(directory, { recursive: true });
      await execa('mknod', ['-m', '600', path, 'c', `${major}`, `${minor}`]);
      return openMacvtap({ path, name, mtu, allowed });
    } catch (error) {
      reasons.push((error as Error).message.split('\n').at(-1)!);
    } finally {
      rmSync(path, { force: true });
    }
  }
  throw new Error(`macvtap ${name}: there is no ${usual}, and none can be made: ${reasons.join('; ')}`);
}

/** MAJOR:MINOR of a macvtap's character device. /sys shows the namespace of whoever mounted it, perhaps not ours. */
async function readDeviceNumber(name: string, index: number, mac: string): Promise<string> {
  const directory = `/sys/class/net/${name}`;
  const file = `${directory}/macvtap/tap${index}/dev`;
  if (existsSync(file) && readFileSync(`${directory}/address`, 'utf8').trim() === mac)
    return readFileSync(file, 'utf8');
  const look = ['--mount', 'sh', '-c', `mount -t sysfs sysfs /sys && cat ${file}`];
  const { exitCode, stdout, stderr } = await execa('unshare', look, { reject: false, stdin: 'ignore' });
  if (exitCode === 0) return stdout;
  throw new Error(`macvtap ${name}: /dev has no tap${index}, and /sys is of another network namespace: ${stderr}`);
}

/** Removes the macvtap of a node, if it is there. */
async function remove(node: string): Promise<void> {
  try {
    for (const { name } of (await readInterfaces()).filter(isLeftBy(node))) await ipBatch([`link del ${name}`]);
  } catch (error) {
    // The node is ending, and nobody is left to be told in another way.
    process.emitWarning(`${node}: its macvtap is still there: ${(error as Error).message}`);
  }
}

function describe(device: string, parent: string, address: string): StatusLine[] {
  return [
    { what: 'device', how: `${device}, a macvtap in mode bridge on ${parent}` },
    {
      what: 'host and node',
      how: `nothing passes between ${parent}'s own addresses and ${address}, but what a rule leads to ports of services: what a macvtap sends does not come back to its interface`,
    },
    {
      what: 'node address',
      how: `the datapath has ${address}, and answers ping; no process of the host listens on it, for its kernel would answer ARP for it on ${parent} as well`,
    },
  ];
}
