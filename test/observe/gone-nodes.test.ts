/** A node that was killed leaves its socket behind: who looks at all nodes sees the others, and hears of that one. */
import { strict as assert } from 'node:assert';
import { once } from 'node:events';
import { mkdirSync, renameSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { GoneError, RUN_DIR } from '../../datapath/control/client.ts';
import { loadConfig } from '../../datapath/control/load-config.ts';
import { resolveTap, withUplink } from '../../datapath/control/resolved.ts';
import { serve, socketPath } from '../../datapath/control/server.ts';
import { readRunning } from '../../datapath/observe/ask.ts';
import { pastOf, watchNodes } from '../../datapath/observe/watch-nodes.ts';
import type { WatchedEvent } from '../../datapath/observe/watched.ts';
import { Live } from '../../datapath/ui/live.ts';
import type { Sink } from '../../datapath/ui/protocol.ts';

const NAMES = ['a', 'b', 'dead'].map(name => `gone-${process.pid}-${name}`);
const [A, B, DEAD] = NAMES;

const configOf = (name: string, number: number) => {
  const text = `apiVersion: tunpath.dev/v1
kind: NodeConfig
metadata: { name: ${name} }
spec:
  uplink: { kind: tap, device: ul0, mac: 02:00:00:00:00:0${number}, address: 192.168.10.${number}/24 }
  pods: [{ name: default/p${number}, netns: p${number}, device: eth0, address: 10.244.${number}.10 }]
`;
  const { config } = loadConfig(text, `${name}.yaml`);
  assert.ok(config?.spec.uplink.kind === 'tap');
  return withUplink(config, resolveTap(config.spec.uplink));
};

describe('nodes that are gone', function () {
  this.timeout(60_000);
  const servers: { close(): Promise<void> }[] = [];
  /** What still answers; ends the streams of the others. */
  const ends = new Map<string, () => Promise<void>>();

  before(async () => {
    mkdirSync(RUN_DIR, { recursive: true });
    for (const [i, name] of [A, B].entries()) {
      const config = configOf(name, i + 1);
      const context = { node: name, ports: [], config };
      async function* watch() {
        yield [{ context }];
        for (;;) {
          await sleep(5);
          yield [];
        }
      }
      const server = await serve(socketPath(name), async method => {
        if (method === 'watch') return watch();
        if (method === 'history')
          return (async function* () {
            yield [{ context }];
          })();
        if (method === 'get')
          return (async function* () {
            yield [];
          })();
        if (method === 'config') return config;
        throw new Error(`unknown method ${method}`);
      });
      servers.push(server);
      ends.set(name, () => server.close());
    }
    // Its server does not know the name that it has now, and leaves it there.
    const dying = createServer().listen(`${socketPath(DEAD)}.new`);
    await once(dying, 'listening');
    renameSync(`${socketPath(DEAD)}.new`, socketPath(DEAD));
    dying.close();
  });
  after(async () => {
    for (const server of servers) await server.close();
    for (const name of NAMES) rmSync(socketPath(name), { force: true });
  });

  it('are told of, and the others are watched; one alone is an error', async () => {
    const stop = new AbortController();
    const gone: string[] = [];
    const seen: string[] = [];
    let ready = 0;
    const heard = { ready: () => ready++, gone: (node: string) => gone.push(node) };
    for await (const events of watchNodes(NAMES, {}, stop.signal, heard)) {
      for (const event of events) if ('context' in event) seen.push(event.context.node);
      if (ready > 0) stop.abort();
    }
    assert.deepEqual([gone, seen.sort(), ready], [[DEAD], [A, B], 1]);
    const alone = watchNodes([DEAD], {}, new AbortController().signal, heard).next();
    await assert.rejects(alone, GoneError);
  });

  it('have no past, and take nobody else’s', async () => {
    const gone: string[] = [];
    const events = await pastOf(NAMES, node => gone.push(node));
    const nodes = events.map(event => ('context' in event ? event.context.node : ''));
    assert.deepEqual([gone, nodes], [[DEAD], [A, B]]);
    await assert.rejects(pastOf([DEAD]), GoneError);
  });

  it('are missing in what is explained, and it says so', async () => {
    const { configs, missing } = await readRunning(NAMES);
    assert.deepEqual(
      configs.map(({ metadata }) => metadata.name),
      [A, B],
    );
    assert.equal(missing[0], `node ${DEAD}, which is gone`);
    await assert.rejects(readRunning([DEAD]), GoneError);
  });

  it('do not keep the page from packets, explain and prove', async () => {
    const live = new Live(() => NAMES);
    const troubles: string[] = [];
    const stop = new AbortController();
    const sink = { trouble: (text: string) => troubles.push(text), lost: () => {}, packets: () => {} };
    const packets = live.packets('', false, stop.signal, sink as unknown as Sink);
    while (troubles.length === 0) await sleep(1);
    stop.abort();
    await packets;
    assert.match(troubles[0], /dead\.sock: the node is gone/);
    await assert.rejects(live.packets('prot 80', false, stop.signal, sink as unknown as Sink), /filter: character 1/);
    assert.equal((await live.explain({ from: '10.244.1.10', to: '10.244.2.10' })).notCopied[0].includes(DEAD), true);
    assert.ok(Array.isArray(await live.prove()));
  });

  it('one that goes meanwhile is told of, and the others go on', async () => {
    const stop = new AbortController();
    const events: WatchedEvent[] = [];
    const gone: string[] = [];
    const heard = {
      ready: () => void ends.get(B)!(),
      gone: (node: string) => {
        gone.push(node);
        stop.abort();
      },
    };
    for await (const piece of watchNodes([A, B], {}, stop.signal, heard)) events.push(...piece);
    assert.deepEqual(gone, [B]);
  });
});
