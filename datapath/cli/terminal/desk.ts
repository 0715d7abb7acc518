import { ApiClient } from '../../api/client/client.ts';
import type { Json, KubeObject } from '../../api/object.ts';
import { callNode } from '../../control/client.ts';
import type { ResolvedConfig } from '../../control/resolved.ts';
import { readLabState } from '../../lab/lab-state.ts';
import { apiDirOf, nodeNameOf, socketOf } from '../../lab/names.ts';
import type { Topology } from '../../lab/topology.ts';

/** What cannot be done, in a tool's own words. */
export class ToolError extends Error {
  override name = 'ToolError';
}

export class Desk {
  readonly lab: string;
  readonly topology: Topology;
  /** As the cluster names it: the node itself, or that of the pod. */
  readonly node: string;
  /** In an agent's pod: `cilium` is what the agent has under that name, not the command line's. */
  readonly isAgent: boolean;
  private client: ApiClient | undefined;

  /** @throws ToolError where the host has no node */
  constructor(lab: string, host: string | undefined, isAgent: boolean) {
    this.lab = lab;
    this.isAgent = isAgent;
    const { topology } = readLabState(lab);
    this.topology = topology;
    const { nodes, pods } = topology;
    const node = pods.find(pod => pod.name === host)?.node ?? host ?? nodes[0]!.name;
    if (!nodes.some(({ name }) => name === node)) {
      throw new ToolError(`${host} has no node: use it on ${nodes.map(({ name }) => name).join(', ')}`);
    }
    this.node = node;
  }

  get socket(): string {
    return socketOf(this.lab, this.node);
  }

  /** Its name on this machine. */
  get nodeName(): string {
    return nodeNameOf(this.lab, this.node);
  }

  async config(node = this.node): Promise<ResolvedConfig> {
    return (await callNode(socketOf(this.lab, node), 'config')) as ResolvedConfig;
  }

  /** Of the API, by path. @throws StatusError, and Error where there is none */
  get(path: string): Promise<Json> {
    return this.api.get(path);
  }

  get api(): ApiClient {
    // Its loopback port is not that of a host's network namespace.
    const server = `unix://${apiDirOf(this.lab)}/api.sock`;
    this.client ??= new ApiClient({ server, name: this.lab, namespace: 'default', insecure: false });
    return this.client;
  }

  async list(path: string): Promise<KubeObject[]> {
    return ((await this.get(path)) as { items: KubeObject[] }).items;
  }

  async ciliumConfig(): Promise<Record<string, string>> {
    const response = await this.api.request('/api/v1/namespaces/kube-system/configmaps/cilium-config');
    if (response.status !== 200)
      throw new ToolError("this cluster is not Cilium's: there is no ConfigMap cilium-config");
    return response.json.data ?? {};
  }

  close(): void {
    this.client?.close();
  }
}
