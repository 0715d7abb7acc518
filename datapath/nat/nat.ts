/** What the path needs for its steps 3, 4 and 8: flows, services and masquerade rules, built from plain data. */
import { Conntrack } from '../conntrack/conntrack.ts';
import type { TimeoutProfile } from '../conntrack/timeouts.ts';
import type { Profile } from '../profile.ts';
import { Random } from '../random.ts';
import { type MasqueradeRule, MasqueradeRules, type Prefix } from './masquerade.ts';
import type { PortOptions } from './ports.ts';
import { type Service, Services } from './service.ts';

/** How often an idle node looks for flows that have run out; a busy one looks after each round. */
const TICK_MS = 1000;

export interface NatProgram {
  /** Flows that fit. */
  capacity: number;
  /** Flows that one source address may have; 0: no limit. */
  perSource?: number;
  timeouts: { profile: TimeoutProfile; seconds: Record<number, number> };
  ports: PortOptions;
  /** Where node ports answer (int32). */
  nodeAddresses: number[];
  /** Networks that service addresses are from: what no service has is refused there. */
  serviceNetworks?: Prefix[];
  services: Service[];
  rules: MasqueradeRule[];
}

export class Nat {
  readonly conntrack: Conntrack;
  readonly services: Services;
  /** Of the services. */
  readonly random: Random;
  /** It is made for one kind of mappings. */
  readonly mapping: Profile['natMapping'];
  rules: MasqueradeRules;

  /**
   * @param profile on what systems disagree: mappings, what a full table does, which quotes and resets count
   * @param view the pool's view
   * @param memory zeroed memory for the flow table; ordinary memory without it
   */
  constructor(
    program: NatProgram,
    profile: Profile,
    view: DataView,
    random: Random,
    memory?: (bytes: number) => Uint8Array,
  ) {
    this.mapping = profile.natMapping;
    this.conntrack = new Conntrack(view, {
      capacity: program.capacity,
      perSource: program.perSource,
      random,
      whenFull: profile.tableFull,
      profile: program.timeouts.profile,
      timeouts: program.timeouts.seconds,
      ports: program.ports,
      // A mapping has at least one flow.
      ...(profile.natMapping === 'per-flow'
        ? {}
        : { mappings: { capacity: program.capacity, filtering: profile.natMapping } }),
      verifyQuotes: profile.quotedChecksum === 'verify',
      tcp: { forgetReset: profile.unansweredReset === 'forget' },
      memory,
    });
    // A sequence of its own: which backend a request gets then follows from the seed and the requests before it alone.
    this.random = new Random(random.next());
    this.services = new Services(this.random, profile.externalService === 'always-masquerade');
    this.conntrack.backends = this.services;
    this.services.setNodeAddresses(program.nodeAddresses);
    this.services.setNetworks(program.serviceNetworks ?? []);
    for (const service of program.services) this.services.set(service);
    this.rules = new MasqueradeRules(program.rules);
  }

  /**
   * Other timeouts, or another profile with the same kind of mappings. Flows that are there stay, and follow it from their
   * next packet on.
   */
  setHabits({ timeouts, ports }: NatProgram, profile: Profile): void {
    const { conntrack } = this;
    conntrack.setTimeouts(timeouts.profile, timeouts.seconds);
    conntrack.table.whenFull = profile.tableFull;
    conntrack.verifyQuotes = profile.quotedChecksum === 'verify';
    conntrack.tcp.forgetReset = profile.unansweredReset === 'forget';
    conntrack.ports.profile = ports.profile ?? 'linux';
    this.services.masqueradePods = profile.externalService === 'always-masquerade';
  }

  /** Expires flows and affinities, a bounded number per call. @returns milliseconds until it wants to be called again */
  tick(now: number): number {
    this.services.tick(now);
    return this.conntrack.tick(now) > 0 ? 0 : TICK_MS;
  }
}
