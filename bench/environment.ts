/** Where a figure was measured: without it, no figure is worth printing. */
import { readFileSync } from 'node:fs';
import os from 'node:os';

export interface Environment {
  cpu: string;
  cores: number;
  /** Frequency governor of the first core; null where the machine shows none, as most virtual machines do. */
  governor: string | null;
  memoryBytes: number;
  kernel: string;
  /** Default of new sockets. It paces TCP, so figures of two machines compare only where it is the same. */
  tcpCongestionControl: string | null;
  node: string;
  v8: string;
  tunpath: string;
  date: string;
  /** Mean of the last minute before the run. */
  loadAverage: number;
}

export function environment(now: Date = new Date()): Environment {
  const cpus = os.cpus();
  return {
    cpu: cpus[0]?.model ?? 'unknown',
    cores: cpus.length,
    governor: readLine('/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor'),
    memoryBytes: os.totalmem(),
    kernel: `${os.type()} ${os.release()}`,
    tcpCongestionControl: readLine('/proc/sys/net/ipv4/tcp_congestion_control'),
    node: process.version,
    v8: process.versions.v8,
    tunpath: tunpathVersion(),
    date: now.toISOString(),
    loadAverage: os.loadavg()[0],
  };
}

function readLine(path: string): string | null {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return null;
  }
}

function tunpathVersion(): string {
  const file = new URL('../../package.json', import.meta.url);
  return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version;
}
