/**
 * An Ethernet segment in the process (`kind: Segment`), which nodes with `uplink.kind: segment` are on. It stands in a file
 * of its own or beside a NodeConfig.
 */
import type { z } from 'zod';
import { UNIMPAIRED } from '../segment/impairments.ts';
import { API_VERSION, offload } from './config.ts';
import { impairments } from './netem.ts';
import { choice, device, flag, labelFault, list, mtu, netns, record, text, whole } from './schema.ts';

export const SEGMENT_KIND = 'Segment';

const name = text(labelFault);

/** A TAP that joins the segment to the kernel: its switch port, on this side. */
const tap = record({
  device,
  netns: netns.optional(), // default: the one that the process runs in
  mirror: flag.default(false), // shows every frame, also those between nodes
  offload: offload.default('auto'),
});

const port = record({
  node: name,
  /** What the node sends, and what it gets. */
  from: impairments.optional(),
  to: impairments.optional(),
});

const maxSeed = 0x7fffffff;

export const segmentConfig = record({
  apiVersion: choice(API_VERSION),
  kind: choice(SEGMENT_KIND),
  metadata: record({ name }),
  spec: record({
    mtu: mtu.default(1500),
    tap: tap.optional(),
    impairments: impairments.default(UNIMPAIRED),
    ports: list(port).default([]),
    seed: whole(1, maxSeed).default(1), // of losses and everything else that happens by chance
  }).default({ mtu: 1500, impairments: UNIMPAIRED, ports: [], seed: 1 }),
}).superRefine(({ spec: { ports, impairments: wire } }, context) => {
  // Of one with faults, only what was read.
  if ((wire.sourceDestCheck ?? []).length > 0) {
    const path = ['spec', 'impairments', 'sourceDestCheck'];
    context.addIssue({ code: 'custom', path, message: 'it at a port: the wire is of all' });
  }
  ports.forEach(({ node }, i) => {
    if (ports.findIndex(other => other.node === node) === i) return;
    const path = ['spec', 'ports', i, 'node'];
    context.addIssue({ code: 'custom', path, message: 'a node that no other entry names' });
  });
});

export type SegmentConfig = z.output<typeof segmentConfig>;
