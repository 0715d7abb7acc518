/** The lines of docs/terminal.md, typed on a host of one lab. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Lab } from '../../datapath/lab/lab.ts';
import { kubectlPath } from '../api/kubectl.ts';
import { MAIN } from '../fixtures/program.ts';

const NAME = `term${process.pid}`;
const END = '=== end of line';

interface Typed {
  line: string;
  prints: string;
}

/** Rows of the table under a heading: a line in backticks, and what it prints, if that is said. */
function linesUnder(heading: string, text: string): Typed[] {
  const section = text.slice(text.indexOf(`## ${heading}`)).split('\n## ')[0]!;
  return section.split('\n').flatMap(row => {
    const match = /^\| `(.*?)` +\| (?:`(.*?)`)? *\|$/.exec(row);
    return match === null ? [] : [{ line: match[1]!.replaceAll('\\|', '|'), prints: match[2] ?? '' }];
  });
}

describe("the articles' terminal", function () {
  this.timeout(300_000);
  const typed = linesUnder(
    'Lines of article 001 that work',
    readFileSync(join(import.meta.dirname, '../../../docs/terminal.md'), 'utf8'),
  );
  let lab: Lab;
  before(async () => {
    await Lab.down(NAME);
    lab = await Lab.up({ name: NAME, mode: 'vxlan', api: true });
  });
  after(() => lab?.down());

  it('every line that is said to work prints what it is said to print', async () => {
    assert.ok(typed.length > 25, `${typed.length} lines`);
    const wait = 'kubectl rollout status -n kube-system ds/cilium --timeout=120s >/dev/null';
    const script = [wait, ...typed.map(({ line }) => `{ ${line} ; } 2>&1; echo "${END} $?"`)].join('\n');
    kubectlPath('1.35'); // which the lab finds
    const argv = [MAIN, 'lab', 'exec', '--name', NAME, 'k8s-ctr', '--', 'sh', '-c', script];
    const { stdout } = await promisify(execFile)(process.execPath, argv, { maxBuffer: 1 << 24 });
    const outputs = stdout.split(new RegExp(`${END} (\\d+)\n`));
    const failures = typed.flatMap(({ line, prints }, i) => {
      const [output, code] = [outputs[2 * i] ?? '', outputs[2 * i + 1]];
      const squeezed = output.replace(/\s+/g, ' ');
      if (code === '0' && squeezed.includes(prints)) return [];
      return [`${line}: exit code ${code}, expected ${prints}, got ${output}`];
    });
    assert.deepEqual(failures, []);
  });

  it('what is not there says so', async () => {
    const run = async (...words: string[]) =>
      promisify(execFile)(process.execPath, [MAIN, 'lab', 'exec', '--name', NAME, ...words]).catch(error => error);
    assert.match((await run('k8s-ctr', '--', 'cilium-dbg', 'bpf', 'nothing')).stderr, /not among what a node here has/);
    assert.match((await run('router', '--', 'cilium', 'status')).stderr, /router has no node/);
  });
});
