/** Label selectors and field selectors, as queries and objects write them. */
import { badRequest } from './errors.ts';
import type { Json, KubeObject } from './object.ts';

type Labels = Record<string, string> | undefined;
type Requirement = {
  key: string;
  operator: 'In' | 'NotIn' | 'Exists' | 'DoesNotExist' | 'Gt' | 'Lt';
  values: string[];
};

function meets(labels: Labels, { key, operator, values }: Requirement): boolean {
  const value = labels !== undefined && Object.hasOwn(labels, key) ? labels[key] : undefined;
  switch (operator) {
    case 'In':
      return value !== undefined && values.includes(value);
    case 'NotIn':
      return value === undefined || !values.includes(value);
    case 'Exists':
      return value !== undefined;
    case 'DoesNotExist':
      return value === undefined;
    case 'Gt':
      return value !== undefined && Number(value) > Number(values[0]);
    case 'Lt':
      return value !== undefined && Number(value) < Number(values[0]);
  }
}

/** A selector in an object; an empty one selects everything, none at all nothing. */
export interface LabelSelector {
  matchLabels?: Record<string, string>;
  matchExpressions?: { key: string; operator: string; values?: string[] }[];
}

export function matchesSelector(selector: LabelSelector | undefined, labels: Labels): boolean {
  if (selector === undefined) return false;
  const { matchLabels = {}, matchExpressions = [] } = selector;
  return (
    matchesLabels(matchLabels, labels) &&
    matchExpressions.every(({ key, operator, values = [] }) =>
      meets(labels, { key, operator: operator as Requirement['operator'], values }),
    )
  );
}

/** Whether labels have every one that is wanted. */
export function matchesLabels(wanted: Record<string, string>, labels: Labels): boolean {
  return Object.entries(wanted).every(([key, value]) => labels?.[key] === value);
}

/** `app=web,tier in (a, b),!old,n>3`. @throws ApiError (400) */
export function parseLabelSelector(text: string): (labels: Labels) => boolean {
  const requirements: Requirement[] = [];
  let rest = text.trim();
  const fault = () => badRequest(`unable to parse requirement: found '${rest}' in "${text}"`);
  while (rest !== '') {
    const match = /^(!)?\s*([\w./-]+)\s*(?:(==|=|!=|>|<)\s*([\w.-]*)|\s+(in|notin)\s*\(([^)]*)\))?\s*(?:,\s*|$)/.exec(
      rest,
    );
    if (match === null) throw fault();
    const [whole, not, key, sign, value, word, list] = match;
    if (not !== undefined && (sign !== undefined || word !== undefined)) throw fault();
    const values = list === undefined ? [value ?? ''] : list.split(',').map(item => item.trim());
    const operator =
      word === 'in' || sign === '=' || sign === '=='
        ? 'In'
        : word === 'notin' || sign === '!='
          ? 'NotIn'
          : sign === '>'
            ? 'Gt'
            : sign === '<'
              ? 'Lt'
              : not === undefined
                ? 'Exists'
                : 'DoesNotExist';
    requirements.push({ key: key!, operator, values });
    rest = rest.slice(whole.length);
  }
  return labels => requirements.every(requirement => meets(labels, requirement));
}

/** Fields that a kind can be selected by besides metadata.name and metadata.namespace. */
const SELECTABLE: Record<string, readonly string[]> = {
  Pod: [
    'spec.nodeName',
    'spec.restartPolicy',
    'spec.schedulerName',
    'spec.serviceAccountName',
    'spec.hostNetwork',
    'status.phase',
    'status.podIP',
    'status.nominatedNodeName',
  ],
  Event: [
    ...['kind', 'namespace', 'name', 'uid', 'apiVersion', 'resourceVersion', 'fieldPath'].map(
      name => `involvedObject.${name}`,
    ),
    'reason',
    'reportingComponent',
    'source',
    'type',
  ],
  Node: ['spec.unschedulable'],
  Namespace: ['status.phase'],
  ReplicaSet: ['status.replicas'],
  Secret: ['type'],
  Service: ['spec.clusterIP', 'spec.type'],
};

/** `metadata.name=web,status.phase!=Running`. @throws ApiError (400) for a field that a kind cannot be selected by */
export function parseFieldSelector(text: string, kind: string): (object: KubeObject) => boolean {
  const requirements = text
    .split(',')
    .filter(part => part.trim() !== '')
    .map(part => {
      const match = /^\s*([\w.]+)\s*(==|=|!=)\s*(.*?)\s*$/.exec(part);
      if (match === null) throw badRequest(`invalid field selector: "${part}"`);
      const [, field, sign, value] = match as unknown as [string, string, string, string];
      const known = field === 'metadata.name' || field === 'metadata.namespace' || SELECTABLE[kind]?.includes(field);
      if (!known) throw badRequest(`field label not supported: ${field}`);
      return { path: field.split('.'), equal: sign !== '!=', value };
    });
  return object =>
    requirements.every(({ path, equal, value }) => {
      let found: Json = object;
      for (const name of path) found = found?.[name];
      if (path[0] === 'source') found = found?.component;
      const text = found === undefined || found === false ? (found === false ? 'false' : '') : String(found);
      return (text === value) === equal;
    });
}
