/** A topology as a picture: Mermaid for a README, SVG for everything else. Pure. */
import type { Topology } from './topology.ts';

/** As Markdown renders it on GitHub and GitLab. */
export function drawMermaid(topology: Topology, mode: string): string {
  const { subnets, nodes, pods, router } = topology;
  const id = (name: string) => name.replace(/[^A-Za-z0-9]/g, '_');
  const lines = ['graph TD', `  %% lab ${topology.name}, mode ${mode}`];
  lines.push(`  ${id(router.name)}{{"${router.name}"}}`);
  for (const { bridge, cidr } of subnets) lines.push(`  ${id(bridge)}[/"${bridge}<br>${cidr}"/]`);
  for (const { device, bridge, address } of router.legs) {
    lines.push(`  ${id(router.name)} ---|"${device} ${address}"| ${id(bridge)}`);
  }
  for (const node of nodes) {
    lines.push(`  subgraph ${id(node.name)}_node["${node.name}: pods ${node.podCidr}"]`);
    lines.push(`    ${id(node.name)}["${node.name}<br>${node.address}"]`);
    for (const pod of pods.filter(candidate => candidate.node === node.name)) {
      lines.push(`    ${id(pod.name)}(["${pod.name}<br>${pod.address}"])`, `    ${id(node.name)} --- ${id(pod.name)}`);
    }
    lines.push('  end', `  ${id(node.bridge)} --- ${id(node.name)}`);
  }
  return `${lines.join('\n')}\n`;
}

const BOX = { width: 180, height: 44, gap: 24 };
const ROWS = { router: 20, subnet: 110, node: 200, pods: 290 };

/** Router above, a column for each node below its subnet, its pods below that. */
export function drawSvg(topology: Topology, mode: string): string {
  const { subnets, nodes, pods, router } = topology;
  const sorted = subnets.flatMap(({ bridge }) => nodes.filter(node => node.bridge === bridge));
  const columnOf = (name: string) => BOX.gap + sorted.findIndex(node => node.name === name) * (BOX.width + BOX.gap);
  const width = BOX.gap + Math.max(1, sorted.length) * (BOX.width + BOX.gap);
  const most = Math.max(1, ...nodes.map(({ name }) => pods.filter(pod => pod.node === name).length));
  const height = ROWS.pods + most * (BOX.height + BOX.gap);
  const parts: string[] = [];
  const box = (x: number, y: number, boxWidth: number, kind: string, ...lines: string[]) => {
    const texts = lines.map(
      (line, i) =>
        `<text x="${x + boxWidth / 2}" y="${y + 19 + i * 16}" class="${i === 0 ? 'name' : 'what'}">${escapeXml(line)}</text>`,
    );
    parts.push(`<rect x="${x}" y="${y}" width="${boxWidth}" height="${BOX.height}" rx="6" class="${kind}"/>`, ...texts);
  };
  const line = (x1: number, y1: number, x2: number, y2: number) =>
    parts.push(`<path d="M${x1} ${y1}V${(y1 + y2) / 2}H${x2}V${y2}"/>`);
  const middle = width / 2;
  box(middle - BOX.width / 2, ROWS.router, BOX.width, 'router', router.name, 'knows no pod');
  for (const { bridge, cidr } of subnets) {
    const members = sorted.filter(node => node.bridge === bridge).map(({ name }) => columnOf(name));
    const left = members.length === 0 ? BOX.gap : Math.min(...members);
    const span = members.length === 0 ? BOX.width : Math.max(...members) - left + BOX.width;
    box(left, ROWS.subnet, span, 'subnet', bridge, cidr);
    line(middle, ROWS.router + BOX.height, left + span / 2, ROWS.subnet);
  }
  for (const node of sorted) {
    const x = columnOf(node.name);
    line(x + BOX.width / 2, ROWS.subnet + BOX.height, x + BOX.width / 2, ROWS.node);
    box(x, ROWS.node, BOX.width, 'node', node.name, node.address);
    const own = pods.filter(pod => pod.node === node.name);
    for (const [i, pod] of own.entries()) {
      const y = ROWS.pods + i * (BOX.height + BOX.gap);
      line(
        x + BOX.width / 2,
        y - BOX.gap - (i === 0 ? ROWS.pods - ROWS.node - BOX.height - BOX.gap : 0),
        x + BOX.width / 2,
        y,
      );
      box(x, y, BOX.width, 'pod', pod.name, pod.address);
    }
  }
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" role="img">
<title>lab ${escapeXml(topology.name)}, mode ${escapeXml(mode)}</title>
<style>rect{fill:#fff;stroke:#456}.router{fill:#eee}.subnet{fill:#eef4ff}.node{fill:#e6f5ea}.pod{fill:#fff8e1}path{fill:none;stroke:#789}text{font:12px sans-serif;text-anchor:middle}.name{font-weight:bold}.what{fill:#456}</style>
${parts.join('\n')}
</svg>
`;
}

function escapeXml(text: string): string {
  return text.replace(/[&<>"]/g, character => `&#${character.charCodeAt(0)};`);
}
