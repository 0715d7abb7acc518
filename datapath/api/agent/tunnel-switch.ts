/**
 * A cluster goes over from one network to another while packets flow.
 *
 *   Preparing    every node takes the packets of both; MTUs are those of the smaller one
 *   Moving       one sender after the other sends to one peer after the other by the new one, and the peer confirms it
 *   Draining     what was sent by the old one arrives
 *   Finishing    nobody takes packets of the old one any more; MTUs are those of the new one
 *   Done
 *
 * A peer that does not confirm takes all back: RollingBack (everybody sends by the old one again), Removing, RolledBack. What
 * cannot be done without loss is Refused before anything is touched.
 *
 * What is intended is saved before it is done, and each step may be done twice: whoever finds a switch that somebody was
 * killed in goes on with it.
 */
import { type Encap, encapsOf, type Network } from './network.ts';
import type { NetworkPlan } from './node-network.ts';

export type Phase =
  | 'Preparing'
  | 'Moving'
  | 'Draining'
  | 'Finishing'
  | 'Done'
  | 'RollingBack'
  | 'Removing'
  | 'RolledBack'
  | 'Refused';

/** Packets from one node's pods to another's by one tunnel, as long as it was the one that is sent into. */
export interface Epoch {
  epoch: number;
  sender: string;
  receiver: string;
  /** Its name; '' for none. */
  tunnel: string;
  sent: number;
  received: number;
  /**
   * At least so many: where an epoch is counted from its middle on, what was on its way then may stand for as many that were
   * lost. null: one of the nodes was restarted meanwhile, and has forgotten.
   */
  lost: number | null;
}

/** What the counts of one node's packets to another by one tunnel had reached when an epoch began. */
export interface Base {
  /** When each of the two nodes' counts began: another time means that it has been restarted, and has forgotten. */
  since: { sender: string; receiver: string };
  sent: number;
  received: number;
}

/** Plain data: all that is to be known of a switch. */
export interface SwitchState {
  from: Network;
  to: Network;
  phase: Phase;
  /** The number of the epoch that begins with it. */
  epoch: number;
  /** Who sends to whom by the new one: `SENDER>RECEIVER`. */
  moved: string[];
  /** Who may, or may not yet. */
  pending: string | null;
  /** Pairs that the new network has no way of its own for: routers decide. */
  loose: string[];
  message: string;
  ledger: Epoch[];
  /** By `SENDER>RECEIVER TUNNEL`. */
  base: Record<string, Base>;
}

/** What a node says of its packets. */
export interface Account {
  since: string;
  rows: { peer: string; tunnel: string; sent: number; received: number }[];
}

/** What a switch is carried out on. */
export interface SwitchHost {
  /** Those that take part. */
  nodes(): string[];
  /** @returns the name of the tunnel that leads there; '': none is needed; null: there is no way but what routers know */
  wayOf(network: Network, sender: string, receiver: string): string | null;
  /** What is wrong with that plan for a node, a line each. */
  check(node: string, plan: NetworkPlan): Promise<string[]>;
  /** Returns when the node has it. @throws Error if it does not take it */
  apply(node: string, plan: NetworkPlan): Promise<void>;
  /** Whether a packet gets there by that tunnel, and its answer back. */
  confirm(sender: string, receiver: string): Promise<boolean>;
  /** undefined: the node does not say. */
  account(node: string): Promise<Account | undefined>;
  /** Returns when the state will outlive whoever runs the switch. */
  save(state: SwitchState): Promise<void>;
  wait(ms: number): Promise<void>;
  /** Milliseconds of a clock that only goes on. */
  now(): number;
}

export const TERMINAL: ReadonlySet<Phase> = new Set<Phase>(['Done', 'RolledBack', 'Refused']);

/** Between MTUs that go down and the first packet that needs it. */
const MTU_SETTLE_MS = 100;
/** How long what was sent may take to arrive; then it is lost. */
const DRAIN_MS = 3000;
const DRAIN_LOOK_MS = 20;
/** How often one looks for a moment with nothing on its way, from which on can be counted. */
const OPENING_LOOKS = 5;
const OPENING_LOOK_MS = 17;
/** Nothing is said of packets on their way where a node does not keep account. */
const UNKNOWN_DRAIN_MS = 500;
const CONFIRM_TRIES = 3;

export function beginSwitch(from: Network, wanted: Network, before: Pick<SwitchState, 'epoch' | 'base'>): SwitchState {
  return {
    from,
    to: distinctFrom(from, wanted),
    phase: 'Preparing',
    epoch: before.epoch + 1,
    moved: [],
    pending: null,
    loose: [],
    message: '',
    ledger: [],
    base: before.base,
  };
}

/** Whether a switch is needed: packets between nodes go another way. */
export function differs(from: Network, to: Network): boolean {
  const ways = ({ pools, plain }: Network): string =>
    JSON.stringify([plain, pools.map(({ cidr, encap, direct }) => [cidr, direct, encap && contentOf(encap)])]);
  return ways(from) !== ways(to);
}

/** The wanted network with names for its tunnels: the same tunnel keeps its name, and no other has that of one of the old. */
function distinctFrom(from: Network, wanted: Network): Network {
  const old = encapsOf(from);
  const named = (encap: Encap): Encap => {
    const same = old.find(one => contentOf(one) === contentOf(encap));
    if (same !== undefined) return same;
    if (!old.some(({ name }) => name === encap.name)) return encap;
    return { ...encap, name: [encap.protocol, encap.port, encap.vni].filter(part => part !== undefined).join('-') };
  };
  return {
    ...wanted,
    pools: wanted.pools.map(pool => ({ ...pool, encap: pool.encap === null ? null : named(pool.encap) })),
  };
}

function contentOf({ protocol, port, vni }: Encap): string {
  return `${protocol} ${port} ${vni}`;
}

/** What a node's network is at that point of a switch. */
export function planOf({ from, to, phase, moved, pending }: SwitchState, node: string): NetworkPlan {
  switch (phase) {
    case 'Finishing':
    case 'Done':
      return { accepts: [to], towards: () => to, settled: to };
    case 'Removing':
    case 'RolledBack':
    case 'Refused':
      return { accepts: [from], towards: () => from, settled: from };
    default: {
      const byNew = new Set([...moved, ...(pending === null ? [] : [pending])]);
      return { accepts: [from, to], towards: peer => (byNew.has(`${node}>${peer}`) ? to : from), settled: from };
    }
  }
}

/** The network that a switch has left. */
export function outcomeOf({ from, to, phase }: SwitchState): Network {
  return phase === 'Done' ? to : from;
}

export class TunnelSwitch {
  state: SwitchState;
  private readonly host: SwitchHost;

  /** @param state a new one, or one that somebody else has begun */
  constructor(host: SwitchHost, state: SwitchState) {
    this.host = host;
    this.state = state;
  }

  /** Goes on to the end. @throws Error only what the host's save() throws; then somebody else may go on */
  async run(): Promise<SwitchState> {
    while (!TERMINAL.has(this.state.phase)) await this.step();
    return this.state;
  }

  private async step(): Promise<void> {
    switch (this.state.phase) {
      case 'Preparing':
        return this.prepare();
      case 'Moving':
        return this.move();
      case 'Draining':
        await this.seal(this.state.epoch - 1, this.state.from);
        return this.enter({ phase: 'Finishing' });
      case 'Finishing':
        await this.finish();
        await this.seal(this.state.epoch, this.state.to, false);
        return this.enter({ phase: 'Done', base: this.keptBase(this.state.to) });
      case 'RollingBack':
        await this.finish();
        await this.seal(this.state.epoch, this.state.to);
        return this.enter({ phase: 'Removing' });
      case 'Removing':
        await this.finish();
        return this.enter({ phase: 'RolledBack', base: this.keptBase(this.state.from) });
    }
  }

  private async enter(change: Partial<SwitchState>): Promise<void> {
    this.state = { ...this.state, ...change };
    await this.host.save(this.state);
  }

  private async prepare(): Promise<void> {
    const { host, state } = this;
    const asked = host.nodes().flatMap(node =>
      // On the way, and in the end.
      (['Moving', 'Done'] as const).map(async phase => {
        const faults = await host.check(node, planOf({ ...state, phase }, node));
        return faults.map(fault => `${node}: ${fault}`);
      }),
    );
    const faults = (await Promise.all(asked)).flat();
    if (faults.length > 0) return this.enter({ phase: 'Refused', message: [...new Set(faults)].join('; ') });
    const loose = this.pairs().flatMap(([sender, receiver]) =>
      host.wayOf(state.to, sender, receiver) === null ? [`${sender}>${receiver}`] : [],
    );
    await this.openLedger();
    await this.enter({ loose });
    const failed = await this.applyAll();
    if (failed !== undefined) return this.enter({ phase: 'RollingBack', message: failed });
    await host.wait(MTU_SETTLE_MS);
    return this.enter({ phase: 'Moving' });
  }

  /** One sender towards one peer. */
  private async move(): Promise<void> {
    const { host, state } = this;
    const next = this.pairs().find(([sender, receiver]) => !state.moved.includes(`${sender}>${receiver}`));
    if (next === undefined) return this.enter({ phase: 'Draining' });
    const [sender, receiver] = next;
    const pair = `${sender}>${receiver}`;
    await this.enter({ pending: pair });
    const failed = await this.apply(sender);
    if (failed !== undefined) return this.rollBack(failed);
    const way = host.wayOf(state.to, sender, receiver);
    const isNew = way !== host.wayOf(state.from, sender, receiver);
    if (isNew && way !== null && this.canAnswer(next) && !(await this.isConfirmed(sender, receiver))) {
      return this.rollBack(`${receiver} does not confirm what ${sender} sends by ${way || 'no tunnel'}`);
    }
    return this.enter({ moved: [...state.moved, pair], pending: null });
  }

  private rollBack(message: string): Promise<void> {
    return this.enter({ phase: 'RollingBack', moved: [], pending: null, message });
  }

  /**
   * An echo comes back only where there is a way back: where the old network has none, as native routing into another subnet,
   * the pair is confirmed together with its opposite.
   */
  private canAnswer([sender, receiver]: [string, string]): boolean {
    const { from, to, moved } = this.state;
    const network = moved.includes(`${receiver}>${sender}`) ? to : from;
    return this.host.wayOf(network, receiver, sender) !== null;
  }

  private async isConfirmed(sender: string, receiver: string): Promise<boolean> {
    for (let i = 0; i < CONFIRM_TRIES; i++) if (await this.host.confirm(sender, receiver)) return true;
    return false;
  }

  private pairs(): [sender: string, receiver: string][] {
    const nodes = this.host.nodes();
    return nodes.flatMap(sender =>
      nodes.filter(receiver => receiver !== sender).map((receiver): [string, string] => [sender, receiver]),
    );
  }

  /** What has been decided is carried out by a node that is not there now as soon as it is: that is its agent's business. */
  private async finish(): Promise<void> {
    const failed = await this.applyAll();
    const { message } = this.state;
    if (failed !== undefined && !message.includes(failed)) {
      this.state = { ...this.state, message: [message, failed].filter(text => text !== '').join('; ') };
    }
  }

  /** @returns why one of them does not take it; the others have */
  private async applyAll(): Promise<string | undefined> {
    const failures = await Promise.all(this.host.nodes().map(node => this.apply(node)));
    return failures.find(failure => failure !== undefined);
  }

  private async apply(node: string): Promise<string | undefined> {
    try {
      await this.host.apply(node, planOf(this.state, node));
      return undefined;
    } catch (error) {
      return `${node}: ${(error as Error).message}`;
    }
  }

  // ---------------------------------------------------------------- the ledger

  /** Each sender and receiver, with the tunnel that a network has between them. */
  private pairsBy(network: Network): Pair[] {
    return this.pairs().map(([sender, receiver]) => {
      return { sender, receiver, tunnel: this.host.wayOf(network, sender, receiver) ?? '' };
    });
  }

  /**
   * Says from where the epochs of this switch are counted. That of the network which is left: from the end of the switch
   * before, or from here on where there was none. The other one: from here on where a node has been restarted since.
   */
  private async openLedger(): Promise<void> {
    const { from, to } = this.state;
    const base = { ...this.state.base };
    let [earlier, later] = [await this.accounts(), await this.accounts()];
    const left = this.pairsBy(from);
    // Where both have the same tunnel, one count is for both.
    const shared = new Set(left.map(keyOf));
    const opened = [
      ...left.filter(pair => base[keyOf(pair)] === undefined),
      ...this.pairsBy(to).filter(
        pair => !shared.has(keyOf(pair)) && countsSince(base, pair, later, later) === undefined,
      ),
    ];
    for (const pair of opened) set(base, pair, baseOf(pair, later, earlier));
    for (let i = 1; i < OPENING_LOOKS && opened.length > 0; i++) {
      await this.host.wait(OPENING_LOOK_MS);
      [earlier, later] = [await this.accounts(), await this.accounts()];
      for (const pair of opened) set(base, pair, closerOf(base[keyOf(pair)], baseOf(pair, later, earlier)));
    }
    this.state = { ...this.state, base };
  }

  /**
   * Writes down an epoch of a network that nobody sends by any more, once all has arrived.
   * @param hasEnded false: packets go on, and what is on its way when it is read is not lost
   */
  private async seal(epoch: number, network: Network, hasEnded = true): Promise<void> {
    const { host, state } = this;
    const others = new Set(this.pairsBy(network === state.from ? state.to : state.from).map(keyOf));
    const pairs = this.pairsBy(network).filter(pair => !hasEnded || !others.has(keyOf(pair)));
    const first = await this.accounts();
    const countsOf = (pair: Pair, last: Accounts): Counts | undefined => countsSince(state.base, pair, first, last);
    const hasArrived = (accounts: Accounts): boolean =>
      pairs.every(pair => {
        const { sent = 0, received = 0 } = countsOf(pair, accounts) ?? {};
        return received >= sent;
      });
    let last = first;
    const known = host.nodes().every(node => first.has(node));
    if (!known) await host.wait(UNKNOWN_DRAIN_MS);
    for (const end = host.now() + DRAIN_MS; known && !hasArrived(last) && host.now() < end; ) {
      await host.wait(DRAIN_LOOK_MS);
      last = await this.accounts();
    }
    const rows = pairs.map((pair): Epoch => {
      const counts = countsOf(pair, last);
      const { sent = 0, received = 0 } = counts ?? {};
      const lost = counts === undefined ? null : Math.max(0, sent - received);
      return { epoch, ...pair, sent, received: Math.min(sent, received), lost };
    });
    const base = { ...state.base };
    const isForgotten = rows.some(({ lost }) => lost === null);
    const later = isForgotten ? await this.accounts() : last;
    for (const [i, pair] of pairs.entries()) {
      if (hasEnded) set(base, pair, baseOf(pair, later, later));
      // Counts of a node that has forgotten are reckoned with from here on.
      else if (rows[i]!.lost === null) set(base, pair, baseOf(pair, later, last));
    }
    this.state = { ...state, ledger: [...state.ledger.filter(row => row.epoch !== epoch), ...rows], base };
  }

  private async accounts(): Promise<Accounts> {
    const { host } = this;
    const found = new Map<string, Account>();
    await Promise.all(
      host.nodes().map(async node => {
        const account = await host.account(node);
        if (account !== undefined) found.set(node, account);
      }),
    );
    return found;
  }

  /** Counts of a tunnel begin anew with it: what they had reached means nothing once it is gone. */
  private keptBase(network: Network): SwitchState['base'] {
    const names = new Set(['', ...encapsOf(network).map(({ name }) => name)]);
    return Object.fromEntries(Object.entries(this.state.base).filter(([key]) => names.has(tunnelIn(key))));
  }
}

interface Pair {
  sender: string;
  receiver: string;
  /** '': none. */
  tunnel: string;
}

type Accounts = ReadonlyMap<string, Account>;
type Counts = Pick<Base, 'sent' | 'received'>;

function keyOf({ sender, receiver, tunnel }: Pair): string {
  return `${sender}>${receiver} ${tunnel}`;
}

function tunnelIn(key: string): string {
  return key.slice(key.indexOf(' ') + 1);
}

function set(base: SwitchState['base'], pair: Pair, value: Base | undefined): void {
  if (value === undefined) delete base[keyOf(pair)];
  else base[keyOf(pair)] = value;
}

/**
 * Where counts are now. While packets flow, the sender's are to be read after the receiver's: what is on its way then has been
 * sent before, and is not lost later on.
 * @returns undefined where one of the two nodes does not say
 */
function baseOf({ sender, receiver, tunnel }: Pair, sentAt: Accounts, receivedAt: Accounts): Base | undefined {
  const [from, to] = [sentAt.get(sender), receivedAt.get(receiver)];
  if (from === undefined || to === undefined) return undefined;
  return {
    since: { sender: from.since, receiver: to.since },
    sent: countOf(from, receiver, tunnel, 'sent'),
    received: countOf(to, sender, tunnel, 'received'),
  };
}

/** Of two looks the one at which fewer were on their way; the later one where a node was restarted in between. */
function closerOf(before: Base | undefined, after: Base | undefined): Base | undefined {
  if (before === undefined || after === undefined) return after;
  if (before.since.sender !== after.since.sender || before.since.receiver !== after.since.receiver) return after;
  return before.sent - before.received <= after.sent - after.received ? before : after;
}

/** What went since an epoch began. @returns undefined where a node has forgotten, or does not say */
function countsSince(
  bases: SwitchState['base'],
  pair: Pair,
  sentAt: Accounts,
  receivedAt: Accounts,
): Counts | undefined {
  const before = bases[keyOf(pair)];
  const now = baseOf(pair, sentAt, receivedAt);
  if (before === undefined || now === undefined) return undefined;
  if (before.since.sender !== now.since.sender || before.since.receiver !== now.since.receiver) return undefined;
  return { sent: now.sent - before.sent, received: now.received - before.received };
}

function countOf({ rows }: Account, peer: string, tunnel: string, what: 'sent' | 'received'): number {
  return rows.find(row => row.peer === peer && row.tunnel === tunnel)?.[what] ?? 0;
}
