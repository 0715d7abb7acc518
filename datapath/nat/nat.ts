/** What the path needs for its steps 3, 4 and 8: flows, services and masquerade rules, built from plain data. */
import { Conntrack } from '../conntrack/conntrack.ts';
import type { TimeoutProfile } from '../conntrack/timeouts.ts';
import { Random } from '../random.ts';
import { type MasqueradeRule, MasqueradeRules } from './masquerade.ts';
import type { PortOptions } from './ports.ts';
import { type Service, Services } from './service.ts';

export interface NatProgram {
  /** Flows that fit. */
  capacity: number;
  timeouts: { profile: TimeoutProfile; seconds: Record<number, number> };
  ports: PortOptions;
  /** Where node ports answer (int32). */
  nodeAddresses: number[];
  services: Service[];
  rules: MasqueradeRule[];
}

export class Nat {
  readonly conntrack: Conntrack;
  readonly services: Services;
  rules: MasqueradeRules;

  /**
   * @param view the pool's view
   * @param memory zeroed memory for the flow table; ordinary memory without it
   */
  constructor(program: NatProgram, view: DataView, random: Random, memory?: (bytes: number) => ArrayBufferLike) {
    this.conntrack = new Conntrack(view, {
      capacity: program.capacity,
      random,
      whenFull: 'evict-unassured-first',
      profile: program.timeouts.profile,
      timeouts: program.timeouts.seconds,
      ports: program.ports,
      memory,
    });
    // A sequence of its own: which backend a request gets then follows from the seed and the requests before it alone.
    this.services = new Services(new Random(random.next()));
    this.conntrack.backends = this.services;
    this.services.setNodeAddresses(program.nodeAddresses);
    for (const service of program.services) this.services.set(service);
    this.rules = new MasqueradeRules(program.rules);
  }

  /** Expires flows and affinities, a bounded number per call. */
  tick(now: number): void {
    this.conntrack.tick(now);
    this.services.tick(now);
  }
}
