/** What services and their EndpointSlices mean to a node: the part `spec.services` of its configuration. Pure. */
import { parseAddress } from '../../control/address.ts';
import { type Json, type KubeObject, placeOf } from '../object.ts';
import { Memo } from './memo.ts';

const SERVICE_NAME = 'kubernetes.io/service-name';

const asItIs = (name: string): string => name;

export interface CompiledServices {
  /** As a NodeConfig writes them, by name. */
  services: Json[];
  /** What of them no node can do, by the service's place. */
  refused: { place: string; message: string }[];
}

/**
 * @param slices of all services
 * @param nodeName what the datapath calls a node that the API calls by this name
 */
export function compileServices(
  services: readonly KubeObject[],
  slices: readonly KubeObject[],
  nodeName: (name: string) => string = asItIs,
): CompiledServices {
  return all.get(services, [slices, nodeName], () => compileAll(services, slices, nodeName));
}

const all = new Memo<CompiledServices>();

function compileAll(
  services: readonly KubeObject[],
  slices: readonly KubeObject[],
  nodeName: (name: string) => string,
): CompiledServices {
  const byService = grouped.get(slices, [], () => slicesByService(slices));
  const compiled: Json[] = [];
  const refused: CompiledServices['refused'] = [];
  for (const service of services) {
    const place = placeOf(service);
    const { spec } = service;
    // A headless service has no address, and an external name is a matter of DNS.
    if (spec.type === 'ExternalName' || spec.clusterIP === undefined || spec.clusterIP === 'None') continue;
    if (parseAddress(spec.clusterIP) === undefined) {
      refused.push({ place, message: `${spec.clusterIP}: only IPv4 is forwarded` });
      continue;
    }
    const own = byService.get(place) ?? [];
    compiled.push(one.get(service, [nodeName, ...own], () => compileService(service, own, nodeName)));
  }
  return { services: compiled.sort((a, b) => (a.name < b.name ? -1 : 1)), refused };
}

/** What was made of each service. */
const one = new Memo<Json>();
const grouped = new Memo<Map<string, KubeObject[]>>();

function slicesByService(slices: readonly KubeObject[]): Map<string, KubeObject[]> {
  const byService = new Map<string, KubeObject[]>();
  for (const slice of slices) {
    const name = slice.metadata.labels?.[SERVICE_NAME];
    if (name === undefined || slice.addressType !== 'IPv4') continue;
    const place = `${slice.metadata.namespace}/${name}`;
    const known = byService.get(place);
    if (known === undefined) byService.set(place, [slice]);
    else known.push(slice);
  }
  return byService;
}

function compileService(service: KubeObject, slices: readonly KubeObject[], nodeName: (name: string) => string): Json {
  const { spec, status } = service;
  const isBalanced = spec.type === 'LoadBalancer';
  const ingress: string[] = (status?.loadBalancer?.ingress ?? []).flatMap(({ ip }: Json) =>
    ip === undefined ? [] : [ip],
  );
  const given: Json = {
    name: placeOf(service),
    type: spec.type,
    clusterIP: spec.clusterIP,
    loadBalancerIPs: isBalanced ? ingress : [],
    externalIPs: spec.externalIPs ?? [],
    ports: (spec.ports ?? []).map((port: Json) => ({
      ...(port.name === undefined ? {} : { name: port.name }),
      protocol: port.protocol,
      port: port.port,
      ...(spec.type === 'ClusterIP' || port.nodePort === undefined ? {} : { nodePort: port.nodePort }),
    })),
    endpoints: endpointsOf(service, slices, nodeName),
    sessionAffinity: spec.sessionAffinity,
    internalTrafficPolicy: spec.internalTrafficPolicy ?? 'Cluster',
    externalTrafficPolicy: spec.externalTrafficPolicy ?? 'Cluster',
  };
  const timeout = spec.sessionAffinityConfig?.clientIP?.timeoutSeconds;
  if (timeout !== undefined) given.sessionAffinityTimeoutSeconds = timeout;
  if (isBalanced && (spec.loadBalancerSourceRanges ?? []).length > 0) {
    given.loadBalancerSourceRanges = spec.loadBalancerSourceRanges;
  }
  if (spec.trafficDistribution !== undefined) given.trafficDistribution = spec.trafficDistribution;
  return given;
}

/**
 * Slices may say an endpoint twice while they are rearranged, and have ports that the service does not lead to. As kube-proxy
 * has it, the first of equals counts. (pkg/proxy/endpointslicecache.go: addEndpoints)
 */
function endpointsOf(service: KubeObject, slices: readonly KubeObject[], nodeName: (name: string) => string): Json[] {
  const wanted = new Set(((service.spec.ports ?? []) as Json[]).map(({ name }) => name ?? ''));
  const known = new Set<string>();
  return slices.flatMap(({ endpoints, ports }) =>
    ((endpoints ?? []) as Json[]).flatMap(endpoint => {
      const { ready = true, serving = ready, terminating = false } = endpoint.conditions ?? {};
      return endpoint.addresses.flatMap((address: string) => {
        const named = ((ports ?? []) as Json[]).flatMap(({ name = '', port }) => {
          const key = `${name} ${address}:${port}`;
          if (port === undefined || !wanted.has(name) || known.has(key)) return [];
          known.add(key);
          return [[name, port]];
        });
        if (named.length === 0) return [];
        return [
          {
            address,
            ports: Object.fromEntries(named),
            ready,
            serving,
            terminating,
            ...(endpoint.nodeName === undefined ? {} : { nodeName: nodeName(endpoint.nodeName) }),
            ...(endpoint.zone === undefined ? {} : { zone: endpoint.zone }),
          },
        ];
      });
    }),
  );
}
