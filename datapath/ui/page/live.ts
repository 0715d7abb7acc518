/** The page that `tunpath ui` serves: it asks the server that it came from. */
import type { ChangeAnswer, ClauseRow, ExplainAnswer, ProofRow, Sink, Source } from '../protocol.ts';
import { startPage } from './app.ts';

async function call<T>(path: string, body?: unknown): Promise<T> {
  const response = await fetch(
    `/api/${path}`,
    body === undefined
      ? {}
      : { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) },
  );
  if (!response.ok) throw new Error((await response.text()).trim());
  return (await response.json()) as T;
}

const EVENTS = ['picture', 'flows', 'packets', 'counters', 'lost', 'trouble'] as const;

/** Calls the sink with what comes. @returns what ends it */
function listenTo(path: string, sink: Sink): () => void {
  const events = new EventSource(`/api/${path}`);
  for (const name of EVENTS) {
    events.addEventListener(name, event => {
      const take = sink[name] as (data: unknown) => void;
      take.call(sink, JSON.parse((event as MessageEvent<string>).data));
    });
  }
  let isLost = false;
  events.onerror = () => {
    isLost = true;
    sink.trouble('tunpath ui has ended, or is not to be reached; this page tries again');
  };
  events.onopen = () => {
    if (isLost) sink.trouble('');
    isLost = false;
  };
  return () => events.close();
}

let sink: Sink;
let endCapture: (() => void) | null = null;

const source: Source = {
  isLive: true,
  start: to => {
    sink = to;
    listenTo('events', to);
  },
  explain: request => call<ExplainAnswer>('explain', request),
  change: request => call<ChangeAnswer[]>('change', request),
  prove: () => call<ProofRow[]>('prove'),
  conformance: (profile, rfc) => call<ClauseRow[]>(`conformance?profile=${encodeURIComponent(profile)}&rfc=${rfc}`),
  capture: request => {
    endCapture?.();
    endCapture = null;
    if (request === null) return;
    endCapture = listenTo(`packets?filter=${encodeURIComponent(request.filter)}&drops=${request.drops}`, sink);
  },
};

startPage({ source });
