/** `tunpath example` as its reader uses it: the files are written, and the lines are typed one after the other. */
import { strict as assert } from 'node:assert';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { EXAMPLE_FILES } from '../../datapath/cli/example.ts';
import { MAIN } from '../fixtures/program.ts';

describe('example', function () {
  this.timeout(120_000);
  let directory = '';
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'tunpath-example-'));
  });
  afterEach(() => rmSync(directory, { recursive: true, force: true }));

  const tunpath = (...argv: string[]) => spawnSync(process.execPath, [MAIN, ...argv], { encoding: 'utf8' });

  for (const name of Object.keys(EXAMPLE_FILES)) {
    it(`${name}: its files and commands end with a ping, and leave nothing`, () => {
      const written = tunpath('example', name, '--directory', directory);
      assert.equal(written.status, 0, written.stderr);
      assert.deepEqual(readdirSync(directory).sort(), Object.keys(EXAMPLE_FILES[name].files).sort());
      // A /run and a network of its own: the names in the example are anybody's.
      const script = [
        'mount -t tmpfs none /run && mkdir /run/netns',
        'set -eu -m',
        `tunpath() { ${process.execPath} ${MAIN} "$@"; }`,
        ...written.stdout.split('\n').map(line => {
          // A reader waits for "ready" before he types the next line.
          if (!line.includes('tunpath node')) return line;
          return `${line.replace(/&.*/, '2>log &')}\nfor i in $(seq 300); do grep -q "^ready" log && break; sleep 0.1; done`;
        }),
        'wait; ip netns list; ls /run/tunpath',
      ].join('\n');
      const { status, stdout, stderr } = spawnSync('unshare', ['-mn', 'bash', '-c', script], { encoding: 'utf8' });
      assert.equal(status, 0, `${stdout}${stderr}`);
      const pings = stdout.split('\n').filter(line => line.includes('packets transmitted'));
      assert.equal(pings.length, 3, stdout);
      for (const line of pings) assert.match(line, / 0% packet loss/);
      const [before, after] = [...stdout.matchAll(/rtt min\/avg\/max\/mdev = ([\d.]+)/g)]
        .map(match => Number(match[1]))
        .filter((_, i) => i !== 1);
      assert.ok(after >= 40 && after > before, `${before} ms before, ${after} ms with a delay of 20 ms`);
      assert.match(stdout, /default\/p1 .* -> .*10\.244\.2\.10 .*FORWARDED|FORWARDED/);
    });
  }

  it('without a name says which there are; what is there already stays', () => {
    assert.match(tunpath('example').stdout, /^two-nodes: two nodes/);
    assert.equal(tunpath('example', 'two-nodes', '--directory', directory).status, 0);
    const again = tunpath('example', 'two-nodes', '--directory', directory);
    assert.equal(again.status, 2);
    assert.match(again.stderr, /a\.yaml: file already exists: expected --directory/);
    assert.equal(tunpath('example', 'nosuch').status, 2);
  });
});
