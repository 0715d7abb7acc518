/**
 * What a user has after `npm install -g` of the packed tarball on a machine without a compiler: commands that run, as an
 * ordinary user where that is possible, and a node. The checkout is out of reach.
 */
import { strict as assert } from 'node:assert';
import { type SpawnSyncReturns, spawnSync } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { builtinModules } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { blocksOf, isShown } from '../docs/blocks.ts';
import { Hosts, OTHER, PODS, pingEverySize, type Side } from './hosts.ts';
import { Rig, type Running } from './rig.ts';

const CHECKOUT = fileURLToPath(new URL('../../..', import.meta.url));
const COMPILERS = ['cc', 'c++', 'gcc', 'g++', 'clang', 'make', 'cmake', 'python', 'python3'];
/** What a compiled module imports: with names, for its effects, and when it is wanted. */
const IMPORTS =
  /^(?:import|export)\s[^;=]*?\sfrom ['"]([^'"]+)['"]|^import ['"]([^'"]+)['"]|(?<!\{ )\bimport\(['"]([^'"]+)['"]\)/gm;
const NOBODY = 65534;
/** What `npm pack` writes into the tarball, and npm up to version 10 onto the disk: the same for every file. */
const PACKED = new Date('1985-10-26T08:15:00Z');

describe('the package', function () {
  this.timeout(180_000);
  let directory: string;
  let installed: string;
  let command: string;
  let environment: NodeJS.ProcessEnv;
  let files: string[];

  before(() => {
    directory = mkdtempSync(join(tmpdir(), 'tunpath-package-'));
    chmodSync(directory, 0o755);
    // An ordinary user need not see the checkout.
    cpSync(join(CHECKOUT, 'test/fixtures/config/good/minimal.yaml'), join(directory, 'minimal.yaml'));
    cpSync(join(CHECKOUT, 'test/fixtures/mtu/clean'), join(directory, 'clean'), { recursive: true });
    const shims = join(directory, 'shims');
    mkdirSync(shims);
    for (const name of COMPILERS) writeFileSync(join(shims, name), '#!/bin/sh\nexit 127\n', { mode: 0o755 });
    environment = {
      PATH: `${shims}:${dirname(process.execPath)}:/usr/sbin:/usr/bin:/sbin:/bin`,
      HOME: process.env.HOME,
      // Where the machine reaches its registry through somebody who signs for it.
      ...(process.env.NODE_EXTRA_CA_CERTS === undefined
        ? {}
        : { NODE_EXTRA_CA_CERTS: process.env.NODE_EXTRA_CA_CERTS }),
    };

    const npm = (...args: string[]) => {
      const { status, stdout, stderr } = spawnSync('npm', args, { cwd: CHECKOUT, env: environment, encoding: 'utf8' });
      assert.equal(status, 0, `npm ${args[0]}: ${stderr}`);
      return stdout;
    };
    // The build is there, and its scripts would make it anew under the tests that run from it.
    const packed = npm('pack', '--ignore-scripts', '--json', '--pack-destination', directory);
    const [{ filename }] = JSON.parse(packed) as { filename: string }[];
    const prefix = join(directory, 'prefix');
    npm(
      'install',
      '--global',
      '--prefix',
      prefix,
      '--prefer-offline',
      '--no-audit',
      '--no-fund',
      join(directory, filename),
    );
    installed = join(prefix, 'lib/node_modules/tunpath');
    command = join(prefix, 'bin/tunpath');
    files = readdirSync(installed, { recursive: true, encoding: 'utf8' }).filter(
      file => !file.startsWith('node_modules'),
    );
    for (const file of files) utimesSync(join(installed, file), PACKED, PACKED);
  });
  after(() => rmSync(directory, { recursive: true, force: true }));

  /** Runs the command without a home, in a directory that is not its own. */
  function tunpath(user: number, ...args: string[]): SpawnSyncReturns<string> {
    return spawnSync(command, args, {
      uid: user,
      gid: user,
      cwd: directory,
      env: { PATH: environment.PATH },
      encoding: 'utf8',
      maxBuffer: 1 << 28,
    });
  }

  function succeeds(user: number, ...args: string[]): string {
    const { status, stdout, stderr } = tunpath(user, ...args);
    assert.equal(status, 0, `tunpath ${args.join(' ')}: ${stderr}`);
    return stdout;
  }

  it('holds the program, the unit and what one reads first, and no test', () => {
    for (const file of ['dist/datapath/cli/main.js', 'systemd/tunpath@.service', 'README.md', 'LICENSE']) {
      assert.ok(files.includes(file), file);
    }
    assert.deepEqual(
      files.filter(file => /(^|\/)test(s|\/)|\.tsbuildinfo|\.test\./.test(file)),
      [],
    );
  });

  it('imports nothing that is not installed with it', () => {
    const { dependencies, optionalDependencies = {} } = JSON.parse(
      readFileSync(join(installed, 'package.json'), 'utf8'),
    );
    const allowed = new Set([...Object.keys({ ...dependencies, ...optionalDependencies }), ...builtinModules]);
    const missing: string[] = [];
    for (const file of files.filter(name => name.endsWith('.js'))) {
      const text = readFileSync(join(installed, file), 'utf8');
      for (const specifiers of text.matchAll(IMPORTS)) {
        const name = specifiers.slice(1).find(specifier => specifier !== undefined)!;
        if (name.startsWith('node:')) continue;
        if (name.startsWith('.') ? !existsSync(join(installed, dirname(file), name)) : !allowed.has(packageOf(name)))
          missing.push(`${file}: ${name}`);
      }
    }
    assert.deepEqual(missing, []);
  });

  it('runs the path and the programs from few files, although all files are of one age', async () => {
    const { flattened } = await import(pathToFileURL(join(installed, 'dist/datapath/flattened.js')).href);
    for (const module of [
      'dist/datapath/loop.js',
      'dist/datapath/cli/main.js',
      'dist/datapath/lab/api-process.js',
      'dist/bench/pipeline/worker.js',
      'dist/bench/micro/worker.js',
    ]) {
      const url = pathToFileURL(join(installed, module));
      assert.equal(flattened(url).href, url.href.replace(/\.js$/, '.flat.js'));
    }
  });

  it('runs as root', () => assert.match(succeeds(0, '--help'), /Commands:\n/));

  describe('as an ordinary user', () => {
    it('--help', () => assert.match(succeeds(NOBODY, '--help'), /Commands:\n/));
    it('--version', () => assert.match(succeeds(NOBODY, '--version'), /^\d+\.\d+\.\d+\n$/));
    it('bench pipeline', () => {
      const flags = ['--quick', '--modes', 'vxlan', '--sizes', '64', '--flows', '1000', '--nat', 'service'];
      const { results } = JSON.parse(succeeds(NOBODY, 'bench', 'pipeline', ...flags, '--visits', '1', '-o', 'json'));
      assert.ok(results.length > 0);
    });
    it('bench micro', () => {
      const flags = ['--quick', '--only', 'parse', '--visits', '1'];
      const { results } = JSON.parse(succeeds(NOBODY, 'bench', 'micro', ...flags, '-o', 'json'));
      assert.ok(results.length > 0);
    });
    it('mtu prove', () => succeeds(NOBODY, 'mtu', 'prove', '-f', 'clean'));
    it('conformance', () => assert.match(succeeds(NOBODY, 'conformance'), /\n7348 /));
  });

  describe('as an ordinary user, what cannot run says what it needs', () => {
    const rows: [string, string[], RegExp][] = [
      [
        'node',
        ['node', '--config', 'minimal.yaml'],
        /needs CAP_NET_ADMIN.*: run it as root, or with these capabilities/,
      ],
      ['lab up', ['lab', 'up'], /run it as root \(CAP_NET_ADMIN/],
      ['lab compare', ['lab', 'compare'], /run it as root \(CAP_NET_ADMIN/],
      ['lab scenario run', ['lab', 'scenario', 'run', 'cilium-vxlan'], /run it as root \(CAP_NET_ADMIN/],
      ['bench e2e', ['bench', 'e2e', '--quick'], /run it as root \(CAP_NET_ADMIN/],
      ['bench overhead', ['bench', 'overhead', '--quick'], /run it as root \(CAP_NET_ADMIN/],
      ['bench mtu', ['bench', 'mtu', '--quick'], /run it as root \(CAP_NET_ADMIN/],
      ['bench all', ['bench', 'all', '--quick'], /run it as root; or --only micro,lpm,pipeline/],
      ['host init', ['host', 'init'], /host init needs CAP_NET_ADMIN: run it as root/],
      ['host check', ['host', 'check'], /host check needs CAP_NET_ADMIN: run it as root/],
    ];
    for (const [what, args, expected] of rows) {
      it(what, () => {
        const { status, stdout, stderr } = tunpath(NOBODY, ...args);
        assert.equal(status, 1, stderr);
        assert.equal(stdout, '');
        assert.match(stderr, expected);
        assert.equal(stderr.trimEnd().split('\n').length, 1, stderr);
      });
    }
  });

  it('is a library with types: the programs of docs/library.md compile, run, and print what the page says', () => {
    const project = join(directory, 'project');
    mkdirSync(join(project, 'node_modules'), { recursive: true });
    symlinkSync(installed, join(project, 'node_modules/tunpath'));
    const run = (program: string, ...args: string[]): string => {
      const { status, stdout, stderr } = spawnSync(program, args, { cwd: project, encoding: 'utf8' });
      assert.equal(status, 0, `${program} ${args.join(' ')}: ${stdout}${stderr}`);
      return stdout;
    };
    run(command, 'example', 'two-nodes', '--directory', 'two-nodes');
    const blocks = blocksOf(readFileSync(join(CHECKOUT, 'docs/library.md'), 'utf8'));
    const programs = blocks.filter(({ language }) => language === 'ts');
    assert.ok(programs.length > 0);
    programs.forEach(({ lines }, i) => {
      writeFileSync(join(project, `${i}.mts`), `${lines.join('\n')}\n`);
    });
    const types = ['--types', 'node', '--typeRoots', join(CHECKOUT, 'node_modules/@types')];
    const strict = ['--strict', '--module', 'nodenext', '--target', 'es2022', ...types];
    run(join(CHECKOUT, 'node_modules/.bin/tsc'), ...strict, ...programs.map((_, i) => `${i}.mts`));
    let printed = '';
    for (const block of blocks) {
      if (block.language === 'ts') printed = run(process.execPath, `${programs.indexOf(block)}.mjs`);
      if (block.marks.some(({ name }) => name === 'output'))
        for (const line of block.lines) assert.ok(isShown(line, printed), `docs/library.md:${block.line}: ${printed}`);
    }
  });

  describe('a node', () => {
    let rig: Rig;
    let hosts: Hosts;
    const configs: Record<Side, string> = { a: '', b: '' };
    const own: Record<Side, string> = { a: '192.168.10.21', b: '192.168.10.22' };

    before(async () => {
      rig = new Rig('pk');
      hosts = await Hosts.make(rig, { between: 'bridge' });
    });
    after(() => rig.close());

    it('with a macvtap connects two hosts', async () => {
      const nodes: Running[] = [];
      for (const side of ['a', 'b'] as const) {
        const uplink = { kind: 'macvtap', interface: 'eth0', address: `${own[side]}/24` };
        configs[side] = rig.writeConfig(`host-${side}`, hosts.spec(side, uplink, 'vxlan', own[OTHER[side]]));
        nodes.push(rig.spawn(`host-${side}`, command, 'node', '--config', configs[side]));
      }
      for (const node of nodes) await node.until('ready\n');
      await pingEverySize(rig, { from: 'pod-a', to: 'pod-b', address: PODS.b, mtu: 1450 });
      for (const node of nodes) assert.equal(await node.stop(), 0, node.output);
    });

    it('asked by an ordinary user, refuses', async () => {
      const node = rig.spawn('host-a', command, 'node', '--config', configs.a);
      await node.until('ready\n');
      const { status, stderr } = tunpath(NOBODY, 'status', '--node', rig.full('host-a'));
      assert.equal(status, 1, stderr);
      assert.match(stderr, /only root may ask a node: run this as root\n$/);
      assert.equal(await node.stop(), 0, node.output);
    });

    it('with a raw uplink, which wants a compiled package, says how to get it', async () => {
      const spec = hosts.spec('a', { kind: 'raw', interface: 'eth0' }, 'vxlan', hosts.addresses.b);
      const node = rig.spawn('host-a', command, 'node', '--config', rig.writeConfig('host-a', spec));
      assert.equal(await node.exited, 2);
      assert.match(node.output, /raw needs the optional package raw-socket.* npm install --global .*raw-socket@/s);
    });
  });
});

/** '@scope/name' of '@scope/name/file', 'name' of 'name/file'. */
function packageOf(specifier: string): string {
  const parts = specifier.split('/');
  return specifier.startsWith('@') ? parts.slice(0, 2).join('/') : parts[0];
}
