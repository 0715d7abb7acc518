/** A configuration that has been read, as text that reads the same. */
import { type NodeConfig, writtenForm } from './config.ts';
import type { ResolvedConfig } from './resolved.ts';

/** What a node has found out of its uplink is left out. @returns JSON, which is YAML */
export function writtenText({ spec, ...config }: ResolvedConfig): string {
  const { tunnel, ...written } = writtenForm({ ...spec, uplink: spec.uplink.written } as NodeConfig['spec']);
  // The short form has no name but its protocol.
  const short = { ...tunnel, name: undefined };
  return JSON.stringify({ ...config, spec: { ...written, tunnel: short } }, asWritten, 2);
}

/** Of values that are no longer what was written. Labels may have any of these names, and are text. */
function asWritten(key: string, value: unknown): unknown {
  if (key === 'isShort' && typeof value === 'boolean') return undefined;
  if (typeof value !== 'object' || value === null) return value;
  if (key === 'targets') return undefined;
  const { low, high, value: bits, mask } = value as Record<string, unknown>;
  if (typeof low === 'number' && typeof high === 'number') return `${low}-${high}`;
  return typeof bits === 'number' && typeof mask === 'number' ? `${bits}/${mask}` : value;
}
