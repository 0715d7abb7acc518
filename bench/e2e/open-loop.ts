/**
 * Requests at a constant rate, whatever becomes of their answers, as users send them. Times count from the moment at which
 * a request was meant to leave: one that could not, because the sender or the path was held up, has waited since then. A
 * client that waits for each answer before it asks again leaves those out ("coordinated omission"), and a pause of 100 ms
 * becomes one slow request of thousands instead of a hundred.
 */

/** The clock and the way to the server. */
export interface Link {
  /** Milliseconds. */
  now(): number;
  send(sequence: number): void;
  /** The sequence number of the next answer; -1 where none has come at `deadline`. */
  receive(deadline: number): number;
}

export interface OpenLoop {
  sent: number;
  /** Requests without an answer; they are recorded as the time that was waited for them. */
  lost: number;
}

/**
 * @param rate     requests per second
 * @param count    of requests
 * @param patience milliseconds after the last request's time for which answers are waited
 * @param record   is told the milliseconds of each request
 */
export function runOpenLoop(
  link: Link,
  { rate, count, patience }: { rate: number; count: number; patience: number },
  record: (ms: number) => void,
): OpenLoop {
  const interval = 1000 / rate;
  const answered = new Uint8Array(count);
  const start = link.now();
  const end = start + (count - 1) * interval + patience;
  let sent = 0;
  let missing = count;
  while (missing > 0) {
    const due = sent < count ? start + sent * interval : end;
    const now = link.now();
    if (now >= due) {
      if (sent === count) break;
      link.send(sent++);
      continue;
    }
    const sequence = link.receive(due);
    if (sequence < 0 || sequence >= sent || answered[sequence] === 1) continue;
    answered[sequence] = 1;
    missing--;
    record(link.now() - (start + sequence * interval));
  }
  const now = link.now();
  for (let i = 0; i < count; i++) if (answered[i] === 0) record(now - (start + i * interval));
  return { sent, lost: missing };
}
