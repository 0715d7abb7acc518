/**
 * NetworkPolicy as the path asks it: may this pod begin a flow to that address, may that address begin one to this pod?
 *
 * Everything is compiled beforehand (program/compile-policy.ts), so that a question costs the same however many rules there
 * are: two rows are found, one by who the other end is and one by the address block that it lies in, and each says by the
 * class of the port which rule allows it.
 *
 *   address -> identity (pods with the same labels have one)  --> row \
 *   address -> interval between the ends of all ipBlocks      --> row -+--> [class of protocol and port] -> rule, 0: none
 *
 * Semantics are networking.k8s.io/v1: a pod that no policy selects in a direction may do everything there; one that is
 * selected may do what a rule of any such policy allows. A pod and its own node, and a pod and itself, are never kept
 * apart. Egress is judged on the destination that a service has chosen, ingress on the source that the client has: what
 * this node masquerades is not masqueraded yet.
 */
import { CountTable } from '../memory/count-table.ts';
import type { Random } from '../random.ts';
import { PROTO_SCTP, PROTO_TCP, PROTO_UDP } from '../wire/ipv4.ts';

export type Direction = 'ingress' | 'egress';

/** What allows a flow: the policy, and the number of its rule in the list of that direction, from 0. */
export interface PolicyRule {
  /** namespace/name */
  policy: string;
  direction: Direction;
  rule: number;
}

/** All policies in numbers; plain data. Addresses int32; tables are numbered from 1, 0 means that nothing selects. */
export interface PolicyProgram {
  /** By number; [0] stands for no rule. */
  rules: PolicyRule[];
  /** Every pod of the cluster that is known, and its identity, from 1. */
  addresses: Int32Array;
  identities: Int32Array;
  /** This node's pods among them, and the table of each direction. */
  localAddresses: Int32Array;
  egressTables: Int32Array;
  ingressTables: Int32Array;
  /** Addresses of the node itself. */
  own: Int32Array;
  /** Identities, with 0 for what is no pod. */
  identityCount: number;
  /** First addresses of the intervals that the ends of all ipBlocks cut the addresses into, as uint32, ascending from 0. */
  intervals: Uint32Array;
  /** Class of each port, by protocol (TCP, UDP, SCTP) and port; 0 is the class of other protocols. */
  portClasses: Uint16Array;
  portClassCount: number;
  /** (table - 1) * identityCount + identity -> row */
  identityRows: Int32Array;
  /** (table - 1) * intervals + interval -> row */
  intervalRows: Int32Array;
  /** row * portClassCount + class -> rule, 0 for none; row 0 allows nothing. */
  rows: Int32Array;
}

const PORTS = 65536;

/** In place of a rule: none allows it. */
export const DENIED = -1;

export class Policies {
  readonly program: PolicyProgram;
  /** Another for every change of policies; never 0, which flows have that no policy has judged. */
  readonly epoch: number;

  /** address -> identity, and 1 + its place among the local pods. */
  private readonly pods: CountTable;
  private readonly own: Int32Array;

  constructor(program: PolicyProgram, random: Random, epoch: number) {
    this.program = program;
    this.epoch = epoch;
    this.own = program.own;
    const { addresses, identities, localAddresses } = program;
    this.pods = new CountTable(addresses.length, random);
    addresses.forEach((address, i) => {
      this.pods.set(address, 0, 0, identities[i], 0);
    });
    localAddresses.forEach((address, i) => {
      this.pods.set(address, 0, 0, this.pods.get(address, 0, 0), i + 1);
    });
  }

  /**
   * Which rule lets a flow leave its pod?
   * @param dst where it goes, a service's backend chosen; `port` of the destination (of no meaning without ports)
   * @returns its number, 0 where none has to, or DENIED
   */
  judgeEgress(src: number, dst: number, protocol: number, port: number): number {
    const pod = this.localPod(src);
    if (pod < 0) return 0;
    const table = this.program.egressTables[pod];
    return table === 0 || src === dst || this.isOwn(dst) ? 0 : this.find(table, dst, protocol, port);
  }

  /** Which rule lets a flow enter its pod? As judgeEgress. */
  judgeIngress(src: number, dst: number, protocol: number, port: number): number {
    const pod = this.localPod(dst);
    if (pod < 0) return 0;
    const table = this.program.ingressTables[pod];
    return table === 0 || src === dst || this.isOwn(src) ? 0 : this.find(table, src, protocol, port);
  }

  /** Place among the local pods, or -1. */
  private localPod(address: number): number {
    const at = this.pods.find(address, 0, 0);
    return at < 0 ? -1 : this.pods.extra(at) - 1;
  }

  /** The first rule of a table that allows this peer and port, or DENIED. */
  private find(table: number, peer: number, protocol: number, port: number): number {
    const { program } = this;
    const { identityCount, identityRows, intervals, intervalRows, rows, portClassCount } = program;
    const portClass = this.classOf(protocol, port);
    const identity = this.pods.get(peer, 0, 0);
    const byIdentity = identityRows[(table - 1) * identityCount + identity];
    const byInterval = intervalRows[(table - 1) * intervals.length + this.intervalOf(peer)];
    const a = rows[byIdentity * portClassCount + portClass];
    const b = rows[byInterval * portClassCount + portClass];
    const first = a === 0 || (b !== 0 && b < a) ? b : a;
    return first === 0 ? DENIED : first;
  }

  private classOf(protocol: number, port: number): number {
    const at = protocol === PROTO_TCP ? 0 : protocol === PROTO_UDP ? PORTS : protocol === PROTO_SCTP ? 2 * PORTS : -1;
    return at < 0 ? 0 : this.program.portClasses[at + port];
  }

  /** By halving: as many steps as the number of blocks has bits. */
  private intervalOf(address: number): number {
    const { intervals } = this.program;
    // Compared as int32: the sign bit turned over orders them as uint32.
    const wanted = address ^ 0x80000000;
    let low = 0;
    let high = intervals.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (((intervals[middle] | 0) ^ 0x80000000) <= wanted) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  private isOwn(address: number): boolean {
    const { own } = this;
    for (let i = 0; i < own.length; i++) if (own[i] === address) return true;
    return false;
  }
}
