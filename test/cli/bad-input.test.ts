/**
 * Every command that takes a file, fed every file that is none of its own: it ends with 2, names the file, and shows neither
 * an errno nor a stack nor the words of a library. In this process, as that is three hundred commands.
 */
import { strict as assert } from 'node:assert';
import type { EventEmitter } from 'node:events';
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildProgram, runCommand } from '../../datapath/cli/main.ts';
import { allCommands } from '../../datapath/cli/manners.ts';
import { LINK_RAW, PcapWriter } from '../../datapath/io/pcap.ts';
import { udp4 } from '../../datapath/packet/build.ts';

const BLACK_HOLE = fileURLToPath(new URL('../../../test/fixtures/mtu/filtered-icmp', import.meta.url));
/** Of no node and no lab that runs. */
const NOBODY = `nobody${process.pid}`;

/** What nobody should have to read. */
const RAW =
  /\bE(?!STABLISHED)[A-Z]{3,}\b|\n\s+at |node:internal|Error:|undefined|\[object|[^\x20-\x7e\n§]|fault of tunpath/;

/** Of what is wrong in a file, and of what commands there are. */
const MOST_LINES = 12;

const CONFIG = `apiVersion: tunpath.dev/v1
kind: NodeConfig
metadata: { name: ${NOBODY} }
spec:
  uplink: { kind: tap, device: ul0, mac: 02:00:00:00:00:01, address: 192.168.10.1/24 }
  pods: [{ name: default/p1, netns: ${NOBODY}, device: eth0, address: 10.244.1.10 }]
`;

/** Command lines, with FILE where the file goes; the other files of them are there. */
const READING: readonly string[] = [
  'node --config FILE',
  'node --kubeconfig FILE --node-name x --uplink raw:eth0',
  'apply -f FILE',
  'diff -f FILE',
  'delete -f FILE',
  'apply --kubeconfig FILE -f pod.yaml',
  'diff --kubeconfig FILE -f pod.yaml',
  'delete --kubeconfig FILE -f pod.yaml',
  'get pods --kubeconfig FILE',
  'describe pod x --kubeconfig FILE',
  'explain --from p1 --to 10.9.9.9 --config FILE',
  'explain --config good.yaml --pcap FILE',
  'explain --from p1 --to 10.9.9.9 --config good.yaml --what-if policy=FILE',
  'replay FILE --config good.yaml',
  'replay good.pcap --config FILE',
  'replay good.pcap --config good.yaml --compare FILE',
  'mtu prove -f FILE',
  'lab up --print -f FILE',
  'lab compare -f FILE',
  'bench report FILE --html x.html',
  'bench compare FILE FILE',
  'bench compare --build FILE FILE',
];

/** The same for files that they write. What only a running node, root or a long measurement gets that far is not here. */
const WRITING: readonly string[] = [
  'replay good.pcap --config good.yaml -w FILE',
  'ui --static FILE',
  'example two-nodes --directory empty/FILE',
  'bench pipeline --html FILE',
  'bench micro --html FILE',
  'bench lpm --html FILE',
  'bench e2e --html FILE',
  'bench overhead --html FILE',
  'bench mtu --html FILE',
  'bench all --html FILE',
  'mtu prove -f black-hole --pcap FILE',
];
/** And where they are, for a command that would go on with what it was given. */
const ELSEWHERE = ['node --state-dir', 'capture -w', 'lab capture -w', 'host init --output', 'bench report --html'];

/** Files that no command takes for what it wants. */
const FILES: Readonly<Record<string, string | Buffer>> = {
  empty: '',
  words: 'just words\n',
  'cut.json': '{ "a": [',
  binary: Buffer.from(Array.from({ length: 4096 }, (_, i) => (i * 167 + (i >> 3)) & 255)),
  zeros: Buffer.alloc(4096),
  utf16: Buffer.from('\ufeffkind: NodeConfig\n', 'utf16le'),
  list: '- 1\n- 2\n',
  null: 'null\n',
  deep: `a: ${'['.repeat(5000)}`,
  alias: 'a: *b\n',
  'two.yaml': 'a: 1\na: 2\n',
};
const PATHS = ['missing', 'missing/file', 'empty/file', 'nothing', '/dev/zero'];
const TARGETS = ['missing/file', 'empty/file', '/proc/file'];

/** Values that an option cannot have. */
const VALUES: readonly string[] = [
  'node --config good.yaml --loops BAD',
  'node --config good.yaml --log-format BAD',
  'get BAD --node nobody',
  'get ct --src BAD',
  'get ct --proto BAD',
  'get ct --sport BAD',
  'get ct --state BAD',
  'get ct --status BAD',
  'get ct -o BAD',
  'observe --last BAD',
  'observe --since BAD',
  'observe --verdict BAD',
  'observe --reason BAD',
  'observe --ip BAD',
  'observe --to-port BAD',
  'observe --protocol BAD',
  'observe --tcp-flags BAD',
  'observe --listen BAD',
  'observe -o BAD',
  'monitor --type BAD',
  'metrics --listen BAD',
  'capture --count BAD',
  'explain --from BAD --to 10.9.9.9 --config good.yaml',
  'explain --from p1 --to BAD --config good.yaml',
  'explain --from p1 --to 10.9.9.9:80 --sport BAD --config good.yaml',
  'explain --from p1 --to 10.9.9.9 --length BAD --config good.yaml',
  'explain --from p1 --to 10.9.9.9 --frame BAD --config good.yaml',
  'explain --from p1 --to 10.9.9.9 --what-if BAD --config good.yaml',
  'replay good.pcap --config good.yaml --seed BAD',
  'replay good.pcap --config good.yaml --port BAD',
  'replay good.pcap --config good.yaml --node BAD',
  'example BAD',
  'explain-config BAD',
  'completion BAD',
  'conformance --profile BAD',
  'conformance --clause BAD',
  'segment set lan10 --delay BAD',
  'segment set lan10 --mtu BAD',
  'lab up --mode BAD',
  'lab up --topology BAD',
  'lab up --name BAD',
  'lab up --etcd BAD',
  'lab up --simulate --nodes BAD',
  'lab topology BAD',
  'lab compare --mode BAD',
  'lab scenario run BAD',
  'bench pipeline --sizes BAD',
  'bench micro --only BAD',
  'bench lpm --prefixes BAD',
  'bench e2e --modes BAD',
  'host init --uplink BAD',
  'BAD',
  'lab BAD',
  'status --BAD',
];

describe('bad input', function () {
  this.timeout(120_000);
  const directory = mkdtempSync(join(tmpdir(), 'tunpath-bad-input-'));
  const home = process.cwd();
  before(() => {
    process.chdir(directory);
    for (const [name, content] of Object.entries(FILES)) writeFileSync(name, content);
    mkdirSync('nothing');
    writeFileSync('good.yaml', CONFIG);
    cpSync(BLACK_HOLE, 'black-hole', { recursive: true });
    writeFileSync('pod.yaml', 'apiVersion: v1\nkind: Pod\nmetadata: { name: x }\n');
    const pcap = new PcapWriter('good.pcap', LINK_RAW);
    pcap.write(0, udp4({ src: '10.244.1.10', dst: '10.9.9.9' }));
    pcap.close();
  });
  after(() => {
    process.chdir(home);
    rmSync(directory, { recursive: true });
  });

  it('has a row for every option and argument that names a file', () => {
    const spots: string[] = [];
    for (const [command, words] of allCommands(buildProgram())) {
      for (const { flags } of command.options)
        if (/<(file|path|directory)/.test(flags)) spots.push(`${words.join(' ')} ${flags}`);
      for (const argument of command.registeredArguments) {
        if (/^(file|report|before|after)$/.test(argument.name())) spots.push(`${words.join(' ')} <${argument.name()}>`);
      }
    }
    const rows = [...READING, ...WRITING, ...ELSEWHERE];
    const without = spots.filter(spot => {
      const [, command, ends] = /^(.*?) (-.*|<.*)$/.exec(spot)!;
      const options = ends.split(/[ ,]+/).filter(word => word.startsWith('-'));
      return !rows.some(
        row => row.startsWith(`${command} `) && (options.length === 0 || options.some(one => row.includes(one))),
      );
    });
    assert.deepEqual(without, []);
  });

  for (const line of READING) {
    it(line, async () => {
      assert.deepEqual(await wrongly(line, 'FILE', [...Object.keys(FILES), ...PATHS]), []);
    });
  }
  for (const line of WRITING) {
    it(line, async () => {
      assert.deepEqual(await wrongly(line, 'FILE', TARGETS), []);
    });
  }

  it('values that an option or an argument cannot have', async () => {
    const wrong: string[] = [];
    for (const line of VALUES) wrong.push(...(await wrongly(line, 'BAD', ['?!'])));
    assert.deepEqual(wrong, []);
  });
});

/** Runs a command with each of these words in the place of one. @returns what it should not have said, or done */
async function wrongly(line: string, place: string, words: readonly string[]): Promise<string[]> {
  const wrong: string[] = [];
  for (const word of words) {
    const { code, text } = await say(line.replaceAll(place, word).split(' '));
    // A part of a path that is a file, or is not there, is named, too.
    const isNamed = text.includes(word) || (word.includes('/') && text.includes(word.split('/')[0]!));
    const isShort = text.split('\n').length <= MOST_LINES;
    if (code !== 2 || !isNamed || !isShort || RAW.test(text)) wrong.push(`${line} ${word}: ${code} ${text}`);
  }
  return wrong;
}

const EARS: readonly (readonly [EventEmitter, string])[] = [
  [process, 'SIGINT'],
  [process, 'SIGTERM'],
  [process, 'SIGHUP'],
  [process.stdout, 'error'],
  [process.stderr, 'error'],
];

/** What a command says, and how it ends. */
async function say(words: readonly string[]): Promise<{ code: number; text: string }> {
  const { stdout, stderr } = process;
  const writes = [stdout.write, stderr.write] as const;
  let text = '';
  const take = ((chunk: string | Uint8Array) => {
    text += typeof chunk === 'string' ? chunk : Buffer.from(chunk).toString();
    return true;
  }) as typeof stdout.write;
  stdout.write = take;
  stderr.write = take;
  const before = process.exitCode;
  const heard = EARS.map(([emitter, event]) => emitter.listeners(event));
  process.exitCode = undefined;
  try {
    await runCommand(words);
    return { code: Number(process.exitCode ?? 0), text };
  } finally {
    [stdout.write, stderr.write] = writes;
    process.exitCode = before;
    // A command is all that its process does, and ends with it.
    EARS.forEach(([emitter, event], i) => {
      for (const listener of emitter.listeners(event))
        if (!heard[i].includes(listener)) emitter.off(event, listener as () => void);
    });
  }
}
