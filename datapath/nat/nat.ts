/** What the path needs for its steps 4 and 8: translation, services and masquerade rules, built from plain data. */
import { type FlowProgram, Flows } from '../flow/flows.ts';
import type { Profile } from '../profile.ts';
import { Random } from '../random.ts';
import { type MasqueradeRule, MasqueradeRules, type Prefix } from './masquerade.ts';
import type { PortOptions } from './ports.ts';
import { type Service, Services } from './service.ts';
import { Translation } from './translation.ts';

export interface NatProgram extends FlowProgram {
  ports: PortOptions;
  /** Where node ports answer (int32). */
  nodeAddresses: number[];
  /** Networks that service addresses are from: what no service has is refused there. */
  serviceNetworks?: Prefix[];
  services: Service[];
  rules: MasqueradeRule[];
}

/**
 * Connection tracking as a program and a profile want it.
 * @param view the pool's view
 * @param memory zeroed memory for the flow table; ordinary memory without it
 */
export function makeFlows(
  program: FlowProgram,
  profile: Profile,
  view: DataView,
  random: Random,
  memory?: (bytes: number) => Uint8Array,
): Flows {
  return new Flows(view, {
    capacity: program.capacity,
    perPayer: program.perPod,
    random,
    whenFull: profile.tableFull,
    profile: program.timeouts.profile,
    timeouts: program.timeouts.seconds,
    verifyQuotes: profile.quotedChecksum === 'verify',
    tcp: { forgetReset: profile.unansweredReset === 'forget' },
    memory,
  });
}

export class Nat {
  readonly translation: Translation;
  readonly services: Services;
  /** Of the services. */
  readonly random: Random;
  /** It is made for one kind of mappings. */
  readonly mapping: Profile['natMapping'];
  rules: MasqueradeRules;
  private readonly flows: Flows;

  /**
   * @param flows that are to be translated
   * @param profile on what systems disagree: mappings, who is masqueraded
   * @param view the pool's view
   * @param memory zeroed memory for mappings; ordinary memory without it
   */
  constructor(
    program: NatProgram,
    flows: Flows,
    profile: Profile,
    view: DataView,
    random: Random,
    memory?: (bytes: number) => Uint8Array,
  ) {
    this.mapping = profile.natMapping;
    this.flows = flows;
    this.translation = new Translation(view, flows, {
      random,
      ports: program.ports,
      // A mapping has at least one flow.
      ...(profile.natMapping === 'per-flow'
        ? {}
        : { mappings: { capacity: program.capacity, filtering: profile.natMapping } }),
      memory,
    });
    // A sequence of its own: which backend a request gets then follows from the seed and the requests before it alone.
    this.random = new Random(random.next());
    this.services = new Services(this.random);
    this.setServiceHabits(profile);
    this.translation.backends = this.services;
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
    const { flows, translation } = this;
    flows.setTimeouts(timeouts.profile, timeouts.seconds);
    flows.table.whenFull = profile.tableFull;
    flows.verifyQuotes = profile.quotedChecksum === 'verify';
    flows.tcp.forgetReset = profile.unansweredReset === 'forget';
    translation.ports.profile = ports.profile ?? 'linux';
    this.setServiceHabits(profile);
  }

  private setServiceHabits(profile: Profile): void {
    this.services.masqueradePods = profile.externalService === 'always-masquerade';
    this.services.servesOutside = profile.clusterAddressFromOutside === 'serve';
  }

  /** Forgets affinities that have run out, a bounded number per call. */
  tick(now: number): void {
    this.services.tick(now);
  }
}
