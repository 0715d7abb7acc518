/** Commands on a terminal of 80 columns: no line is wider, and what there is no room for is named; in a pipe all is there. */
import { strict as assert } from 'node:assert';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { stripVTControlCharacters } from 'node:util';
import { temporaryDirectory } from '../fixtures/directory.ts';

const MAIN = fileURLToPath(new URL('../../datapath/cli/main.flat.js', import.meta.url));
const CLEAN = fileURLToPath(new URL('../../../test/fixtures/mtu/clean', import.meta.url));

const GREEN = '\u001b[32m';

describe('at 80 columns', function () {
  this.timeout(300_000);
  const directory = temporaryDirectory('narrow');
  const own = { ...process.env, TERM: 'xterm', NO_COLOR: undefined };
  before(() => {
    const made = spawnSync(process.execPath, [MAIN, 'example', 'two-nodes', '--directory', directory]);
    assert.equal(made.status, 0);
  });

  /** On a terminal that script(1) makes. */
  function onTerminal(argv: string[], env: NodeJS.ProcessEnv = own): string {
    const line = `stty cols 80; exec '${process.execPath}' '${MAIN}' ${argv.map(word => `'${word}'`).join(' ')}`;
    const { stdout } = spawnSync('script', ['-qec', line, '/dev/null'], { input: '', env, encoding: 'utf8' });
    return stdout.replaceAll('\r', '');
  }
  const piped = (argv: string[]) => spawnSync(process.execPath, [MAIN, ...argv], { env: own, encoding: 'utf8' });

  const configs = ['--config', join(directory, 'a.yaml'), '--config', join(directory, 'b.yaml')];
  const rows: [argv: string[], said: RegExp][] = [
    [['conformance', '--profile', 'linux', '--clause', '2003'], /no room here for LEVEL.*: -o wide shows all/],
    [['conformance', '--profile', 'all', '--clause', '2003'], /no room here for .*RFC: -o wide shows all/],
    [['lab', 'scenario', 'list'], /^NAME /],
    [['mtu', 'prove', '--expand', '-f', CLEAN], /^FROM /],
    [['lab', 'up', '--simulate', '--nodes', '3', '--pods', '2', '--policies'], / nodes/],
    [['explain-config', 'spec.tunnel'], /^KIND: /],
    [['--help'], /^Usage: /],
  ];
  for (const [argv, said] of rows) {
    it(argv.slice(0, 4).join(' '), () => {
      const text = stripVTControlCharacters(onTerminal(argv));
      assert.match(text, said);
      assert.deepEqual(
        // Examples are to be copied, and so are whole.
        text.split('\n').filter(line => line.length > 80 && !/^ +tunpath .* # /.test(line)),
        [],
      );
      const { stdout, stderr } = piped(argv);
      assert.doesNotMatch(stderr, /no room/);
      assert.equal(stdout, stripVTControlCharacters(stdout));
    });
  }

  it('explain --what-if, below the steps', () => {
    const argv = ['explain', '--from', 'p1', '--to', '10.244.2.10', ...configs, '--what-if', 'mode=geneve'];
    const table = stripVTControlCharacters(onTerminal(argv)).split(/^(?=CONFIGURATION )/m)[1];
    assert.deepEqual(
      table.split('\n').filter(line => line.length > 80),
      [],
    );
  });

  it('has colours on a terminal, unless NO_COLOR or --color says no', () => {
    const argv = ['conformance', '--clause', '1191/6.3'];
    assert.ok(onTerminal(argv).includes(`${GREEN}pass`));
    assert.ok(!onTerminal(argv, { ...own, NO_COLOR: '1' }).includes(GREEN));
    assert.ok(!onTerminal([...argv, '--color', 'never']).includes(GREEN));
    assert.ok(piped([...argv, '--color', 'always']).stdout.includes(`${GREEN}pass`));
  });
});
