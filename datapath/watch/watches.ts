/** All that look at one path: several watches are one watcher, and none is none. */
import type { Packet } from '../packet/packet.ts';
import type { Path } from '../path/path.ts';
import type { Watcher } from '../path/watcher.ts';
import type { Port } from '../port.ts';
import { Watch, type WatchSpec } from './watch.ts';

/** A watch that begins; `id` ends it. */
export interface WatchRequest {
  id: number;
  spec: WatchSpec;
}

export class LoopWatches implements Watcher {
  private readonly path: Path;
  private readonly wallClock: () => number;
  private readonly ids: number[] = [];
  private readonly all: Watch[] = [];

  /** @param wallClock milliseconds since 1970, for the records */
  constructor(path: Path, wallClock: () => number) {
    this.path = path;
    this.wallClock = wallClock;
  }

  /** @throws FilterError */
  start({ id, spec }: WatchRequest): void {
    this.all.push(new Watch(this.path, spec, this.wallClock));
    this.ids.push(id);
    this.path.watch(this);
  }

  /** Does nothing for a watch that has ended already. */
  end(id: number): void {
    const at = this.ids.indexOf(id);
    if (at < 0) return;
    this.ids.splice(at, 1);
    this.all.splice(at, 1);
    if (this.all.length === 0) this.path.watch(null);
  }

  received(p: Packet, port: Port): void {
    for (let i = 0; i < this.all.length; i++) this.all[i].received(p, port);
  }

  sent(p: Packet, port: Port): void {
    for (let i = 0; i < this.all.length; i++) this.all[i].sent(p, port);
  }

  dropped(p: Packet, reason: number): void {
    for (let i = 0; i < this.all.length; i++) this.all[i].dropped(p, reason);
  }

  stepped(p: Packet, step: number, verdict: number): void {
    for (let i = 0; i < this.all.length; i++) this.all[i].stepped(p, step, verdict);
  }
}
