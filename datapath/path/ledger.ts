/**
 * How many packets a node has sent to the pods of each other node, and had from them, by the tunnel that they took: what is
 * held against the other node's, so that a switch of tunnels can say that it has lost nothing. Counted are packets from pods
 * (and the host) of the one node to those of the other; segments of a superpacket count each. Tunnel 0 stands for none.
 */
import type { Packet } from '../packet/packet.ts';
import { segmentsOf } from '../packet/segment.ts';

export interface LedgerNetwork {
  /** int32, bits behind `length` zero. */
  prefix: number;
  length: number;
}

/** Whom a node keeps account with. */
export interface LedgerProgram {
  own: LedgerNetwork[];
  peers: { name: string; networks: LedgerNetwork[] }[];
}

export interface LedgerRow {
  peer: string;
  /** Number of the tunnel; 0: none. */
  tunnel: number;
  sent: number;
  received: number;
}

/** Tunnels with higher numbers than a node ever has at once are not counted. */
const TUNNELS = 16;

export class Ledger {
  private readonly view: DataView;
  private names: string[] = [];
  private own = new Networks([]);
  private others = new Networks([]);
  private sentCounts = new Float64Array(0);
  private receivedCounts = new Float64Array(0);

  /** @param view the slab that packets lie in */
  constructor(view: DataView) {
    this.view = view;
  }

  /** Peers that stay keep their counts. */
  setProgram({ own, peers }: LedgerProgram): void {
    const before = new Map(this.names.map((name, i) => [name, i]));
    const [sent, received] = [this.sentCounts, this.receivedCounts];
    this.names = peers.map(({ name }) => name);
    this.own = new Networks(own.map(network => ({ ...network, owner: 0 })));
    this.others = new Networks(
      peers.flatMap(({ networks }, owner) => networks.map(network => ({ ...network, owner }))),
    );
    this.sentCounts = new Float64Array(peers.length * TUNNELS);
    this.receivedCounts = new Float64Array(peers.length * TUNNELS);
    for (const [i, name] of this.names.entries()) {
      const old = before.get(name);
      if (old === undefined) continue;
      this.sentCounts.set(sent.subarray(old * TUNNELS, (old + 1) * TUNNELS), i * TUNNELS);
      this.receivedCounts.set(received.subarray(old * TUNNELS, (old + 1) * TUNNELS), i * TUNNELS);
    }
  }

  /** The number of a tunnel goes to another one. */
  clearTunnel(tunnel: number): void {
    for (let i = 0; i < this.names.length && tunnel < TUNNELS; i++) {
      this.sentCounts[i * TUNNELS + tunnel] = 0;
      this.receivedCounts[i * TUNNELS + tunnel] = 0;
    }
  }

  /** A parsed packet leaves by the uplink; no tunnel's headers are in front of it yet. */
  sent(p: Packet, tunnel: number): void {
    const peer = this.others.find(p.dst);
    if (peer < 0 || tunnel >= TUNNELS || this.own.find(p.src) < 0) return;
    this.sentCounts[peer * TUNNELS + tunnel] += segmentsOf(this.view, p);
  }

  /** A parsed packet has come by the uplink, and the tunnel's headers are off. */
  received(p: Packet, tunnel: number): void {
    const peer = this.others.find(p.src);
    if (peer < 0 || tunnel >= TUNNELS || this.own.find(p.dst) < 0) return;
    this.receivedCounts[peer * TUNNELS + tunnel] += segmentsOf(this.view, p);
  }

  /** Of tunnels that have carried anything. */
  rows(): LedgerRow[] {
    return this.names.flatMap((peer, i) => {
      const rows: LedgerRow[] = [];
      for (let tunnel = 0; tunnel < TUNNELS; tunnel++) {
        const sent = this.sentCounts[i * TUNNELS + tunnel];
        const received = this.receivedCounts[i * TUNNELS + tunnel];
        if (sent + received > 0) rows.push({ peer, tunnel, sent, received });
      }
      return rows;
    });
  }
}

/** A few networks, looked through in order. */
class Networks {
  private readonly prefixes: Int32Array;
  private readonly masks: Int32Array;
  private readonly owners: Int32Array;

  constructor(networks: readonly (LedgerNetwork & { owner: number })[]) {
    this.prefixes = Int32Array.from(networks, ({ prefix }) => prefix);
    this.masks = Int32Array.from(networks, ({ length }) => (length === 0 ? 0 : -1 << (32 - length)));
    this.owners = Int32Array.from(networks, ({ owner }) => owner);
  }

  /** @returns whose network the address is in; -1: nobody's */
  find(address: number): number {
    const { prefixes, masks, owners } = this;
    for (let i = 0; i < prefixes.length; i++) if ((address & masks[i]) === prefixes[i]) return owners[i];
    return -1;
  }
}
