/// <reference lib="dom" />
/// <reference lib="dom.iterable" />
/** Preact with markup as tagged templates: no build step of its own, and no eval. */
import htm from 'htm';
import { h, type VNode } from 'preact';

export const html = (htm as unknown as { bind(make: typeof h): Template }).bind(h);

type Template = (strings: TemplateStringsArray, ...values: unknown[]) => VNode;

export function clock(timeMs: number): string {
  return new Date(timeMs).toISOString().slice(11, 23);
}

/** `drop-no-route` -> `no-route` */
export function reasonName(reason: string): string {
  return reason.replace(/^drop-/, '');
}

/** Text with `code` in it. */
export function prose(text: string): unknown[] {
  return text.split('`').map((part, i) => (i % 2 === 0 ? part : html`<code>${part}</code>`));
}

/** 1234567 -> `1.23 M` */
export function amount(value: number): string {
  if (value >= 1e9) return `${(value / 1e9).toFixed(2)} G`;
  if (value >= 1e6) return `${(value / 1e6).toFixed(2)} M`;
  return value >= 1e4 ? `${(value / 1e3).toFixed(1)} k` : String(Math.round(value));
}

export function bytesOf(hex: string): Uint8Array {
  const bytes = new Uint8Array(hex.length >> 1);
  for (let i = 0; i < bytes.length; i++) bytes[i] = Number.parseInt(hex.slice(2 * i, 2 * i + 2), 16);
  return bytes;
}

/** Gives the person a file. */
export function download(name: string, type: string, content: BlobPart): void {
  const url = URL.createObjectURL(new Blob([content], { type }));
  const link = document.createElement('a');
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
