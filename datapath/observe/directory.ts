/** Names for addresses: what the nodes that are watched know of pods, services and each other. */
import { addressesOf } from '../control/service-config.ts';
import type { WatchContext } from '../control/watch.ts';
import { ip } from '../packet/build.ts';
import type { Directory, Endpoint } from './flow.ts';

const IDENTITY_HOST = 1;
const IDENTITY_REMOTE_NODE = 6;
const PROTOCOLS: Readonly<Record<string, number>> = { TCP: 6, UDP: 17, SCTP: 132 };

/** What all nodes together know; each sees it from its own place. */
export class Directories {
  private readonly contexts = new Map<string, WatchContext>();
  private readonly made = new Map<string, Directory>();

  /** A node says what it has, again after every change. */
  update(context: WatchContext): void {
    this.contexts.set(context.node, context);
    this.made.clear();
  }

  /** As seen by a node that has been heard of. */
  of(node: string): Directory {
    let directory = this.made.get(node);
    if (directory === undefined) {
      directory = this.make(this.contexts.get(node)!);
      this.made.set(node, directory);
    }
    return directory;
  }

  private make(own: WatchContext): Directory {
    const endpoints = new Map<number, Endpoint>();
    const services = new Map<string, string>();
    const ports = new Map(own.ports.map(port => [port.number, port.kind]));
    // Our own last: they are nearer.
    const others = [...this.contexts.values()].filter(context => context !== own);
    for (const context of [...others, own]) {
      const { uplink, host, pods, tunnels } = context.config.spec;
      const identity = context === own ? IDENTITY_HOST : IDENTITY_REMOTE_NODE;
      const node = {
        identity,
        namespace: '',
        podName: '',
        labels: [`reserved:${identity === 1 ? 'host' : 'remote-node'}`],
      };
      for (const address of [uplink.address, host?.address]) {
        if (address !== undefined) endpoints.set(ip(address.split('/')[0]), node);
      }
      for (const { address } of tunnels.flatMap(({ peers }) => peers)) {
        if (!endpoints.has(ip(address))) endpoints.set(ip(address), REMOTE_NODE);
      }
      for (const pod of pods) {
        const slash = pod.name.indexOf('/');
        const labels = Object.entries(pod.labels);
        endpoints.set(ip(pod.address.split('/')[0]), {
          identity: pod.identity ?? 0,
          namespace: slash < 0 ? '' : pod.name.slice(0, slash),
          podName: pod.name.slice(slash + 1),
          labels: labels.map(([key, value]) => `k8s:${key}=${value}`),
        });
      }
      for (const service of context.config.spec.services) {
        const { cluster, loadBalancer, external } = addressesOf<string>(service);
        for (const { port, protocol } of service.ports) {
          for (const address of [...cluster, ...loadBalancer, ...external]) {
            services.set(`${ip(address)} ${port} ${PROTOCOLS[protocol]}`, service.name);
          }
        }
      }
    }
    return {
      node: own.node,
      portKind: index => (ports.get(index) as ReturnType<Directory['portKind']> | undefined) ?? 'none',
      endpointOf: address => endpoints.get(address),
      serviceOf: (address, port, protocol) => services.get(`${address} ${port} ${protocol}`) ?? '',
    };
  }
}

const REMOTE_NODE: Endpoint = {
  identity: IDENTITY_REMOTE_NODE,
  namespace: '',
  podName: '',
  labels: ['reserved:remote-node'],
};
