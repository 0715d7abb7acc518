/** The manual pages are made of the commands, npm links them, and groff has nothing against them. */
import { strict as assert } from 'node:assert';
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { buildProgram } from '../../datapath/cli/main.ts';
import { manPages } from '../../datapath/cli/man.ts';
import { temporaryDirectory } from '../fixtures/directory.ts';

describe('manual pages', function () {
  this.timeout(60_000);
  const directory = temporaryDirectory('man');
  const pages = manPages(buildProgram());

  it('that npm links are there', () => {
    const { man } = JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8'));
    assert.ok(man.includes('./dist/man/tunpath.1'));
    assert.deepEqual(
      man.filter((file: string) => !pages.has(file.replace('./dist/man/', ''))),
      [],
      'run npm run docs',
    );
  });

  it('say of every command what --help says', () => {
    for (const command of buildProgram().commands) {
      const text = pages.get(`tunpath-${command.name()}.1`) ?? assert.fail(command.name());
      const flags = command
        .createHelp()
        .visibleOptions(command)
        .map(({ long, short }) => (long ?? short) as string);
      for (const flag of flags) assert.ok(text.includes(flag.replaceAll('-', '\\-')), flag);
    }
  });

  it('render without a warning, and no line is wider than the terminal but examples', () => {
    const files = [...pages].map(([name, text]) => {
      const file = join(directory, name);
      writeFileSync(file, text);
      return file;
    });
    // As man(1) calls it, and without bold letters.
    const options = ['-ww', '-man', '-k', '-Tutf8', '-rLL=80n', '-P-cbou'];
    const { status, stdout, stderr } = spawnSync('groff', [...options, ...files], { encoding: 'utf8' });
    assert.equal(status, 0, stderr);
    assert.equal(stderr, '');
    assert.match(stdout, /^NAME\n +tunpath - A userspace datapath/m);
    assert.match(stdout, /^ +-f, --file <file>$/m);
    const wide = stdout.split('\n').filter(line => line.length > 80 && !/^ +tunpath /.test(line));
    assert.deepEqual(wide, []);
  });
});
