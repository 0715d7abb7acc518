/** One Kubernetes object as `kubectl describe` prints kinds that it does not know better, with what belongs to it. */
import { isMap, type Json, type KubeObject } from '../api/object.ts';
import { age } from '../api/server/columns.ts';

export interface Related {
  events: readonly KubeObject[];
  /** EndpointSlices of a service. */
  slices: readonly KubeObject[];
}

const ACRONYMS = new Set(['api', 'cidr', 'id', 'ip', 'mtu', 'uid', 'url']);

export function describeObject(object: KubeObject, { events, slices }: Related): string {
  const { apiVersion, kind, metadata, ...rest } = object;
  const { name, namespace, labels, annotations, creationTimestamp, deletionTimestamp, ownerReferences } = metadata;
  const controller = ownerReferences?.find(owner => owner.controller === true);
  const head: [string, string | readonly string[]][] = [
    ['Name', name],
    ['Namespace', namespace ?? ''],
    ['Labels', pairs(labels, '=')],
    ['Annotations', pairs(annotations, ': ')],
    ['API Version', apiVersion],
    ['Kind', kind],
    ['Created', creationTimestamp ?? ''],
    ...(deletionTimestamp === undefined ? [] : [['Terminating', `since ${deletionTimestamp}`] as [string, string]]),
    ...(controller === undefined
      ? []
      : [['Controlled By', `${controller.kind}/${controller.name}`] as [string, string]]),
  ];
  const width = Math.max(...head.map(([title]) => title.length)) + 3;
  const lines = head.flatMap(([title, value]) => {
    const [first = '<none>', ...more] = typeof value === 'string' ? [value] : value;
    return [`${`${title}:`.padEnd(width)}${first}`.trimEnd(), ...more.map(text => ' '.repeat(width) + text)];
  });
  for (const [key, value] of Object.entries(kind === 'Secret' ? withoutSecrets(rest) : rest)) {
    lines.push(...fieldLines(key, value, ''));
  }
  if (kind === 'Service')
    lines.push(...grid('Endpoints', ['Address', 'Port', 'Node', 'Conditions'], endpointRows(slices)));
  lines.push(...grid('Events', ['Type', 'Reason', 'Age', 'From', 'Message'], eventRows(events)));
  return `${lines.join('\n')}\n`;
}

/** How long each is, and not what. */
function withoutSecrets({ data, ...rest }: Record<string, Json>): Record<string, Json> {
  const sizes = Object.entries(data ?? {}).map(([key, text]) => [
    key,
    `${Buffer.from(`${text}`, 'base64').length} bytes`,
  ]);
  return { ...rest, data: Object.fromEntries(sizes) };
}

function pairs(map: Record<string, string> | undefined, between: string): string[] {
  return Object.entries(map ?? {})
    .filter(([key]) => key !== LAST_APPLIED)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, value]) => `${key}${between}${value}`);
}

/** Maps whose keys are data, not names of fields. */
const DATA_MAPS = new Set(['data', 'binaryData', 'labels', 'annotations', 'matchLabels', 'nodeSelector', 'selector']);
/** What was applied stands below by itself, and of a secret nowhere. */
const LAST_APPLIED = 'kubectl.kubernetes.io/last-applied-configuration';

/** `clusterIP` as `Cluster IP`; what is no word stays as it is. */
function titleOf(key: string): string {
  if (/[^A-Za-z0-9]/.test(key)) return key;
  const words = key.match(/[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+|[A-Z]+/g) ?? [key];
  return words
    .map(word => (ACRONYMS.has(word.toLowerCase()) ? word.toUpperCase() : word.charAt(0).toUpperCase() + word.slice(1)))
    .join(' ');
}

function fieldLines(key: string, value: Json, indent: string): string[] {
  const title = `${indent}${titleOf(key)}:`;
  if (isMap(value)) {
    const inner = Object.entries(value).flatMap(([name, field]) =>
      DATA_MAPS.has(key) && !isMap(field)
        ? fieldLines('', field, `${indent}  ${name}`)
        : fieldLines(name, field, `${indent}  `),
    );
    return inner.length === 0 ? [`${title}  <none>`] : [title, ...inner];
  }
  if (Array.isArray(value))
    return value.length === 0 ? [`${title}  <none>`] : [title, ...itemLines(value, `${indent}  `)];
  const text = String(value);
  if (!text.includes('\n')) return [`${title}  ${text}`];
  return [
    title,
    ...text
      .trimEnd()
      .split('\n')
      .map(line => `${indent}  ${line}`),
  ];
}

function itemLines(items: readonly Json[], indent: string): string[] {
  return items.flatMap(item => {
    if (!isMap(item)) return Array.isArray(item) ? itemLines(item, `${indent}  `) : [`${indent}${item}`];
    const lines = Object.entries(item).flatMap(([name, field]) => fieldLines(name, field, `${indent}  `));
    return lines.map((line, i) => (i === 0 ? `${indent}- ${line.trimStart()}` : line));
  });
}

function endpointRows(slices: readonly KubeObject[]): string[][] {
  return slices.flatMap(slice =>
    (slice.endpoints ?? []).flatMap(({ addresses, conditions, nodeName }: Json) =>
      addresses.map((address: string) => [
        address,
        (slice.ports ?? []).map(({ port, protocol }: Json) => `${port}/${protocol}`).join(','),
        nodeName ?? '<none>',
        ['ready', 'serving', 'terminating'].filter(condition => conditions?.[condition] === true).join(',') ||
          'not ready',
      ]),
    ),
  );
}

function eventRows(events: readonly KubeObject[]): string[][] {
  const timeOf = (event: KubeObject): string =>
    event.series?.lastObservedTime ?? event.lastTimestamp ?? event.eventTime ?? event.metadata.creationTimestamp;
  return events
    .toSorted((a, b) => Date.parse(timeOf(a)) - Date.parse(timeOf(b)))
    .map(event => [
      event.type ?? '',
      event.reason ?? '',
      age(timeOf(event), Date.now()),
      event.source?.component ?? event.reportingComponent ?? '',
      (event.message ?? '').trim().replace(/\s*\n\s*/g, ' '),
    ]);
}

/** A table below its name. */
function grid(title: string, titles: readonly string[], rows: readonly string[][]): string[] {
  if (rows.length === 0) return [`${title}:  <none>`];
  const all = [titles, titles.map(text => '-'.repeat(text.length)), ...rows];
  const widths = titles.map((_, i) => Math.max(...all.map(row => row[i]!.length)) + 2);
  return [`${title}:`, ...all.map(row => `  ${row.map((text, i) => text.padEnd(widths[i]!)).join('')}`.trimEnd())];
}
