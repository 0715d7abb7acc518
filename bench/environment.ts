/** Where a figure was measured: without it, no figure is worth printing. */
import os from 'node:os';

export interface Environment {
  cpu: string;
  cores: number;
  memoryBytes: number;
  kernel: string;
  node: string;
  v8: string;
  date: string;
}

export function environment(): Environment {
  const cpus = os.cpus();
  return {
    cpu: cpus[0]?.model ?? 'unknown',
    cores: cpus.length,
    memoryBytes: os.totalmem(),
    kernel: `${os.type()} ${os.release()}`,
    node: process.version,
    v8: process.versions.v8,
    date: new Date().toISOString(),
  };
}
