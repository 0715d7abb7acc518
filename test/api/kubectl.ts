/** An API of a test's own, and the real kubectl that talks to it. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Api, type ApiOptions, openApi } from '../../datapath/api/api.ts';
import { makeCredentials, makeToken, writeKubeconfig } from '../../datapath/api/kubeconfig.ts';
import type { Registry } from '../../datapath/api/server/registry.ts';
import type { PodStreams } from '../../datapath/api/server/server.ts';

/** The versions that scripts/setup --test installs. */
export const KUBECTLS = ['1.35', '1.30'] as const;

export function kubectlPath(version: string): string {
  const path = join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'tunpath', `kubectl-${version}`);
  assert.ok(existsSync(path), `${path} is missing: scripts/setup --test installs it`);
  return path;
}

export interface Result {
  code: number;
  stdout: string;
  stderr: string;
}

/** An API that listens on loopback, with a kubeconfig in a directory of its own. */
export class ServedApi {
  readonly api: Api;
  readonly directory: string;
  readonly kubeconfig: string;
  readonly port: number;
  readonly token: string;

  private constructor(api: Api, directory: string, port: number, token: string) {
    this.api = api;
    this.directory = directory;
    this.kubeconfig = join(directory, 'kubeconfig');
    this.port = port;
    this.token = token;
  }

  /** @param streams what pods do for clients, made of the registry */
  static async start(options: ApiOptions = {}, streams?: (registry: Registry) => PodStreams): Promise<ServedApi> {
    const token = makeToken();
    const api = await openApi({ ...options, token, streams });
    const credentials = await makeCredentials();
    const port = await api.server.listenTls(0, credentials);
    const directory = mkdtempSync(join(tmpdir(), 'tunpath-api-'));
    const served = new ServedApi(api, directory, port, token);
    writeKubeconfig(served.kubeconfig, { name: 'test', port, cert: credentials.cert, token });
    return served;
  }

  async stop(): Promise<void> {
    await this.api.close();
    rmSync(this.directory, { recursive: true });
  }

  /** Writes a file for kubectl to read. @returns its path */
  file(name: string, text: string): string {
    const path = join(this.directory, name);
    writeFileSync(path, text);
    return path;
  }

  /** Starts kubectl and leaves it to the caller. */
  spawn(version: string, argv: readonly string[], env: NodeJS.ProcessEnv = {}): ChildProcess {
    return spawn(kubectlPath(version), argv, {
      // A home of its own: kubectl keeps there what it has discovered.
      env: {
        PATH: process.env.PATH,
        HOME: join(this.directory, version),
        KUBECONFIG: this.kubeconfig,
        TZ: 'UTC',
        ...env,
      },
    });
  }

  /** Runs kubectl to its end. */
  run(
    version: string,
    argv: readonly string[],
    options: { input?: string; env?: NodeJS.ProcessEnv } = {},
  ): Promise<Result> {
    const child = this.spawn(version, argv, options.env);
    const result = { code: -1, stdout: '', stderr: '' };
    child.stdout!.on('data', chunk => (result.stdout += chunk));
    child.stderr!.on('data', chunk => (result.stderr += chunk));
    child.stdin!.on('error', () => {});
    child.stdin!.end(options.input ?? '');
    return new Promise((resolve, reject) => {
      child.on('error', reject);
      child.on('close', code => resolve({ ...result, code: code ?? -1 }));
    });
  }
}
