/** Reads a kubeconfig: where an API is, and how to be let in. */
import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { parseYaml } from '../../control/parse-yaml.ts';
import { describeFileError, readText } from '../../control/read-text.ts';
import type { Json } from '../object.ts';

/** Where an API is, and what it is shown. */
export interface Access {
  /** `https://HOST:PORT/PREFIX`, or of a Unix socket `unix:///PATH`. */
  server: string;
  /** Name for messages. */
  name: string;
  namespace: string;
  ca?: string;
  cert?: string;
  key?: string;
  /** Value of the Authorization header. */
  authorization?: () => string;
  serverName?: string;
  insecure: boolean;
}

/** The file is not what it should be. */
export class KubeconfigError extends Error {
  override name = 'KubeconfigError';
  /** Of the process that it ends. */
  readonly exitCode = 2;
}

/** @throws KubeconfigError with the place and what was expected there */
export function readKubeconfig(path: string): Access {
  const config: Json = parseFile(path);
  const fail = (place: string, message: string): never => {
    throw new KubeconfigError(`${path}: ${place}: ${message}`);
  };
  const named = (list: string, name: unknown): Json => {
    const items: Json[] = Array.isArray(config?.[list]) ? config[list] : [];
    const found = items.find(item => item?.name === name);
    if (found !== undefined) return found;
    const known = items.map(item => item?.name).join(', ');
    return fail(
      list,
      `got none called ${JSON.stringify(name)}, expected one${known === '' ? '' : ` (there are ${known})`}`,
    );
  };
  const current = config?.['current-context'];
  if (typeof current !== 'string' || current === '')
    fail('current-context', 'got none, expected the name of a context');
  const { context } = named('contexts', current);
  const { cluster } = named('clusters', context?.cluster);
  const user: Json = context?.user === undefined ? {} : (named('users', context.user).user ?? {});
  if (typeof cluster?.server !== 'string' || !/^(https?|unix):\/\//.test(cluster.server)) {
    fail(
      `clusters[${context?.cluster}].cluster.server`,
      `got ${JSON.stringify(cluster?.server)}, expected https://HOST:PORT`,
    );
  }
  for (const plugin of ['exec', 'auth-provider']) {
    if (user[plugin] !== undefined)
      fail(`users[${context.user}].user.${plugin}`, 'expected a token or a client certificate: programs are not run');
  }
  /** Files are relative to the kubeconfig. */
  const file = (name: string): string => resolve(dirname(path), name);
  const content = (holder: Json, key: string): { [pem: string]: string } | undefined => {
    if (holder[`${key}-data`] !== undefined) return { pem: Buffer.from(holder[`${key}-data`], 'base64').toString() };
    if (holder[key] === undefined) return undefined;
    try {
      return { pem: readFileSync(file(holder[key]), 'utf8') };
    } catch (error) {
      return fail(key, `${holder[key]}: ${describeFileError(error)}`);
    }
  };
  return {
    server: cluster.server.replace(/\/+$/, ''),
    name: current,
    namespace: context.namespace ?? 'default',
    insecure: cluster['insecure-skip-tls-verify'] === true,
    ca: content(cluster, 'certificate-authority')?.pem,
    cert: content(user, 'client-certificate')?.pem,
    key: content(user, 'client-key')?.pem,
    ...(cluster['tls-server-name'] === undefined ? {} : { serverName: cluster['tls-server-name'] }),
    ...authorizationOf(user, file),
  };
}

function parseFile(path: string): Json {
  let text: string;
  try {
    text = readText(path);
  } catch (error) {
    throw new KubeconfigError(`${path}: ${describeFileError(error)}`);
  }
  const parsed = parseYaml(text, path);
  if ('faults' in parsed) throw new KubeconfigError(parsed.faults.join('\n'));
  return parsed.values[0];
}

function authorizationOf(user: Json, file: (name: string) => string): Pick<Access, 'authorization'> {
  const { token, tokenFile, username, password } = user;
  if (token !== undefined) return { authorization: () => `Bearer ${token}` };
  // Read each time: whoever gives it out writes a new one before it runs out.
  if (tokenFile !== undefined) return { authorization: () => `Bearer ${readFileSync(file(tokenFile), 'utf8').trim()}` };
  if (username === undefined) return {};
  const basic = Buffer.from(`${username}:${password ?? ''}`).toString('base64');
  return { authorization: () => `Basic ${basic}` };
}
