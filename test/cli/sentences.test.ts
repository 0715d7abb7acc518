/** No errno, stack or wording of a library reaches a user: every command, fed every error. */
import { strict as assert } from 'node:assert';
import { spawnSync } from 'node:child_process';
import { chmodSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { describeErrno, sentenceOf } from '../../datapath/cli/sentences.ts';
import { temporaryDirectory } from '../fixtures/directory.ts';
import { MAIN } from '../fixtures/program.ts';

/** Of no node that runs. */
const NODE = `nosuchnode${process.pid}`;

/** What nobody should have to read. */
const RAW = /\bE[A-Z]{3,}\b|\n\s+at |node:internal|Error:|undefined|\[object/;

describe('sentences', () => {
  it('has words for every errno that a command can meet', () => {
    for (const code of Object.keys(constants.errno)) {
      const error = Object.assign(new Error(`${code}: raw words, open '/x'`), { code, syscall: 'open', path: '/x' });
      const sentence = sentenceOf(error);
      if (describeErrno(code) === undefined) continue;
      assert.match(sentence ?? '', /^\/x: [a-z]/, code);
      assert.doesNotMatch(sentence ?? '', RAW, code);
    }
    for (const code of [
      'EACCES',
      'EPERM',
      'ENOENT',
      'ENOSPC',
      'EMFILE',
      'ECONNREFUSED',
      'EBUSY',
      'EADDRINUSE',
      'ENOMEM',
    ]) {
      assert.ok(describeErrno(code) !== undefined, code);
    }
  });

  const rows: [what: string, error: object, sentence: string | null][] = [
    [
      'a command that is not installed',
      Object.assign(new Error('spawn nft ENOENT'), { code: 'ENOENT', syscall: 'spawn nft', path: 'nft' }),
      'the command nft is not there: apt-get install nftables',
    ],
    [
      'a command that failed, as execa says it',
      Object.assign(new Error('Command failed with exit code 2: ip link add x\n\nRTNETLINK answers: File exists'), {
        command: 'ip link add x',
        shortMessage: 'Command failed with exit code 2: ip link add x',
        stderr: 'RTNETLINK answers: File exists',
      }),
      'ip link add x failed: RTNETLINK answers: File exists',
    ],
    [
      'a port that is taken',
      Object.assign(new Error('listen EADDRINUSE'), {
        code: 'EADDRINUSE',
        syscall: 'listen',
        address: '127.0.0.1',
        port: 9090,
      }),
      '127.0.0.1:9090: the address is in use by another process (ss -lntup)',
    ],
    [
      'a package that is missing',
      Object.assign(new Error("Cannot find package 'koffi' imported from /x"), { code: 'ERR_MODULE_NOT_FOUND' }),
      'koffi is not installed: npm ci in the checkout, or install tunpath again',
    ],
    ['a fault of ours', new TypeError('x is not a function'), null],
  ];
  for (const [what, error, sentence] of rows) it(what, () => assert.equal(sentenceOf(error), sentence));
});

describe('every command says in a sentence', function () {
  this.timeout(120_000);
  const directory = temporaryDirectory('sentences');
  const config = join(directory, 'a.yaml');
  const unreadable = join(directory, 'a', 'b.yaml');
  before(() => {
    chmodSync(directory, 0o755);
    writeFileSync(join(directory, 'a'), '');
    writeFileSync(
      config,
      `apiVersion: tunpath.dev/v1\nkind: NodeConfig\nmetadata: { name: ${NODE} }\nspec:\n  uplink: { kind: tap, device: ul0, mac: 02:00:00:00:00:01, address: 192.168.10.1/24 }\n`,
    );
  });

  const FILES = [
    ['node', '--config'],
    ['apply', '-f'],
    ['diff', '-f'],
    ['delete', '-f'],
    ['mtu', 'prove', '-f'],
    ['replay', '/dev/null', '--config'],
  ];
  const commands = (): string[][] => [
    ...FILES.flatMap(command => ['/nonexistent', unreadable].map(file => [...command, file])),
    ...FILES.slice(1, 4).map(command => [...command, directory]),
    ['apply', '-f', '/dev/zero'],
    ['apply', '-f', config],
    ['diff', '-f', config],
    ['delete', '-f', config],
    ['get', 'routes', '--node', NODE],
    ['status', '--node', NODE],
    ['describe', 'svc', 'web', '--node', NODE],
    ['host', 'check', '--node', NODE],
    ['host', 'init', '--output', '/proc/x/y'],
    ['lab', 'status', '--name', 'nosuchlab'],
    ['lab', 'exec', 'x', '--name', 'nosuchlab', '--', 'true'],
    ['bench', 'report', '/nonexistent', '--html', '/tmp/x.html'],
    ['replay', '/nonexistent', '--config', config],
  ];

  it('what is wrong with a file, a node or a lab', () => {
    for (const argv of commands()) {
      const { status, stderr } = spawnSync(process.execPath, [MAIN, ...argv], { encoding: 'utf8', timeout: 30_000 });
      assert.ok(status === 1 || status === 2, `${argv}: ${status} ${stderr}`);
      assert.ok(stderr.trim().length > 0, `${argv}: nothing`);
      assert.doesNotMatch(stderr.replaceAll(directory, ''), RAW, argv.join(' '));
    }
  });

  it('that it wants root, to who is none', () => {
    for (const argv of [
      ['node', '--config', config],
      ['lab', 'up'],
      ['lab', 'down'],
      ['lab', 'status'],
      ['lab', 'exec', 'x', '--', 'true'],
      ['lab', 'compare'],
      ['lab', 'scenario', 'run', 'cilium-vxlan'],
      ['host', 'init'],
      ['host', 'check'],
    ]) {
      const { status, stderr } = spawnSync(
        'setpriv',
        ['--reuid=65534', '--regid=65534', '--clear-groups', process.execPath, MAIN, ...argv],
        { encoding: 'utf8', cwd: '/' },
      );
      assert.ok(status === 1 || status === 2, `${argv}: ${status} ${stderr}`);
      assert.match(stderr, /root/, argv.join(' '));
      assert.doesNotMatch(stderr, RAW, argv.join(' '));
      assert.doesNotMatch(stderr, /no lab/, argv.join(' '));
    }
  });
});
