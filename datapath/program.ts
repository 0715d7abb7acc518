/**
 * What the control plane tells the datapath: plain data, so that it can be posted to the loop's thread, printed, compared,
 * and made by a test without any device. Addresses are int32, MACs as in wire/ethernet.ts.
 */
import type { Clock } from './clock.ts';
import type { Counters } from './counters.ts';
import { Datapath } from './forward.ts';
import type { Device } from './io/device.ts';
import type { Prefix } from './nat/masquerade.ts';
import { Nat, type NatProgram } from './nat/nat.ts';
import type { Pool } from './packet/pool.ts';
import type { Underlay } from './path/path.ts';
import { Port } from './port.ts';
import { PROFILES, type ProfileName } from './profile.ts';
import type { Random } from './random.ts';
import type { Lpm } from './route/lpm.ts';
import type { NextHop, Route } from './route/nexthop.ts';
import { Tunnel, type TunnelSpec } from './tunnel/tunnel.ts';

export interface PortProgram {
  kind: number;
  name: string;
  addresses: number[];
  /** Behind a pod that is a router: it may send from them, too. */
  networks?: Prefix[];
  identity: number;
}

export interface Program {
  profile: ProfileName;
  underlay: Underlay;
  hostAddress: number;
  /** Position is the port's index. */
  ports: PortProgram[];
  routes: Route[];
  /** [0] is a placeholder: index 0 means no route. */
  nextHops: NextHop[];
  tunnel: TunnelSpec | null;
  /** Entries of the neighbour table that ARP never changes. */
  neighbors: { address: number; macHi: number; macLo: number }[];
  /** Null: no service and no masquerade rule. */
  nat: NatProgram | null;
}

/**
 * Builds a datapath over `devices`, one for each port of the program, in order.
 * @param environment.memory zeroed memory for the flow table; ordinary memory without it
 * @param environment.routes an empty table to use: for whoever makes many datapaths, as a new one takes 20 ms
 */
export function createDatapath(
  program: Program,
  devices: Device[],
  environment: {
    pool: Pool;
    counters: Counters;
    clock: Clock;
    random: Random;
    memory?: (bytes: number) => Uint8Array;
    routes?: Lpm;
  },
): Datapath {
  const { pool, counters, random, memory } = environment;
  const profile = PROFILES[program.profile];
  const datapath = new Datapath({
    ...environment,
    profile,
    underlay: program.underlay,
    hostAddress: program.hostAddress,
  });
  datapath.setPorts(
    program.ports.map((port, index) => new Port({ index, ...port, device: devices[index], pool, counters })),
  );
  const tunnel = program.tunnel === null ? null : new Tunnel(program.tunnel, profile, pool.view, counters, random);
  if (environment.routes === undefined) datapath.setRoutes(program.routes, program.nextHops, tunnel);
  else datapath.changeRoutes(program.routes, [], program.nextHops, tunnel);
  for (const { address, macHi, macLo } of program.neighbors) datapath.neighbors.addPermanent(address, macHi, macLo);
  datapath.nat =
    program.nat === null ? null : new Nat(program.nat, PROFILES[program.profile], pool.view, random, memory);
  return datapath;
}
