/** The command line in few files, which starts sooner than its modules: it does the same, and reads little at its start. */
import { strict as assert } from 'node:assert';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const fileOf = (name: string) => fileURLToPath(new URL(`../../datapath/cli/${name}`, import.meta.url));
const FLAT = fileOf('main.flat.js');

describe('the command line in few files', function () {
  this.timeout(60_000);

  it('reads few files at its start, and no module but the one whose state others share', () => {
    const read = new Set([FLAT]);
    for (const file of read) {
      const text = readFileSync(file, 'utf8');
      for (const [, name] of text.matchAll(/^(?:import|export) (?:[^'\n]*? from )?'(.*?)';$/gm)) {
        if (!name!.startsWith('node:')) read.add(name!.startsWith('.') ? join(dirname(file), name!) : name!);
      }
    }
    const modules = [...read].filter(file => !file.includes('/flat/') && file !== FLAT);
    assert.deepEqual(modules, [fileOf('color.js')]);
    assert.ok(read.size <= 12, [...read].join('\n'));
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
