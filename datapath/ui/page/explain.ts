/** One packet through every step: which rule, which bytes, and why it ends. */

import type { VNode } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import { REASONS } from '../../observe/reasons.ts';
import { PROFILES } from '../../profile.ts';
import { TOO_BIG_NAMES } from '../../route/nexthop.ts';
import type { ExplainAnswer, ExplainRequest, Source } from '../protocol.ts';
import { shortName } from '../short-name.ts';
import { Bytes, packetSummary } from './bytes.ts';
import { bytesOf, html, prose, reasonName } from './html.ts';
import type { Store } from './store.ts';

/** A line of the walk: where a packet is, and what it is there. */
interface Moment {
  node: string;
  title: string;
  text: string;
  kind: 'in' | 'step' | 'out' | 'drop';
  changes: { what: string; before: string; after: string; at: number }[];
  bytes: Uint8Array;
  layer: 2 | 3;
  /** What it was before; null at its beginning. */
  before: { bytes: Uint8Array; layer: 2 | 3 } | null;
  isAnswer: boolean;
}

export interface Question {
  request: ExplainRequest;
  /** Changes when it is asked anew. */
  id: number;
}

const WHAT_IFS = [
  ...['native', 'ipip', 'vxlan', 'geneve'].map(mode => `mode=${mode}`),
  ...[1280, 1400, 9000].map(mtu => `mtu=${mtu}`),
  ...TOO_BIG_NAMES.filter(name => name !== 'larger-underlay').map(name => `tooBig=${name}`),
  ...Object.keys(PROFILES).map(name => `profile=${name}`),
];

type Trip = Pick<ExplainAnswer, 'visits'>;

function momentsOf(trip: Trip, isAnswer: boolean): Moment[] {
  const moments: Moment[] = [];
  for (const visit of trip.visits) {
    let last: Moment['before'] = null;
    const layerOf = (bytes: Uint8Array): 2 | 3 =>
      bytes[0] >> 4 === 4 && ((bytes[2] << 8) | bytes[3]) <= bytes.length ? 3 : 2;
    const add = (
      kind: Moment['kind'],
      title: string,
      text: string,
      changes: Moment['changes'],
      hex: string,
      layer?: 2 | 3,
    ) => {
      const bytes = bytesOf(hex);
      const now = { bytes, layer: layer ?? layerOf(bytes) };
      moments.push({ node: visit.node, title, text, kind, changes, ...now, before: last, isAnswer });
      last = now;
    };
    const own = visit.isOwn ? 'what a node says about it: ' : '';
    const came = bytesOf(visit.packet);
    add('in', `in by ${visit.port}`, own + packetSummary(came, visit.layer), [], visit.packet, visit.layer);
    let hex = visit.packet;
    for (const step of visit.steps.filter(one => visit.isOwn || !one.isOwn)) {
      hex = step.packet;
      const isDrop = step.result.startsWith('drop-');
      const result = step.result === 'go-on' ? '' : `${isDrop ? step.result : step.result.toUpperCase()} `;
      add(isDrop ? 'drop' : 'step', step.step, result + step.used, step.changes, hex);
    }
    for (const sent of visit.sent) {
      const says = sent.isOwn && !visit.isOwn ? 'the node says: ' : '';
      add(
        'out',
        `out by ${sent.port}`,
        says + packetSummary(bytesOf(sent.packet), sent.layer),
        sent.changes,
        sent.packet,
        sent.layer,
      );
    }
    for (const { reason } of visit.dropped.filter(({ isOwn }) => visit.isOwn || !isOwn)) {
      add('drop', 'dropped', reason, [], hex);
    }
  }
  return moments;
}

const FIELDS: { name: 'from' | 'to' | 'sport' | 'length' | 'ttl'; label: string; hint: string; isSmall?: boolean }[] = [
  { name: 'from', label: 'From', hint: 'pod, node or address' },
  { name: 'to', label: 'To', hint: 'ADDRESS:PORT, pod or service' },
  { name: 'sport', label: 'Source port', hint: '40000', isSmall: true },
  { name: 'length', label: 'Length', hint: 'bytes', isSmall: true },
  { name: 'ttl', label: 'TTL', hint: '64', isSmall: true },
];

export function Explain({
  store,
  source,
  question,
  ask,
}: {
  store: Store;
  source: Source;
  question: Question | null;
  ask: (request: ExplainRequest) => void;
}): VNode {
  const [form, setForm] = useState<ExplainRequest>({ both: true, df: true });
  const [answer, setAnswer] = useState<ExplainAnswer | null>(null);
  const [trouble, setTrouble] = useState('');
  useEffect(() => {
    if (question === null) return;
    let isOver = false;
    setForm(question.request);
    source.explain(question.request).then(
      found => {
        if (isOver) return;
        setAnswer(found);
        setTrouble('');
      },
      (error: Error) => {
        if (isOver) return;
        setAnswer(null);
        setTrouble(error.message);
      },
    );
    return () => {
      isOver = true;
    };
  }, [question]);
  const names = store.nodes.nodes.flatMap(({ pods, name }) => [...pods.map(pod => pod.name), name]);
  const targets = [
    ...store.nodes.services.flatMap(({ addresses, ports }) =>
      addresses.map(address => `${address}:${ports[0].split('/')[0]}`),
    ),
    ...store.nodes.nodes.flatMap(({ pods }) => pods.map(({ address }) => `${address}:80`)),
  ];
  const set = (change: Partial<ExplainRequest>) => setForm({ ...form, ...change });
  const submit = (event: Event) => {
    event.preventDefault();
    const { hex, port, node, ...rest } = form;
    ask(hex === undefined ? Object.fromEntries(Object.entries(rest).filter(([, value]) => value !== '')) : form);
  };
  return html`
    <section class="explain" aria-label="Explain">
      <form class="form" onSubmit=${submit}>
        ${
          form.hex === undefined
            ? FIELDS.map(
                ({ name, label, hint, isSmall }) => html`
                  <label class=${isSmall === true ? 'small' : ''}>
                    ${label}
                    <input
                      name=${name}
                      list=${name === 'from' || name === 'to' ? `list-${name}` : undefined}
                      placeholder=${hint}
                      value=${form[name] ?? ''}
                      required=${name === 'from' || name === 'to'}
                      onInput=${(event: InputEvent) => set({ [name]: (event.target as HTMLInputElement).value })}
                    />
                  </label>
                `,
              )
            : html`
                <p class="grow">
                  A packet of ${form.hex.length / 2} bytes as it was seen on ${shortName(form.node ?? '')}${form.port === undefined ? '' : ` at ${form.port}`}.
                  <button type="button" onClick=${() => set({ hex: undefined, port: undefined, node: undefined })}>Another packet</button>
                </p>
              `
        }
        ${
          form.hex === undefined &&
          html`
            <label class="small">
              Protocol
              <select name="proto" value=${form.proto ?? ''} onChange=${(event: Event) => set({ proto: (event.target as HTMLSelectElement).value })}>
                <option value="">by the port</option>
                ${['tcp', 'udp', 'icmp'].map(name => html`<option value=${name}>${name}</option>`)}
              </select>
            </label>
            <label class="check"><input type="checkbox" checked=${form.df !== false} onChange=${(event: Event) => set({ df: (event.target as HTMLInputElement).checked })} /> DF</label>
          `
        }
        <label class="check"><input type="checkbox" checked=${form.both === true} onChange=${(event: Event) => set({ both: (event.target as HTMLInputElement).checked })} /> and back</label>
        <label class="choice">
          What if
          <select name="whatIf" value=${form.whatIf?.[0] ?? ''} onChange=${(event: Event) => {
            const { value } = event.target as HTMLSelectElement;
            set({ whatIf: value === '' ? [] : [value] });
          }}>
            <option value="">nothing else</option>
            ${WHAT_IFS.map(text => html`<option value=${text}>${text}</option>`)}
          </select>
        </label>
        <button class="primary" type="submit">Explain</button>
        <datalist id="list-from">${names.map(name => html`<option value=${name}></option>`)}</datalist>
        <datalist id="list-to">${targets.map(name => html`<option value=${name}></option>`)}</datalist>
      </form>
      ${trouble !== '' && html`<p class="trouble" role="alert">${trouble}</p>`}
      ${answer !== null && html`<${Walk} answer=${answer} key=${question?.id} />`}
      ${answer === null && trouble === '' && html`<p class="empty">Say from where to where, or choose a flow or a packet: each step of the path is shown, with the row or rule that decided and the bytes that changed.</p>`}
    </section>
  `;
}

function Walk({ answer }: { answer: ExplainAnswer }): VNode {
  const moments = [...momentsOf(answer, false), ...(answer.answer === null ? [] : momentsOf(answer.answer, true))];
  const [at, setAt] = useState(0);
  const now = moments[Math.min(at, moments.length - 1)];
  const go = (to: number) => setAt(Math.max(0, Math.min(moments.length - 1, to)));
  useEffect(() => {
    document.querySelector('.steps [aria-current]')?.scrollIntoView({ block: 'nearest' });
  }, [at]);
  const onKeyDown = (event: KeyboardEvent) => {
    const to = {
      ArrowDown: at + 1,
      ArrowRight: at + 1,
      ArrowUp: at - 1,
      ArrowLeft: at - 1,
      Home: 0,
      End: moments.length - 1,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    go(to);
  };
  return html`
    <${Outcome} answer=${answer} />
    ${answer.variants.length > 1 && html`<${Variants} answer=${answer} />`}
    ${
      moments.length > 0 &&
      html`
        <div class="walk">
          <ol class="steps" tabindex="0" aria-label="Steps" onKeyDown=${onKeyDown}>
            ${moments.map((moment, i) => {
              const isNewNode = i === 0 || moments[i - 1].node !== moment.node || moment.kind === 'in';
              return html`
                ${isNewNode && html`<li class="node-name">${moment.isAnswer && 'answer, '}${shortName(moment.node)}</li>`}
                <li class="${moment.kind} ${moment.changes.length > 0 ? 'changes' : ''}" aria-current=${i === at ? 'step' : undefined}>
                  <button type="button" tabindex="-1" onClick=${() => go(i)}><b>${moment.title}</b><span>${moment.text}</span></button>
                </li>
              `;
            })}
          </ol>
          <div class="moment" aria-live="polite">
            <div class="moment-head">
              <button type="button" onClick=${() => go(at - 1)} disabled=${at === 0}>Back</button>
              <button type="button" class="primary" onClick=${() => go(at + 1)} disabled=${at >= moments.length - 1}>Step</button>
              <span>${at + 1} of ${moments.length}</span>
              <h3>${shortName(now.node)}: ${now.title}</h3>
            </div>
            <p class=${now.kind === 'drop' ? 'bad' : ''}>${now.text}</p>
            <${Changes} changes=${now.changes} />
            <${Compared} moment=${now} />
          </div>
        </div>
      `
    }
    ${answer.notCopied.length > 0 && html`<p class="faint">Of the running nodes this is not copied: ${answer.notCopied.join('; ')}.</p>`}
  `;
}

const WORDS: Readonly<Record<string, string>> = {
  delivered: 'delivered to',
  left: 'left by',
  answered: 'answered by the node itself, at',
  consumed: 'taken by the node itself, at',
  held: 'held for the rest of its datagram, at',
  refused: 'refused: it came by',
  lost: 'lost on the wire',
};

function Outcome({ answer }: { answer: ExplainAnswer }): VNode {
  const isBad = ['refused', 'lost', 'held'].includes(answer.outcome);
  const back =
    answer.answer === null
      ? ''
      : `; the answer is ${answer.answer.outcome}${answer.answer.reasons.map(({ reason }) => ` (${reasonName(reason)})`).join('')}`;
  const where = answer.at === null ? '' : ` ${answer.at.port} of ${shortName(answer.at.node)}`;
  return html`
    <div class="outcome ${isBad ? 'bad' : 'good'}" role="status">
      <strong>${WORDS[answer.outcome]}${where}${back}</strong>
      ${answer.reasons.map(({ reason }) => html`<${Reason} name=${reason} />`)}
    </div>
  `;
}

/** A drop in the words of docs/drops.md. */
export function Reason({ name }: { name: string }): VNode {
  const { meaning, cause, look } = REASONS[name];
  return html`
    <dl class="reason">
      <dt><a href="#drops/${name}">${name}</a></dt>
      <dd>${prose(meaning)}</dd>
      <dt>usual cause</dt>
      <dd>${prose(cause)}</dd>
      <dt>look at</dt>
      <dd>${prose(look)}</dd>
    </dl>
  `;
}

function Variants({ answer }: { answer: ExplainAnswer }): VNode {
  return html`
    <div class="scroll" tabindex="0" role="region" aria-label="Side by side">
      <table>
        <thead><tr><th>configuration</th><th>outcome</th><th>reason</th><th>answer</th><th>bytes</th><th>on the wire</th></tr></thead>
        <tbody>
          ${answer.variants.map(
            one =>
              html`<tr><td>${one.name}</td><td>${one.outcome}</td><td>${one.reasons.map(reasonName).join(', ')}</td><td>${one.answer ?? ''}</td><td>${one.bytes.join(', ')}</td><td>${one.wire}</td></tr>`,
          )}
        </tbody>
      </table>
    </div>
  `;
}

function Changes({ changes }: { changes: Moment['changes'] }): VNode | null {
  if (changes.length === 0) return null;
  return html`
    <ul class="changed-fields">
      ${changes.map(({ what, before, after, at }) =>
        what === 'put in front'
          ? html`<li><b class="good">+</b> ${after}</li>`
          : what === 'taken off'
            ? html`<li><b class="bad">-</b> ${before}</li>`
            : html`<li><code>${what}</code> ${before} → <strong>${after}</strong> <small>at byte ${at}</small></li>`,
      )}
    </ul>
  `;
}

/** The bytes before and after; what stayed lies at the end of both. */
function Compared({ moment: { before, bytes, layer } }: { moment: Moment }): VNode {
  if (before === null || isSame(before.bytes, bytes)) {
    return html`<h4>Bytes</h4><${Bytes} label="Bytes" bytes=${bytes} layer=${layer} />`;
  }
  const grown = bytes.length - before.bytes.length;
  const old = before.bytes;
  return html`
    <div class="compared">
      <div>
        <h4>Before</h4>
        <${Bytes} label="Before" bytes=${old} layer=${before.layer} isChanged=${(i: number) => old[i] !== bytes[i + grown]} />
      </div>
      <div>
        <h4>After</h4>
        <${Bytes} label="After" bytes=${bytes} layer=${layer} isChanged=${(i: number) => bytes[i] !== old[i - grown]} />
      </div>
    </div>
  `;
}

function isSame(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}
