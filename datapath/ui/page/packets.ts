/** Packets as they pass, with their layers, and the capture of them as a file. */

import type { VNode } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import { LINK_ETHERNET, LINK_RAW } from '../../io/pcap.ts';
import { DIRECTION_IN, DIRECTION_OUT, PcapngWriter } from '../../io/pcapng.ts';
import type { Header } from '../../observe/headers.ts';
import type { ExplainRequest, PagePacket, Source } from '../protocol.ts';
import { shortName } from '../short-name.ts';
import { Bytes, Layers, packetSummary } from './bytes.ts';
import { bytesOf, clock, download, html, reasonName } from './html.ts';
import { Rows } from './rows.ts';
import type { Store } from './store.ts';

const HEADS = [
  { title: 'time', className: 'time wide' },
  { title: 'where', className: 'where' },
  { title: 'packet', className: 'grow' },
  { title: 'verdict', className: 'reason-cell' },
];

export function Packets({
  store,
  source,
  ask,
}: {
  store: Store;
  source: Source;
  ask: (request: ExplainRequest) => void;
}): VNode {
  const [filter, setFilter] = useState('');
  const [drops, setDrops] = useState(false);
  const [isRunning, setRunning] = useState(false);
  const [selected, select] = useState<PagePacket | null>(null);
  const [header, setHeader] = useState<Header | null>(null);
  // Nobody captures behind a page that shows something else.
  useEffect(() => () => source.capture(null), []);
  const toggle = (event: Event) => {
    event.preventDefault();
    if (!isRunning) store.trouble('');
    source.capture(isRunning ? null : { filter, drops });
    setRunning(!isRunning);
  };
  const rows = store.packetRows;
  const idOf = (packet: PagePacket) =>
    `${packet.node} ${packet.number} ${packet.port} ${packet.direction} ${packet.reason} ${packet.timeMs}`;
  const bytes = selected === null ? null : bytesOf(selected.hex);
  return html`
    <section class="packets" aria-label="Packets">
      <form class="bar" onSubmit=${toggle}>
        ${
          source.isLive &&
          html`
            <label class="grow">Filter <input name="filter" placeholder="tcp and port 80" value=${filter} disabled=${isRunning} onInput=${(event: InputEvent) => setFilter((event.target as HTMLInputElement).value)} /></label>
            <label class="check"><input type="checkbox" checked=${drops} disabled=${isRunning} onChange=${(event: Event) => setDrops((event.target as HTMLInputElement).checked)} /> drops alone</label>
            <button class="primary" type="submit">${isRunning ? 'Stop' : 'Capture'}</button>
          `
        }
        <button type="button" disabled=${rows.length === 0} onClick=${() => download('tunpath.pcapng', 'application/x-pcapng', pcapng(rows))}>Download pcapng</button>
        <button type="button" disabled=${rows.length === 0} onClick=${() => {
          select(null);
          store.clearPackets();
        }}>Clear</button>
        <span class="faint">${rows.length} packets${store.lostPackets > 0 ? `, ${store.lostPackets} not kept` : ''}</span>
      </form>
      <div class="split">
        <${Rows}
          label="Packets"
          heads=${HEADS}
          rows=${rows}
          isReversed=${source.isLive}
          idOf=${idOf}
          selected=${selected === null ? null : idOf(selected)}
          classOf=${(packet: PagePacket) => (packet.reason === '' ? '' : 'dropped')}
          onSelect=${(packet: PagePacket) => {
            select(packet);
            setHeader(null);
          }}
          cells=${(packet: PagePacket) => [
            clock(packet.timeMs),
            `${shortName(packet.node)} ${packet.port.slice(packet.port.indexOf('/') + 1)} ${packet.direction}`,
            packetSummary(bytesOf(packet.hex.slice(0, 300)), packet.layer),
            packet.reason === '' ? '' : reasonName(packet.reason),
          ]}
          empty=${source.isLive ? 'Nothing yet: Capture shows every packet at every port, until you stop it.' : 'Drop a pcap or pcapng file on the page.'}
        />
        ${
          selected !== null &&
          bytes !== null &&
          html`
            <div class="detail">
              <h3>${selected.length} bytes at ${selected.port} of ${shortName(selected.node)}, ${selected.direction}</h3>
              ${selected.reason !== '' && html`<p class="bad"><a href="#drops/${selected.reason}">${selected.reason}</a></p>`}
              <${Layers} bytes=${bytes} layer=${selected.layer} chosen=${header} choose=${setHeader} />
              <${Bytes} label="Packet" bytes=${bytes} layer=${selected.layer} chosen=${header} />
              <button
                type="button"
                class="primary"
                disabled=${selected.direction === 'out' || bytes.length < selected.length}
                onClick=${() => ask({ hex: selected.hex, node: selected.node, port: selected.port, both: true })}
              >Explain</button>
              ${selected.direction === 'out' && html`<small> the node itself has sent it: choose it where it came in</small>`}
            </div>
          `
        }
      </div>
    </section>
  `;
}

/** The file: each port of a node is an interface. */
export function pcapng(packets: readonly PagePacket[]): Uint8Array<ArrayBuffer> {
  const parts: Uint8Array[] = [];
  const writer = new PcapngWriter(block => parts.push(block.slice()));
  const interfaces = new Map<string, number>();
  for (const { node, port, layer, timeMs, hex, length, number, reason, direction } of packets) {
    const name = `${node}:${port}${reason === '' ? '' : ' dropped'}`;
    const key = `${name} ${layer}`;
    let id = interfaces.get(key);
    if (id === undefined) {
      id = writer.addInterface({ name, linkType: layer === 2 ? LINK_ETHERNET : LINK_RAW });
      interfaces.set(key, id);
    }
    const seconds = Math.floor(timeMs / 1000);
    writer.packet({
      interfaceId: id,
      seconds,
      nanoseconds: Math.min(999_999_999, Math.round((timeMs - seconds * 1000) * 1e6)),
      bytes: bytesOf(hex),
      wireLen: length,
      packetId: number,
      direction: direction === 'in' ? DIRECTION_IN : DIRECTION_OUT,
      ...(reason === '' ? {} : { comment: `dropped: ${reasonName(reason)}` }),
    });
  }
  const file = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    file.set(part, at);
    at += part.length;
  }
  return file;
}
