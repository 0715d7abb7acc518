/** The command line in one file, which starts sooner than its modules: it does the same, and loads nothing at its start. */
import { strict as assert } from 'node:assert';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const fileOf = (name: string) => fileURLToPath(new URL(`../../datapath/cli/${name}`, import.meta.url));
const FLAT = fileOf('main.flat.js');

describe('the command line in one file', function () {
  this.timeout(60_000);

  it('imports no module of ours at its start, but the one whose state others share', () => {
    const text = readFileSync(FLAT, 'utf8');
    const imported = Array.from(text.matchAll(/^import .*? from '(.*?)';$/gm), ([, name]) => name);
    assert.deepEqual(
      imported.filter(name => !name.startsWith('node:')),
      ['commander', './color.js'],
    );
  });

  for (const argv of [
    ['--help'],
    ['get', '--help'],
    ['get', 'flies', '--node', 'x'],
    ['mtu', 'prove', '-f', '/dev/null'],
  ]) {
    it(`does what the modules do: ${argv.join(' ')}`, () => {
      const [flat, modules] = [FLAT, fileOf('main.js')].map(file => {
        const { status, stdout, stderr } = spawnSync(process.execPath, [file, ...argv], { encoding: 'utf8' });
        return { status, stdout, stderr };
      });
      assert.deepEqual(flat, modules);
      assert.notEqual(`${flat.stdout}${flat.stderr}`, '');
    });
  }

  it('paints what a module prints', () => {
    const argv = ['conformance', '--clause', '1191/6.3', '--color', 'always'];
    const { stdout } = spawnSync(process.execPath, [FLAT, ...argv], { encoding: 'utf8' });
    assert.ok(stdout.includes('\u001b[32mpass'), stdout);
  });
});
