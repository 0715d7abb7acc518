/** observe and capture: what people see of the packets of a node that runs. */
import { strict as assert } from 'node:assert';
import { execFileSync } from 'node:child_process';
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { CaptureFile } from '../../datapath/io/capture-file.ts';
import { DIRECTION_IN, DIRECTION_OUT } from '../../datapath/io/pcapng.ts';
import { HubbleClient } from '../fixtures/hubble-client.ts';
import { MAIN } from '../fixtures/program.ts';
import type { Decoded } from '../fixtures/protobuf.ts';
import { Rig, type Running, until } from './rig.ts';

const [P1, P2, WEB] = ['10.244.1.10', '10.244.1.11', '10.96.0.10'];

describe('observe and capture', function () {
  this.timeout(60_000);
  const rig = new Rig('observe');

  before(async () => {
    await rig.namespace('node', 'p1', 'p2');
    await rig.node('node', {
      uplink: { kind: 'tap', device: 'ul0', mac: '02:00:00:00:00:01', address: '192.168.10.1/24' },
      host: { device: 'tp0', address: '10.244.1.1/32' },
      pods: [
        { name: 'default/p1', netns: rig.full('p1'), device: 'eth0', address: P1, identity: 1001 },
        { name: 'default/p2', netns: rig.full('p2'), device: 'eth0', address: P2, identity: 1002 },
      ],
      flowHistory: 500,
      services: [
        { name: 'default/web', clusterIP: WEB, ports: [{ port: 80, targetPort: 8080 }], endpoints: [{ address: P2 }] },
      ],
    });
    const server = rig.spawn(
      'p2',
      process.execPath,
      '-e',
      "require('http').createServer((q, r) => r.end('hi')).listen(8080, () => console.log('up'))",
    );
    await server.until('up');
  });

  after(() => rig.close());

  /** Starts a command that watches, and waits until it does. */
  const watch = async (...args: string[]): Promise<Running> => {
    const running = rig.command(process.execPath, MAIN, ...args, '--node', rig.full('node'));
    await running.until('SIGINT ends it');
    return running;
  };
  const lines = (running: Running) =>
    running.output
      .split('\n')
      .filter(line => / (FORWARDED|DROPPED) /.test(line))
      .map(line => line.slice(21));
  const request = () => rig.run('p1', 'curl', '-s', '--max-time', '5', `http://${WEB}/`);

  it('observe shows a connection through a service, its answer, and what is dropped', async () => {
    const observe = await watch('observe');
    await request();
    await rig.exec('p1', 'ping', '-c', '1', '-W', '1', '203.0.113.9');
    await until('the drop', () => observe.output.includes('DROPPED'));
    assert.equal(await observe.stop('SIGINT'), 0);
    const seen = lines(observe).map(line => line.replace(/:\d{5}/g, ':N'));
    assert.deepEqual(seen.slice(0, 2), [
      'default/p1:N (ID:1001) -> default/p2:8080 (ID:1002) to-endpoint FORWARDED (TCP Flags: SYN)',
      'default/p1:N (ID:1001) <- default/web:80 (ID:1002) to-endpoint FORWARDED (TCP Flags: SYN, ACK)',
    ]);
    assert.ok(
      seen.some(line => line.includes('FIN')),
      'the end',
    );
    assert.ok(seen.includes('default/p1 (ID:1001) <> 203.0.113.9 (world) no-route DROPPED (ICMPv4 EchoRequest)'));
  });

  it('observe filters, ends after as many as asked for, and writes jsonpb', async () => {
    const observe = await watch(
      ...['observe', '--verdict', 'DROPPED', '--not', '--to-ip', '198.51.100.0/24', '--first', '2', '-o', 'jsonpb'],
    );
    await request();
    await rig.exec('p1', 'ping', '-c', '1', '-W', '1', '198.51.100.7');
    await rig.exec('p1', 'ping', '-c', '2', '-i', '0.2', '-W', '1', '203.0.113.9');
    assert.equal(await observe.exited, 0);
    const flows = observe.output
      .split('\n')
      .filter(line => line.startsWith('{'))
      .map(line => JSON.parse(line) as { flow: { verdict: string; IP: { destination: string } } });
    assert.deepEqual(
      flows.map(({ flow }) => [flow.verdict, flow.IP.destination]),
      [
        ['DROPPED', '203.0.113.9'],
        ['DROPPED', '203.0.113.9'],
      ],
    );
  });

  it('ui tells pages of flows, explains one, and tries a change', async () => {
    const ui = rig.command(process.execPath, MAIN, 'ui', '--node', rig.full('node'));
    await ui.until('SIGINT ends it');
    const { origin, searchParams } = new URL(/^http:\S+/m.exec(ui.output)![0]);
    const headers = { Authorization: `Bearer ${searchParams.get('token')}`, 'Content-Type': 'application/json' };
    const ask = async (path: string, body: object) =>
      (await fetch(`${origin}/api/${path}`, { method: 'POST', headers, body: JSON.stringify(body) })).json();
    const events = (await fetch(`${origin}/api/events`, { headers })).body!.pipeThrough(new TextDecoderStream());
    let heard = '';
    const listening = events
      .pipeTo(
        new WritableStream({
          write: text => {
            heard += text;
          },
        }),
      )
      .catch(() => {});
    await until('the picture', () => heard.includes('event: picture') && heard.includes('"default/p2"'));
    await request();
    await rig.exec('p1', 'ping', '-c', '1', '-W', '1', '203.0.113.9');
    await until('the drop', () => heard.includes('"reason":"drop-no-route"'));
    assert.match(
      heard,
      /"source":\{"name":"default\/p1","address":"10.244.1.10","port":\d+\},"destination":\{"name":"default\/p2"/,
    );
    await until('counters', () => heard.includes('event: counters'));
    const found = (await ask('explain', { from: P1, to: `${WEB}:80`, both: true })) as Record<
      string,
      { outcome: string }
    >;
    assert.deepEqual([found.outcome, found.answer.outcome], ['delivered', 'delivered']);
    const [tried] = (await ask('change', { change: 'mtu=1300', dryRun: true })) as {
      problems: string[];
      effects: object[];
    }[];
    assert.deepEqual(tried.problems, []);
    assert.ok(tried.effects.length > 0, 'what would change');
    assert.equal(await ui.stop('SIGINT'), 0);
    await listening;
  });

  it('capture has every packet once for each port, in a file that tshark reads', async () => {
    const file = join(rig.directory, 'all.pcapng');
    const capture = await watch('capture', '-w', file, '--at', 'any', '--drops', 'icmp');
    await request();
    await rig.run('p1', 'ping', '-c', '2', '-i', '0.2', P2);
    await rig.exec('p1', 'ping', '-c', '1', '-W', '1', '203.0.113.9');
    assert.equal(await capture.stop('SIGINT'), 0);
    assert.match(capture.output, /11 packets captured, 0 lost/);
    const read = new CaptureFile(file);
    const seen: string[] = [];
    for (let p = read.next(); p !== null; p = read.next()) {
      const direction = { [DIRECTION_IN]: 'in', [DIRECTION_OUT]: 'out' }[p.direction];
      seen.push(`${p.interface} ${direction} ${p.bytes[20]}${p.comment === '' ? '' : ` ${p.comment}`}`);
    }
    read.close();
    const ping = ['default/p1 in 8', 'default/p2 out 8', 'default/p2 in 0', 'default/p1 out 0'];
    const refused = ['default/p1 in 8', 'default/p1 out 3', 'default/p1 dropped in 8 dropped: no-route'];
    assert.deepEqual(seen, [...ping, ...ping, ...refused]);
    const shown = execFileSync('tshark', ['-r', file, '-Y', 'icmp'], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    assert.equal(shown.trim().split('\n').length, 11);
  });

  it('capture of a pipe that closes ends, and of a wrong point or filter says what it expected', async () => {
    for (const [args, message] of [
      [
        ['--at', 'p9'],
        /--at p9: node \S+ has no such port; expected any, or one of default\/p1, default\/p2, tp0, ul0/,
      ],
      [['prot', '80'], /filter: character 1: got "prot", expected an IPv4 address or network/],
      [['-s', 'x'], /--snapshot-length x: expected a number/],
    ] as const) {
      const capture = rig.command(process.execPath, MAIN, 'capture', ...args, '--node', rig.full('node'));
      assert.notEqual(await capture.exited, 0);
      assert.match(capture.output, message);
    }
  });

  it('explain says of the running node what it does, with the flows that it has', async () => {
    const explain = async (to: string, ...more: string[]) => {
      const argv = ['explain', '--from', 'p1', '--to', to, '-o', 'json', '--node', rig.full('node'), ...more];
      const command = rig.command(process.execPath, MAIN, ...argv);
      const status = await command.exited;
      const text = command.output.slice(command.output.indexOf('{'), command.output.lastIndexOf('}') + 1);
      return { status, found: JSON.parse(text) as { outcome: string; at: { port: string }; notCopied: string[] } };
    };
    const good = await explain(`${WEB}:80`, '--both');
    assert.deepEqual([good.status, good.found.outcome, good.found.at.port], [0, 'delivered', 'default/p2']);
    assert.ok(good.found.notCopied.length > 0);
    const bad = await explain('203.0.113.9');
    assert.deepEqual([bad.status, bad.found.outcome], [1, 'refused']);
    // The connection's own flow is there: a segment in its middle belongs to it.
    await request();
    const flows = await rig.get<{ original: { dst: string; sport: number } }>('node', 'conntrack');
    const { original } = flows.find(flow => flow.original.dst === WEB)!;
    const known = await explain(`${WEB}:80`, '--sport', String(original.sport), '--length', '60');
    const flowStep = JSON.stringify(known.found);
    assert.match(flowStep, /original direction of tcp/);
  });

  it('monitor shows drops and traces of an endpoint by its number, and tables are as cilium-dbg has them', async () => {
    const table = async (kind: string) => {
      const command = rig.command(process.execPath, MAIN, 'get', kind, '-o', 'cilium', '--node', rig.full('node'));
      assert.equal(await command.exited, 0, command.output);
      return command.output;
    };
    const [, id] = /^(\d+) .* 10\.244\.1\.10 +ready$/m.exec(await table('endpoints')) ?? [];
    const monitor = await watch('monitor', '--from', id);
    await request();
    await rig.exec('p1', 'ping', '-c', '1', '-W', '1', '203.0.113.9');
    await until('the drop', () => monitor.output.includes('xx drop'));
    assert.equal(await monitor.stop('SIGINT'), 0);
    assert.match(monitor.output, /^-> endpoint \d+ flow 0x\w+ , identity 1001->1002 state new .* tcp SYN$/m);
    assert.match(
      monitor.output,
      /^xx drop \(Unroutable, drop-no-route\) .* 10\.244\.1\.10 -> 203\.0\.113\.9 EchoRequest$/m,
    );
    assert.match(await table('lb'), /^10\.96\.0\.10:80\/TCP \(1\) +10\.244\.1\.11:8080\/TCP \(1\) \(1\)$/m);
    assert.match(await table('ct'), /^TCP IN 10\.244\.1\.10:\d+ -> 10\.244\.1\.11:8080 expires=/m);
  });

  it('Hubble’s API is on a socket of the node, and what it remembers can be asked for later', async () => {
    const path = `/run/tunpath/${rig.full('node')}.hubble.sock`;
    assert.equal(statSync(path).mode & 0o777, 0o600);
    const hubble = new HubbleClient(`unix:${path}`);
    await request();
    const flows = await hubble.allFlows({ 1: 100 });
    const summaries = flows.map(response => response.message(1).text(100_000));
    assert.ok(summaries.includes('TCP Flags: SYN'), summaries.join());
    const [node] = (await hubble.unary('GetNodes')).messages(1);
    assert.deepEqual([node.text(1), node.text(3), node.number(8)], [rig.full('node'), '192.168.10.1', 500]);
    const stream = hubble.getFlows({ 3: true });
    const dropped = new Promise<Decoded>(resolve => {
      stream.on('error', () => {});
      stream.on('data', (response: Decoded) => {
        if (response.message(1).number(2) === 2) resolve(response);
      });
    });
    await until('the drop', async () => {
      await rig.exec('p1', 'ping', '-c', '1', '-W', '1', '203.0.113.9');
      return Promise.race([dropped.then(() => true), setImmediate(false)]);
    });
    assert.equal((await dropped).message(1, 5).text(2), '203.0.113.9');
    stream.cancel();
    hubble.close();
    const last = rig.command(process.execPath, MAIN, 'observe', '--last', '2', '--node', rig.full('node'));
    assert.equal(await last.exited, 0);
    assert.equal(lines(last).length, 2, last.output);
  });

  it('clients that are killed leave no watch behind, and the node goes on', async () => {
    const killed = await Promise.all(Array.from({ length: 4 }, () => watch('capture', '-w', '/dev/null')));
    for (const client of killed) client.child.kill('SIGKILL');
    await Promise.all(killed.map(client => client.exited));
    await until('no watch', async () => {
      const { watches } = await rig.status<{ watches: number }>('node');
      return watches === 0;
    });
    assert.equal(await request(), 'hi');
  });

  it('a client that stalls is told what it has missed; packets are not held up', async () => {
    const capture = await watch('capture', '--at', 'default/p1', '-w', join(rig.directory, 'lost.pcapng'));
    capture.child.kill('SIGSTOP');
    await rig.run('p1', 'ping', '-q', '-f', '-c', '3000', '-s', '8000', P2);
    capture.child.kill('SIGCONT');
    await until('the rest', () => rig.run('p1', 'ping', '-c', '1', P2).then(() => true));
    assert.equal(await capture.stop('SIGINT'), 0);
    const [, captured, lost] = /(\d+) packets captured, (\d+) lost/.exec(capture.output) ?? [];
    assert.ok(Number(lost) > 0, capture.output);
    assert.ok(Number(captured) > 0, capture.output);
  });
});
