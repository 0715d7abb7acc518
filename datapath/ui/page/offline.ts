import './browser.ts';
import type { VNode } from 'preact';
import { useRef, useState } from 'preact/hooks';
import { MODES, type Mode } from '../../lab/modes.ts';
import { TOPOLOGIES } from '../../lab/topology-file.ts';
import { startPage } from './app.ts';
import { html } from './html.ts';
import { MemorySource } from './memory-source.ts';
import type { Store } from './store.ts';

const source = new MemorySource();
let store: Store | null = null;

/** Where the network comes from: an article's lab, or files of one's own, captures too. */
function Opening({ go }: { go: (view: 'network' | 'packets') => void }): VNode {
  const [lab, setLab] = useState('cilium');
  const [mode, setMode] = useState<Mode>('vxlan');
  const input = useRef<HTMLInputElement>(null);
  const tell = (error: unknown) => store?.trouble((error as Error).message);
  const pick = (nextLab: string, nextMode: Mode) => {
    setLab(nextLab);
    setMode(nextMode);
    store?.clearFlows();
    source.openLab(nextLab, nextMode);
  };
  const open = async (files: readonly File[]) => {
    store?.trouble('');
    const configs = files.filter(({ name }) => /\.(ya?ml|json)$/i.test(name));
    const captures = files.filter(file => !configs.includes(file));
    if (configs.length > 0) {
      store?.clearFlows();
      source.openFiles(await Promise.all(configs.map(async file => ({ file: file.name, text: await file.text() }))));
      go('network');
    }
    if (captures.length > 0) store?.clearPackets();
    for (const file of captures) {
      source.openCapture(file.name, new Uint8Array(await file.arrayBuffer()));
      go('packets');
    }
  };
  return html`
    <div
      class="opening bar"
      ref=${(element: HTMLElement | null) => {
        if (element === null) return;
        document.ondragover = event => event.preventDefault();
        document.ondrop = event => {
          event.preventDefault();
          open([...(event.dataTransfer?.files ?? [])]).catch(tell);
        };
      }}
    >
      <label>Lab of an article
        <select name="lab" value=${lab} onChange=${(event: Event) => pick((event.target as HTMLSelectElement).value, mode)}>
          ${Object.keys(TOPOLOGIES).map(name => html`<option value=${name}>${name}</option>`)}
        </select>
      </label>
      <label>Mode
        <select name="labMode" value=${mode} onChange=${(event: Event) => pick(lab, (event.target as HTMLSelectElement).value as Mode)}>
          ${MODES.map(name => html`<option value=${name}>${name}</option>`)}
        </select>
      </label>
      <button type="button" onClick=${() => input.current!.click()}>Open files</button>
      <input
        ref=${input}
        type="file"
        name="files"
        aria-label="NodeConfigs and captures"
        multiple
        hidden
        onChange=${() => {
          open([...(input.current!.files ?? [])]).catch(tell);
          input.current!.value = '';
        }}
      />
      <span class="faint">or drop NodeConfigs and a pcap on the page: nothing leaves it</span>
    </div>
  `;
}

store = startPage({ source, opening: go => html`<${Opening} go=${go} />` });
