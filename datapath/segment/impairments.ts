/**
 * What spoils one direction of a wire: the names of `tc netem` (sch_netem.c) and `tbf`, in numbers. Probabilities are from 0
 * to 1, times in milliseconds.
 */

/** Of the delays around their mean: netem's tables of the same names. */
export const DISTRIBUTIONS = ['uniform', 'normal', 'pareto'] as const;
export type Distribution = (typeof DISTRIBUTIONS)[number];

/** Loss in bursts by two states, good and bad (Gilbert-Elliott; `netem loss gemodel p r 1-h 1-k`). */
export interface GilbertElliott {
  /** Good to bad, and bad to good, at each packet. */
  p: number;
  r: number;
  /** Loss while bad, and while good: netem's 1-h and 1-k. */
  badLoss: number;
  goodLoss: number;
}

export interface Impairments {
  delay: number;
  jitter: number;
  distribution: Distribution;
  /** Independent loss, or bursts. */
  loss: number | GilbertElliott;
  duplicate: number;
  /** Of packets that are not delayed, and so overtake; wants a delay. */
  reorder: number;
  /** Of packets that have one bit turned over. */
  corrupt: number;
  /** Bits per second of Ethernet frames; 0: no limit. */
  rate: number;
  /** Bytes that may go at once at full speed before the rate holds (tbf's burst). */
  burst: number;
  /** What waits at most: packets, as netem's limit, or bytes that the rate holds back, as tbf's. */
  limit: { packets: number } | { bytes: number };
  /** Packets get Congestion Experienced where so many bytes wait for the rate; 0: never. */
  ceThreshold: number;
  /** Longest IP packet; 0: what the segment takes. */
  mtu: number;
  /** Whether ICMP is lost. */
  icmp: 'passed' | 'filtered';
  /**
   * Addresses (int32) of which one must be the source of what a port sends, or the destination of what it gets: the
   * source/destination check of a cloud's fabric. Empty: anything passes.
   */
  sourceDestCheck: number[];
}

/** Of netem. */
export const DEFAULT_LIMIT = 1000;

/** A wire that only carries. */
export const UNIMPAIRED: Impairments = {
  delay: 0,
  jitter: 0,
  distribution: 'normal',
  loss: 0,
  duplicate: 0,
  reorder: 0,
  corrupt: 0,
  rate: 0,
  burst: 0,
  limit: { packets: DEFAULT_LIMIT },
  ceThreshold: 0,
  mtu: 0,
  icmp: 'passed',
  sourceDestCheck: [],
};
