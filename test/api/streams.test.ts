/** exec, attach, logs and port-forward by real kubectl, over WebSockets and SPDY, to processes of this machine. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { Cluster } from '../../datapath/api/controllers/cluster.ts';
import { readLog, startCommand } from '../../datapath/api/pods/process.ts';
import { podStreams } from '../../datapath/api/streams/pod-streams.ts';
import type { PodRuntime } from '../../datapath/api/streams/runtime.ts';
import { KUBECTLS, kubectlPath, ServedApi } from './kubectl.ts';

/** Runs what pods should run on this machine, without a namespace. */
function hostRuntime(logOf: () => string): PodRuntime {
  const env = { PATH: process.env.PATH };
  return {
    exec: async (_pod, _container, command, options) => startCommand(command, { ...options, env }),
    attach: async () => startCommand(['sh', '-c', 'echo attached; cat'], { stdin: true, tty: false, env }),
    logs: async (_pod, _container, options) => {
      const end = Date.now() + 2500;
      return readLog(logOf(), options, () => Date.now() > end);
    },
    connect: async (_pod, port) => {
      const socket = connect(port, '127.0.0.1');
      await once(socket, 'connect');
      return socket;
    },
  };
}

const ENVIRONMENTS = [
  ...KUBECTLS.map(version => ({ version, env: {}, over: 'its own protocol' })),
  {
    version: '1.35',
    env: { KUBECTL_REMOTE_COMMAND_WEBSOCKETS: 'false', KUBECTL_PORT_FORWARD_WEBSOCKETS: 'false' },
    over: 'SPDY',
  },
];

for (const { version, env, over } of ENVIRONMENTS) {
  describe(`kubectl ${version} in pods, over ${over}`, function () {
    this.timeout(60_000);
    let served: ServedApi;
    before(async () => {
      served = await ServedApi.start({}, registry =>
        podStreams(
          registry,
          hostRuntime(() => join(served.directory, 'log')),
        ),
      );
      const cluster = new Cluster(served.api.registry);
      const pod = await cluster.create('Pod', {
        metadata: { name: 'p', namespace: 'default' },
        spec: { nodeName: 'here', containers: [{ name: 'c', image: 'busybox' }] },
      });
      await cluster.setStatus(pod!, {
        phase: 'Running',
        podIP: '127.0.0.1',
        conditions: [{ type: 'Ready', status: 'True' }],
        containerStatuses: [
          {
            name: 'c',
            ready: true,
            restartCount: 0,
            image: 'busybox',
            imageID: '',
            state: { running: { startedAt: cluster.now } },
          },
        ],
      });
    });
    after(() => served.stop());
    const run = (argv: string[], input?: string) => served.run(version, argv, { input, env });

    it('exec: output, exit code and both streams', async () => {
      const { code, stdout, stderr } = await run(['exec', 'p', '--', 'sh', '-c', 'echo out; echo err >&2; exit 3']);
      assert.deepEqual([code, stdout], [3, 'out\n']);
      assert.match(stderr, /^err\ncommand terminated with exit code 3\n$/);
    });

    it('exec: input to its end, and much of it', async () => {
      const input = 'a line of text\n'.repeat(50_000);
      const { code, stdout, stderr } = await run(['exec', '-i', 'p', '--', 'cat'], input);
      assert.equal(code, 0, stderr);
      assert.equal(stdout.length, input.length);
      assert.equal(stdout, input);
    });

    it('exec: a command that is not there', async () => {
      const { code, stderr } = await run(['exec', 'p', '--', '/no/such/command']);
      assert.equal(code, 127);
      assert.match(stderr, /ENOENT/);
    });

    it('exec: a terminal of the right size', async () => {
      const line = `stty cols 91 rows 17; exec ${kubectlPath(version)} exec -it p -- sh -c "sleep 0.5; stty size; tty; exit 4"`;
      const child = spawn('script', ['-qec', line, '/dev/null'], {
        env: {
          PATH: process.env.PATH,
          HOME: join(served.directory, version),
          KUBECONFIG: served.kubeconfig,
          TERM: 'xterm',
          SHELL: '/bin/bash',
          ...env,
        },
      });
      let printed = '';
      child.stdout.on('data', chunk => (printed += chunk));
      const [code] = await once(child, 'close');
      assert.match(printed, /17 91\r\n\/dev\/pts\/\d+\r\n/);
      assert.equal(code, 4, printed);
    });

    it('attach', async () => {
      const { code, stdout, stderr } = await run(['attach', '-i', 'p'], 'typed\n');
      assert.equal(code, 0, stderr);
      assert.match(stdout, /attached\ntyped\n/);
    });

    it('logs: all, the last lines, and what is to come', async () => {
      const path = join(served.directory, 'log');
      writeFileSync(path, 'one\ntwo\nthree\n');
      assert.equal((await run(['logs', 'p'])).stdout, 'one\ntwo\nthree\n');
      assert.equal((await run(['logs', 'p', '--tail', '2'])).stdout, 'two\nthree\n');
      assert.equal((await run(['logs', 'p', '--limit-bytes', '5'])).stdout, 'one\nt');
      const following = served.spawn(version, ['logs', '-f', '--tail', '1', 'p'], env);
      let printed = '';
      following.stdout!.on('data', chunk => (printed += chunk));
      following.stdout!.once('data', () => appendFileSync(path, 'four\n'));
      await once(following, 'close');
      assert.equal(printed, 'three\nfour\n');
      assert.match((await run(['logs', 'p', '-c', 'x'])).stderr, /container x is not valid/);
    });

    it('port-forward: bytes both ways, several at once, and a port where nobody is', async () => {
      const echo: Server = createServer(socket => socket.pipe(socket));
      echo.listen(0, '127.0.0.1');
      await once(echo, 'listening');
      const { port } = echo.address() as { port: number };
      const child = served.spawn(version, ['port-forward', 'p', `:${port}`, ':1'], env);
      let printed = '';
      child.stdout!.on('data', chunk => (printed += chunk));
      child.stderr!.on('data', chunk => (printed += chunk));
      try {
        while (!/127\.0\.0\.1:\d+ -> 1\n/.test(printed) && child.exitCode === null)
          await new Promise(next => setTimeout(next, 20));
        const local = Number(new RegExp(`127\\.0\\.0\\.1:(\\d+) -> ${port}\n`).exec(printed)?.[1]);
        const text = 'x'.repeat(300_000);
        const answers = [1, 2, 3].map(async n => {
          const socket = connect(local, '127.0.0.1');
          let answer = '';
          socket.on('data', chunk => (answer += chunk));
          socket.end(`${n}${text}`);
          await once(socket, 'close');
          return answer;
        });
        assert.deepEqual(
          await Promise.all(answers),
          [1, 2, 3].map(n => `${n}${text}`),
        );
        const nobody = connect(Number(/127\.0\.0\.1:(\d+) -> 1\n/.exec(printed)?.[1]), '127.0.0.1');
        nobody.on('error', () => {});
        await once(nobody, 'close');
        const deadline = Date.now() + 10_000;
        while (!/ECONNREFUSED/.test(printed) && Date.now() < deadline) await new Promise(next => setTimeout(next, 20));
        assert.match(printed, /ECONNREFUSED/);
      } finally {
        child.kill();
        await once(child, 'close');
        echo.close();
      }
    });
  });
}
