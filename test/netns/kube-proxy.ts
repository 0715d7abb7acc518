/**
 * kube-proxy's rules for services as it writes them in its nftables mode (pkg/proxy/nftables), as far as they decide where a
 * connection goes and under which source: for a node made of the kernel's own parts, which ours is compared with.
 */

export interface KernelService {
  clusterIP: string;
  loadBalancerIP: string;
  externalIP: string;
  port: number;
  nodePort: number;
  /** ADDRESS:PORT. */
  endpoint: string;
  /** On this node. */
  local: boolean;
  externalPolicy: 'Cluster' | 'Local';
}

/**
 * @param nodeAddress where node ports answer
 * @param podNetwork of the cluster: who is in it is a pod (--detect-local-mode=ClusterCIDR)
 * @param masquerade rules of the CNI, behind kube-proxy's
 */
export function kubeProxyTable(
  services: readonly KernelService[],
  nodeAddress: string,
  podNetwork: string,
  masquerade: readonly string[],
): string {
  const chains: string[] = [];
  const ips: string[] = [];
  const nodePorts: string[] = [];
  const noLocal: string[] = [];
  services.forEach((service, i) => {
    const { clusterIP, loadBalancerIP, externalIP, port, nodePort, endpoint, local, externalPolicy } = service;
    const [address] = endpoint.split(':');
    chains.push(
      chain(`endpoint-${i}`, [`ip saddr ${address} jump mark-for-masquerade`, `meta l4proto tcp dnat to ${endpoint}`]),
      chain(`service-${i}`, [
        `ip daddr ${clusterIP} ip saddr != ${podNetwork} jump mark-for-masquerade`,
        `goto endpoint-${i}`,
      ]),
      chain(`external-${i}`, [
        ...(externalPolicy === 'Cluster'
          ? ['jump mark-for-masquerade', `goto service-${i}`]
          : [
              `ip saddr ${podNetwork} goto service-${i}`,
              'fib saddr type local jump mark-for-masquerade',
              `fib saddr type local goto service-${i}`,
              ...(local ? [`goto endpoint-${i}`] : []),
            ]),
      ]),
    );
    ips.push(`${clusterIP} . tcp . ${port} : goto service-${i}`);
    for (const ip of [loadBalancerIP, externalIP]) ips.push(`${ip} . tcp . ${port} : goto external-${i}`);
    nodePorts.push(`tcp . ${nodePort} : goto external-${i}`);
    if (externalPolicy === 'Local' && !local) {
      noLocal.push(
        `ip daddr { ${loadBalancerIP}, ${externalIP} } tcp dport ${port} drop`,
        `ip daddr ${nodeAddress} tcp dport ${nodePort} drop`,
      );
    }
  });
  return `table ip kube-proxy {
${chain('mark-for-masquerade', ['meta mark set meta mark or 0x4000'])}
${chains.join('\n')}
map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; elements = { ${ips.join(', ')} } }
map service-nodeports { type inet_proto . inet_service : verdict; elements = { ${nodePorts.join(', ')} } }
${chain('services', [
  'ip daddr . meta l4proto . th dport vmap @service-ips',
  `ip daddr ${nodeAddress} fib daddr type local meta l4proto . th dport vmap @service-nodeports`,
])}
${chain('filter-input', ['type filter hook input priority 0', ...noLocal])}
${chain('filter-forward', ['type filter hook forward priority 0', ...noLocal])}
${chain('nat-prerouting', ['type nat hook prerouting priority -100', 'jump services'])}
${chain('nat-output', ['type nat hook output priority -100', 'jump services'])}
${chain('nat-postrouting', [
  'type nat hook postrouting priority 100',
  'meta mark & 0x4000 == 0x4000 masquerade',
  ...masquerade,
])}
}
`;
}

function chain(name: string, lines: string[]): string {
  const text = lines.map(line => `  ${line};`).join('\n');
  return `chain ${name} {\n${text}\n}`;
}
