/**
 * Whether a port's device is there: up, down (it is there and carries nothing), or gone; since when, and why. Says a word
 * only when one of these changes.
 */

export type Condition = 'up' | 'down' | 'gone';

export interface Health {
  state: Condition;
  /** ISO 8601. */
  since: string;
  /** Of a port that is not up; of one that is up again, what it took. Null where nothing has happened. */
  why: string | null;
}

/** A port by its identity, and what has become of it. */
export interface HealthChange {
  /** "pod default/p1" */
  port: string;
  was: Condition;
  health: Health;
}

export class PortHealth {
  private readonly healths = new Map<string, Health>();
  private readonly now: () => Date;
  private readonly onChange: (change: HealthChange) => void;

  constructor(onChange: (change: HealthChange) => void, now: () => Date = () => new Date()) {
    this.onChange = onChange;
    this.now = now;
  }

  /** A port that nobody has said anything of is up, from now on. */
  of(port: string): Health {
    let health = this.healths.get(port);
    if (health === undefined) {
      health = { state: 'up', since: this.now().toISOString(), why: null };
      this.healths.set(port, health);
    }
    return health;
  }

  /** @param why of a state that stays the same it may become more exact, which is no change */
  set(port: string, state: Condition, why: string | null): void {
    const before = this.of(port);
    if (before.state === state) {
      if (before.why !== why) this.healths.set(port, { ...before, why });
      return;
    }
    const health = { state, since: this.now().toISOString(), why };
    this.healths.set(port, health);
    this.onChange({ port, was: before.state, health });
  }

  /** Forgets ports that the node does not have any more. */
  keepOnly(ports: Iterable<string>): void {
    const kept = new Set(ports);
    for (const port of this.healths.keys()) if (!kept.has(port)) this.healths.delete(port);
  }
}

/** One line for the log. */
export function describeHealth({ port, health }: HealthChange): string {
  const reason = health.why === null ? '' : `: ${health.why}`;
  return health.state === 'up' ? `port ${port} is up again${reason}` : `port ${port} is ${health.state}${reason}`;
}
