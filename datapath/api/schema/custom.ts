/**
 * Kinds of Calico and Cilium that the API has. Their fields are those of the projects' custom resource definitions, as far
 * as a manifest or a client of ours meets them; other fields are named in a warning.
 */
import { z } from 'zod';

const text = z.string();
const whole = z.int();
const labels = z.record(z.string(), text);

const expression = z.object({
  key: text,
  operator: z.enum(['In', 'NotIn', 'Exists', 'DoesNotExist']),
  values: z.array(text).optional(),
});
const selector = z.object({ matchLabels: labels.optional(), matchExpressions: z.array(expression).optional() });

const condition = z.object({
  type: text,
  status: z.enum(['True', 'False', 'Unknown']),
  reason: text.optional(),
  message: text.optional(),
  lastTransitionTime: text.optional(),
  observedGeneration: whole.optional(),
});
const conditions = z.object({ conditions: z.array(condition).optional() });

const tunnelMode = z.enum(['Never', 'Always', 'CrossSubnet']);

const ipPool = z.object({
  spec: z.object({
    cidr: text,
    ipipMode: tunnelMode.optional(),
    vxlanMode: tunnelMode.optional(),
    natOutgoing: z.boolean().optional(),
    disabled: z.boolean().optional(),
    disableBGPExport: z.boolean().optional(),
    blockSize: whole.min(20).max(128).optional(),
    nodeSelector: text.optional(),
    namespaceSelector: text.optional(),
    allowedUses: z.array(z.enum(['Workload', 'Tunnel', 'LoadBalancer'])).optional(),
    assignmentMode: z.enum(['Automatic', 'Manual']).optional(),
    // Of Calico's API before v3.
    ipip: z.object({ enabled: z.boolean().optional(), mode: text.optional() }).optional(),
    'nat-outgoing': z.boolean().optional(),
  }),
  status: conditions.optional(),
});

const block = z.object({ cidr: text.optional(), start: text.optional(), stop: text.optional() });

const loadBalancerPool = z.object({
  spec: z.object({
    blocks: z.array(block).optional(),
    // Cilium before 1.15.
    cidrs: z.array(z.object({ cidr: text })).optional(),
    serviceSelector: selector.optional(),
    allowFirstLastIPs: z.enum(['Yes', 'No']).optional(),
    disabled: z.boolean().optional(),
  }),
  status: conditions.optional(),
});

const l2Policy = z.object({
  spec: z
    .object({
      serviceSelector: selector.optional(),
      nodeSelector: selector.optional(),
      interfaces: z.array(text).optional(),
      externalIPs: z.boolean().optional(),
      loadBalancerIPs: z.boolean().optional(),
    })
    .optional(),
  status: conditions.optional(),
});

const anything = z.record(z.string(), z.unknown());

const endpoint = z.object({
  status: z
    .object({
      id: whole.optional(),
      state: text.optional(),
      identity: z.object({ id: whole.optional(), labels: z.array(text).optional() }).optional(),
      networking: z
        .object({
          addressing: z.array(z.object({ ipv4: text.optional(), ipv6: text.optional() })),
          node: text.optional(),
        })
        .optional(),
      'external-identifiers': anything.optional(),
      encryption: anything.optional(),
      policy: anything.optional(),
      'named-ports': z
        .array(z.object({ name: text.optional(), port: whole.optional(), protocol: text.optional() }))
        .optional(),
      health: anything.optional(),
      controllers: z.array(anything).optional(),
      log: z.array(anything).optional(),
      'service-account': text.optional(),
    })
    .optional(),
});

const node = z.object({
  spec: z.object({
    addresses: z.array(z.object({ type: text.optional(), ip: text.optional() })).optional(),
    bootid: text.optional(),
    encryption: anything.optional(),
    eni: anything.optional(),
    azure: anything.optional(),
    'alibaba-cloud': anything.optional(),
    health: z.object({ ipv4: text.optional(), ipv6: text.optional() }).optional(),
    ingress: z.object({ ipv4: text.optional(), ipv6: text.optional() }).optional(),
    'instance-id': text.optional(),
    nodeidentity: whole.optional(),
    ipam: z.looseObject({ podCIDRs: z.array(text).optional() }).optional(),
  }),
  status: anything.optional(),
});

/** See api/agent/tunnel-switch.ts. */
const tunnelSwitch = z.object({
  spec: z.object({
    /** In words. */
    from: text,
    to: text,
    /** The object that asked for it. */
    source: z.object({ kind: text, namespace: text.optional(), name: text }),
  }),
  status: z
    .object({
      phase: text,
      message: text.optional(),
      epoch: whole,
      /** Pairs of nodes that send by the new network, of all. */
      moved: text,
      /** Packets; unset where a node has forgotten. */
      lost: whole.optional(),
      loose: z.array(text).optional(),
      ledger: z
        .array(
          z.object({
            epoch: whole,
            sender: text,
            receiver: text,
            tunnel: text,
            sent: whole,
            received: whole,
            lost: whole.nullable(),
          }),
        )
        .optional(),
      /** What whoever goes on with it has to know. */
      state: anything,
    })
    .optional(),
});

const identity = z.object({ 'security-labels': labels });

const ZOD = {
  IPPool: ipPool,
  CiliumLoadBalancerIPPool: loadBalancerPool,
  CiliumL2AnnouncementPolicy: l2Policy,
  CiliumEndpoint: endpoint,
  CiliumIdentity: identity,
  CiliumNode: node,
  TunnelSwitch: tunnelSwitch,
};

/** What of an object of a custom kind is wrong, by path. */
export function customFaults(kind: string, object: unknown): { path: PropertyKey[]; message: string }[] {
  const schema = ZOD[kind as keyof typeof ZOD];
  return schema.safeParse(object).error?.issues ?? [];
}

/** JSON schemas of the custom kinds, without what all objects have. */
export const CUSTOM: Readonly<Record<string, z.core.JSONSchema.BaseSchema>> = Object.fromEntries(
  Object.entries(ZOD).map(([kind, schema]) => [kind, z.toJSONSchema(schema, { target: 'openapi-3.0', io: 'input' })]),
);
