/**
 * The highest packet rate at which no more than a given share is lost: RFC 2544, section 26.1, with several shares in one
 * search (as MLRsearch, draft-ietf-bmwg-mlrsearch) and every loss verified by a repetition (as ETSI GS NFV-TST 009), since
 * software on a shared machine also loses a packet now and then at rates that it carries for hours.
 */

/** Shares of loss: none, as RFC 2544 has it, and two of those that are quoted as partial drop rates. */
export const ACCEPTABLE = [0, 0.001, 0.01];

export interface RateTrial {
  /** Packets per second that were sent; less than asked for where the sender could not. */
  rate: number;
  /** Share of those sent that did not arrive, 0 to 1. */
  loss: number;
}

export interface RateSearch {
  /** Shares of loss that are put up with; one answer for each. */
  acceptable: readonly number[];
  /** The answer is at most this share below a rate that loses too much. */
  resolution: number;
  /** A trial that lost a little too much, or sent too little, is made this often at most. 1: no repetition. */
  attempts: number;
  /** Packets per second; where even these are lost the answer is 0. */
  least: number;
}

export interface RateFound {
  acceptable: number;
  /** Packets per second. */
  rate: number;
  loss: number;
  /** The sender could not send more: the answer is only what the path carries at least. */
  senderLimited: boolean;
}

/** A trial that lost more than this is not repeated: no hiccup does that. */
const BEYOND_DOUBT = 0.05;
/** Of a failed rate, when looking for one that passes. */
const STEP_DOWN = 0.6;
/** Of a rate that passes, while the next that fails is far away. */
const STEP_UP = 1.25;

/** A trial and the rate that it was asked for. */
interface Attempt extends RateTrial {
  asked: number;
}

/**
 * @param trial  sends at a rate, or as fast as it can for Infinity
 * @returns      in the order of `acceptable`
 */
export function searchRates(trial: (rate: number) => RateTrial, search: RateSearch): RateFound[] {
  const full = trial(Infinity);
  const known: Attempt[] = [{ ...full, asked: full.rate }];
  const attempt = (asked: number): Attempt => {
    const result = { ...trial(asked), asked };
    known.push(result);
    return result;
  };
  const found = new Map<number, RateFound>();
  // From the greatest share on: its trials are a good start for the next.
  for (const acceptable of [...search.acceptable].sort((a, b) => b - a)) {
    found.set(acceptable, searchRate(attempt, known, acceptable, search));
  }
  // A rate with less loss will do, too, where luck made it the higher one.
  return search.acceptable.map(acceptable => {
    const good = [...found.values()].filter(other => other.loss <= acceptable);
    const best = good.reduce((a, b) => (b.rate > a.rate ? b : a), found.get(acceptable)!);
    return { ...best, acceptable };
  });
}

function searchRate(
  attempt: (asked: number) => Attempt,
  known: readonly Attempt[],
  acceptable: number,
  { resolution, attempts, least }: RateSearch,
): RateFound {
  const answer = ({ rate, loss }: RateTrial, senderLimited: boolean): RateFound => ({
    acceptable,
    rate,
    loss,
    senderLimited,
  });
  const [full] = known;
  if (full.loss <= acceptable) return answer(full, true);

  let failed = full.asked;
  let passed: Attempt | null = null;
  for (const { asked } of known) if (asked < failed && hasFailed(known, asked, acceptable, attempts)) failed = asked;
  for (const old of known) {
    if (old.loss <= acceptable && old.asked < failed && old.asked > (passed?.asked ?? 0)) passed = old;
  }
  // What arrives of too much is about what the path can carry.
  const delivered = full.rate * (1 - full.loss);
  while (passed === null || failed > passed.asked * (1 + resolution)) {
    const asked: number =
      passed === null
        ? Math.min(delivered, failed * STEP_DOWN)
        : Math.min(passed.asked * STEP_UP, Math.sqrt(passed.asked * failed));
    if (asked < least) return answer({ rate: 0, loss: 1 }, false);
    let result = attempt(asked);
    const sentAll = () => result.rate * (1 + resolution) >= asked;
    const inDoubt = () => (result.loss > acceptable ? result.loss <= BEYOND_DOUBT : !sentAll());
    for (let i = 1; i < attempts && inDoubt(); i++) result = attempt(asked);
    if (result.loss > acceptable) failed = asked;
    // Less was sent than asked for, time and again, so a higher rate would not be either.
    else if (!sentAll()) return answer(result, true);
    else passed = result;
  }
  return answer(passed, false);
}

/** True if no trial at this rate was good enough, and there is no doubt left to repeat it for. */
function hasFailed(known: readonly Attempt[], asked: number, acceptable: number, attempts: number): boolean {
  const made = known.filter(old => old.asked === asked);
  const clear = made.length >= attempts || made.some(({ loss }) => loss > BEYOND_DOUBT);
  return clear && made.every(({ loss }) => loss > acceptable);
}
