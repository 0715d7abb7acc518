/**
 * What is known of the network under the nodes (`kind: Underlay`): links, each with what it takes and what becomes of a
 * packet that is too long for it. For `tunpath mtu`, which reasons about it; no node reads it.
 *
 *   a ---- 1500 ---- r ---- 1280 ---- b
 *
 * A name that no NodeConfig has is a router.
 */
import { z } from 'zod';
import { MIN_MTU } from '../mtu/path-mtu.ts';
import { overheadOf } from '../tunnel/overhead.ts';
import { TUNNEL_GENEVE, TUNNEL_IPIP, TUNNEL_VXLAN } from '../tunnel/spec.ts';
import { API_VERSION } from './config.ts';
import { choice, labelFault, list, mtu, record, text, whole } from './schema.ts';

export const UNDERLAY_KIND = 'Underlay';

/** Bytes that WireGuard adds over IPv4: IP 20, UDP 8, data header 16, authentication tag 16. */
const WIREGUARD_OVERHEAD = 60;

/** What a carrier adds where the document does not say: our own tunnels' figures, for a tunnel without options. */
const CARRIERS = {
  ipip: overheadOf({ protocol: TUNNEL_IPIP }),
  vxlan: overheadOf({ protocol: TUNNEL_VXLAN }),
  geneve: overheadOf({ protocol: TUNNEL_GENEVE }),
  wireguard: WIREGUARD_OVERHEAD,
};

const name = text(labelFault);

const carrier = record({
  protocol: choice('ipip', 'vxlan', 'geneve', 'wireguard'),
  overhead: whole(1, 1000).optional(),
}).transform(({ protocol, overhead }) => ({ protocol, overhead: overhead ?? CARRIERS[protocol] }));

const link = record({
  between: z.tuple([name, name], 'two names: nodes, or routers between them'),
  mtu: mtu.default(1500),
  /** 3: a router stands before it, which cuts a packet or answers for it. 2: a wire, on which what is too long is lost. */
  layer: z.literal([2, 3], '2 or 3').default(3),
  /** Whether the routers' ICMP passes this link. */
  icmp: choice('allowed', 'filtered').default('allowed'),
  /** The link is itself a tunnel: its headers are taken from `mtu`. */
  carriedBy: carrier.optional(),
});

export const underlayConfig = record({
  apiVersion: choice(API_VERSION),
  kind: choice(UNDERLAY_KIND),
  metadata: record({ name }),
  spec: record({ links: list(link).min(1, 'at least one link') }),
}).superRefine((underlay, context) => {
  const seen = new Set<string>();
  underlay.spec.links.forEach(({ between: [a, b], mtu, carriedBy }, i) => {
    const at = ['spec', 'links', i];
    const report = (path: PropertyKey[], message: string) => context.addIssue({ code: 'custom', path, message });
    const key = [a, b].sort().join(' ');
    if (a === b) report([...at, 'between'], 'two different names');
    else if (seen.has(key)) report([...at, 'between'], 'two names that no other link joins');
    seen.add(key);
    const least = MIN_MTU + (carriedBy?.overhead ?? 0);
    if (mtu < least) report([...at, 'mtu'], `at least ${least}: ${carriedBy?.protocol} takes ${carriedBy?.overhead}`);
  });
});

export type UnderlayConfig = z.output<typeof underlayConfig>;
export type LinkConfig = UnderlayConfig['spec']['links'][number];
