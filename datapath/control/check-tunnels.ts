/** Tunnels of a configuration: what each says must fit together, and nothing that arrives may be two tunnels' at once. */
import { MIN_MTU } from '../mtu/path-mtu.ts';
import { configuredOverhead } from '../program/compile-tunnel.ts';
import * as ethernet from '../wire/ethernet.ts';
import { MAX_OPTIONS_LEN, OPT_HEADER_LEN } from '../wire/geneve.ts';
import { parseMac } from './address.ts';
import {
  addressOf,
  type Check,
  type Draft,
  entries,
  isLocal,
  type Owners,
  type Path,
  type Report,
  type Spec,
  uniqueNames,
} from './check-draft.ts';
import {
  defaultTunnelPort,
  defaultVni,
  defaultVtepMac,
  type GeneveOptionConfig,
  type WrittenConfig,
} from './config.ts';

type DraftTunnel = Draft<WrittenConfig['spec']['tunnel'] | WrittenConfig['spec']['tunnels'][number]>;

interface Placed {
  /** Below `spec`: tunnel, or tunnels and a number. */
  at: Path;
  /** By which routes name it; undefined: refused. */
  name: string | undefined;
  tunnel: DraftTunnel;
}

/** All tunnels, the short form first. */
export function tunnelsOf({ tunnel, tunnels }: Spec): Placed[] {
  const short =
    tunnel?.protocol === undefined || tunnel.protocol === 'none'
      ? []
      : [{ at: ['tunnel'], name: tunnel.protocol, tunnel }];
  return [...short, ...entries(tunnels).map(([i, one]) => ({ at: ['tunnels', i], name: one.name, tunnel: one }))];
}

/** "tunnel" or "tunnels[0]", as messages name it. */
function inWords(at: Path): string {
  return at.length === 1 ? String(at[0]) : `${at[0]}[${at[1]}]`;
}

export function checkTunnels(check: Check, owners: Owners): void {
  const { spec, report } = check;
  if (spec.tunnel?.protocol === 'none' && (spec.tunnel.peers?.length ?? 0) > 0) {
    report(['tunnel', 'peers'], 'no peers: tunnel.protocol is none');
  }
  const unique = uniqueNames(report, 'a name no other tunnel has');
  const placed = tunnelsOf(spec);
  for (const one of placed) {
    unique(one.name, one.at.length === 1 ? one.at : [...one.at, 'name']);
    checkRoom(check, one);
    checkIdentities(check, one);
    checkOptions(one, report);
    checkPeers(check, one, owners);
  }
  checkApart(check, placed);
}

/** Whether the uplink has room for the tunnel's headers. */
function checkRoom({ spec, report }: Check, { tunnel }: Placed): void {
  const { uplink } = spec;
  const { protocol } = tunnel;
  if (
    protocol === undefined ||
    protocol === 'none' ||
    uplink === undefined ||
    !('mtu' in uplink) ||
    uplink.mtu === undefined
  )
    return;
  const overhead = configuredOverhead({ protocol, options: knownOptions(tunnel) });
  checkLargerUnderlay(spec, protocol, overhead, report);
  const least = MIN_MTU + overhead;
  if (uplink.mtu < least) {
    report(['uplink', 'mtu'], `at least ${least}: ${protocol} adds ${overhead} bytes, IPv4 needs ${MIN_MTU}`);
  }
}

function checkIdentities({ spec, report, refused }: Check, { at, tunnel }: Placed): void {
  const { profile } = spec;
  if (tunnel.protocol !== 'vxlan' && tunnel.protocol !== 'geneve') return;
  if (refused(...at, 'vni') || profile === undefined) return;
  if ((tunnel.vni ?? defaultVni(profile)) !== 'identity') return;
  const given = tunnel.vni === undefined ? 'by default in profile cilium' : 'as given';
  for (const [i, pod] of entries(spec.pods)) {
    if (pod.identity === undefined && !refused('pods', i, 'identity')) {
      report(['pods', i, 'identity'], `an identity: ${inWords(at)}.vni is identity (${given})`);
    }
  }
}

/** The options of which nothing was refused. */
function knownOptions(tunnel: DraftTunnel): GeneveOptionConfig[] {
  if (!('options' in tunnel)) return [];
  return entries(tunnel.options).flatMap(([, { class: optionClass, type, data }]) =>
    optionClass === undefined || type === undefined || data === undefined ? [] : [{ class: optionClass, type, data }],
  );
}

function checkOptions({ at, tunnel }: Placed, report: Report): void {
  if (tunnel.protocol === 'vxlan' && (tunnel.options?.length ?? 0) > 0) {
    report([...at, 'options'], 'no options: VXLAN has none (GENEVE has)');
  }
  if (tunnel.protocol !== 'geneve') return;
  const bytes = knownOptions(tunnel).reduce((sum, { data }) => sum + OPT_HEADER_LEN + data.length / 2, 0);
  if (bytes > MAX_OPTIONS_LEN) {
    report([...at, 'options'], `at most ${MAX_OPTIONS_LEN} bytes, headers of 4 included (these are ${bytes})`);
  }
}

/** RFC 4459 section 3.3 is a promise: whatever a pod sends fits through the underlay with the tunnel's headers on. */
function checkLargerUnderlay({ uplink, pods, mtu }: Spec, protocol: string, overhead: number, report: Report): void {
  if (mtu?.tooBig !== 'larger-underlay' || uplink === undefined || !('mtu' in uplink) || uplink.mtu === undefined)
    return;
  const widest = Math.max(ethernet.MTU, ...entries(pods).map(([, pod]) => pod.mtu ?? 0));
  const least = widest + overhead;
  if (uplink.mtu >= least) return;
  report(
    ['uplink', 'mtu'],
    `at least ${least}: mtu.tooBig is larger-underlay, pods send ${widest} bytes, ${protocol} adds ${overhead}`,
  );
}

function checkPeers({ report, subnet }: Check, { at, tunnel }: Placed, owners: Owners): void {
  const withMac = tunnel.protocol === 'vxlan' || tunnel.protocol === 'geneve';
  const paths = new Map<number, string>();
  const macs = new Map<string, string>();
  const ownMac = withMac ? (tunnel.mac ?? (subnet && defaultVtepMac(subnet.address))) : undefined;
  if (ownMac !== undefined) macs.set(ownMac, 'this node');
  for (const [i, peer] of entries<{ address?: string; mac?: string }>(tunnel.peers)) {
    const address = addressOf(peer.address);
    if (address === undefined) continue;
    const path = [...at, 'peers', i, 'address'];
    const first = paths.get(address);
    if (address === subnet?.address) report(path, "another node's address, not the uplink's own");
    else if (isLocal(owners.get(address))) report(path, `another node's address (${owners.get(address)} is the same)`);
    else if (first !== undefined) report(path, `an address no other peer has (${first} is the same)`);
    else paths.set(address, `spec.${inWords(at)}.peers[${i}].address`);
    if (!withMac || peer.mac === undefined || parseMac(peer.mac) === undefined) continue;
    const owner = macs.get(peer.mac);
    if (owner === undefined) macs.set(peer.mac, `spec.${inWords(at)}.peers[${i}]`);
    else report([...at, 'peers', i, 'mac'], `a MAC address of its own (${owner} has it)`);
  }
}

/** What arrives is told apart by protocol, then by UDP port, then by VNI. */
function checkApart({ spec, report, refused }: Check, placed: readonly Placed[]): void {
  const { profile } = spec;
  if (profile === undefined) return;
  placed.forEach(({ at, tunnel }, i) => {
    for (const other of placed.slice(0, i)) {
      const where = `spec.${inWords(other.at)}`;
      if (tunnel.protocol === 'ipip' || other.tunnel.protocol === 'ipip') {
        if (tunnel.protocol !== other.tunnel.protocol) continue;
        report([...at, 'protocol'], `vxlan or geneve: ${where} is IPIP, and nothing tells the packets of two apart`);
        continue;
      }
      if (refused(...at, 'port') || refused(...other.at, 'port')) continue;
      const [mine, its] = [udpOf(tunnel, profile), udpOf(other.tunnel, profile)];
      if (mine === null || its === null || mine.port !== its.port) continue;
      if (mine.protocol !== its.protocol) {
        report([...at, 'port'], `another port than ${its.port}: ${where} has it for ${its.protocol}`);
      } else if (mine.vni === its.vni || mine.vni === 'identity' || its.vni === 'identity') {
        report(
          [...at, 'vni'],
          `another VNI or another port: ${where} has ${its.protocol} port ${its.port} with VNI ${its.vni}`,
        );
      }
    }
  });
}

function udpOf(tunnel: DraftTunnel, profile: Parameters<typeof defaultVni>[0]) {
  const { protocol } = tunnel;
  if (protocol !== 'vxlan' && protocol !== 'geneve') return null;
  return {
    protocol,
    port: tunnel.port ?? defaultTunnelPort(protocol, profile),
    vni: tunnel.vni ?? defaultVni(profile),
  };
}

/** Whether the route leads into a tunnel that there is, to one of its peers. */
export function checkEncap(
  { spec, report, refused }: Check,
  route: Draft<WrittenConfig['spec']['routes'][number]>,
  index: number,
): void {
  const { encap } = route;
  if (encap === undefined || encap === false) return;
  // What was refused may be what is meant.
  if (refused('tunnel', 'protocol') || refused('tunnel', 'peers') || refused('tunnels')) return;
  const placed = tunnelsOf(spec);
  const path = ['routes', index, 'encap'];
  const names = placed.map(({ name }) => name).join(', ');
  const found = encap === true ? placed[0] : placed.find(({ name }) => name === encap);
  if (placed.length === 0 && spec.tunnel?.protocol === 'none') report(path, 'false: tunnel.protocol is none');
  else if (found === undefined) report(path, names === '' ? 'false: there is no tunnel' : `false or one of ${names}`);
  else if (encap === true && placed.length > 1) report(path, `the name of a tunnel, for there are several: ${names}`);
  else if (route.via !== undefined) {
    const peers = entries<{ address?: string }>(found.tunnel.peers).flatMap(([, { address }]) => address ?? []);
    if (peers.includes(route.via)) return;
    const known = peers.length === 0 ? 'there are none' : peers.join(', ');
    report(['routes', index, 'via'], `the address of a tunnel peer (${known})`);
  }
}
