/** The page: a bar with its views, and the view that the address names (`#explain`, `#drops/drop-no-route`). */
import { type ComponentChildren, render, type VNode } from 'preact';
import { useEffect, useReducer, useState } from 'preact/hooks';
import type { ExplainRequest, Source } from '../protocol.ts';
import { Explain, type Question } from './explain.ts';
import { clock, html, reasonName } from './html.ts';
import { type Chosen, Network } from './network.ts';
import { Packets } from './packets.ts';
import { Rows } from './rows.ts';
import { endText, type FlowRow, protocolName, Store } from './store.ts';
import { Change, Conformance, Counters, Drops, Sizes } from './tables.ts';

const VIEWS = [
  ['network', 'Network'],
  ['packets', 'Packets'],
  ['explain', 'Explain'],
  ['drops', 'Drops'],
  ['counters', 'Counters'],
  ['sizes', 'MTU'],
  ['conformance', 'RFCs'],
  ['change', 'Change'],
] as const;

type View = (typeof VIEWS)[number][0];

const THEMES = ['auto', 'light', 'dark'] as const;
const THEME_KEY = 'tunpath-theme';

export interface AppOptions {
  source: Source;
  /** Above the views: where the static page gets its network from. */
  opening?: (go: (view: View) => void) => ComponentChildren;
}

/** Draws the page into the document, and begins. @returns what it shows, for who feeds it */
export function startPage({ source, opening }: AppOptions): Store {
  const store = new Store();
  render(html`<${App} store=${store} source=${source} opening=${opening} />`, document.getElementById('page')!);
  source.start(store);
  return store;
}

function readHash(): { view: View; detail: string } {
  const [name, detail = ''] = decodeURIComponent(location.hash.slice(1)).split('/');
  return { view: VIEWS.find(([view]) => view === name)?.[0] ?? 'network', detail };
}

function App({ store, source, opening }: AppOptions & { store: Store }): VNode {
  const [, redraw] = useReducer((count: number) => count + 1, 0);
  const [{ view, detail }, setPlace] = useState(readHash);
  const [question, setQuestion] = useState<Question | null>(null);
  const [filter, setFilter] = useState('');
  useEffect(() => store.listen(() => redraw(undefined as never)), []);
  useEffect(() => {
    const onHash = () => setPlace(readHash());
    addEventListener('hashchange', onHash);
    return () => removeEventListener('hashchange', onHash);
  }, []);
  const go = (to: View) => {
    location.hash = to;
  };
  const ask = (request: ExplainRequest) => {
    setQuestion({ request, id: (question?.id ?? 0) + 1 });
    go('explain');
  };
  const views: Record<View, () => VNode> = {
    network: () =>
      html`<${Overview} store=${store} source=${source} filter=${filter} setFilter=${setFilter} ask=${ask} />`,
    packets: () => html`<${Packets} store=${store} source=${source} ask=${ask} />`,
    explain: () => html`<${Explain} store=${store} source=${source} question=${question} ask=${ask} />`,
    drops: () => html`<${Drops} store=${store} chosen=${detail} />`,
    counters: () => html`<${Counters} store=${store} />`,
    sizes: () => html`<${Sizes} source=${source} />`,
    conformance: () => html`<${Conformance} source=${source} />`,
    change: () => html`<${Change} source=${source} />`,
  };
  const shown = VIEWS.filter(([name]) => source.isLive || name !== 'counters');
  return html`
    <header class="top">
      <a class="brand" href="#network">tunpath</a>
      <nav aria-label="Views">
        ${shown.map(([name, title]) => html`<a href="#${name}" aria-current=${name === view ? 'page' : undefined}>${title}</a>`)}
      </nav>
      <${Theme} />
    </header>
    ${opening?.(go)}
    ${
      store.message !== '' &&
      html`<p class="trouble" role="alert">${store.message} <button type="button" onClick=${() => store.trouble('')}>Dismiss</button></p>`
    }
    <main>${views[view]()}</main>
  `;
}

function Theme(): VNode {
  const [theme, setTheme] = useState(() => THEMES.find(name => name === stored()) ?? 'auto');
  useEffect(() => {
    document.documentElement.dataset.theme = theme;
    try {
      localStorage.setItem(THEME_KEY, theme);
    } catch {
      // A page from a file may have no storage: it begins anew then.
    }
  }, [theme]);
  const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  return html`<button type="button" class="theme" aria-label="Theme: ${theme}. Change to ${next}" onClick=${() => setTheme(next)}>${{ auto: '◐', light: '☀', dark: '☾' }[theme]}</button>`;
}

function stored(): string | null {
  try {
    return localStorage.getItem(THEME_KEY);
  } catch {
    return null;
  }
}

const HEADS = [
  { title: 'time', className: 'time wide' },
  { title: 'from', className: 'end' },
  { title: 'to', className: 'end' },
  { title: 'proto', className: 'proto wide' },
  { title: 'verdict', className: 'verdict' },
  { title: 'seen', className: 'n wide' },
];

/** The picture, and the flows below it. */
function Overview(props: {
  store: Store;
  source: Source;
  filter: string;
  setFilter: (text: string) => void;
  ask: (request: ExplainRequest) => void;
}): VNode {
  const { store, source, filter, setFilter, ask } = props;
  const [chosen, setChosen] = useState<Chosen | null>(null);
  const words = filter
    .toLowerCase()
    .split(/\s+/)
    .filter(word => word !== '');
  const isShown = (row: FlowRow) =>
    words.every(word => (word.startsWith('-') ? !row.text.includes(word.slice(1)) : row.text.includes(word)));
  const rows = words.length === 0 ? store.flowRows : store.flowRows.filter(isShown);
  const choose = (next: Chosen | null) => {
    setChosen(next);
    setFilter(next === null ? '' : next.name.toLowerCase());
  };
  return html`
    <${Network} store=${store} chosen=${chosen} choose=${choose} />
    ${chosen !== null && html`<${Detail} store=${store} chosen=${chosen} ask=${ask} />`}
    <section class="flows" aria-label="Flows">
      <div class="bar">
        <label class="grow">Flows <input type="search" name="flows" placeholder="curl-pod dropped -icmp" value=${filter} onInput=${(event: InputEvent) => setFilter((event.target as HTMLInputElement).value)} /></label>
        <button type="button" aria-pressed=${words.includes('dropped')} onClick=${() => setFilter(words.includes('dropped') ? words.filter(word => word !== 'dropped').join(' ') : `${filter} dropped`.trim())}>Dropped</button>
        ${
          source.isLive &&
          html`<button type="button" aria-pressed=${store.isPaused} onClick=${() => {
            store.isPaused = !store.isPaused;
            store.changed();
          }}>${store.isPaused ? 'Go on' : 'Pause'}</button>`
        }
        <button type="button" onClick=${() => store.clearFlows()}>Clear</button>
        <span class="faint">${rows.length} flows${store.lostFlows > 0 ? `, ${store.lostFlows} moments not shown` : ''}</span>
      </div>
      <${Rows}
        label="Flows"
        heads=${HEADS}
        rows=${rows}
        isReversed=${true}
        idOf=${(row: FlowRow) => row.id}
        classOf=${(row: FlowRow) => (row.verdict === 'DROPPED' ? 'dropped' : '')}
        onSelect=${(row: FlowRow) => ask(questionOf(row))}
        cells=${(row: FlowRow) => [
          clock(row.lastMs),
          endText(row.source),
          endText(row.destination),
          protocolName(row.protocol),
          row.verdict === 'DROPPED' ? reasonName(row.reason) : row.hasReply ? 'answered' : 'forwarded',
          row.seen,
        ]}
        empty=${source.isLive ? 'Nothing moves yet. A flow that is chosen is explained.' : 'Send a packet under Explain, or drop a capture on the page.'}
      />
    </section>
  `;
}

/** What was dropped is asked about as it was; of other flows, a packet from the one who began it. */
function questionOf({ source, destination, protocol, last }: FlowRow): ExplainRequest {
  if (last.hex !== '') return { hex: last.hex, node: last.node, port: last.inPort, both: true };
  const proto = protocolName(protocol);
  return {
    from: source.address,
    to: destination.port === 0 ? destination.address : `${destination.address}:${destination.port}`,
    proto,
    ...(source.port === 0 ? {} : { sport: String(source.port) }),
    both: true,
  };
}

function Detail({
  store,
  chosen,
  ask,
}: {
  store: Store;
  chosen: Chosen;
  ask: (request: ExplainRequest) => void;
}): VNode | null {
  const { nodes, services } = store.nodes;
  const facts: [string, string][] = [];
  let from = '';
  let to = '';
  if (chosen.kind === 'node') {
    const node = nodes.find(({ name }) => name === chosen.name);
    if (node === undefined) return null;
    from = node.host === null ? '' : node.name;
    facts.push(['address', node.address], ['profile', node.profile], ['uplink MTU', String(node.mtu)]);
    for (const { name, protocol, mtu, peers } of node.tunnels)
      facts.push([`tunnel ${name}`, `${protocol}, MTU ${mtu}, to ${peers.join(', ')}`]);
    for (const route of node.routes)
      facts.push([`route ${route.to}`, `via ${route.via}${route.encap === null ? '' : ` in ${route.encap}`}`]);
    if (node.policies.length > 0) facts.push(['policies', node.policies.join(', ')]);
  } else if (chosen.kind === 'pod') {
    const node = nodes.find(({ pods }) => pods.some(({ name }) => name === chosen.name));
    const pod = node?.pods.find(({ name }) => name === chosen.name);
    if (node === undefined || pod === undefined) return null;
    from = pod.name;
    facts.push(['address', pod.address], ['node', node.shortName], ['MTU', String(pod.mtu)]);
    if (pod.identity !== null) facts.push(['identity', String(pod.identity)]);
    if (pod.labels.length > 0) facts.push(['labels', pod.labels.join(', ')]);
  } else {
    const service = services.find(({ name }) => name === chosen.name);
    if (service === undefined) return null;
    to = `${service.addresses[0]}:${service.ports[0].split('/')[0]}`;
    facts.push(
      ['addresses', service.addresses.join(', ')],
      ['ports', service.ports.join(', ')],
      ['backends', service.endpoints.join(', ')],
    );
  }
  const other = nodes.flatMap(({ pods }) => pods).find(({ name }) => name !== chosen.name);
  return html`
    <section class="detail" aria-label="Chosen">
      <h2>${chosen.kind} ${chosen.name}</h2>
      <dl>${facts.map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>
      ${
        other !== undefined &&
        (from !== '' || to !== '') &&
        html`<button type="button" class="primary" onClick=${() => ask({ from: from === '' ? other.name : from, to: to === '' ? `${other.address}:80` : to, both: true })}>Explain a packet ${from === '' ? 'to' : 'from'} here</button>`
      }
    </section>
  `;
}
