/**
 * A program in the tables of a datapath: gives everything its small number, and applies changes between two bursts. Runs in
 * the loop's thread. A number is not given to another thing while anything refers to it.
 */
import type { Clock } from '../clock.ts';
import type { Counters } from '../counters.ts';
import type { FlowProgram } from '../flow/flows.ts';
import { Datapath } from '../forward.ts';
import type { Device } from '../io/device.ts';
import { gone } from '../io/gone.ts';
import type { DeviceHandle } from '../io/handle.ts';
import { MasqueradeRules } from '../nat/masquerade.ts';
import { makeFlows, Nat, type NatProgram } from '../nat/nat.ts';
import type { Pool } from '../packet/pool.ts';
import { Ledger, type LedgerProgram, type LedgerRow } from '../path/ledger.ts';
import { Policies, type PolicyProgram } from '../policy/policies.ts';
import { CONDITION_GONE, PORT_POD, Port } from '../port.ts';
import { PROFILES, type Profile } from '../profile.ts';
import type { Random } from '../random.ts';
import { type NextHop, nextHop } from '../route/nexthop.ts';
import { Tunnel } from '../tunnel/tunnel.ts';
import { type Change, changesHeaders } from './diff.ts';
import {
  findFaults,
  type HopProgram,
  hopKey,
  type PortProgram,
  type Program,
  portKey,
  type TunnelProgram,
} from './program.ts';

export interface Environment {
  pool: Pool;
  counters: Counters;
  clock: Clock;
  random: Random;
  /** Zeroed memory for the flow table; ordinary memory without it. */
  memory?: (bytes: number) => Uint8Array;
  /** As PathOptions has it. */
  timeOfDay?: () => number;
}

/** A datapath over `devices`, one for each port of the program, in order. @throws RangeError as install() */
export function createDatapath(program: Program, devices: readonly Device[], environment: Environment): Datapath {
  return new Installation(program, devices, environment).datapath;
}

export class Installation {
  readonly datapath: Datapath;
  private readonly environment: Environment;
  private profile: Profile;
  private readonly ports = new Map<string, Port>();
  private readonly freePorts: number[] = [];
  private readonly tunnels = new Map<string, { number: number; program: TunnelProgram; tunnel: Tunnel }>();
  private readonly freeTunnels: number[] = [];
  private readonly hops = new HopNumbers();
  private policyEpoch = 0;
  private readonly flowUsers = new Set<string>();
  /** Stands in the place of ports that are gone, for packets that came by one and wait for something. */
  private tombstone: Port | null = null;

  /**
   * The ports get the numbers 0, 1, 2..., in order.
   * @throws RangeError for a program that refers to what it does not have
   */
  constructor(program: Program, devices: readonly Device[], environment: Environment) {
    const faults = findFaults(program);
    if (faults.length > 0) throw new RangeError(faults.join('; '));
    this.environment = environment;
    this.profile = PROFILES[program.profile];
    const { profile } = this;
    const { underlay, hostAddress } = program;
    this.datapath = new Datapath({ ...environment, profile, underlay, hostAddress });
    const { datapath } = this;
    program.ports.forEach((port, i) => {
      this.addPort(portKey(port), port, devices[i]);
    });
    for (const tunnel of program.tunnels) this.setTunnel(tunnel);
    const { routes } = program;
    // Of those that routes lead to: nothing would ever release another.
    const numbers: number[] = [];
    for (const { hop } of routes) {
      numbers[hop] ??= this.numberOf(program.nextHops[hop]);
      this.hops.use(numbers[hop]);
    }
    datapath.routes.replaceAll(
      Int32Array.from(routes, route => route.prefix),
      Uint8Array.from(routes, route => route.length),
      Int32Array.from(routes, route => numbers[route.hop]),
    );
    for (const { address, macHi, macLo } of program.neighbors) datapath.neighbors.addPermanent(address, macHi, macLo);
    if (program.nat !== null) this.translate(program.nat);
    this.setPolicy(program.policy);
  }

  /** The number of a port: of its counters, too. */
  portNumbers(): [key: string, number: number][] {
    return Array.from(this.ports, ([key, port]) => [key, port.index]);
  }

  /** A next hop of the datapath, by its number, as the program has it. */
  hopOf(number: number): HopProgram {
    return this.hops.program(number);
  }

  /**
   * Applies changes, in order; packets are not processed meanwhile.
   * @param open the device of a port that is new or gets another one
   */
  apply(changes: readonly Change[], open: (handle: DeviceHandle) => Device): void {
    const { datapath } = this;
    for (const change of changes) {
      switch (change.kind) {
        case 'port':
          if (change.port === null) this.removePort(change.key);
          else this.setPort(change.key, change.port, change.handle === undefined ? null : open(change.handle));
          break;
        case 'profile':
          this.setProfile(PROFILES[change.profile]);
          break;
        case 'detach':
          this.detachPort(change.key, change.port);
          break;
        case 'condition': {
          const port = this.ports.get(change.key);
          if (port !== undefined) port.condition = change.condition;
          break;
        }
        case 'mtu': {
          const port = this.ports.get(change.key);
          if (port !== undefined) port.mtu = change.mtu;
          break;
        }
        case 'underlay':
          datapath.setUnderlay(change.underlay);
          break;
        case 'host':
          datapath.hostAddress = change.address;
          break;
        case 'tunnel':
          if (change.tunnel === null) this.removeTunnel(change.name);
          else this.setTunnel(change.tunnel);
          break;
        case 'route':
          this.setRoute(change.prefix, change.length, change.hop);
          break;
        case 'nat':
          // What was tracked for nobody's sake is let go where it is of another kind.
          if (datapath.nat?.mapping !== this.profile.natMapping) this.translate(change.nat);
          break;
        case 'habits':
          datapath.nat?.setHabits(change.nat, this.profile);
          break;
        case 'addresses':
          datapath.nat?.services.setNodeAddresses(change.node);
          datapath.nat?.services.setNetworks(change.services);
          break;
        case 'service':
          if (change.service === null) datapath.nat?.services.remove(change.name);
          else datapath.nat?.services.set(change.service);
          break;
        case 'policy':
          this.setPolicy(change.policy);
          break;
        case 'rules':
          if (datapath.nat !== null) datapath.nat.rules = new MasqueradeRules(change.rules, datapath.nat.rules);
          break;
      }
    }
  }

  /** Every flow is judged by them once more when its next packet comes. */
  private setPolicy(policy: PolicyProgram | null): void {
    this.policyEpoch = (this.policyEpoch + 1) | 0 || 1;
    const { random } = this.environment;
    this.datapath.policies = policy === null ? null : new Policies(policy, random, this.policyEpoch);
  }

  // ---------------------------------------------------------------- flows

  /**
   * Somebody wants flows to be tracked, or no longer. They are as long as anybody does; translation is one of those.
   * @param user whoever it is, by name
   * @param program null: no longer
   */
  trackFlows(user: string, program: FlowProgram | null): void {
    const { datapath, flowUsers, environment, profile } = this;
    const { pool, random, memory } = environment;
    if (program === null) flowUsers.delete(user);
    else flowUsers.add(user);
    if (flowUsers.size === 0) datapath.flows = null;
    else if (program !== null) datapath.flows ??= makeFlows(program, profile, pool.view, random, memory);
  }

  private translate(program: NatProgram): void {
    const { datapath, environment, profile } = this;
    const { pool, random, memory } = environment;
    // Flows that another kind of translation has words in cannot go on.
    if (datapath.nat !== null) datapath.flows = null;
    this.trackFlows('nat', program);
    datapath.nat = new Nat(program, datapath.flows!, profile, pool.view, random, memory);
  }

  // ---------------------------------------------------------------- ports

  private setPort(key: string, program: PortProgram, device: Device | null): void {
    const port = this.ports.get(key);
    if (port === undefined) {
      if (device !== null) this.addPort(key, program, device);
      return;
    }
    if (device === null) {
      port.setOwner(program);
      return;
    }
    this.put(key, program, device, port.index);
    port.device.close();
  }

  /** The device is closed. Flows, counters and whatever refers to the port stay. */
  private detachPort(key: string, program: PortProgram): void {
    const port = this.ports.get(key);
    if (port === undefined) return;
    this.put(key, program, gone, port.index).condition = CONDITION_GONE;
    port.device.close();
  }

  private addPort(key: string, program: PortProgram, device: Device): void {
    const number = this.freePorts.shift() ?? this.datapath.ports.length;
    this.environment.counters.clearPort(number);
    this.put(key, program, device, number);
  }

  private put(key: string, program: PortProgram, device: Device, index: number): Port {
    const { pool, counters } = this.environment;
    const port = new Port({ index, ...program, device, pool, counters });
    this.ports.set(key, port);
    this.datapath.putPort(port);
    return port;
  }

  /** The device is closed, which removes it. */
  private removePort(key: string): void {
    const port = this.ports.get(key);
    if (port === undefined) return;
    const { pool, counters } = this.environment;
    this.tombstone ??= new Port({
      index: this.datapath.ports.length,
      kind: PORT_POD,
      name: '',
      device: gone,
      addresses: [],
      identity: 0,
      pool,
      counters,
    });
    this.datapath.putPort(this.tombstone);
    // Packets wait for ARP and for fragments: they came by no port that there is.
    for (const p of pool.packets) {
      if (p.owner === this.datapath.id && p.inPort === port.index) p.inPort = this.tombstone.index;
    }
    this.datapath.removePort(port, this.tombstone);
    this.ports.delete(key);
    this.freePorts.push(port.index);
    port.device.close();
  }

  // ---------------------------------------------------------------- tunnels

  private setTunnel(program: TunnelProgram): void {
    const before = this.tunnels.get(program.name);
    if (before !== undefined && !changesHeaders(before.program, program)) {
      before.tunnel.setPeers(program.peers);
      before.program = program;
    } else this.makeTunnel(program);
  }

  /** Next hops into it, and flows, go on as they were. */
  private makeTunnel(program: TunnelProgram): void {
    const { pool, counters, random } = this.environment;
    const { tunnels } = this.datapath;
    const before = this.tunnels.get(program.name);
    const tunnel = new Tunnel(program, this.profile, pool.view, counters, random, before?.tunnel);
    const number = before?.number ?? this.freeTunnels.shift() ?? tunnels.byNumber.length;
    this.tunnels.set(program.name, { number, program, tunnel });
    tunnels.put(number, tunnel);
    if (before === undefined) this.datapath.ledger?.clearTunnel(number);
    for (const [hopNumber, hop] of this.hops.entries()) {
      if (hop.tunnel === program.name) this.datapath.nextHops[hopNumber].peer = tunnel.findPeer(hop.peerAddress);
    }
  }

  private setProfile(profile: Profile): void {
    this.profile = profile;
    this.datapath.setProfile(profile);
    for (const { program } of this.tunnels.values()) this.makeTunnel(program);
  }

  private removeTunnel(name: string): void {
    const known = this.tunnels.get(name);
    if (known === undefined) return;
    this.datapath.tunnels.put(known.number, null);
    this.datapath.ledger?.clearTunnel(known.number);
    this.freeTunnels.push(known.number);
    this.tunnels.delete(name);
  }

  // ---------------------------------------------------------------- ledger

  /** From now on account is kept with these; null: no longer. */
  keepLedger(program: LedgerProgram | null): void {
    const { datapath } = this;
    if (program === null) {
      datapath.ledger = null;
      return;
    }
    datapath.ledger ??= new Ledger(datapath.view);
    datapath.ledger.setProgram(program);
  }

  /** With the names of tunnels; '' for none. */
  ledgerRows(): (Omit<LedgerRow, 'tunnel'> & { tunnel: string })[] {
    const names = new Map(Array.from(this.tunnels, ([name, { number }]) => [number, name]));
    return (this.datapath.ledger?.rows() ?? []).map(row => ({ ...row, tunnel: names.get(row.tunnel) ?? '' }));
  }

  // ---------------------------------------------------------------- routes

  private setRoute(prefix: number, length: number, hop: HopProgram | null): void {
    const { routes } = this.datapath;
    const before = routes.get(prefix, length);
    if (hop === null) routes.delete(prefix, length);
    else {
      const number = this.numberOf(hop);
      this.hops.use(number);
      routes.insert(prefix, length, number);
    }
    // Behind the route: whoever looks it up meets the old hop or the new one.
    if (before !== 0) this.hops.release(before);
  }

  /** The number of a next hop, which is put in its place if it is new. */
  private numberOf(hop: HopProgram): number {
    const known = this.hops.find(hop);
    if (known !== 0) return known;
    const number = this.hops.add(hop);
    this.datapath.nextHops[number] = this.resolve(hop);
    return number;
  }

  private resolve({ port, tunnel, ...hop }: HopProgram): NextHop {
    const into = this.tunnels.get(tunnel);
    return nextHop(hop.kind, {
      ...hop,
      port: this.ports.get(port)?.index ?? -1,
      tunnel: into?.number ?? 0,
      peer: into?.tunnel.findPeer(hop.peerAddress) ?? -1,
    });
  }
}

/** Numbers of next hops, from 1; one that no route leads to any more is free. */
class HopNumbers {
  private readonly numbers = new Map<string, number>();
  private readonly programs: HopProgram[] = [];
  private readonly uses: number[] = [0];
  private readonly free: number[] = [];

  find(hop: HopProgram): number {
    return this.numbers.get(hopKey(hop)) ?? 0;
  }

  add(hop: HopProgram): number {
    const number = this.free.shift() ?? this.uses.length;
    this.numbers.set(hopKey(hop), number);
    this.programs[number] = hop;
    this.uses[number] = 0;
    return number;
  }

  program(number: number): HopProgram {
    return this.programs[number];
  }

  /** Those that routes lead to. */
  entries(): [number: number, hop: HopProgram][] {
    return Array.from(this.numbers.values(), number => [number, this.programs[number]]);
  }

  use(number: number): void {
    this.uses[number]++;
  }

  release(number: number): void {
    if (--this.uses[number] > 0) return;
    this.numbers.delete(hopKey(this.programs[number]));
    this.free.push(number);
  }
}
