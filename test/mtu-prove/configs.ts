/** Two nodes, a and b, each with a pod, and an underlay between, as documents in one text. */
import assert from 'node:assert/strict';
import { formatProblems, loadDocuments } from '../../datapath/control/load-config.ts';
import { resolveTap, withUplink } from '../../datapath/control/resolved.ts';
import { Network } from '../../datapath/mtu-prove/network.ts';

export interface Side {
  uplinkMtu?: number;
  podMtu?: number;
  /** Laid over the tunnel. */
  tunnel?: object;
  /** Laid over the route to the other node's pods. */
  route?: object;
  /** Laid over the specification. */
  spec?: object;
}

export interface TwoNodes {
  protocol?: 'none' | 'ipip' | 'vxlan' | 'geneve';
  profile?: string;
  both?: Side;
  a?: Side;
  b?: Side;
  links?: object[];
}

export const UNDERLAY = ['192.168.10.1', '192.168.10.2'] as const;
export const POD_ADDRESSES = ['10.244.1.10', '10.244.2.10'] as const;
export const MACS = ['02:00:00:00:00:01', '02:00:00:00:00:02'] as const;

function nodeDocument(o: TwoNodes, i: 0 | 1): object {
  const side = { ...o.both, ...(i === 0 ? o.a : o.b) };
  const peer = UNDERLAY[1 - i];
  const protocol = o.protocol ?? 'vxlan';
  return {
    apiVersion: 'tunpath.dev/v1',
    kind: 'NodeConfig',
    metadata: { name: 'ab'[i] },
    spec: {
      uplink: { kind: 'tap', device: 'ul0', mac: MACS[i], address: `${UNDERLAY[i]}/24`, mtu: side.uplinkMtu ?? 1500 },
      host: { device: 'tp0', address: `10.244.${i + 1}.1/32` },
      pods: [
        {
          name: `default/p${i + 1}`,
          netns: `p${i + 1}`,
          device: 'eth0',
          address: POD_ADDRESSES[i],
          identity: 100 + i,
          ...(side.podMtu === undefined ? {} : { mtu: side.podMtu }),
        },
      ],
      tunnel: { protocol, ...(protocol === 'none' ? {} : { peers: [{ address: peer }] }), ...side.tunnel },
      routes: [{ to: `10.244.${2 - i}.0/24`, via: peer, encap: protocol !== 'none', ...side.route }],
      profile: o.profile ?? 'linux',
      ...side.spec,
    },
  };
}

/** The documents as one YAML text: JSON is YAML. */
export function documentsOf(o: TwoNodes): string {
  const documents = [nodeDocument(o, 0), nodeDocument(o, 1)];
  if (o.links !== undefined) {
    const head = { apiVersion: 'tunpath.dev/v1', kind: 'Underlay', metadata: { name: 'underlay' } };
    documents.push({ ...head, spec: { links: o.links } });
  }
  return documents.map(document => JSON.stringify(document, null, 1)).join('\n---\n');
}

export function networkOf(o: TwoNodes): Network {
  const { configs, underlays, problems } = loadDocuments(documentsOf(o), 'FILE');
  assert.equal(formatProblems(problems), '');
  return new Network(
    configs.map(({ config }) => {
      const { uplink } = config.spec;
      assert.ok(uplink.kind === 'tap');
      return withUplink(config, resolveTap(uplink));
    }),
    underlays.map(({ underlay }) => underlay),
  );
}
