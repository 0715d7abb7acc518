import { strict as assert } from 'node:assert';
import { setTimeout as sleep } from 'node:timers/promises';
import type { MessagePort } from 'node:worker_threads';
import type { UplinkConfig } from '../../datapath/control/config.ts';
import { loadConfig, loadDocuments } from '../../datapath/control/load-config.ts';
import { Loops, type Placed, placeSpread, placeTogether } from '../../datapath/control/loops.ts';
import { resolveSegment, withUplink } from '../../datapath/control/resolved.ts';
import type { SegmentConfig } from '../../datapath/control/segment-config.ts';
import { Counters } from '../../datapath/counters.ts';
import type { NodeData } from '../../datapath/drive/requests.ts';
import { compile } from '../../datapath/program/compile.ts';

function segments(...names: string[]): SegmentConfig[] {
  const text = names.map(name => `apiVersion: tunpath.dev/v1\nkind: Segment\nmetadata: { name: ${name} }\nspec: {}\n`);
  return loadDocuments(text.join('---\n'), 'F').segments.map(({ segment }) => segment);
}

/** A node on segment x with a pod in memory; its devices need no kernel. */
function nodeData(name: string, n: number): NodeData {
  const { config } = loadConfig(
    `apiVersion: tunpath.dev/v1
kind: NodeConfig
metadata: { name: ${name} }
spec:
  uplink: { kind: segment, segment: x, mac: "02:00:00:00:00:0${n}", address: 192.168.9.${n}/24 }
  pods: [{ name: default/p, kind: memory, address: 10.9.${n}.1 }]
---
apiVersion: tunpath.dev/v1
kind: Segment
metadata: { name: x }
spec: {}
`,
    'F',
  );
  assert.ok(config);
  const uplink = resolveSegment(config.spec.uplink as Extract<UplinkConfig, { kind: 'segment' }>);
  const common = { mtu: 1500, offloads: 0, refused: [] };
  return {
    name,
    program: compile(withUplink(config, uplink)),
    devices: [
      { kind: 'memory', name: 'default/p', address: 0x0a090001 + (n << 8), app: 'echo', ...common },
      { kind: 'segment', name: 'x', port: name, ...common },
    ],
    counters: new Counters().values.buffer as SharedArrayBuffer,
    seed: n,
    ioUring: 'off',
    busyPoll: 0,
  };
}

const on = (segment: string | undefined, ...names: string[]): Placed[] =>
  names.map(name => (segment === undefined ? { name } : { name, segment }));

const shown = (groups: ReturnType<typeof placeSpread>) =>
  groups.map(({ nodes, segments: own }) => [
    nodes.map(({ name }) => name).join(' '),
    own.map(({ metadata }) => metadata.name).join(' '),
  ]);

describe('nodes onto loops', () => {
  it('keeps the nodes of one segment together unless it is asked to spread them', () => {
    const nodes = [...on('x', 'a', 'b', 'c'), ...on('y', 'd'), ...on(undefined, 'e')];
    assert.deepEqual(shown(placeTogether(nodes, segments('x', 'y'), 2)), [
      ['a b c', 'x'],
      ['d e', 'y'],
    ]);
    assert.deepEqual(shown(placeTogether(nodes, segments('x', 'y'), 1)), [['a b c d e', 'x y']]);
  });

  it('spreads them evenly, and runs a segment where most of its nodes are', () => {
    const nodes = [...on('x', 'a', 'b', 'c'), ...on('y', 'd', 'e')];
    assert.deepEqual(shown(placeSpread(nodes, segments('x', 'y', 'z'), 2)), [
      ['a c e', 'x y z'],
      ['b d', ''],
    ]);
    assert.deepEqual(shown(placeSpread(on('x', 'a', 'b'), segments('x'), 16)), [
      ['a', 'x'],
      ['b', ''],
    ]);
    assert.deepEqual(shown(placeSpread(on('x', 'a', 'b'), segments('x'), 1)), [['a b', 'x']]);
    assert.deepEqual(shown(placeSpread([], segments('x'), 4)), [['', 'x']]);
  });
});

describe('a segment across loops', () => {
  let loops: Loops;

  const ports = async () => (await loops.segments())[0]!.ports.map(({ name }) => name).sort();

  async function until(holds: () => Promise<boolean>): Promise<void> {
    while (!(await holds())) await sleep(5);
  }

  beforeEach(async () => {
    loops = await Loops.start(on('x', 'a', 'b', 'c'), segments('x'), 3);
  });

  afterEach(() => loops.end());

  it('has the ports of all of its nodes, and each again when it starts again', async () => {
    const clients = await Promise.all(['a', 'b', 'c'].map((name, i) => loops.startNode(nodeData(name, i + 1))));
    const [, b] = clients;
    assert.deepEqual(await ports(), ['a', 'b', 'c']);
    await Promise.all(clients.map(client => client.request('claim', 'new')));
    await b!.stop();
    const again = await loops.startNode(nodeData('b', 2));
    assert.deepEqual(await ports(), ['a', 'b', 'c']);
    await again.stop();
    await until(async () => (await ports()).length === 2);
    // Each has asked who else uses its address: nobody answered, and nothing was lost but what came for b meanwhile.
    const [{ drops }] = await loops.segments();
    assert.deepEqual(
      drops.filter(({ name }) => name !== 'drop-wire-closed'),
      [],
    );
  });

  it('goes on without the nodes of a loop that dies; if that is its own, its nodes end', async () => {
    const [a, b, c] = await Promise.all(['a', 'b', 'c'].map((name, i) => loops.startNode(nodeData(name, i + 1))));
    // What no control plane sends: a fault of our own, in the thread itself.
    const { threads } = loops as unknown as { threads: { port: MessagePort; request(method: 'segments'): unknown }[] };
    const kill = (i: number) => {
      threads[i]!.port.postMessage(null);
      return assert.rejects(threads[i]!.request('segments') as Promise<unknown>, /the loop has ended/);
    };
    await kill(2);
    await assert.rejects(c!.ended, TypeError);
    await until(async () => (await ports()).length === 2);
    assert.deepEqual(await ports(), ['a', 'b']);
    await kill(0);
    await assert.rejects(a!.ended, TypeError);
    await assert.rejects(b!.ended, /the loop of segment x, which b is on, has died/);
    await b!.stop();
  });
});
