/**
 * README.md and docs/ as somebody reads them who types every command, in order. A block of commands that cannot be run is
 * marked with the reason; see blocks.ts.
 */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { parse, parseAllDocuments, stringify } from 'yaml';
import { formatProblems, loadConfig, loadDocuments } from '../../datapath/control/load-config.ts';
import { loadTopology } from '../../datapath/lab/topology-file.ts';
import { type Block, blocksOf, commandsOf, isShown, LANGUAGES } from './blocks.ts';
import { Session } from './session.ts';

const ROOT = path.join(import.meta.dirname, '../../..');
const PAGES = [
  'README.md',
  ...readdirSync(path.join(ROOT, 'docs')).flatMap(file => (file.endsWith('.md') ? [`docs/${file}`] : [])),
];
const SHOWN_LINES = 12;
const AT_ONCE = 3;
/** In the environment of somebody who writes one page. */
const ONLY_VARIABLE = 'TUNPATH_TEST_PAGE';
/** How a line begins that somebody would type. */
const COMMAND = /^(\$ |scripts\/\w|tunpath |kubectl |ip |node |npm )/;

const blocksIn = (page: string): Block[] => blocksOf(readFileSync(path.join(ROOT, page), 'utf8'));
const hasMark = (block: Block, name: string): boolean => block.marks.some(mark => mark.name === name);
const isRun = (block: Block): boolean => block.language === 'sh' && !hasMark(block, 'not run');

describe('blocks of README.md and docs/', () => {
  for (const page of PAGES) {
    it(`${page}: say what they are, and why one is not run`, () => {
      for (const block of blocksIn(page)) {
        const at = `${page}:${block.line}`;
        assert.ok(['', ...LANGUAGES].includes(block.language), `${at}: expected a block of ${LANGUAGES.join(', ')}`);
        if (block.language === '' || block.language === 'text') {
          const command = block.lines.find(line => COMMAND.test(line));
          assert.equal(command, undefined, `${at}: expected \`\`\`sh above commands, so that they are run`);
        }
        for (const { name, text } of block.marks) {
          if (name === 'output') continue;
          assert.ok(text.length > 3, `${at}: ${name}: expected a reason, a name, or the text of a command`);
          if (name !== 'exits' && name !== 'Ctrl-C') continue;
          assert.ok(isRun(block), `${at}: ${name} goes with commands that are run`);
          const meant = commandsOf(block).filter(command => command.text.includes(text));
          assert.ok(meant.length > 0, `${at}: no command with "${text}"`);
        }
      }
    });

    it(`${page}: nodes and labs take its files`, () => {
      for (const block of blocksIn(page).filter(({ language }) => language === 'yaml')) {
        assert.deepEqual(problemsOf(block.lines.join('\n'), `${page}:${block.line}`), []);
      }
    });
  }
});

describe('commands of README.md and docs/', function () {
  this.timeout(1_200_000);

  it('run as they are typed, page by page', async () => {
    const only = process.env[ONLY_VARIABLE];
    const pages = PAGES.filter(page => blocksIn(page).some(isRun) && (only === undefined || page.includes(only)));
    assert.ok(pages.length > 0);
    const failures: string[] = [];
    // Pages wait for pings and labs more than they compute: several at once, which do not see each other.
    const work = async (): Promise<void> => {
      for (let page = pages.shift(); page !== undefined; page = pages.shift())
        failures.push(...(await readAloud(page)));
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
    assert.deepEqual(failures, []);
  });
});

async function readAloud(page: string): Promise<string[]> {
  const session = new Session();
  try {
    return await failuresOf(session, page);
  } finally {
    await session.close();
  }
}

/** Types every command of a page. @returns what was not as the page says */
async function failuresOf(session: Session, page: string): Promise<string[]> {
  const failures: string[] = [];
  let before = '';
  for (const block of blocksIn(page)) {
    for (const { name, text } of block.marks) if (name === 'file') session.write(text, `${block.lines.join('\n')}\n`);
    if (hasMark(block, 'output')) {
      const missing = block.lines.filter(line => !isShown(line, before));
      if (missing.length > 0) {
        failures.push(`${page}:${block.line}: not in the output:\n${missing.join('\n')}\n${before}`);
      }
    }
    if (!isRun(block)) continue;
    before = '';
    for (const { line, text } of commandsOf(block)) {
      const marked = (name: string) => block.marks.find(mark => mark.name === name && text.includes(mark.text));
      const expected = Number(marked('exits')?.value ?? 0);
      const { code, output } = await session.type(text, marked('Ctrl-C') !== undefined);
      before += output;
      if (code === expected) continue;
      const shown = output.trimEnd().split('\n').slice(-SHOWN_LINES).join('\n');
      failures.push(`${page}:${line}: ${text.trim()}: exit ${code}, expected ${expected}\n${shown}`);
      if (code === Session.ENDLESS) return failures;
    }
  }
  return failures;
}

/** What the README's node is on, for parts of files. */
const BASE = {
  apiVersion: 'tunpath.dev/v1',
  kind: 'NodeConfig',
  metadata: { name: 'a' },
  spec: {
    uplink: { kind: 'tap', device: 'ul0', mac: '02:00:00:00:00:01', address: '192.168.10.1/24' },
    host: { device: 'tp0', address: '10.244.1.1/32' },
    tunnel: { protocol: 'vxlan', peers: [{ address: '192.168.10.2' }] },
  },
};

/** Of a file, or of a part of a NodeConfig's spec in the place of the base's. */
function problemsOf(text: string, at: string): string[] {
  const [first] = parseAllDocuments(text);
  const whole = first!.toJS() as { apiVersion?: string; kind?: string };
  if (whole.kind === 'Topology') {
    const { problems } = loadTopology(text, at);
    return problems === undefined ? [] : [formatProblems(problems)];
  }
  if (whole.apiVersion === BASE.apiVersion) {
    const { problems } = loadDocuments(text, at);
    return problems.length === 0 ? [] : [formatProblems(problems)];
  }
  // Kubernetes' own kinds: the lab's API looks at them when they are applied.
  if (whole.apiVersion !== undefined) return [];
  const part = parse(text) as object;
  const { tunnel, ...spec } = BASE.spec;
  const config = { ...BASE, spec: { ...spec, ...('tunnels' in part ? {} : { tunnel }), ...part } };
  const { problems } = loadConfig(stringify(config), at);
  return problems === undefined ? [] : [formatProblems(problems)];
}
