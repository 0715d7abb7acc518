/** What is measured in which surroundings, and how long that takes. */
import { SUITES, type Suite } from './metrics.ts';
import { isPossible, MODES, type Mode, type Nat, type Scene, type Uplink } from './topologies.ts';

/** Names for several suites. */
export const SUITE_GROUPS: Record<string, readonly Suite[]> = {
  tcp: ['tcp1', 'tcp4'],
  udp: ['udp64', 'udp1400'],
  ndr: ['ndr64', 'ndr1400'],
  latency: ['latency', 'latency-loaded'],
};

export interface ScenePlan extends Scene {
  suites: readonly Suite[];
  /** Plain veth takes its turn. */
  ceiling: boolean;
}

export interface Selection {
  modes?: readonly Mode[];
  nats?: readonly Nat[];
  uplinks?: readonly Uplink[];
  suites?: readonly Suite[];
  /** Measure plain veth in turn with the first scene. */
  ceiling: boolean;
  quick: boolean;
}

type Default = readonly [mode: Mode, nat: Nat, suites: readonly Suite[], uplink?: Uplink];

/** What every mode has. */
const MODE_SUITES = ['tcp1', 'tcp4', 'ndr64', 'ndr1400', 'latency-loaded', 'connections'] as const;
/** What a new flow costs, and what each packet of a known one. */
export const NAT_SUITES = ['tcp1', 'ndr64', 'latency-loaded', 'connections'] as const;

const STANDARD: readonly Default[] = [
  ['vxlan', 'none', SUITES],
  ['geneve', 'none', MODE_SUITES],
  ['ipip', 'none', MODE_SUITES],
  ['native', 'none', MODE_SUITES],
  ['vxlan', 'service', NAT_SUITES],
  ['geneve', 'service', ['tcp1', 'ndr64', 'connections']],
  ['ipip', 'service', ['tcp1', 'ndr64', 'connections']],
  ['native', 'service', NAT_SUITES],
  // What leaves the cluster is not in a tunnel, so this is the same in every mode.
  ['native', 'masquerade', ['tcp1', 'ndr64', 'connections']],
  ['local', 'none', ['tcp1', 'rr']],
  ['vxlan-no-offload', 'none', ['tcp1']],
  ['vxlan', 'none', ['tcp1', 'latency'], 'segment'],
  ['ipip', 'none', ['tcp1'], 'segment'],
  ['vxlan', 'none', ['tcp1'], 'raw'],
  ['vxlan', 'none', ['tcp1'], 'macvtap'],
  ['vxlan', 'none', ['tcp1'], 'routed'],
];

/** A short look, not figures to quote. */
const QUICK: readonly Default[] = [
  ['vxlan', 'none', ['tcp1', 'ndr64', 'latency', 'connections']],
  ['vxlan', 'service', ['tcp1', 'connections']],
  ['native', 'masquerade', ['connections']],
];

/** Every combination of what is selected; where nothing is, a choice of those that tell something. */
export function planScenes(selection: Selection): ScenePlan[] {
  const { modes, nats, uplinks, suites, ceiling, quick } = selection;
  const isDefault = [modes, nats, uplinks, suites].every(list => list === undefined);
  const scenes = isDefault ? (quick ? QUICK : STANDARD).map(fromDefault) : combine(selection);
  return scenes.map((scene, i) => ({ ...scene, ceiling: ceiling && i === 0 }));
}

function fromDefault([mode, nat, suites, uplink = 'tap']: Default): Omit<ScenePlan, 'ceiling'> {
  return { mode, nat, uplink, suites };
}

function combine({
  modes,
  nats = ['none'],
  uplinks = ['tap'],
  suites,
  quick,
}: Selection): Omit<ScenePlan, 'ceiling'>[] {
  return uplinks
    .flatMap(uplink => nats.map(nat => ({ uplink, nat })))
    .flatMap(scene => (modes ?? (quick ? (['vxlan'] as const) : MODES)).map(mode => ({ ...scene, mode })))
    .filter(isPossible)
    .map(scene => ({ ...scene, suites: suites ?? (quick ? QUICK[0][2] : SUITES) }));
}

/** Seconds that a trial takes beside those that it is given, and in how many of those it is made; measured. */
const EXTRA_SECONDS: Record<Suite, number> = {
  tcp1: 0.3,
  tcp4: 0.3,
  udp64: 0.3,
  udp1400: 0.3,
  rr: 0.4,
  ndr64: 2.5,
  ndr1400: 2.5,
  latency: 0.6,
  'latency-loaded': 1.4,
  connections: 0.5,
};
const SCENE_SECONDS = 3;
const WARM_UP_SECONDS = 1.3;

/** For the remaining time. */
export function secondsOfTrial(suite: Suite, seconds: number): number {
  return seconds + EXTRA_SECONDS[suite];
}

/** To build it and warm it up. */
export function secondsOfSetup({ ceiling }: ScenePlan): number {
  return SCENE_SECONDS + (ceiling ? 3 : 2) * WARM_UP_SECONDS;
}

export function secondsOfScene(plan: ScenePlan, seconds: number): number {
  const arms = plan.ceiling ? 3 : 2;
  return secondsOfSetup(plan) + plan.suites.reduce((sum, suite) => sum + arms * secondsOfTrial(suite, seconds), 0);
}
