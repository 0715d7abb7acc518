/** What `kubectl get` prints of each kind: the columns and cells of pkg/printers/internalversion/printers.go. */
import { isMap, type Json, type KubeObject } from '../object.ts';

export interface Column {
  name: string;
  type: 'string' | 'integer';
  /** 0: always; 1: with `-o wide` */
  priority: 0 | 1;
  cell: (object: KubeObject, nowMs: number) => string | number;
}

type Cell = Column['cell'];

const NONE = '<none>';

function column(name: string, cell: Cell, priority: 0 | 1 = 0, type: Column['type'] = 'string'): Column {
  return { name, type, priority, cell };
}

function wide(name: string, cell: Cell): Column {
  return column(name, cell, 1);
}

const NAME = column('Name', object => object.metadata.name);
const AGE = column('Age', (object, nowMs) => age(object.metadata.creationTimestamp, nowMs));

/** How long ago, as kubectl says it. (apimachinery/pkg/util/duration) */
export function age(since: string | undefined, nowMs: number): string {
  return since === undefined ? '<unknown>' : humanDuration(nowMs - Date.parse(since));
}

function humanDuration(ms: number): string {
  const seconds = Math.floor(ms / 1000);
  if (seconds < -1) return '<invalid>';
  if (seconds < 0) return '0s';
  if (seconds < 120) return `${seconds}s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 10) return withRest(minutes, 'm', seconds % 60, 's');
  if (minutes < 180) return `${minutes}m`;
  const hours = Math.floor(minutes / 60);
  if (hours < 8) return withRest(hours, 'h', minutes % 60, 'm');
  if (hours < 48) return `${hours}h`;
  const days = Math.floor(hours / 24);
  if (hours < 192) return withRest(days, 'd', hours % 24, 'h');
  if (days < 730) return `${days}d`;
  const years = Math.floor(days / 365);
  return days < 2920 ? withRest(years, 'y', days % 365, 'd') : `${years}y`;
}

function withRest(count: number, unit: string, rest: number, restUnit: string): string {
  return rest === 0 ? `${count}${unit}` : `${count}${unit}${rest}${restUnit}`;
}

function count(map: Json): number {
  return isMap(map) ? Object.keys(map).length : 0;
}

function labels(map: Json): string {
  const entries = Object.entries(isMap(map) ? map : {});
  return entries.length === 0 ? NONE : entries.map(([key, value]) => `${key}=${value}`).join(',');
}

/** A selector with expressions, as metav1.FormatLabelSelector writes it. */
function selector(value: Json): string {
  const { matchLabels = {}, matchExpressions = [] } = value ?? {};
  const texts = [
    ...Object.entries(matchLabels).map(([key, text]) => `${key}=${text}`),
    ...matchExpressions.map(({ key, operator, values = [] }: Json) => {
      const list = `(${[...values].sort().join(',')})`;
      return { In: `${key} in ${list}`, NotIn: `${key} notin ${list}`, Exists: key, DoesNotExist: `!${key}` }[
        operator as string
      ];
    }),
  ];
  return texts.length === 0 ? NONE : texts.join(',');
}

function containers(spec: Json): Json[] {
  return spec?.containers ?? [];
}

const podTemplate: Column[] = [
  wide('Containers', ({ spec }) =>
    containers(spec.template?.spec)
      .map(({ name }) => name)
      .join(','),
  ),
  wide('Images', ({ spec }) =>
    containers(spec.template?.spec)
      .map(({ image }) => image)
      .join(','),
  ),
];

function number(value: Json): number {
  return typeof value === 'number' ? value : 0;
}

function podReady({ spec, status }: KubeObject): string {
  const ready = (status?.containerStatuses ?? []).filter(({ ready }: Json) => ready).length;
  return `${ready}/${containers(spec).length}`;
}

function podStatus({ metadata, status }: KubeObject): string {
  let reason: string = status?.reason ?? status?.phase ?? 'Unknown';
  const states: Json[] = status?.containerStatuses ?? [];
  for (const { state, ready } of states.toReversed()) {
    if (state?.waiting?.reason) reason = state.waiting.reason;
    else if (state?.terminated !== undefined) {
      const { reason: why, signal, exitCode } = state.terminated;
      reason = why || (signal ? `Signal:${signal}` : `ExitCode:${exitCode}`);
    } else if (ready && state?.running !== undefined && reason === 'Completed') reason = 'Running';
  }
  for (const condition of status?.conditions ?? []) {
    if (condition.type === 'PodScheduled' && condition.reason === 'SchedulingGated') reason = 'SchedulingGated';
  }
  if (metadata.deletionTimestamp !== undefined) return status?.reason === 'NodeLost' ? 'Unknown' : 'Terminating';
  return reason;
}

function podRestarts({ status }: KubeObject, nowMs: number): string {
  const states: Json[] = status?.containerStatuses ?? [];
  const restarts = states.reduce((sum, state) => sum + number(state.restartCount), 0);
  const ends = states
    .map(state => state.lastState?.terminated?.finishedAt)
    .filter(Boolean)
    .sort();
  return restarts > 0 && ends.length > 0 ? `${restarts} (${age(ends.at(-1), nowMs)} ago)` : `${restarts}`;
}

function servicePorts(ports: Json[] = []): string {
  if (ports.length === 0) return NONE;
  return ports
    .map(({ port, nodePort, protocol }) => (nodePort ? `${port}:${nodePort}/${protocol}` : `${port}/${protocol}`))
    .join(',');
}

function externalIp({ spec, status }: KubeObject): string {
  if (spec.type === 'ExternalName') return spec.externalName;
  const given: string[] = spec.externalIPs ?? [];
  if (spec.type !== 'LoadBalancer') return given.length === 0 ? NONE : given.join(',');
  const ingress: string[] = (status?.loadBalancer?.ingress ?? []).map(({ ip, hostname }: Json) => ip ?? hostname);
  const all = [...ingress, ...given];
  return all.length === 0 ? '<pending>' : all.join(',');
}

function nodeStatus({ spec, status }: KubeObject): string {
  const ready = (status?.conditions ?? []).find(({ type }: Json) => type === 'Ready');
  const text = ready === undefined ? 'Unknown' : ready.status === 'True' ? 'Ready' : 'NotReady';
  return spec?.unschedulable ? `${text},SchedulingDisabled` : text;
}

function nodeRoles({ metadata }: KubeObject): string {
  const prefix = 'node-role.kubernetes.io/';
  const roles = Object.keys(metadata.labels ?? {})
    .filter(key => key.startsWith(prefix))
    .map(key => key.slice(prefix.length));
  return roles.length === 0 ? NONE : roles.sort().join(',');
}

function nodeAddress(type: string): Cell {
  return ({ status }) => (status?.addresses ?? []).find((address: Json) => address.type === type)?.address ?? NONE;
}

function nodeInfo(field: string): Cell {
  return ({ status }) => status?.nodeInfo?.[field] || '<unknown>';
}

const MAX_ENDPOINTS = 3;

function endpointAddresses({ subsets }: KubeObject): string {
  const texts: string[] = [];
  for (const { addresses = [], ports = [] } of (subsets ?? []) as Json[]) {
    if (ports.length === 0) texts.push(...addresses.map(({ ip }: Json) => ip));
    for (const { port } of ports) texts.push(...addresses.map(({ ip }: Json) => `${ip}:${port}`));
  }
  return shortened(texts);
}

function sliceAddresses({ endpoints }: KubeObject): string {
  return shortened((endpoints ?? []).flatMap(({ addresses }: Json) => addresses));
}

function shortened(texts: readonly string[]): string {
  if (texts.length === 0) return NONE;
  const more = texts.length - MAX_ENDPOINTS;
  const text = texts.slice(0, MAX_ENDPOINTS).join(',');
  return more > 0 ? `${text} + ${more} more...` : text;
}

function slicePorts({ ports }: KubeObject): string {
  return ports === undefined || ports === null || ports.length === 0
    ? '<unset>'
    : shortened(ports.map(({ port }: Json) => `${port}`));
}

const scalable: Column[] = [
  column('Desired', ({ spec }) => number(spec.replicas), 0, 'integer'),
  column('Current', ({ status }) => number(status?.replicas), 0, 'integer'),
  column('Ready', ({ status }) => number(status?.readyReplicas), 0, 'integer'),
];

const daemon = (name: string, field: string): Column =>
  column(name, ({ status }) => number(status?.[field]), 0, 'integer');

const KINDS: Record<string, Column[]> = {
  Pod: [
    NAME,
    column('Ready', podReady),
    column('Status', podStatus),
    column('Restarts', podRestarts),
    AGE,
    wide('IP', ({ status }) => status?.podIP || NONE),
    wide('Node', ({ spec }) => spec.nodeName || NONE),
    wide('Nominated Node', ({ status }) => status?.nominatedNodeName || NONE),
    wide('Readiness Gates', ({ spec }) => (spec.readinessGates?.length ? `0/${spec.readinessGates.length}` : NONE)),
  ],
  Service: [
    NAME,
    column('Type', ({ spec }) => spec.type),
    column('Cluster-IP', ({ spec }) => spec.clusterIP || NONE),
    column('External-IP', externalIp),
    column('Port(s)', ({ spec }) => servicePorts(spec.ports)),
    AGE,
    wide('Selector', ({ spec }) => labels(spec.selector)),
  ],
  Endpoints: [NAME, column('Endpoints', endpointAddresses), AGE],
  EndpointSlice: [
    NAME,
    column('AddressType', ({ addressType }) => addressType),
    column('Ports', slicePorts),
    column('Endpoints', sliceAddresses),
    AGE,
  ],
  Node: [
    NAME,
    column('Status', nodeStatus),
    column('Roles', nodeRoles),
    AGE,
    column('Version', ({ status }) => status?.nodeInfo?.kubeletVersion ?? ''),
    wide('Internal-IP', nodeAddress('InternalIP')),
    wide('External-IP', nodeAddress('ExternalIP')),
    wide('OS-Image', nodeInfo('osImage')),
    wide('Kernel-Version', nodeInfo('kernelVersion')),
    wide('Container-Runtime', nodeInfo('containerRuntimeVersion')),
  ],
  Namespace: [NAME, column('Status', ({ status }) => status?.phase ?? ''), AGE],
  ConfigMap: [NAME, column('Data', ({ data, binaryData }) => count(data) + count(binaryData), 0, 'integer'), AGE],
  Secret: [NAME, column('Type', ({ type }) => type), column('Data', ({ data }) => count(data), 0, 'integer'), AGE],
  ServiceAccount: [NAME, column('Secrets', ({ secrets }) => (secrets ?? []).length, 0, 'integer'), AGE],
  Event: [
    column('Last Seen', (event, nowMs) =>
      age(
        event.series?.lastObservedTime ?? event.lastTimestamp ?? event.eventTime ?? event.metadata.creationTimestamp,
        nowMs,
      ),
    ),
    column('Type', ({ type }) => type ?? ''),
    column('Reason', ({ reason }) => reason ?? ''),
    column(
      'Object',
      ({ involvedObject }) => `${String(involvedObject?.kind ?? '').toLowerCase()}/${involvedObject?.name ?? ''}`,
    ),
    wide('Subobject', ({ involvedObject }) => involvedObject?.fieldPath ?? ''),
    wide('Source', ({ source, reportingComponent }) =>
      [source?.component ?? reportingComponent, source?.host].filter(Boolean).join(', '),
    ),
    column('Message', ({ message }) => String(message ?? '').trim()),
    wide('First Seen', (event, nowMs) =>
      age(event.firstTimestamp ?? event.eventTime ?? event.metadata.creationTimestamp, nowMs),
    ),
    wide('Count', ({ count: times }) => number(times ?? 1)),
    wide('Name', object => object.metadata.name),
  ],
  Deployment: [
    NAME,
    column('Ready', ({ spec, status }) => `${number(status?.readyReplicas)}/${number(spec.replicas)}`),
    column('Up-to-date', ({ status }) => number(status?.updatedReplicas), 0, 'integer'),
    column('Available', ({ status }) => number(status?.availableReplicas), 0, 'integer'),
    AGE,
    ...podTemplate,
    wide('Selector', ({ spec }) => selector(spec.selector)),
  ],
  ReplicaSet: [NAME, ...scalable, AGE, ...podTemplate, wide('Selector', ({ spec }) => selector(spec.selector))],
  DaemonSet: [
    NAME,
    daemon('Desired', 'desiredNumberScheduled'),
    daemon('Current', 'currentNumberScheduled'),
    daemon('Ready', 'numberReady'),
    daemon('Up-to-date', 'updatedNumberScheduled'),
    daemon('Available', 'numberAvailable'),
    column('Node Selector', ({ spec }) => labels(spec.template?.spec?.nodeSelector)),
    AGE,
    ...podTemplate,
    wide('Selector', ({ spec }) => selector(spec.selector)),
  ],
  ControllerRevision: [
    NAME,
    column('Controller', ({ metadata }) => {
      const owner = metadata.ownerReferences?.[0];
      return owner === undefined ? NONE : `${owner.kind.toLowerCase()}.${owner.apiVersion.split('/')[0]}/${owner.name}`;
    }),
    column('Revision', ({ revision }) => number(revision), 0, 'integer'),
    AGE,
  ],
  Lease: [NAME, column('Holder', ({ spec }) => spec?.holderIdentity ?? ''), AGE],
  NetworkPolicy: [NAME, column('Pod-Selector', ({ spec }) => selector(spec?.podSelector)), AGE],
  ClusterRole: [NAME, column('Created At', ({ metadata }) => metadata.creationTimestamp ?? '')],
  Role: [NAME, column('Created At', ({ metadata }) => metadata.creationTimestamp ?? '')],
  ClusterRoleBinding: [NAME, column('Role', ({ roleRef }) => `${roleRef?.kind}/${roleRef?.name}`), AGE],
  RoleBinding: [NAME, column('Role', ({ roleRef }) => `${roleRef?.kind}/${roleRef?.name}`), AGE],
  CiliumLoadBalancerIPPool: [
    NAME,
    column('Disabled', ({ spec }) => `${spec.disabled ?? false}`),
    column('Conflicting', ({ status }) => condition(status, 'cilium.io/PoolConflict')?.status ?? ''),
    column('IPs Available', ({ status }) => condition(status, 'cilium.io/IPsAvailable')?.message ?? ''),
    AGE,
  ],
  CiliumEndpoint: [
    NAME,
    column('Security Identity', ({ status }) => number(status?.identity?.id), 0, 'integer'),
    wide('Ingress Enforcement', ({ status }) => status?.policy?.ingress?.state ?? ''),
    wide('Egress Enforcement', ({ status }) => status?.policy?.egress?.state ?? ''),
    column('Endpoint State', ({ status }) => status?.state ?? ''),
    column('IPv4', ({ status }) => status?.networking?.addressing?.[0]?.ipv4 ?? ''),
    column('IPv6', ({ status }) => status?.networking?.addressing?.[0]?.ipv6 ?? ''),
  ],
  CiliumIdentity: [
    NAME,
    column('Namespace', identity => identity['security-labels']?.['k8s:io.kubernetes.pod.namespace'] ?? ''),
    AGE,
  ],
  CiliumNode: [
    NAME,
    column('CiliumInternalIP', ({ spec }) => ciliumAddress(spec, 'CiliumInternalIP')),
    column('InternalIP', ({ spec }) => ciliumAddress(spec, 'InternalIP')),
    AGE,
  ],
  TunnelSwitch: [
    NAME,
    column('From', ({ spec }) => spec.from),
    column('To', ({ spec }) => spec.to),
    column('Phase', ({ status }) => status?.phase ?? ''),
    column('Moved', ({ status }) => status?.moved ?? ''),
    column('Lost', ({ status }) => `${status?.lost ?? NONE}`),
    AGE,
    wide('Epoch', ({ status }) => number(status?.epoch)),
    wide('Message', ({ status }) => status?.message ?? ''),
  ],
};

function condition(status: Json, type: string): Json {
  return (status?.conditions ?? []).find((candidate: Json) => candidate.type === type);
}

function ciliumAddress(spec: Json, type: string): string {
  return (spec.addresses ?? []).find((address: Json) => address.type === type)?.ip ?? '';
}

/** The columns of a kind, at least its name and age. */
export function columnsOf(kind: string): Column[] {
  return KINDS[kind] ?? [NAME, AGE];
}
