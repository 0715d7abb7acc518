/** The file by which clients find an API and are known to it. */
import { randomBytes } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { generate } from 'selfsigned';
import { stringify } from 'yaml';
import { replaceFile } from '../io/replace-file.ts';
import type { Credentials } from './server/server.ts';

/** A certificate for 127.0.0.1 that its own key has signed, for ten years. */
export async function makeCredentials(): Promise<Credentials> {
  const { private: key, cert } = await generate([{ name: 'commonName', value: 'tunpath' }], {
    keyType: 'ec',
    notBeforeDate: new Date(Date.now() - 86_400_000),
    notAfterDate: new Date(Date.now() + 3650 * 86_400_000),
    extensions: [
      { name: 'basicConstraints', cA: true, critical: true },
      {
        name: 'subjectAltName',
        altNames: [
          { type: 7, ip: '127.0.0.1' },
          { type: 2, value: 'localhost' },
        ],
      },
    ],
  });
  return { key, cert };
}

export function makeToken(): string {
  return randomBytes(32).toString('base64url');
}

/** Writes a kubeconfig of mode 0600, at once and whole. @param name of its cluster, user and context */
export function writeKubeconfig(
  path: string,
  { name, port, cert, token }: { name: string; port: number; cert: string; token: string },
): void {
  const config = {
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [
      {
        name,
        cluster: {
          server: `https://127.0.0.1:${port}`,
          'certificate-authority-data': Buffer.from(cert).toString('base64'),
        },
      },
    ],
    users: [{ name, user: { token } }],
    contexts: [{ name, context: { cluster: name, user: name, namespace: 'default' } }],
    'current-context': name,
  };
  mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
  replaceFile(path, stringify(config), 0o600);
}
