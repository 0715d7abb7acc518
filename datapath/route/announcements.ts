/**
 * Addresses of load balancers that the node answers ARP for because it leads their services, each until its lease ends. The end
 * is looked at with every request, by a clock that is read then: a node that was stopped and goes on does not answer for what
 * another one has taken over meanwhile, whoever has not told it so yet.
 */
export interface Announcement {
  /** int32 */
  address: number;
  /** End of the lease, in the clock's milliseconds; from then on nobody is answered. */
  until: number;
}

export class Announcements {
  /** Ends of leases, by address. */
  private readonly ends = new Map<number, number>();
  /** Whether the link has been told of all of them, since it came up and by the MAC that is the node's now. */
  isTold = true;

  /**
   * Replaces all that there are.
   * @returns those that were not answered for until now: the link has to be told of them
   */
  replace(list: readonly Announcement[], now: number): number[] {
    const fresh = list.filter(({ address, until }) => until > now && !this.answers(address, now));
    this.ends.clear();
    for (const { address, until } of list) this.ends.set(address, until);
    return fresh.map(({ address }) => address);
  }

  /** Whether there is none, without a look at the clock. */
  get isEmpty(): boolean {
    return this.ends.size === 0;
  }

  /** @param address int32 */
  answers(address: number, now: number): boolean {
    const until = this.ends.get(address);
    return until !== undefined && now < until;
  }

  /** Those whose leases have not ended, in order. */
  rows(now: number): Announcement[] {
    return Array.from(this.ends, ([address, until]) => ({ address, until }))
      .filter(({ until }) => until > now)
      .sort((a, b) => (a.address >>> 0) - (b.address >>> 0));
  }
}
