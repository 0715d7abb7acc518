/** A switch as plain maps: which ports get a frame, by what was heard before. */

export class SlowSwitch {
  private readonly ports = new Set<string>();
  private readonly heard = new Map<string, { port: string; at: number }>();
  private readonly ageingMs: number;

  constructor(ageingMs: number) {
    this.ageingMs = ageingMs;
  }

  attach(port: string): void {
    this.ports.add(port);
  }

  detach(port: string): void {
    this.ports.delete(port);
    for (const [mac, { port: at }] of this.heard) if (at === port) this.heard.delete(mac);
  }

  /** The ports that get a frame from `source` to `destination` (null: a group) that came by `port`. */
  send(port: string, source: number, destination: number | null, now: number): string[] {
    this.heard.set(String(source), { port, at: now });
    const others = [...this.ports].filter(one => one !== port);
    if (destination === null) return others;
    const known = this.heard.get(String(destination));
    if (known === undefined || now - known.at >= this.ageingMs) return others;
    return known.port === port ? [] : [known.port];
  }
}
