/** Rules between values that no schema can say: names, selectors, what may not change (validation.go of each group). */
import { isDeepStrictEqual } from 'node:util';
import type { Cause } from '../errors.ts';
import { isMap, type Json, type KubeObject } from '../object.ts';
import type { Resource } from '../resources.ts';
import { matchesSelector } from '../selector.ts';

const LABEL = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/;
const SUBDOMAIN = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;
const SERVICE_NAME = /^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$/;
const KEY = /^([a-z0-9]([-a-z0-9.]*[a-z0-9])?\/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$/;
const VALUE = /^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$/;

const SUBDOMAIN_RULE =
  "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
const LABEL_RULE =
  "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
const SERVICE_RULE =
  "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character";
const LABEL_VALUE_RULE =
  "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";

function bad(field: string, value: unknown, rule: string): Cause {
  return { reason: 'FieldValueInvalid', field, message: `Invalid value: ${JSON.stringify(value)}: ${rule}` };
}

function required(field: string, why = ''): Cause {
  return { reason: 'FieldValueRequired', field, message: `Required value${why === '' ? '' : `: ${why}`}` };
}

/** What is wrong with a new object, or one that is to replace another. */
export function checkObject(object: KubeObject, resource: Resource): Cause[] {
  return [...checkMeta(object, resource), ...(RULES[resource.kind]?.(object) ?? [])];
}

/** What may not be different from how it was. */
export function checkChange(before: KubeObject, after: KubeObject, { kind }: Resource): Cause[] {
  return CHANGES[kind]?.(before, after) ?? [];
}

function checkMeta({ metadata }: KubeObject, { kind, group }: Resource): Cause[] {
  const causes: Cause[] = [];
  const { name, labels = {}, annotations = {} } = metadata;
  if (kind === 'Namespace' && !LABEL.test(name)) causes.push(bad('metadata.name', name, LABEL_RULE));
  else if (kind === 'Service' && !SERVICE_NAME.test(name)) causes.push(bad('metadata.name', name, SERVICE_RULE));
  // Names of roles may have colons: system:node.
  else if (group === 'rbac.authorization.k8s.io' ? /[/%]/.test(name) : name.length > 253 || !SUBDOMAIN.test(name)) {
    causes.push(bad('metadata.name', name, SUBDOMAIN_RULE));
  }
  causes.push(...checkLabels(labels, 'metadata.labels'));
  for (const key of Object.keys(annotations)) {
    if (!KEY.test(key.toLowerCase())) causes.push(bad('metadata.annotations', key, 'a qualified name is expected'));
  }
  const length = Object.entries(annotations).reduce((sum, [key, text]) => sum + key.length + String(text).length, 0);
  if (length > 256 * 1024) {
    causes.push({
      reason: 'FieldValueTooLong',
      field: 'metadata.annotations',
      message: 'Too long: may not be more than 262144 bytes',
    });
  }
  return causes;
}

function checkLabels(labels: Record<string, string>, field: string): Cause[] {
  const causes: Cause[] = [];
  for (const [key, value] of Object.entries(labels)) {
    if (!KEY.test(key))
      causes.push(bad(field, key, "name part must consist of alphanumeric characters, '-', '_' or '.'"));
    if (!VALUE.test(value)) causes.push(bad(field, value, LABEL_VALUE_RULE));
  }
  return causes;
}

const RULES: Record<string, (object: KubeObject) => Cause[]> = {
  Pod: ({ spec }) => checkPodSpec(spec, 'spec'),
  Deployment: checkWorkload,
  ReplicaSet: checkWorkload,
  DaemonSet: checkWorkload,
  Service: checkService,
};

function checkWorkload({ spec }: KubeObject): Cause[] {
  const causes: Cause[] = [];
  if (!isMap(spec)) return [required('spec')];
  if (!isMap(spec.selector)) causes.push(required('spec.selector'));
  if (!isMap(spec.template)) return [...causes, required('spec.template')];
  if (spec.replicas < 0) causes.push(bad('spec.replicas', spec.replicas, 'must be greater than or equal to 0'));
  const labels = spec.template.metadata?.labels ?? {};
  if (isMap(spec.selector)) {
    const empty =
      Object.keys(spec.selector.matchLabels ?? {}).length + (spec.selector.matchExpressions ?? []).length === 0;
    if (empty) causes.push(bad('spec.selector', spec.selector, 'empty selector is invalid for deployment'));
    else if (!matchesSelector(spec.selector, labels)) {
      causes.push(bad('spec.template.metadata.labels', labels, '`selector` does not match template `labels`'));
    }
  }
  causes.push(...checkLabels(labels, 'spec.template.metadata.labels'));
  causes.push(...checkPodSpec(spec.template.spec, 'spec.template.spec'));
  return causes;
}

function checkPodSpec(spec: Json, path: string): Cause[] {
  const causes: Cause[] = [];
  const containers = (spec?.containers ?? []) as Json[];
  if (containers.length === 0) causes.push(required(`${path}.containers`));
  const names = new Set<string>();
  for (const [index, container] of containers.entries()) {
    const at = `${path}.containers[${index}]`;
    if (!container.name) causes.push(required(`${at}.name`));
    else if (!LABEL.test(container.name)) causes.push(bad(`${at}.name`, container.name, LABEL_RULE));
    else if (names.has(container.name)) {
      causes.push({
        reason: 'FieldValueDuplicate',
        field: `${at}.name`,
        message: `Duplicate value: ${JSON.stringify(container.name)}`,
      });
    }
    names.add(container.name);
    if (!container.image) causes.push(required(`${at}.image`));
    for (const [number, port] of ((container.ports ?? []) as Json[]).entries()) {
      if (!isPort(port.containerPort)) causes.push(badPort(`${at}.ports[${number}].containerPort`, port.containerPort));
    }
  }
  return causes;
}

function isPort(value: Json): boolean {
  return Number.isInteger(value) && value >= 1 && value <= 65535;
}

function badPort(field: string, value: Json): Cause {
  return bad(field, value, 'must be between 1 and 65535, inclusive');
}

function checkService({ spec }: KubeObject): Cause[] {
  const causes: Cause[] = [];
  if (!isMap(spec)) return [required('spec.ports')];
  const ports = (spec.ports ?? []) as Json[];
  if (ports.length === 0 && spec.type !== 'ExternalName' && spec.clusterIP !== 'None')
    causes.push(required('spec.ports'));
  if (spec.type === 'ExternalName' && !spec.externalName) causes.push(required('spec.externalName'));
  if (spec.clusterIP === 'None' && (spec.type === 'NodePort' || spec.type === 'LoadBalancer')) {
    causes.push(bad('spec.clusterIPs[0]', 'None', `may not be set to 'None' for ${spec.type} services`));
  }
  const names = new Set<string>();
  const frontends = new Set<string>();
  for (const [index, port] of ports.entries()) {
    const at = `spec.ports[${index}]`;
    if (!isPort(port.port)) causes.push(badPort(`${at}.port`, port.port));
    if (typeof port.targetPort === 'number' && !isPort(port.targetPort))
      causes.push(badPort(`${at}.targetPort`, port.targetPort));
    if (ports.length > 1 && !port.name) causes.push(required(`${at}.name`));
    if (port.name !== undefined && port.name !== '') {
      if (!LABEL.test(port.name)) causes.push(bad(`${at}.name`, port.name, LABEL_RULE));
      if (names.has(port.name)) {
        causes.push({
          reason: 'FieldValueDuplicate',
          field: `${at}.name`,
          message: `Duplicate value: ${JSON.stringify(port.name)}`,
        });
      }
      names.add(port.name);
    }
    const frontend = `${port.protocol} ${port.port}`;
    if (frontends.has(frontend)) {
      const shown = JSON.stringify({ protocol: port.protocol, port: port.port });
      causes.push({ reason: 'FieldValueDuplicate', field: at, message: `Duplicate value: ${shown}` });
    }
    frontends.add(frontend);
  }
  return causes;
}

const CHANGES: Record<string, (before: KubeObject, after: KubeObject) => Cause[]> = {
  Deployment: sameSelector,
  ReplicaSet: sameSelector,
  DaemonSet: sameSelector,
  Service(before, after) {
    const was = before.spec.clusterIP;
    const is = after.spec.clusterIP;
    if (!was || was === is || before.spec.type === 'ExternalName' || after.spec.type === 'ExternalName') return [];
    return [bad('spec.clusterIPs[0]', [is], 'may not change once set')];
  },
  Pod(before, after) {
    if (isDeepStrictEqual(changeless(before.spec), changeless(after.spec))) return [];
    return [
      {
        reason: 'FieldValueForbidden',
        field: 'spec',
        message:
          'Forbidden: pod updates may not change fields other than `spec.containers[*].image`, `spec.initContainers[*].image`, `spec.activeDeadlineSeconds`, `spec.tolerations` (only additions to existing tolerations), `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)',
      },
    ];
  },
};

function sameSelector(before: KubeObject, after: KubeObject): Cause[] {
  if (isDeepStrictEqual(before.spec.selector, after.spec.selector)) return [];
  return [bad('spec.selector', after.spec.selector, 'field is immutable')];
}

/** What of a pod's spec stays as it is for good. */
function changeless(spec: Json): Json {
  const { nodeName, tolerations, activeDeadlineSeconds, ...rest } = spec;
  const imageless = (containers: Json[] = []): Json[] => containers.map(({ image, ...other }) => other);
  return { ...rest, containers: imageless(rest.containers), initContainers: imageless(rest.initContainers) };
}
