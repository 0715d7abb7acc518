/** Views that are tables: drops, counters, what sizes pass, RFC clauses; and the form that changes nodes. */

import type { VNode } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import { REASONS } from '../../observe/reasons.ts';
import { PROFILES } from '../../profile.ts';
import { VERDICT_NAMES } from '../../verdict.ts';
import type { ChangeAnswer, ClauseRow, ProofRow, Source } from '../protocol.ts';
import { shortName } from '../short-name.ts';
import { Reason } from './explain.ts';
import { amount, html, reasonName } from './html.ts';
import type { Store } from './store.ts';

/** Of a name: how much on each node. */
function countsOf(store: Store, name: string): { node: string; packets: number; rate: number }[] {
  const { now, before } = store;
  if (now === null) return [];
  const seconds = before === null ? 1 : Math.max(0.001, (now.timeMs - before.timeMs) / 1000);
  return now.nodes.map(({ node, counters }) => {
    const packets = counters.find(one => one.name === name)?.packets ?? 0;
    const old = before?.nodes.find(one => one.node === node)?.counters.find(one => one.name === name)?.packets;
    return { node, packets, rate: old === undefined ? 0 : (packets - old) / seconds };
  });
}

export function Drops({ store, chosen }: { store: Store; chosen: string }): VNode {
  const names = VERDICT_NAMES.filter(name => name in REASONS);
  const sums = new Map(names.map(name => [name, countsOf(store, name)]));
  const total = (name: string) => sums.get(name)!.reduce((sum, { packets }) => sum + packets, 0);
  const counted = names.filter(name => total(name) > 0).sort((a, b) => total(b) - total(a));
  useEffect(() => {
    if (chosen !== '') document.getElementById(`drops/${chosen}`)?.scrollIntoView({ block: 'center' });
  }, [chosen]);
  return html`
    <section aria-label="Drops">
      <h2>Dropped so far</h2>
      ${counted.length === 0 && html`<p class="empty">Nothing has been dropped.</p>`}
      ${
        counted.length > 0 &&
        html`
          <div class="scroll" tabindex="0" role="region" aria-label="Dropped so far">
            <table>
              <thead><tr><th>reason</th><th class="n">packets</th><th class="n">a second</th><th>nodes</th><th>meaning</th></tr></thead>
              <tbody>
                ${counted.map(
                  name => html`
                    <tr>
                      <td><a href="#drops/${name}">${reasonName(name)}</a></td>
                      <td class="n">${amount(total(name))}</td>
                      <td class="n">${amount(sums.get(name)!.reduce((sum, { rate }) => sum + rate, 0))}</td>
                      <td>${sums
                        .get(name)!
                        .filter(({ packets }) => packets > 0)
                        .map(({ node }) => shortName(node))
                        .join(', ')}</td>
                      <td>${REASONS[name].meaning}</td>
                    </tr>
                  `,
                )}
              </tbody>
            </table>
          </div>
        `
      }
      <h2>Every reason</h2>
      <div class="reasons">
        ${names.map(
          name =>
            html`<div id="drops/${name}" class=${name === chosen ? 'chosen' : ''}><${Reason} name=${name} /></div>`,
        )}
      </div>
    </section>
  `;
}

export function Counters({ store }: { store: Store }): VNode {
  const { now, before } = store;
  if (now === null)
    return html`<section aria-label="Counters"><p class="empty">No node has said anything yet.</p></section>`;
  const seconds = before === null ? 1 : Math.max(0.001, (now.timeMs - before.timeMs) / 1000);
  return html`
    <section aria-label="Counters">
      ${now.nodes.map(({ node, ports, tables }) => {
        const old = before?.nodes.find(one => one.node === node)?.ports;
        const rate = (name: string, key: 'rxPackets' | 'txPackets' | 'rxBytes' | 'txBytes') => {
          const [a, b] = [ports, old].map(list => list?.find(one => one.name === name)?.[key]);
          return a === undefined || b === undefined ? 0 : (a - b) / seconds;
        };
        return html`
          <h2>${shortName(node)}</h2>
          <div class="scroll" tabindex="0" role="region" aria-label="Ports of ${node}">
            <table>
              <thead><tr><th>port</th><th>kind</th><th class="n">in</th><th class="n">out</th><th class="n">in / s</th><th class="n">out / s</th><th class="n">in bit/s</th><th class="n">out bit/s</th></tr></thead>
              <tbody>
                ${ports.map(
                  ({ name, kind, rxPackets, txPackets }) => html`
                    <tr>
                      <td>${name}</td><td>${kind}</td>
                      <td class="n">${amount(rxPackets)}</td><td class="n">${amount(txPackets)}</td>
                      <td class="n">${amount(rate(name, 'rxPackets'))}</td><td class="n">${amount(rate(name, 'txPackets'))}</td>
                      <td class="n">${amount(8 * rate(name, 'rxBytes'))}</td><td class="n">${amount(8 * rate(name, 'txBytes'))}</td>
                    </tr>
                  `,
                )}
              </tbody>
            </table>
          </div>
          <div class="fills">
            ${tables.map(
              ({ table, used, size }) => html`
                <label>${table} <meter min="0" max=${size} value=${used}></meter> <small>${amount(used)} of ${amount(size)}</small></label>
              `,
            )}
          </div>
        `;
      })}
    </section>
  `;
}

/** Runs when the button is pressed, and says what is going on. */
function useAnswer<T>(make: () => Promise<T>): { answer: T | null; trouble: string; isBusy: boolean; run: () => void } {
  const [answer, setAnswer] = useState<T | null>(null);
  const [trouble, setTrouble] = useState('');
  const [isBusy, setBusy] = useState(false);
  const run = () => {
    setBusy(true);
    make()
      .then(
        found => {
          setAnswer(found);
          setTrouble('');
        },
        (error: Error) => setTrouble(error.message),
      )
      .finally(() => setBusy(false));
  };
  return { answer, trouble, isBusy, run };
}

const MARKS: Readonly<Record<string, string>> = {
  ok: 'good',
  fragments: 'warn',
  signalled: 'warn',
  'black hole': 'bad',
  unreachable: 'bad',
  pass: 'good',
  'as Linux': 'warn',
  fail: 'bad',
};

export function Sizes({ source }: { source: Source }): VNode {
  const { answer, trouble, isBusy, run } = useAnswer<ProofRow[]>(() => source.prove());
  return html`
    <section aria-label="Sizes">
      <div class="bar">
        <p class="grow">For every pair of pods and every backend, the largest packet that passes whole, and what becomes of a longer one: from the configurations, nothing is sent.</p>
        <button type="button" class="primary" onClick=${run} disabled=${isBusy}>${isBusy ? 'Proving' : 'Prove'}</button>
      </div>
      ${trouble !== '' && html`<p class="trouble" role="alert">${trouble}</p>`}
      ${
        answer !== null &&
        html`
          <div class="scroll" tabindex="0" role="region" aria-label="What passes">
            <table>
              <thead><tr><th>from</th><th>to</th><th>via</th><th class="n">largest</th><th>verdict</th><th>why</th></tr></thead>
              <tbody>
                ${answer.map(
                  row =>
                    html`<tr><td>${shortName(row.from)}</td><td>${shortName(row.to)}</td><td>${row.via}</td><td class="n">${row.verdict === 'unreachable' ? '' : row.largest}</td><td class=${MARKS[row.verdict]}>${row.verdict}</td><td>${row.why}</td></tr>`,
                )}
              </tbody>
            </table>
          </div>
        `
      }
    </section>
  `;
}

/** Those with clauses enough to look at alone. */
const RFCS = [791, 792, 1191, 1812, 2003, 4459, 4787, 5382, 5508, 6040, 6864, 7348, 7857, 8926];

export function Conformance({ source }: { source: Source }): VNode {
  const [profile, setProfile] = useState('rfc');
  const [rfc, setRfc] = useState(7348);
  const { answer, trouble, isBusy, run } = useAnswer<ClauseRow[]>(() => source.conformance(profile, rfc));
  const count = (result: string) => answer?.filter(row => row.result === result).length ?? 0;
  return html`
    <section aria-label="Conformance">
      <div class="bar">
        <label>Profile
          <select name="profile" value=${profile} onChange=${(event: Event) => setProfile((event.target as HTMLSelectElement).value)}>
            ${Object.keys(PROFILES).map(name => html`<option value=${name}>${name}</option>`)}
          </select>
        </label>
        <label>RFC
          <select name="rfc" value=${rfc} onChange=${(event: Event) => setRfc(Number((event.target as HTMLSelectElement).value))}>
            <option value=${0}>all, which takes a while</option>
            ${RFCS.map(number => html`<option value=${number}>${number}</option>`)}
          </select>
        </label>
        <button type="button" class="primary" onClick=${run} disabled=${isBusy}>${isBusy ? 'Checking' : 'Check'}</button>
        ${answer !== null && html`<strong class="grow" role="status">${count('pass')} pass, ${count('as Linux')} as Linux, ${count('fail')} fail, ${count('not applicable')} not applicable</strong>`}
      </div>
      ${trouble !== '' && html`<p class="trouble" role="alert">${trouble}</p>`}
      ${
        answer !== null &&
        html`
          <div class="scroll" tabindex="0" role="region" aria-label="Clauses">
            <table>
              <thead><tr><th>clause</th><th>level</th><th>requirement</th><th>result</th><th>seen</th><th>why</th></tr></thead>
              <tbody>
                ${answer.map(
                  row =>
                    html`<tr title=${row.quote}><td class="nowrap">${row.clause}</td><td>${row.level}</td><td>${row.requirement}</td><td class="nowrap ${MARKS[row.result] ?? ''}">${row.result}</td><td>${row.seen}</td><td>${row.note}</td></tr>`,
                )}
              </tbody>
            </table>
          </div>
        `
      }
    </section>
  `;
}

const MODES = ['native', 'ipip', 'vxlan', 'geneve'];
const POLICY = `kind: NetworkPolicy
metadata: { name: only-curl, namespace: default }
spec:
  podSelector: {}
  ingress:
    - from: [{ podSelector: { matchLabels: { app: curl } } }]
`;

export function Change({ source }: { source: Source }): VNode {
  const [mode, setMode] = useState('geneve');
  const [mtu, setMtu] = useState('1400');
  const [policy, setPolicy] = useState(POLICY);
  const [answers, setAnswers] = useState<{ title: string; rows: ChangeAnswer[] } | null>(null);
  const [trouble, setTrouble] = useState('');
  const send = (change: string, dryRun: boolean, text?: string) => {
    source.change({ change, dryRun, text }).then(
      rows => {
        setTrouble('');
        setAnswers({ title: `${change}${dryRun ? ', tried' : ', done'}`, rows });
      },
      (error: Error) => {
        setAnswers(null);
        setTrouble(error.message);
      },
    );
  };
  const buttons = (change: string, text?: string) => html`
    <button type="button" onClick=${() => send(change, true, text)}>Try</button>
    <button type="button" class="primary" onClick=${() => send(change, false, text)}>Apply</button>
  `;
  return html`
    <section class="change" aria-label="Change">
      <p>${source.isLive ? 'Changes the running nodes while packets flow: each node takes all of a change or nothing. It is forgotten when they end.' : 'Changes the configurations in this page.'}</p>
      <fieldset>
        <legend>Mode</legend>
        <label>Tunnel <select name="mode" value=${mode} onChange=${(event: Event) => setMode((event.target as HTMLSelectElement).value)}>${MODES.map(name => html`<option value=${name}>${name}</option>`)}</select></label>
        ${buttons(`mode=${mode}`)}
      </fieldset>
      <fieldset>
        <legend>MTU of pods</legend>
        <label>Bytes <input name="mtu" inputmode="numeric" size="6" value=${mtu} onInput=${(event: InputEvent) => setMtu((event.target as HTMLInputElement).value)} /></label>
        ${buttons(`mtu=${mtu}`)}
      </fieldset>
      <fieldset>
        <legend>Network policies</legend>
        <label class="block">In place of those that there are; nothing removes all
          <textarea name="policy" rows="7" spellcheck=${false} value=${policy} onInput=${(event: InputEvent) => setPolicy((event.target as HTMLTextAreaElement).value)}></textarea>
        </label>
        ${buttons('policy', policy)}
      </fieldset>
      ${trouble !== '' && html`<p class="trouble" role="alert">${trouble}</p>`}
      ${
        answers !== null &&
        html`
          <div role="status">
            <h2>${answers.title}</h2>
            ${answers.rows.map(
              ({ node, problems, effects }) => html`
                <h3>${shortName(node)}</h3>
                ${problems.map(line => html`<p class="bad">${line}</p>`)}
                ${problems.length === 0 && effects.length === 0 && html`<p>nothing to change</p>`}
                ${
                  effects.length > 0 &&
                  html`<ul>${effects.map(({ what, change, names, flows }) => html`<li><b>${what}</b> ${change}: ${names} <small>flows: ${flows}</small></li>`)}</ul>`
                }
              `,
            )}
          </div>
        `
      }
    </section>
  `;
}
