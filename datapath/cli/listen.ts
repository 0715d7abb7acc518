import { isIP } from 'node:net';
import { UsageError } from './exit.ts';

/** `--listen ADDRESS:PORT`. @param example for who wrote something else @throws UsageError */
export function parseListen(text: string, example: string): { host: string; port: number } {
  const colon = text.lastIndexOf(':');
  const host = text.slice(0, colon);
  const port = Number(text.slice(colon + 1));
  if (colon < 1 || isIP(host) === 0 || !/^\d+$/.test(text.slice(colon + 1)) || port > 65535) {
    throw new UsageError(`--listen ${text}: expected ADDRESS:PORT, ${example}`);
  }
  return { host, port };
}
