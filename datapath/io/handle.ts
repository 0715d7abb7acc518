/** Opened devices, in a form that can be sent to the loop's thread: which class is behind each is decided here and only here. */
import type { Pool } from '../packet/pool.ts';
import { RemoteSegment } from '../segment/remote.ts';
import type { Segment } from '../segment/segment.ts';
import type { Device } from './device.ts';
import * as libc from './libc.ts';
import { MemoryPod, type PodApp } from './memory-pod.ts';
import { PacketSocket } from './packet-socket.ts';
import { closeRaw, type RawHandle, RawUplink } from './raw.ts';
import { TunTap, type TunTapHandle } from './tuntap.ts';
import type { Uring } from './uring.ts';

/**
 * Plain data, told apart by `kind`. Every kind has `name`, `mtu`, `offloads` (OFFLOAD_* bits in use) and `refused` (a line
 * for each offload that is not). A device of several descriptors gives the loop one to wait on, an epoll's, say.
 */
export type DeviceHandle = TunTapHandle | RawHandle | SegmentHandle | MemoryHandle;

/** Of a pod. */
export type PodHandle = TunTapHandle | MemoryHandle;

/** A pod that the loop itself is: memory-pod.ts. */
export interface MemoryHandle {
  kind: 'memory';
  /** Of the pod. */
  name: string;
  /** int32. */
  address: number;
  app: PodApp;
  mtu: number;
  offloads: number;
  refused: string[];
}

/** A port of a segment in the process. */
export interface SegmentHandle {
  kind: 'segment';
  /** Of the segment. */
  name: string;
  /** Of the port: the node's. */
  port: string;
  /** Where another thread runs the segment: see segment/mesh.ts. */
  crossing?: number;
  mtu: number;
  offloads: number;
  refused: string[];
}

/**
 * In the loop's thread, which from then on closes it.
 * @param ring of that thread; null: one call for each packet
 * @param segments that nodes of that thread may be on, by name
 * @throws Error for a segment that is not there, or has a port of that name already
 */
export function createDevice(
  handle: DeviceHandle,
  pool: Pool,
  ring: Uring | null,
  segments: ReadonlyMap<string, Segment | RemoteSegment>,
): Device {
  if (handle.kind === 'segment') {
    const segment = segments.get(handle.name);
    if (segment === undefined) throw new Error(`no segment ${handle.name} in this loop`);
    if (segment instanceof RemoteSegment) return segment.attach(handle.port, handle.offloads, handle.crossing!);
    return segment.attach(handle.port, handle.offloads);
  }
  if (handle.kind === 'memory') return new MemoryPod(pool, handle);
  if (handle.kind === 'raw') return new RawUplink(handle, pool);
  return handle.kind === 'veth' ? new PacketSocket(handle, pool) : new TunTap(handle, pool, ring);
}

/** Closes a device that no loop has taken over. */
export function closeHandle(handle: DeviceHandle): void {
  if (handle.kind === 'raw') closeRaw(handle);
  else if ('fd' in handle) libc.close(handle.fd);
}
