/** Where everything of the picture stands, in pixels. Pure: the same picture and width give the same places. */
import type { Picture, PictureNode, PicturePod } from '../picture.ts';

export interface Box {
  x: number;
  y: number;
  w: number;
  h: number;
}

export interface PlacedPod extends Box {
  pod: PicturePod;
}

export interface PlacedNode extends Box {
  node: PictureNode;
  pods: PlacedPod[];
  /** Its own processes, behind the host port. */
  host: Box | null;
  /** Pods are small squares without a name. */
  isDense: boolean;
  bus: PlacedBus;
}

export interface PlacedBus {
  name: string;
  network: string;
  x: number;
  w: number;
  y: number;
}

export interface Placed {
  width: number;
  height: number;
  nodes: PlacedNode[];
  buses: PlacedBus[];
  /** Everything that is no node: behind the wire. */
  outside: Box;
}

const GAP = 20;
const PAD = 12;
const MIN_NODE = 210;
const MAX_NODE = 330;
const HEADER = 54;
const CHIP = 34;
const CHIP_GAP = 6;
const DOT = 15;
const DOT_GAP = 4;
/** More pods than that have no room for their names. */
const NAMED_PODS = 6;
const DROP = 34;
const BUS_TEXT = 26;
const OUTSIDE = { w: 190, h: 40 };

export function layout({ nodes, segments }: Picture, width: number): Placed {
  const perRow = Math.max(1, Math.floor((width + GAP) / (MIN_NODE + GAP)));
  const groups = segments.map(segment => ({ segment, members: nodes.filter(one => one.segment === segment.name) }));
  const rows: { segment: Picture['segments'][number]; members: PictureNode[] }[][] = [];
  if (nodes.length <= perRow) rows.push(groups);
  else {
    for (const { segment, members } of groups) {
      for (let i = 0; i < members.length; i += perRow) rows.push([{ segment, members: members.slice(i, i + perRow) }]);
    }
  }
  const placed: Placed = { width, height: 0, nodes: [], buses: [], outside: { x: 0, y: 0, ...OUTSIDE } };
  let y = 4;
  for (const row of rows) {
    const count = row.reduce((sum, { members }) => sum + members.length, 0);
    const w = Math.min(MAX_NODE, (width - (count - 1) * GAP) / Math.max(1, count));
    const sizes = row.flatMap(({ members }) => members.map(node => heightOf(node, w)));
    const h = Math.max(0, ...sizes);
    let x = Math.max(0, (width - count * w - (count - 1) * GAP) / 2);
    for (const { segment, members } of row) {
      const span = members.length * w + (members.length - 1) * GAP;
      const bus: PlacedBus = { ...segment, x, w: span, y: y + h + DROP };
      placed.buses.push(bus);
      for (const node of members) {
        placed.nodes.push(placeNode(node, { x, y, w, h }, bus));
        x += w + GAP;
      }
    }
    y += h + DROP + BUS_TEXT + GAP / 2;
  }
  placed.outside = { x: (width - OUTSIDE.w) / 2, y: y + 4, ...OUTSIDE };
  placed.height = y + OUTSIDE.h + 12;
  return placed;
}

const isDense = ({ pods }: PictureNode) => pods.length > NAMED_PODS;

function dotsPerRow(w: number): number {
  return Math.max(1, Math.floor((w - 2 * PAD + DOT_GAP) / (DOT + DOT_GAP)));
}

function heightOf(node: PictureNode, w: number): number {
  const chips = (node.host === null ? 0 : 1) + (isDense(node) ? 0 : node.pods.length);
  const dots = isDense(node) ? Math.ceil(node.pods.length / dotsPerRow(w)) * (DOT + DOT_GAP) + 8 : 0;
  return HEADER + chips * (CHIP + CHIP_GAP) + dots + PAD;
}

function placeNode(node: PictureNode, box: Box, bus: PlacedBus): PlacedNode {
  const { x, y, w } = box;
  const chip = (i: number) => ({ x: x + PAD, y: y + HEADER + i * (CHIP + CHIP_GAP), w: w - 2 * PAD, h: CHIP });
  const dense = isDense(node);
  const perRow = dotsPerRow(w);
  const pods = node.pods.map((pod, i): PlacedPod => {
    if (!dense) return { pod, ...chip(i) };
    const column = i % perRow;
    const row = Math.floor(i / perRow);
    return {
      pod,
      x: x + PAD + column * (DOT + DOT_GAP),
      y: y + HEADER + row * (DOT + DOT_GAP),
      w: DOT,
      h: DOT,
    };
  });
  const below = dense ? Math.ceil(pods.length / perRow) * (DOT + DOT_GAP) + 8 : pods.length * (CHIP + CHIP_GAP);
  const host = node.host === null ? null : { ...chip(0), y: y + HEADER + below };
  return { node, ...box, pods, host, isDense: dense, bus };
}

export interface Point {
  x: number;
  y: number;
}

export const middle = ({ x, y, w, h }: Box): Point => ({ x: x + w / 2, y: y + h / 2 });

/** From where a packet came on a node to where it went; one that was dropped ends in the node. */
export function trace(
  placed: Placed,
  flow: { node: string; inPort: string; outPort: string; destination: { name: string; address: string } },
): Point[] {
  const at = placed.nodes.find(({ node }) => node.name === flow.node);
  if (at === undefined) return [];
  const heart = { x: at.x + at.w / 2, y: at.y + 22 };
  const points = [...portPoints(at, flow.inPort).reverse(), heart];
  if (flow.outPort === '') return points;
  points.push(...portPoints(at, flow.outPort));
  if (flow.outPort !== 'uplink') return points;
  const to = placed.nodes.find(
    ({ node }) =>
      node.address === flow.destination.address || node.pods.some(pod => pod.address === flow.destination.address),
  );
  if (to !== undefined && to.bus.y === at.bus.y && to.bus.x === at.bus.x) {
    points.push({ x: to.x + to.w / 2, y: at.bus.y });
  } else {
    const outside = middle(placed.outside);
    points.push({ x: outside.x, y: at.bus.y }, outside);
    if (to !== undefined) points.push({ x: to.x + to.w / 2, y: to.bus.y });
  }
  return points;
}

/** From the node outwards. */
function portPoints(at: PlacedNode, port: string): Point[] {
  if (port === 'uplink' || port === '') {
    const x = at.x + at.w / 2;
    return [
      { x, y: at.y + at.h },
      { x, y: at.bus.y },
    ];
  }
  const pod = at.pods.find(one => one.pod.name === port);
  const box = pod ?? at.host;
  return box === null || box === undefined ? [] : [middle(box)];
}
