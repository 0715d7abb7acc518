/** What a Tab offers, by the commands' own tree, and the scripts in the shells that they are for. */
import { strict as assert } from 'node:assert';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Answer, complete } from '../../datapath/cli/complete.ts';
import { SOURCES } from '../../datapath/cli/completion-values.ts';
import { buildProgram } from '../../datapath/cli/main.ts';
import { allCommands } from '../../datapath/cli/manners.ts';
import { MAIN } from '../fixtures/program.ts';

describe('completion', function () {
  this.timeout(60_000);

  /** @param line what is typed, words between blanks; "" is an empty word */
  const at = (line: string): Promise<Answer> =>
    complete(
      buildProgram(),
      line.split(' ').map(word => word.replace('""', '')),
    );
  const rows: [line: string, values: string[]][] = [
    ['c', ['capture', 'completion', 'conformance']],
    ['lab s', ['status', 'shell', 'scenario']],
    ['lab scenario ""', ['list', 'run', 'help']],
    ['help ho', ['host']],
    ['get cou', ['counters']],
    ['get depl', ['deployments']],
    ['get counters --sort-by packets -o js', ['json', 'jsonl']],
    ['get -o c', ['cilium']],
    ['get routes --wat', ['--watch']],
    ['get routes --output=y', ['--output=yaml']],
    ['node --log-format ""', ['text', 'json']],
    ['lab up --mode gen', ['geneve']],
    ['lab up --processes --mode gen', ['geneve']],
    ['lab compare --mode vxlan gen', ['geneve']],
    ['lab scenario run cilium-vxlan calico-v', ['calico-vxlan']],
    ['conformance --clause 4787/REQ-10', ['4787/REQ-10']],
    ['explain-config spec.mtu.t', ['spec.mtu.tooBig']],
    ['bench e2e --modes vxlan,gen', ['vxlan,geneve']],
    ['example ""', ['two-nodes']],
    ['completion z', ['zsh']],
    ['observe --reason no-rou', ['no-route']],
    ['status --fly ""', ['--node', '--output', '--color', '--help']],
    ['lab exec router -- tcpdump --n', []],
    ['nosuch ""', []],
    ['describe ct ""', []],
  ];
  for (const [line, values] of rows) {
    it(`${line} -> ${values.join(', ')}`, async () => {
      const { completions } = await at(line);
      const isOneOf = line.startsWith('nosuch') ? [] : completions.map(({ value }) => value);
      assert.deepEqual(isOneOf, values);
    });
  }

  it('leaves names of files to the shell', async () => {
    for (const line of [
      'node --config ""',
      'apply -f a',
      'diff --file=a',
      'replay ""',
      'mtu prove -f a b',
      'bench report x',
    ]) {
      assert.deepEqual(await at(line), { files: 'files', completions: [] }, line);
    }
    assert.equal((await at('example --directory ""')).files, 'directories');
    assert.equal((await at('lab up --mode ""')).files, 'none');
  });

  it('has values for options and arguments that there are', () => {
    const names = new Set<string>();
    for (const [{ options, registeredArguments }, words] of allCommands(buildProgram())) {
      for (const name of [...options.map(({ long }) => long), ...registeredArguments.map(one => one.name())]) {
        names.add(name as string).add([...words, name].join(' '));
      }
    }
    assert.deepEqual(
      Object.keys(SOURCES).filter(key => !names.has(key)),
      [],
    );
  });

  describe('in a shell', () => {
    const directory = mkdtempSync(join(tmpdir(), 'tunpath-completion-'));
    before(() => {
      writeFileSync(join(directory, 'tunpath'), `#!/bin/sh\nexec '${process.execPath}' '${MAIN}' "$@"\n`, {
        mode: 0o755,
      });
    });
    after(() => rmSync(directory, { recursive: true }));

    function run(shell: string, ...args: string[]): string {
      const env = { ...process.env, PATH: `${directory}:${process.env.PATH}` };
      const { status, stdout, stderr } = spawnSync(shell, args, { env, cwd: directory, encoding: 'utf8' });
      assert.equal(status, 0, `${shell}: ${stderr}`);
      assert.equal(stderr, '');
      return stdout;
    }

    it('bash', () => {
      const script = `
        source <(tunpath completion bash)
        complete -p tunpath
        # The builtin is for a shell in which somebody types.
        compopt() { echo "$*"; }
        for COMP_LINE in 'tunpath conf' 'tunpath get -o js' 'tunpath lab up --mode=cr' 'tunpath node --config '; do
          COMP_POINT=\${#COMP_LINE}
          _tunpath tunpath
          echo "\${COMPREPLY[*]}"
        done`;
      assert.equal(
        run('bash', '--norc', '-euc', script),
        'complete -F _tunpath tunpath\nconformance\njson jsonl\ncrosssubnet\n-o default\n\n',
      );
    });

    it('zsh', () => {
      run('zsh', '-fc', 'tunpath completion zsh > _tunpath && zsh -n _tunpath');
      const script = `
        compdef() { echo "compdef $*" }
        _describe() { print -l -- "\${(@)described}" }
        _files() { echo "files $*" }
        compset() { }
        source <(tunpath completion zsh)
        for line in 'tunpath conf' 'tunpath lab up --mode=cr' 'tunpath node --config '; do
          words=("\${(@s: :)line}")
          CURRENT=$#words
          _tunpath
        done`;
      assert.equal(
        run('zsh', '-fc', script),
        'compdef _tunpath tunpath\nconformance:hold the datapath against the RFCs, clause by clause, with packets in memory\n--mode=crosssubnet\nfiles \n',
      );
    });

    it('fish', () => {
      const script = `
        tunpath completion fish > tunpath.fish
        fish --no-execute tunpath.fish
        source tunpath.fish
        complete --do-complete 'tunpath conf'
        complete --do-complete 'tunpath lab up --mode=cr'
        complete --do-complete 'tunpath node --config tunp'`;
      assert.equal(
        run('fish', '--no-config', '-c', script),
        'conformance\thold the datapath against the RFCs, clause by clause, with packets in memory\n--mode=crosssubnet\ntunpath\ntunpath.fish\n',
      );
    });
  });
});
