/** `helm upgrade` of a lab's cluster: what Cilium's chart writes into its ConfigMap for the values that a node here reads. */
import { type Desk, ToolError } from './desk.ts';

const CONFIG = '/api/v1/namespaces/kube-system/configmaps/cilium-config';

/** Value of the chart, key of the ConfigMap (install/kubernetes/cilium/templates/cilium-configmap.yaml). */
const KEYS: Readonly<Record<string, string>> = {
  autoDirectNodeRoutes: 'auto-direct-node-routes',
  'bpf.masquerade': 'enable-bpf-masquerade',
  enableIPv4Masquerade: 'enable-ipv4-masquerade',
  installNoConntrackIptablesRules: 'install-no-conntrack-iptables-rules',
  ipv4NativeRoutingCIDR: 'ipv4-native-routing-cidr',
  kubeProxyReplacement: 'kube-proxy-replacement',
  'l2announcements.enabled': 'enable-l2-announcements',
  'l2announcements.leaseDuration': 'l2-announcements-lease-duration',
  'l2announcements.leaseRenewDeadline': 'l2-announcements-renew-deadline',
  'l2announcements.leaseRetryPeriod': 'l2-announcements-retry-period',
  routingMode: 'routing-mode',
  tunnelPort: 'tunnel-port',
  tunnelProtocol: 'tunnel-protocol',
};

/** Flags that a value follows, and that change nothing here. */
const VALUED = new Set(['--version', '--namespace', '-n', '--timeout', '--kube-context', '--kubeconfig']);
const PLAIN = new Set(['--reuse-values', '--reset-then-reuse-values', '--install', '-i', '--wait', '--atomic']);
const USAGE = 'expected upgrade cilium cilium/cilium with --set NAME=VALUE';

export async function helm(desk: Desk, argv: readonly string[]): Promise<string> {
  const [verb, ...words] = argv;
  if (verb !== 'upgrade') throw new ToolError(`helm ${verb ?? ''}: ${USAGE}`);
  const { plain, values } = readWords(words);
  const [release, chart] = plain;
  if (release !== 'cilium' || chart !== 'cilium/cilium')
    throw new ToolError(`helm upgrade ${plain.join(' ')}: ${USAGE}`);
  const unknown = [...values.keys()].filter(name => !Object.hasOwn(KEYS, name));
  if (unknown.length > 0) {
    throw new ToolError(
      `helm upgrade: no node here reads ${unknown.join(', ')}; expected some of ${Object.keys(KEYS).join(', ')}`,
    );
  }
  await desk.ciliumConfig(); // there is none where the cluster is not Cilium's
  const data = Object.fromEntries([...values].map(([name, value]) => [KEYS[name]!, value]));
  const { metadata } = await desk.get(CONFIG);
  const revision = Number(metadata.annotations?.[REVISION] ?? 1) + 1;
  await desk.api.get(CONFIG, {
    method: 'PATCH',
    headers: { 'content-type': 'application/merge-patch+json' },
    body: { metadata: { annotations: { [REVISION]: `${revision}` } }, data },
  });
  return [
    'Release "cilium" has been upgraded. Happy Helming!',
    'NAME: cilium',
    `LAST DEPLOYED: ${new Date().toUTCString()}`,
    'NAMESPACE: kube-system',
    'STATUS: deployed',
    `REVISION: ${revision}`,
    '',
  ].join('\n');
}

/** How often the release has been written. */
const REVISION = 'tunpath.dev/helm-revision';

/** @throws ToolError for flags that would do something which is not done here */
function readWords(words: readonly string[]): { plain: string[]; values: Map<string, string> } {
  const plain: string[] = [];
  const values = new Map<string, string>();
  for (let i = 0; i < words.length; i++) {
    const word = words[i]!;
    const flag = word.split('=')[0]!;
    if (flag === '--set' || flag === '--set-string') {
      const text = word === flag ? (words[++i] ?? '') : word.slice(flag.length + 1);
      for (const pair of text.split(',')) {
        const at = pair.indexOf('=');
        if (at < 1) throw new ToolError(`helm upgrade ${flag} ${text}: expected NAME=VALUE`);
        values.set(pair.slice(0, at), pair.slice(at + 1));
      }
    } else if (VALUED.has(flag)) {
      if (word === flag) i++;
    } else if (word.startsWith('-')) {
      if (!PLAIN.has(word)) throw new ToolError(`helm upgrade ${word}: ${USAGE}`);
    } else {
      plain.push(word);
    }
  }
  return { plain, values };
}
