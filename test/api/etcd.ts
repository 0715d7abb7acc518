/** A real etcd of a test's own, which may be killed and started again, and a wire to it that may be cut. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client, credentials } from '@grpc/grpc-js';
import { EtcdClient } from '../../datapath/api/store/etcd-client.ts';
import { encode } from '../fixtures/protobuf.ts';

const START_MS = 60_000;

export class EtcdServer {
  readonly address: string;
  private readonly directory = mkdtempSync(join(tmpdir(), 'tunpath-etcd-'));
  private readonly peer: string;
  private child: ChildProcess | undefined;

  private constructor(port: number, peerPort: number) {
    this.address = `127.0.0.1:${port}`;
    this.peer = `http://127.0.0.1:${peerPort}`;
  }

  static async start(): Promise<EtcdServer> {
    const server = new EtcdServer(await freePort(), await freePort());
    await server.run();
    return server;
  }

  async run(): Promise<void> {
    const { address, peer, directory } = this;
    const client = `http://${address}`;
    const argv = ['--data-dir', directory, '--listen-client-urls', client, '--advertise-client-urls', client];
    argv.push(
      '--listen-peer-urls',
      peer,
      '--initial-advertise-peer-urls',
      peer,
      '--initial-cluster',
      `default=${peer}`,
    );
    this.child = spawn('etcd', argv, { stdio: 'ignore' });
    const missing = once(this.child, 'error').then(([error]) => {
      throw new Error(`etcd: ${error.message}: scripts/setup --test installs it`);
    });
    await Promise.race([missing, this.answers()]);
  }

  /** Forgets what was before a revision. */
  async compact(revision: number): Promise<void> {
    const client = new Client(this.address, credentials.createInsecure());
    await new Promise<void>((resolve, reject) =>
      client.makeUnaryRequest(
        '/etcdserverpb.KV/Compact',
        (value: Uint8Array) => Buffer.from(value),
        () => undefined,
        encode({ 1: revision }),
        error => (error === null ? resolve() : reject(error)),
      ),
    );
    client.close();
  }

  async kill(): Promise<void> {
    this.child!.kill('SIGKILL');
    await once(this.child!, 'exit');
  }

  async stop(): Promise<void> {
    await this.kill();
    rmSync(this.directory, { recursive: true });
  }

  private async answers(): Promise<void> {
    const client = new EtcdClient(this.address);
    for (const end = Date.now() + START_MS; ; await sleep(50)) {
      try {
        await client.revision();
        break;
      } catch (error) {
        assert.ok(Date.now() < end, `etcd does not answer: ${(error as Error).message}`);
      }
    }
    client.close();
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  return port;
}

/** Leads to another address, until it is cut. */
export class Wire {
  private readonly sockets = new Set<Socket>();
  private readonly server: Server;
  private isCut = false;

  private constructor(to: string) {
    const [host, port] = to.split(':') as [string, string];
    this.server = createServer(near => {
      if (this.isCut) return void near.destroy();
      const far = connect(Number(port), host);
      for (const [one, other] of [
        [near, far],
        [far, near],
      ] as const) {
        this.sockets.add(one);
        one.on('error', () => {});
        one.on('close', () => {
          this.sockets.delete(one);
          other.destroy();
        });
        one.pipe(other);
      }
    });
  }

  static async to(address: string): Promise<Wire> {
    const wire = new Wire(address);
    wire.server.listen(0, '127.0.0.1');
    await once(wire.server, 'listening');
    return wire;
  }

  get address(): string {
    return `127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  cut(): void {
    this.isCut = true;
    for (const socket of this.sockets) socket.destroy();
  }

  mend(): void {
    this.isCut = false;
  }

  close(): void {
    this.cut();
    this.server.close();
  }
}
