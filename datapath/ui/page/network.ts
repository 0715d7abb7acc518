/** The network as a picture, with packets that move in it. */

import type { VNode } from 'preact';
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks';
import type { Picture } from '../picture.ts';
import type { PageFlow } from '../protocol.ts';
import { html } from './html.ts';
import { layout, type Placed, type PlacedNode, type Point, trace } from './layout.ts';
import type { Store } from './store.ts';

/** At once; more would be a blur. */
const MAX_MOVING = 250;
/** Pixels a millisecond, and how long what was dropped is marked, ms. */
const SPEED = 0.35;
const MARK_MS = 900;

export interface Chosen {
  kind: 'pod' | 'node' | 'service';
  name: string;
}

export function Network({
  store,
  chosen,
  choose,
}: {
  store: Store;
  chosen: Chosen | null;
  choose: (chosen: Chosen | null) => void;
}): VNode {
  const picture = store.nodes;
  const box = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const [width, setWidth] = useState(0);
  useLayoutEffect(() => {
    const observer = new ResizeObserver(() => setWidth(box.current?.clientWidth ?? 0));
    observer.observe(box.current!);
    return () => observer.disconnect();
  }, []);
  const placed = useMemo(() => layout(picture, width), [picture, width]);
  useEffect(() => {
    if (canvas.current === null || width === 0) return;
    const moving = new Moving(canvas.current, placed);
    store.onFlow = flow => moving.add(flow);
    return () => {
      store.onFlow = null;
      moving.stop();
    };
  }, [placed, width]);
  const toggle = (kind: Chosen['kind'], name: string) =>
    choose(chosen !== null && chosen.kind === kind && chosen.name === name ? null : { kind, name });
  return html`
    <section class="network" aria-label="Network">
      <${Services} picture=${picture} chosen=${chosen} toggle=${toggle} />
      <div class="picture" ref=${box}>
        ${
          width > 0 &&
          html`
            <svg width=${width} height=${placed.height} role="group" aria-label="Nodes and pods">
              ${drawWires(placed)}
              ${placed.nodes.map(one => drawNode(one, chosen, toggle, picture))}
            </svg>
            <canvas ref=${canvas} aria-hidden="true"></canvas>
          `
        }
      </div>
    </section>
  `;
}

type Toggle = (kind: Chosen['kind'], name: string) => void;

function Services({
  picture,
  chosen,
  toggle,
}: {
  picture: Picture;
  chosen: Chosen | null;
  toggle: Toggle;
}): VNode | null {
  if (picture.services.length === 0) return null;
  return html`
    <div class="services" role="group" aria-label="Services">
      ${picture.services.slice(0, 24).map(
        ({ name, addresses, ports, endpoints }) => html`
          <button
            type="button"
            class="service ${isChosen(chosen, 'service', name) ? 'chosen' : ''}"
            aria-pressed=${isChosen(chosen, 'service', name)}
            onClick=${() => toggle('service', name)}
          >
            <b>${afterSlash(name)}</b> ${addresses[0]}:${ports[0]} <small>${endpoints.length} backends</small>
          </button>
        `,
      )}
      ${picture.services.length > 24 && html`<small>and ${picture.services.length - 24} more</small>`}
    </div>
  `;
}

const isChosen = (chosen: Chosen | null, kind: Chosen['kind'], name: string) =>
  chosen !== null && chosen.kind === kind && chosen.name === name;
const afterSlash = (name: string) => name.slice(name.indexOf('/') + 1);

function drawWires({ nodes, buses, outside }: Placed) {
  return html`
    ${buses.map(
      ({ x, y, w, name, network }) => html`
        <path class="wire" d="M${x + w / 2} ${y}V${outside.y - 8}H${outside.x + outside.w / 2}V${outside.y}" />
        <rect class="bus" x=${x} y=${y - 3} width=${w} height="6" rx="3" />
        <text class="bus-name" x=${x + 4} y=${y + 18}>${name === network ? name : `${name}  ${network}`}</text>
      `,
    )}
    ${nodes.map(({ x, y, w, h, bus }) => html`<path class="wire" d="M${x + w / 2} ${y + h}V${bus.y}" />`)}
    <rect class="outside" x=${outside.x} y=${outside.y} width=${outside.w} height=${outside.h} rx="20" />
    <text class="outside-name" x=${outside.x + outside.w / 2} y=${outside.y + 25}>routers, and outside</text>
  `;
}

function drawNode(
  { node, x, y, w, h, pods, host, isDense }: PlacedNode,
  chosen: Chosen | null,
  toggle: Toggle,
  picture: Picture,
) {
  const service = picture.services.find(({ name }) => isChosen(chosen, 'service', name));
  const button = (kind: Chosen['kind'], name: string) => ({
    role: 'button',
    tabindex: 0,
    'aria-pressed': isChosen(chosen, kind, name),
    onClick: () => toggle(kind, name),
    onKeyDown: (event: KeyboardEvent) => {
      if (event.key !== 'Enter' && event.key !== ' ') return;
      event.preventDefault();
      toggle(kind, name);
    },
  });
  const room = Math.floor((w - 40) / 7.2);
  return html`
    <rect class="node ${isChosen(chosen, 'node', node.name) ? 'chosen' : ''}" x=${x} y=${y} width=${w} height=${h} rx="10" />
    <g class="node-head" ...${button('node', node.name)}>
      <rect class="hit" x=${x} y=${y} width=${w} height="48" rx="10" />
      <text class="name" x=${x + 12} y=${y + 22}>${cut(node.shortName, room - node.mode.length - 2)}</text>
      <text class="address" x=${x + 12} y=${y + 40}>${node.address}</text>
      <text class="mode" x=${x + w - 12} y=${y + 22}>${node.mode}</text>
      <text class="address end" x=${x + w - 12} y=${y + 40}>MTU ${node.pods[0]?.mtu ?? node.mtu}</text>
    </g>
    ${pods.map(({ pod, ...box }) => {
      const isBackend = service?.endpoints.includes(pod.address) ?? false;
      const marks = `${isChosen(chosen, 'pod', pod.name) ? 'chosen' : ''} ${isBackend ? 'backend' : ''}`;
      return html`
        <g class="pod ${marks}" ...${button('pod', pod.name)}>
          <rect x=${box.x} y=${box.y} width=${box.w} height=${box.h} rx=${isDense ? 3 : 17} />
          ${
            isDense
              ? html`<title>${pod.name} ${pod.address}</title>`
              : html`
                  <text class="pod-name" x=${box.x + 14} y=${box.y + 15}>${cut(afterSlash(pod.name), room)}</text>
                  <text class="pod-address" x=${box.x + 14} y=${box.y + 28}>${pod.address}</text>
                `
          }
        </g>
      `;
    })}
    ${
      host !== null &&
      html`
        <g class="host">
          <rect x=${host.x} y=${host.y} width=${host.w} height=${host.h} rx="6" />
          <text class="pod-name" x=${host.x + 14} y=${host.y + 15}>the node itself</text>
          <text class="pod-address" x=${host.x + 14} y=${host.y + 28}>${node.host?.address}</text>
        </g>
      `
    }
  `;
}

function cut(text: string, length: number): string {
  return text.length <= length ? text : `${text.slice(0, Math.max(1, length - 1))}…`;
}

interface Dot {
  points: Point[];
  length: number;
  began: number;
  isDrop: boolean;
  isReply: boolean;
}

/** Dots that run along the wires, drawn over the picture; nothing is drawn while nothing moves. */
class Moving {
  private readonly canvas: HTMLCanvasElement;
  private readonly context: CanvasRenderingContext2D;
  private readonly placed: Placed;
  private readonly isStill = matchMedia('(prefers-reduced-motion: reduce)').matches;
  private dots: Dot[] = [];
  private frame = 0;

  constructor(canvas: HTMLCanvasElement, placed: Placed) {
    const scale = devicePixelRatio;
    this.canvas = canvas;
    this.placed = placed;
    canvas.width = placed.width * scale;
    canvas.height = placed.height * scale;
    canvas.style.width = `${placed.width}px`;
    canvas.style.height = `${placed.height}px`;
    this.context = canvas.getContext('2d')!;
    this.context.scale(scale, scale);
  }

  add(flow: PageFlow): void {
    if (this.dots.length >= MAX_MOVING) return;
    const points = trace(this.placed, flow);
    if (points.length < 2) return;
    const isDrop = flow.verdict === 'DROPPED';
    this.dots.push({ points, length: lengthOf(points), began: performance.now(), isDrop, isReply: flow.isReply });
    if (this.frame === 0) this.frame = requestAnimationFrame(now => this.draw(now));
  }

  stop(): void {
    cancelAnimationFrame(this.frame);
    this.dots = [];
  }

  private draw(now: number): void {
    const { context, placed, canvas } = this;
    const style = getComputedStyle(canvas);
    const color = (name: string) => style.getPropertyValue(name);
    const [forward, reply, drop] = [color('--flow'), color('--reply'), color('--bad')];
    context.clearRect(0, 0, placed.width, placed.height);
    this.dots = this.dots.filter(dot =>
      this.isStill ? now - dot.began < MARK_MS : now - dot.began < dot.length / SPEED + (dot.isDrop ? MARK_MS : 0),
    );
    for (const dot of this.dots) {
      const gone = this.isStill ? dot.length : (now - dot.began) * SPEED;
      const { x, y } = pointAt(dot.points, gone);
      context.fillStyle = dot.isDrop ? drop : dot.isReply ? reply : forward;
      context.strokeStyle = context.fillStyle;
      if (dot.isDrop && gone >= dot.length) {
        context.lineWidth = 3;
        context.beginPath();
        for (const side of [-1, 1]) {
          context.moveTo(x - 7, y - 7 * side);
          context.lineTo(x + 7, y + 7 * side);
        }
        context.stroke();
      } else {
        context.beginPath();
        context.arc(x, y, 4.5, 0, 2 * Math.PI);
        context.fill();
      }
    }
    this.frame = this.dots.length === 0 ? 0 : requestAnimationFrame(next => this.draw(next));
  }
}

function lengthOf(points: readonly Point[]): number {
  return points.slice(1).reduce((sum, point, i) => sum + distance(points[i], point), 0);
}

function distance(a: Point, b: Point): number {
  return Math.hypot(b.x - a.x, b.y - a.y);
}

function pointAt(points: readonly Point[], gone: number): Point {
  let left = gone;
  for (let i = 1; i < points.length; i++) {
    const [from, to] = [points[i - 1], points[i]];
    const step = distance(from, to);
    if (left <= step && step > 0) {
      return { x: from.x + ((to.x - from.x) * left) / step, y: from.y + ((to.y - from.y) * left) / step };
    }
    left -= step;
  }
  return points[points.length - 1];
}
