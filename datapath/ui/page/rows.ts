/** A list of any length, of which only what is in sight is in the document. All rows have one height. */

import type { VNode } from 'preact';
import { useLayoutEffect, useRef, useState } from 'preact/hooks';
import { html } from './html.ts';

const ROW_HEIGHT = 30;
/** Above and below what is in sight. */
const MARGIN = 6;

export interface RowsProps<Row> {
  label: string;
  heads: { title: string; className?: string }[];
  rows: readonly Row[];
  /** Newest first. */
  isReversed?: boolean;
  idOf: (row: Row) => string | number;
  cells: (row: Row) => unknown[];
  classOf?: (row: Row) => string;
  selected?: string | number | null;
  onSelect: (row: Row) => void;
  empty: string;
}

export function Rows<Row>(props: RowsProps<Row>): VNode {
  const { label, heads, rows, isReversed = false, idOf, cells, classOf, selected, onSelect, empty } = props;
  const box = useRef<HTMLDivElement>(null);
  const [top, setTop] = useState(0);
  const [height, setHeight] = useState(400);
  const [active, setActive] = useState(0);
  useLayoutEffect(() => {
    const observer = new ResizeObserver(() => setHeight(box.current?.clientHeight ?? 0));
    observer.observe(box.current!);
    return () => observer.disconnect();
  }, []);
  const rowAt = (i: number) => rows[isReversed ? rows.length - 1 - i : i];
  const first = Math.max(0, Math.floor(top / ROW_HEIGHT) - MARGIN);
  const last = Math.min(rows.length, Math.ceil((top + height) / ROW_HEIGHT) + MARGIN);
  const move = (to: number) => {
    const at = Math.max(0, Math.min(rows.length - 1, to));
    setActive(at);
    const element = box.current!;
    if (at * ROW_HEIGHT < element.scrollTop) element.scrollTop = at * ROW_HEIGHT;
    const below = (at + 2) * ROW_HEIGHT - element.clientHeight;
    if (below > element.scrollTop) element.scrollTop = below;
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const page = Math.max(1, Math.floor(height / ROW_HEIGHT) - 2);
    const steps: Record<string, number> = {
      ArrowDown: active + 1,
      ArrowUp: active - 1,
      PageDown: active + page,
      PageUp: active - page,
      Home: 0,
      End: rows.length - 1,
    };
    if (event.key in steps) move(steps[event.key]);
    else if (event.key === 'Enter' && rows.length > 0) onSelect(rowAt(Math.min(active, rows.length - 1)));
    else return;
    event.preventDefault();
  };
  const inSight = Array.from({ length: Math.max(0, last - first) }, (_, i) => first + i);
  return html`
    <div
      class="rows"
      role="grid"
      aria-label=${label}
      aria-rowcount=${rows.length + 1}
      tabindex="0"
      ref=${box}
      onScroll=${() => setTop(box.current!.scrollTop)}
      onKeyDown=${onKeyDown}
    >
      <div class="row head" role="row" aria-rowindex="1">
        ${heads.map(({ title, className }) => html`<span role="columnheader" class=${className ?? ''}>${title}</span>`)}
      </div>
      <div class="rows-space" role="rowgroup" ref=${(element: HTMLElement | null) => {
        if (element !== null) element.style.height = `${rows.length * ROW_HEIGHT}px`;
      }}>
        ${
          rows.length === 0
            ? html`<div role="row" class="row empty"><span role="gridcell">${empty}</span></div>`
            : inSight.map(i => {
                const row = rowAt(i);
                const id = idOf(row);
                const marks = `${classOf?.(row) ?? ''} ${i === active ? 'active' : ''} ${id === selected ? 'selected' : ''}`;
                return html`
                  <div
                    key=${id}
                    class="row ${marks}"
                    role="row"
                    aria-rowindex=${i + 2}
                    aria-selected=${id === selected}
                    style=${{ top: `${i * ROW_HEIGHT}px` }}
                    onClick=${() => {
                      setActive(i);
                      onSelect(row);
                    }}
                  >
                    ${cells(row).map(
                      (cell, at) => html`<span role="gridcell" class=${heads[at].className ?? ''}>${cell}</span>`,
                    )}
                  </div>
                `;
              })
        }
      </div>
    </div>
  `;
}
