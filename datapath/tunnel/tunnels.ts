/**
 * The tunnels of a node. What is sent into one is the next hop's to say, which has its number; what comes out of one is known
 * by protocol, port and VNI, whatever is sent meanwhile.
 */
import type { Packet } from '../packet/packet.ts';
import type { Tunnel } from './tunnel.ts';

export class Tunnels {
  /** By number, from 1; null where there is none. */
  readonly byNumber: (Tunnel | null)[] = [null];
  /** Those that there are. */
  list: readonly Tunnel[] = [];

  /** Puts a tunnel in the place of a number, or takes it away. */
  put(number: number, tunnel: Tunnel | null): void {
    this.byNumber[number] = tunnel;
    this.list = this.byNumber.filter(one => one !== null);
    for (const one of this.list) {
      one.isAlone = this.list.every(other => other === one || !one.isBeside(other));
    }
  }

  /**
   * The tunnel that the parsed packet, addressed to us, has come through; null if it is none's. Where several share a port
   * and none has the packet's VNI it is one of them, whose decap() says so.
   */
  find(p: Packet): Tunnel | null {
    const { list } = this;
    let found: Tunnel | null = null;
    for (let i = 0; i < list.length; i++) {
      const tunnel = list[i];
      if (!tunnel.matches(p)) continue;
      if (tunnel.isAlone || tunnel.hasVni(p)) return tunnel;
      found = tunnel;
    }
    return found;
  }

  /** Could this fragment, addressed to us, be a piece of a tunnel packet? */
  mayCarry(p: Packet): boolean {
    const { list } = this;
    for (let i = 0; i < list.length; i++) if (list[i].mayCarry(p)) return true;
    return false;
  }

  /** Would the parsed packet pass for one that we send ourselves, to a peer or to `own`, our underlay address? */
  imitates(p: Packet, own: number): boolean {
    const { list } = this;
    for (let i = 0; i < list.length; i++) {
      if (list[i].matches(p) && (p.dst === own || list[i].findPeer(p.dst) >= 0)) return true;
    }
    return false;
  }
}
