/** The kinds of uplink that run, and what a node does with the one that its configuration names. */
import type { DeviceHandle } from '../../io/handle.ts';
import type { Netlink } from '../../io/netlink.ts';
import { checkSpec } from '../check-config.ts';
import { formatPath, type Path } from '../check-draft.ts';
import { type NodeConfig, type UplinkConfig, writtenForm } from '../config.ts';
import { type ResolvedConfig, withUplink } from '../resolved.ts';
import { macvtap } from './macvtap.ts';
import { withOwnPorts } from './own-ports.ts';
import { raw } from './raw.ts';
import { routed } from './routed.ts';
import { segment } from './segment.ts';
import { tap } from './tap.ts';
import type { OpenUplink, Sight, UplinkKind } from './uplink.ts';

type Kind = UplinkConfig['kind'];

const KINDS: { [K in Kind]: UplinkKind<Extract<UplinkConfig, { kind: K }>> } = { tap, raw, macvtap, routed, segment };

type Resolved = { config: ResolvedConfig; obstacles?: undefined } | { config?: undefined; obstacles: string[] };

/** Completes a configuration that loadConfig has accepted; the checks that wanted the uplink's address are made here. */
export async function resolveUplink(config: NodeConfig): Promise<Resolved> {
  const { uplink: written } = config.spec;
  const uplink = await (KINDS[written.kind] as UplinkKind).resolve(written, config);
  if (Array.isArray(uplink)) return { obstacles: uplink };
  const resolved = withUplink(config, uplink);
  const isNew = !('address' in written) || written.mtu === undefined;
  const obstacles = isNew ? checkResolved(resolved) : [];
  return obstacles.length > 0 ? { obstacles } : { config: resolved };
}

/** As check-config.ts, now that address, gateway and MTU are known. */
function checkResolved({ spec }: ResolvedConfig): string[] {
  const { kind, device, mac, address, gateway, mtu } = spec.uplink;
  const obstacles: string[] = [];
  const report = (path: Path, expected: string) =>
    obstacles.push(`${formatPath(['spec', ...path])}: expected ${expected}`);
  const warn = () => {}; // said when the file was read
  checkSpec(
    { ...writtenForm({ ...spec, uplink: { kind: 'tap', device, mac, address, gateway, mtu } }) },
    [],
    report,
    warn,
    kind,
  );
  return obstacles;
}

export function uplinkObstacles(config: ResolvedConfig): Promise<string[]> {
  return KINDS[config.spec.uplink.kind].findObstacles(config);
}

/** @throws Error with nothing left behind */
export async function openUplink(config: ResolvedConfig, allowed: number): Promise<OpenUplink> {
  return withOwnPorts(config, await KINDS[config.spec.uplink.kind].open(config, allowed));
}

/** What has become of the uplink; see UplinkKind. Touches nothing. */
export function lookAtUplink(netlink: Netlink, config: ResolvedConfig, handle: DeviceHandle | null): Promise<Sight> {
  return KINDS[config.spec.uplink.kind].look(netlink, config, handle);
}
