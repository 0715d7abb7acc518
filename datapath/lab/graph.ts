/** A topology as a picture: Mermaid for a README, SVG for everything else. Pure. */
import { namespaceOf } from './names.ts';
import { addressOf, type LabPod, type Topology } from './topology.ts';

const USUAL_MTU = 1500;

/** A picture's parts: boxes in rows, what each says, and what leads from box to box. */
interface Box {
  name: string;
  kind: 'router' | 'subnet' | 'node' | 'pod' | 'host';
  lines: string[];
}

interface Line {
  from: string;
  to: string;
  text?: string;
}

/** @param lab whose namespaces are named; undefined: a topology that is not up */
function partsOf(topology: Topology, lab: string | undefined): { boxes: Box[]; lines: Line[] } {
  const { subnets, nodes, pods, routers, links, hosts } = topology;
  const placed = (name: string): string[] => (lab === undefined ? [] : [namespaceOf(lab, name)]);
  const mtu = (value: number): string => (value === USUAL_MTU ? '' : ` mtu ${value}`);
  return {
    boxes: [
      ...routers.map(({ name }): Box => ({ name, kind: 'router', lines: [name, ...placed(name)] })),
      ...subnets.map((subnet): Box => {
        const { name, cidr } = subnet;
        return { name, kind: 'subnet', lines: [name, `${cidr}${mtu(subnet.mtu)}`] };
      }),
      ...nodes.map(({ name, address }): Box => ({ name, kind: 'node', lines: [name, address, ...placed(name)] })),
      ...hosts.map(({ name, address }): Box => ({ name, kind: 'host', lines: [name, address, ...placed(name)] })),
      ...pods.map(
        ({ name, address, memory }: LabPod): Box => ({
          name,
          kind: 'pod',
          lines: [name, address, ...(memory === undefined ? placed(name) : [`in memory: ${memory}`])],
        }),
      ),
    ],
    lines: [
      ...routers.flatMap(({ name, legs }) =>
        legs.map(leg => ({
          from: name,
          to: leg.subnet,
          text: `${leg.device} ${leg.address}${leg.mtu === undefined ? '' : mtu(leg.mtu)}`,
        })),
      ),
      ...links.map(({ ends: [a, b], mtu: linkMtu }) => ({
        from: a.router,
        to: b.router,
        text: `${a.device} ${addressOf(a.address)} - ${b.device} ${addressOf(b.address)}${mtu(linkMtu)}`,
      })),
      ...[...nodes, ...hosts].map(({ name, subnet }) => ({ from: subnet, to: name })),
      ...pods.map(({ name, node }) => ({ from: node, to: name })),
    ],
  };
}

const MERMAID_SHAPES: Record<Box['kind'], [string, string]> = {
  router: ['{{', '}}'],
  subnet: ['[/', '/]'],
  node: ['[', ']'],
  host: ['[[', ']]'],
  pod: ['([', '])'],
};

/** As Markdown renders it on GitHub and GitLab. */
export function drawMermaid(topology: Topology, mode: string, lab?: string): string {
  const { boxes, lines } = partsOf(topology, lab);
  const id = (name: string): string => name.replace(/[^A-Za-z0-9]/g, '_');
  const draw = ({ name, kind, lines: texts }: Box): string => {
    const [open, close] = MERMAID_SHAPES[kind];
    return `${id(name)}${open}"${texts.join('<br>')}"${close}`;
  };
  const out = ['graph TD', `  %% topology ${topology.name}, mode ${mode}`];
  const inNodes = new Map(topology.pods.map(pod => [pod.name, pod.node]));
  for (const box of boxes.filter(({ kind }) => kind !== 'node' && kind !== 'pod')) out.push(`  ${draw(box)}`);
  for (const { name, podCidr } of topology.nodes) {
    out.push(`  subgraph ${id(name)}_node["${name}: pods ${podCidr}"]`);
    for (const box of boxes) {
      if ((box.kind === 'node' && box.name === name) || inNodes.get(box.name) === name) out.push(`    ${draw(box)}`);
    }
    out.push('  end');
  }
  for (const { from, to, text } of lines) {
    out.push(`  ${id(from)} ---${text === undefined ? '' : `|"${text}"|`} ${id(to)}`);
  }
  return `${out.join('\n')}\n`;
}

const BOX = { width: 190, height: 62, gap: 26 };
const ROW = BOX.height + 46;
const MARGIN = 20;

/** Routers above, the subnets below, a column for each node and host below its subnet, a node's pods below that. */
export function drawSvg(topology: Topology, mode: string, lab?: string): string {
  const { boxes, lines } = partsOf(topology, lab);
  const { subnets, nodes, hosts, pods, routers } = topology;
  const step = BOX.width + BOX.gap;
  const places = new Map<string, { x: number; y: number; width: number }>();
  let column = 0;
  let most = 0;
  for (const { name } of subnets) {
    const members = [...nodes, ...hosts].filter(({ subnet }) => subnet === name);
    const width = Math.max(1, members.length) * step - BOX.gap;
    places.set(name, { x: MARGIN + column * step, y: MARGIN + ROW, width });
    for (const member of members) {
      const x = MARGIN + column++ * step;
      places.set(member.name, { x, y: MARGIN + 2 * ROW, width: BOX.width });
      const own = pods.filter(({ node }) => node === member.name);
      most = Math.max(most, own.length);
      for (const [i, pod] of own.entries()) {
        places.set(pod.name, { x, y: MARGIN + 3 * ROW + i * (BOX.height + BOX.gap), width: BOX.width });
      }
    }
    if (members.length === 0) column++;
  }
  const width = 2 * MARGIN + Math.max(column, routers.length) * step - BOX.gap;
  for (const [i, { name }] of routers.entries()) {
    const middle = (width * (i + 0.5)) / routers.length;
    places.set(name, { x: middle - BOX.width / 2, y: MARGIN, width: BOX.width });
  }
  const height = 2 * MARGIN + 3 * ROW + most * (BOX.height + BOX.gap);
  const parts = [
    ...lines.map(({ from, to, text }) => svgLine(places.get(from)!, places.get(to)!, text)),
    ...boxes.map(box => svgBox(places.get(box.name)!, box)),
  ];
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" role="img">
<title>${escapeXml(`topology ${topology.name}, mode ${mode}`)}</title>
<style>rect{fill:#fff;stroke:#456}.router{fill:#eee}.subnet{fill:#eef4ff}.node{fill:#e6f5ea}.pod{fill:#fff8e1}.host{fill:#f6eefa}path{fill:none;stroke:#789}text{font:12px sans-serif;text-anchor:middle}.name{font-weight:bold}.what{fill:#456}.wire{fill:#456;font-size:10px}</style>
${parts.join('\n')}
</svg>
`;
}

type Place = { x: number; y: number; width: number };

function svgBox({ x, y, width }: Place, { kind, lines }: Box): string {
  const texts = lines.map(
    (line, i) =>
      `<text x="${x + width / 2}" y="${y + 18 + i * 17}" class="${i === 0 ? 'name' : 'what'}">${escapeXml(line)}</text>`,
  );
  return `<rect x="${x}" y="${y}" width="${width}" height="${BOX.height}" rx="6" class="${kind}"/>${texts.join('')}`;
}

function svgLine(from: Place, to: Place, text: string | undefined): string {
  if (from.y === to.y) {
    const [left, right] = from.x < to.x ? [from, to] : [to, from];
    const y = from.y + BOX.height / 2;
    const label =
      text === undefined ? '' : svgText((left.x + left.width + right.x) / 2, from.y + BOX.height + 12, text);
    return `<path d="M${left.x + left.width} ${y}H${right.x}"/>${label}`;
  }
  const x1 = from.x + from.width / 2;
  const x2 = to.x + to.width / 2;
  // A node hangs straight below its subnet, a pod below its node, whatever is between them.
  const straight = to.x >= from.x && to.x + to.width <= from.x + from.width;
  const top = from.y + BOX.height;
  const path = straight ? `M${x2} ${top}V${to.y}` : `M${x1} ${top}V${(top + to.y) / 2}H${x2}V${to.y}`;
  return `<path d="${path}"/>${text === undefined ? '' : svgText(x2, to.y - 8, text)}`;
}

function svgText(x: number, y: number, text: string): string {
  return `<text x="${x}" y="${y}" class="wire">${escapeXml(text)}</text>`;
}

function escapeXml(text: string): string {
  return text.replace(/[&<>"]/g, character => `&#${character.charCodeAt(0)};`);
}
