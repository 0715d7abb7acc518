/** A configuration with one thing otherwise: `mode=geneve`, `mtu=1400`, `profile=rfc`, `tooBig=fragment-inner`, policies. */
import { defaultTunnelPort, defaultVni, defaultVtepMac, type TunnelConfig } from '../control/config.ts';
import type { PolicyConfig } from '../control/policy-config.ts';
import type { ResolvedConfig } from '../control/resolved.ts';
import { parseAddress, parseCidr } from '../control/validated.ts';
import { PROFILES, type ProfileName } from '../profile.ts';
import { TOO_BIG_NAMES } from '../route/nexthop.ts';

export const WHAT_IF_MODES = ['native', 'ipip', 'vxlan', 'geneve'] as const;
type Mode = (typeof WHAT_IF_MODES)[number];

const MTU_RANGE = [68, 65535] as const;

/** What was asked for cannot be; the message says what was expected. */
export class WhatIfError extends Error {
  override name = 'WhatIfError';
  readonly exitCode = 2;
}

/** @param text K=V @param policiesOf reads a file of policies @throws WhatIfError */
export function whatIf(text: string, policiesOf: (file: string) => PolicyConfig[]) {
  const [, key, value] = /^([^=]+)=(.+)$/.exec(text) ?? [];
  switch (key) {
    case 'mode':
      return withMode(choice(text, value, WHAT_IF_MODES));
    case 'mtu': {
      const mtu = Number(value);
      if (!/^\d+$/.test(value) || mtu < MTU_RANGE[0] || mtu > MTU_RANGE[1]) {
        throw wrong(text, `a whole number from ${MTU_RANGE.join(' to ')}`);
      }
      return withSpec(({ uplink }) => ({ uplink: { ...uplink, mtu } }));
    }
    case 'tooBig': {
      const tooBig = choice(text, value, TOO_BIG_NAMES);
      return withSpec(spec => ({ mtu: { ...spec.mtu, tooBig } }));
    }
    case 'profile': {
      const profile = choice(text, value, Object.keys(PROFILES) as ProfileName[]);
      return withSpec(() => ({ profile }));
    }
    case 'policy': {
      const policies = policiesOf(value);
      return withSpec(spec => ({ policies: [...spec.policies, ...policies] }));
    }
    default:
      throw wrong(text, `mode=${WHAT_IF_MODES.join('|')}, mtu=BYTES, tooBig=WHAT, profile=NAME or policy=FILE`);
  }
}

type Spec = ResolvedConfig['spec'];

function withSpec(change: (spec: Spec) => Partial<Spec>): (config: ResolvedConfig) => ResolvedConfig {
  return config => ({ ...config, spec: { ...config.spec, ...change(config.spec) } });
}

/** One tunnel of this protocol to all peers in place of those that there are; VNI, names and MACs stay where they can. */
function withMode(mode: Mode): (config: ResolvedConfig) => ResolvedConfig {
  return withSpec(({ tunnels, routes, uplink, host, profile }) => {
    const hostAddress = host?.address.split('/')[0];
    if (mode === 'native') return { tunnels: [], routes: routes.map(route => ({ ...route, encap: null })) };
    const vias = routes.filter(({ via }) => via !== hostAddress && via !== uplink.gateway).map(({ via }) => via);
    const known = tunnels.flatMap<{ address: string; mac?: string }>(({ peers }) => peers);
    const peers = [...new Set([...known.map(({ address }) => address), ...(tunnels.length > 0 ? [] : vias)])];
    const macOf = (address: string) =>
      known.find(peer => peer.address === address && peer.mac !== undefined)?.mac ??
      defaultVtepMac(parseAddress(address));
    const common = { name: mode, isShort: true, acceptFrom: tunnels[0]?.acceptFrom ?? ('peers' as const) };
    const tunnel: TunnelConfig =
      mode === 'ipip'
        ? { ...common, protocol: mode, peers: peers.map(address => ({ address })) }
        : {
            ...common,
            protocol: mode,
            port: defaultTunnelPort(mode, profile),
            vni: tunnels.find(({ vni }) => vni !== undefined)?.vni ?? defaultVni(profile),
            mac: tunnels.find(({ mac }) => mac !== undefined)?.mac ?? defaultVtepMac(parseCidr(uplink.address).address),
            peers: peers.map(address => ({ address, mac: macOf(address) })),
          };
    const isEncapsulated = (route: Spec['routes'][number]) =>
      route.encap !== null || (tunnels.length === 0 && peers.includes(route.via));
    return {
      tunnels: peers.length === 0 ? [] : [tunnel],
      routes: routes.map(route => ({ ...route, encap: isEncapsulated(route) ? mode : null })),
    };
  });
}

function choice<T extends string>(text: string, value: string, values: readonly T[]): T {
  const found = values.find(one => one === value);
  if (found === undefined) throw wrong(text, `one of ${values.join(', ')}`);
  return found;
}

function wrong(text: string, expected: string): WhatIfError {
  return new WhatIfError(`--what-if ${text}: expected ${expected}`);
}
