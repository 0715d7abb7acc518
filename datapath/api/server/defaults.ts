/** What the API fills in where an object says nothing: what people see who get it back (defaults.go of each group). */
import { isMap, type Json, type KubeObject } from '../object.ts';
import type { Resource } from '../resources.ts';

/** @returns the object with its defaults; the one given stays as it is */
export function withDefaults(object: KubeObject, { kind }: Resource): KubeObject {
  const fill = DEFAULTS[kind];
  if (fill === undefined) return object;
  const copy = structuredClone(object);
  fill(copy);
  return copy;
}

const DEFAULTS: Record<string, (object: KubeObject) => void> = {
  Pod(pod) {
    podSpec(mapIn(pod, 'spec'));
    pod.status ??= { phase: 'Pending', qosClass: 'BestEffort' };
  },
  Deployment(deployment) {
    const spec = mapIn(deployment, 'spec');
    template(spec);
    put(spec, { replicas: 1, revisionHistoryLimit: 10, progressDeadlineSeconds: 600 });
    const strategy = mapIn(spec, 'strategy');
    strategy.type ??= 'RollingUpdate';
    if (strategy.type === 'RollingUpdate') {
      strategy.rollingUpdate = { maxUnavailable: '25%', maxSurge: '25%', ...strategy.rollingUpdate };
    }
  },
  ReplicaSet(set) {
    const spec = mapIn(set, 'spec');
    spec.replicas ??= 1;
    if (spec.template !== undefined) template(spec);
    set.status ??= { replicas: 0 };
  },
  DaemonSet(set) {
    const spec = mapIn(set, 'spec');
    template(spec);
    spec.revisionHistoryLimit ??= 10;
    const strategy = mapIn(spec, 'updateStrategy');
    strategy.type ??= 'RollingUpdate';
    if (strategy.type === 'RollingUpdate') {
      strategy.rollingUpdate = { maxUnavailable: 1, maxSurge: 0, ...strategy.rollingUpdate };
    }
    set.status ??= { currentNumberScheduled: 0, desiredNumberScheduled: 0, numberMisscheduled: 0, numberReady: 0 };
  },
  Service(service) {
    const spec = mapIn(service, 'spec');
    put(spec, { type: 'ClusterIP', sessionAffinity: 'None' });
    for (const port of list(spec.ports)) {
      port.protocol ??= 'TCP';
      if (port.targetPort === undefined || port.targetPort === 0 || port.targetPort === '') port.targetPort = port.port;
    }
    if (spec.sessionAffinity === 'ClientIP') {
      spec.sessionAffinityConfig = { clientIP: { timeoutSeconds: 10800, ...spec.sessionAffinityConfig?.clientIP } };
    }
    if (spec.type !== 'ExternalName') {
      put(spec, { internalTrafficPolicy: 'Cluster', ipFamilyPolicy: 'SingleStack', ipFamilies: ['IPv4'] });
    }
    const isExternal = spec.type === 'NodePort' || spec.type === 'LoadBalancer';
    if (isExternal || list(spec.externalIPs).length > 0) spec.externalTrafficPolicy ??= 'Cluster';
    if (spec.type === 'LoadBalancer') spec.allocateLoadBalancerNodePorts ??= true;
    service.status ??= { loadBalancer: {} };
  },
  Namespace(namespace) {
    const { metadata } = namespace;
    metadata.labels = { ...metadata.labels, 'kubernetes.io/metadata.name': metadata.name };
    namespace.spec = { finalizers: ['kubernetes'], ...namespace.spec };
    namespace.status ??= { phase: 'Active' };
  },
  NetworkPolicy({ spec }) {
    if (!isMap(spec)) return;
    spec.podSelector ??= {};
    spec.policyTypes ??= list(spec.egress).length > 0 ? ['Ingress', 'Egress'] : ['Ingress'];
    for (const rule of [...list(spec.ingress), ...list(spec.egress)]) {
      for (const port of list(rule.ports)) port.protocol ??= 'TCP';
    }
  },
  EndpointSlice(slice) {
    slice.endpoints ??= [];
    for (const port of list(slice.ports)) put(port, { name: '', protocol: 'TCP' });
  },
  Endpoints(endpoints) {
    for (const subset of list(endpoints.subsets)) for (const port of list(subset.ports)) port.protocol ??= 'TCP';
  },
  Secret(secret) {
    secret.type ??= 'Opaque';
    if (!isMap(secret.stringData)) return;
    secret.data ??= {};
    for (const [key, text] of Object.entries(secret.stringData)) {
      secret.data[key] = Buffer.from(String(text)).toString('base64');
    }
    delete secret.stringData;
  },
  Node(node) {
    node.spec ??= {};
    node.status ??= {};
    const { metadata } = node;
    metadata.labels = { 'kubernetes.io/hostname': metadata.name, 'kubernetes.io/os': 'linux', ...metadata.labels };
  },
  RoleBinding: subjects,
  ClusterRoleBinding: subjects,
  IPPool({ spec }) {
    if (!isMap(spec)) return;
    put(spec, {
      blockSize: String(spec.cidr).includes(':') ? 122 : 26,
      ipipMode: 'Never',
      vxlanMode: 'Never',
      nodeSelector: 'all()',
      allowedUses: ['Workload', 'Tunnel'],
      assignmentMode: 'Automatic',
    });
  },
};

function subjects(binding: KubeObject): void {
  for (const subject of list(binding.subjects)) {
    if (subject.kind === 'User' || subject.kind === 'Group') subject.apiGroup ??= 'rbac.authorization.k8s.io';
  }
  if (isMap(binding.roleRef)) binding.roleRef.apiGroup ??= 'rbac.authorization.k8s.io';
}

function template(spec: Json): void {
  if (!isMap(spec.template)) return;
  spec.template.metadata ??= {};
  podSpec(mapIn(spec.template, 'spec'));
}

function podSpec(spec: Json): void {
  put(spec, {
    restartPolicy: 'Always',
    dnsPolicy: 'ClusterFirst',
    terminationGracePeriodSeconds: 30,
    securityContext: {},
    schedulerName: 'default-scheduler',
  });
  if (spec.serviceAccount !== undefined) spec.serviceAccountName ??= spec.serviceAccount;
  for (const container of [...list(spec.containers), ...list(spec.initContainers)]) {
    const { image } = container;
    put(container, {
      imagePullPolicy: typeof image === 'string' && !/:(?!latest$)[\w.-]+$|@/.test(image) ? 'Always' : 'IfNotPresent',
      terminationMessagePath: '/dev/termination-log',
      terminationMessagePolicy: 'File',
      resources: {},
    });
    for (const port of list(container.ports)) {
      port.protocol ??= 'TCP';
      if (spec.hostNetwork === true) port.hostPort ??= port.containerPort;
    }
    for (const variable of list(container.env)) {
      if (isMap(variable.valueFrom?.fieldRef)) variable.valueFrom.fieldRef.apiVersion ??= 'v1';
    }
    for (const name of ['livenessProbe', 'readinessProbe', 'startupProbe']) {
      const probe = container[name];
      if (!isMap(probe)) continue;
      put(probe, { timeoutSeconds: 1, periodSeconds: 10, successThreshold: 1, failureThreshold: 3 });
      if (isMap(probe.httpGet)) put(probe.httpGet, { path: '/', scheme: 'HTTP' });
    }
  }
  for (const volume of list(spec.volumes)) {
    for (const source of ['configMap', 'secret']) {
      if (isMap(volume[source])) volume[source].defaultMode ??= 0o644;
    }
    if (isMap(volume.hostPath)) volume.hostPath.type ??= '';
  }
}

/** The maps of a list, or nothing where there is none. */
function list(value: Json): Record<string, Json>[] {
  return Array.isArray(value) ? value.filter(isMap) : [];
}

/** A map in a map, made where there is none. */
function mapIn(target: Record<string, Json>, key: string): Json {
  target[key] ??= {};
  return target[key];
}

function put(target: Record<string, Json>, defaults: Record<string, Json>): void {
  for (const [key, value] of Object.entries(defaults)) target[key] ??= value;
}
