/** A packet as layers and as bytes, the bytes of each layer in its colour. */
import type { VNode } from 'preact';
import { type Header, headersOf } from '../../observe/headers.ts';
import { html } from './html.ts';

/** Of a packet's bytes, beside its headers. */
const SHOWN = 128;

/** A header's class of colour. */
function kindOf(name: string): string {
  return name.startsWith('protocol') ? 'other' : name;
}

export interface BytesProps {
  label: string;
  bytes: Uint8Array;
  layer: 2 | 3;
  /** Bytes that differ from another moment of the packet. */
  isChanged?: (at: number) => boolean;
  chosen?: Header | null;
}

export function Bytes({ label, bytes, layer, isChanged = () => false, chosen = null }: BytesProps): VNode {
  const headers = headersOf(bytes, layer);
  const end = headers.reduce((last, { at, length }) => Math.max(last, at + length), 0);
  const shown = Math.min(bytes.length, Math.max(SHOWN, end));
  const layerAt = (i: number) => headers.find(({ at, length }) => i >= at && i < at + length);
  const lines = Array.from({ length: Math.ceil(shown / 16) }, (_, line) => line * 16);
  return html`
    <div class="bytes" role="img" aria-label="${label}: ${bytes.length} bytes, ${headers.map(({ name, text }) => `${name} ${text}`).join(', ')}">
      ${lines.map(
        from => html`
          <div>
            <i>${from.toString(16).padStart(4, '0')}</i>
            ${Array.from({ length: Math.min(16, shown - from) }, (_, i) => {
              const header = layerAt(from + i);
              const marks = `${header === undefined ? '' : kindOf(header.name)} ${isChanged(from + i) ? 'changed' : ''} ${header !== undefined && chosen !== null && header.at === chosen.at ? 'chosen' : ''}`;
              return html`<b class=${marks}>${bytes[from + i].toString(16).padStart(2, '0')}</b>`;
            })}
          </div>
        `,
      )}
      ${shown < bytes.length && html`<div><i>and ${bytes.length - shown} bytes more</i></div>`}
    </div>
  `;
}

export function Layers({
  bytes,
  layer,
  chosen,
  choose,
}: {
  bytes: Uint8Array;
  layer: 2 | 3;
  chosen: Header | null;
  choose: (header: Header) => void;
}): VNode {
  return html`
    <ul class="layers">
      ${headersOf(bytes, layer).map(
        header => html`
          <li>
            <button type="button" aria-pressed=${chosen?.at === header.at} onClick=${() => choose(header)}>
              <b class=${kindOf(header.name)}>${header.name}</b> ${header.text} <small>${header.length} bytes at ${header.at}</small>
            </button>
          </li>
        `,
      )}
    </ul>
  `;
}

/** `10.244.1.10 > 10.96.0.10, ttl 64...; tcp 40000 > 80, SYN`, without Ethernet. */
export function packetSummary(bytes: Uint8Array, layer: 2 | 3): string {
  const headers = headersOf(bytes, layer).filter(({ name }) => name !== 'ethernet');
  if (headers.length === 0)
    return layer === 2 && bytes[12] === 8 && bytes[13] === 6 ? 'ARP' : `${bytes.length} bytes, no IPv4`;
  return headers.map(({ name, text }) => (name === 'ipv4' ? text : `${name} ${text}`)).join('; ');
}
