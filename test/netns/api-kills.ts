/**
 * The API of a lab is killed at random moments, while it starts as well, while objects are written and packets flow:
 *
 *   api-kills [--kills N] [--seed N]
 *
 * No write that was answered is lost, and no object is half; not one packet from pod to pod is lost, and of requests to a service
 * hardly one fails, while objects change. The same seed kills after the same times.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, execFile } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { parseArgs, promisify } from 'node:util';
import { ApiClient, UnreachableError } from '../../datapath/api/client/client.ts';
import type { Json } from '../../datapath/api/object.ts';
import { Lab } from '../../datapath/lab/lab.ts';
import { apiDirOf } from '../../datapath/lab/names.ts';
import { Random } from '../../datapath/random.ts';

const POD = 'curl-pod';
const REMOTE = '172.20.1.217';
const SERVICE = '10.96.129.95';
const NAMESPACE = '/api/v1/namespaces/default';
const PING_EVERY_MS = 10;
const WRITERS = 3;
const NAMES = 4;
/** From the first write on. */
const MOST_MS = 400;
/** From the start of the process on; it takes about a second. */
const MOST_START_MS = 1500;

interface Written {
  answered: number;
  sent: number;
}

/** Kills the API's process; where it has been started but is not there yet, there is nothing to kill. */
export async function killNow(lab: Lab): Promise<void> {
  const pattern = `api-process[a-z.]*js ${lab.name}$`;
  const { stdout } = await promisify(execFile)('pgrep', ['-f', pattern]).catch(() => ({ stdout: '' }));
  for (const pid of stdout.split('\n').filter(line => line !== '')) process.kill(Number(pid), 'SIGKILL');
}

class ApiKills {
  private readonly lab: Lab;
  private readonly random: Random;
  private readonly say: (line: string) => void;
  private readonly written = new Map<string, Written>();

  constructor(lab: Lab, seed: number, say: (line: string) => void) {
    this.lab = lab;
    this.random = new Random(seed);
    this.say = say;
  }

  async run(kills: number): Promise<void> {
    const ping = new Output(this.lab.spawn(POD, ['ping', '-q', '-i', String(PING_EVERY_MS / 1000), REMOTE]));
    const ask = `while :; do curl -s -m 10 -o /dev/null -w '%{http_code}\n' http://${SERVICE}/; sleep 0.02; done`;
    const requests = new Output(this.lab.spawn(POD, ['sh', '-c', ask]));
    try {
      for (let kill = 1; kill <= kills; kill++) {
        await this.writeUntilKilled(kill);
        if (this.random.below(3) === 0) await this.killWhileStarting();
        await this.lab.restartApi();
        await this.check();
      }
    } finally {
      requests.child.kill('SIGTERM');
      ping.child.kill('SIGINT');
      await Promise.all([requests.ended, ping.ended]);
    }
    const [, sent, received] = /(\d+) packets transmitted, (\d+) received/.exec(ping.text) ?? [];
    const codes = requests.text.trim().split('\n');
    this.say(`${sent} packets sent, ${received} answered; ${codes.length} requests`);
    // Those of the last round trip may be on their way when ping is ended.
    const [, slowestMs = '0'] = /= [\d.]+\/[\d.]+\/([\d.]+)\//.exec(ping.text) ?? [];
    const most = 1 + Math.ceil(Number(slowestMs) / PING_EVERY_MS);
    assert.ok(Number(sent) > 0 && Number(sent) - Number(received) <= most, ping.text);
    const failed = codes.filter(code => code !== '200');
    // On a machine with much to do one in a thousand has not been answered in time; why is not known.
    const isRare = failed.length <= Math.ceil(codes.length / 100);
    assert.ok(codes.length > kills && isRare, `${failed.length} of ${codes.length} failed: ${failed}`);
  }

  private client(): ApiClient {
    const server = `unix://${apiDirOf(this.lab.name)}/api.sock`;
    return new ApiClient({ server, name: 'test', namespace: 'default', insecure: false });
  }

  private async writeUntilKilled(kill: number): Promise<void> {
    const client = this.client();
    const writers = Promise.allSettled(Array.from({ length: WRITERS }, (_, writer) => this.write(client, writer)));
    const ms = this.random.below(MOST_MS);
    await sleep(ms);
    await killNow(this.lab);
    while (!this.lab.hasLostApi) await sleep(5);
    for (const end of await writers) {
      const { reason } = end as PromiseRejectedResult;
      if (!(reason instanceof UnreachableError)) throw reason;
    }
    client.close();
    const sum = [...this.written.values()].reduce((total, { answered }) => total + answered, 0);
    this.say(`kill ${kill} after ${ms} ms; ${sum} writes answered`);
  }

  /** Objects that mean nothing, and services of which every node has to know. */
  private async write(client: ApiClient, writer: number): Promise<never> {
    for (let n = 0; ; n++) {
      const name = `kill-${writer}-${n % NAMES}`;
      const entry = this.written.get(name) ?? { answered: 0, sent: 0 };
      this.written.set(name, entry);
      const number = ++entry.sent;
      const text = 'x'.repeat(number % 900);
      const [kind, plural, rest]: [string, string, Json] =
        writer === 0
          ? ['Service', 'services', { spec: { selector: { app: 'webpod' }, ports: [{ port: 1 + (number % 9000) }] } }]
          : ['ConfigMap', 'configmaps', {}];
      const metadata = { name, annotations: { n: `${number}`, text } };
      const { status, text: answer } = await client.request(`${NAMESPACE}/${plural}/${name}`, {
        method: 'PATCH',
        headers: { 'content-type': 'application/apply-patch+yaml' },
        query: { fieldManager: 'test', force: 'true' },
        body: { apiVersion: 'v1', kind, metadata, ...rest },
      });
      assert.ok(status < 300, `${status} ${answer}`);
      entry.answered = number;
    }
  }

  private async killWhileStarting(): Promise<void> {
    const ms = this.random.below(MOST_START_MS);
    const start = this.lab.restartApi().then(
      () => true,
      () => false,
    );
    await sleep(ms);
    await killNow(this.lab);
    this.say(`  and ${ms} ms after it began again, ${(await start) ? 'ready by then' : 'not ready yet'}`);
  }

  private async check(): Promise<void> {
    const client = this.client();
    const found = new Map<string, Json>();
    for (const plural of ['configmaps', 'services']) {
      for (const object of (await client.get(`${NAMESPACE}/${plural}`)).items) found.set(object.metadata.name, object);
    }
    client.close();
    for (const [name, entry] of this.written) {
      const { annotations: { n = '0', text = '' } = {} } = found.get(name)?.metadata ?? {};
      const number = Number(n);
      assert.equal(text.length, number % 900, `${name}: half an object`);
      const { answered, sent } = entry;
      assert.ok(number >= answered && number <= sent, `${name} has ${number}, answered ${answered}, sent ${sent}`);
      entry.answered = number;
    }
  }
}

class Output {
  readonly child: ChildProcess;
  readonly ended: Promise<unknown>;
  text = '';

  constructor(child: ChildProcess) {
    this.child = child;
    this.ended = once(child, 'close');
    child.stdout!.on('data', chunk => (this.text += chunk));
  }
}

/** @param lab in mode vxlan, with its API. @throws where something does not hold */
export function killApi(
  lab: Lab,
  options: { kills: number; seed: number; say: (line: string) => void },
): Promise<void> {
  return new ApiKills(lab, options.seed, options.say).run(options.kills);
}

if (import.meta.url === pathToFileURL(process.argv[1]!).href) {
  const { values } = parseArgs({ options: { kills: { type: 'string' }, seed: { type: 'string' } } });
  const seed = Number(values.seed ?? Date.now() % 2 ** 31);
  const say = (line: string) => process.stdout.write(`${line}\n`);
  say(`seed ${seed}`);
  const lab = await Lab.up({ name: `kills${process.pid}`, mode: 'vxlan', api: true });
  try {
    await killApi(lab, { kills: Number(values.kills ?? 50), seed, say });
  } finally {
    await lab.down();
  }
}
