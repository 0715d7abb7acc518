/**
 * A shell in which the commands of one page are typed: with a network, namespaces, processes and a /run of its own, so that
 * the names in a page are anybody's, and nothing is left of it.
 */
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { KUBECTLS, kubectlPath } from '../api/kubectl.ts';

const ROOT = path.join(import.meta.dirname, '../../..');
const MAIN = path.join(ROOT, 'dist/datapath/cli/main.flat.js');
const PATIENCE_MS = 300_000;

/** What the shell does before the first command. */
const PRELUDE = `
# Without a /run of its own it would be the machine's labs that a page takes down.
mount -t tmpfs none /run && mkdir -p /run/netns /etc/netns && mount -t tmpfs none /etc/netns || exit 1
ip link set lo up
set -m
interrupted() { # PID OUTPUT: as somebody who has seen enough
  local n
  for n in $(seq 20); do
    if [ -s "$2" ] || ! kill -0 "$1" 2>/dev/null; then break; fi
    sleep 0.1
  done
  kill -INT -- "-$1" 2>/dev/null
  wait "$1"
  local code=$?
  [ $code = 130 ] && return 0
  return $code
}
`;

export interface Outcome {
  code: number;
  output: string;
}

export class Session {
  /** The code of a command that does not end. */
  static readonly ENDLESS = -1;
  private readonly shell: ChildProcessWithoutNullStreams;
  private readonly closed: Promise<unknown>;
  private readonly outputs: string;
  private said = '';
  private typed = 0;
  readonly directory: string;

  /** In a directory that looks like a fresh clone. */
  constructor() {
    const base = mkdtempSync(path.join(tmpdir(), 'tunpath-docs-'));
    this.directory = path.join(base, 'clone');
    this.outputs = path.join(base, 'outputs');
    mkdirSync(this.outputs);
    mkdirSync(path.join(this.directory, 'scripts'), { recursive: true });
    for (const entry of readdirSync(ROOT)) {
      if (entry !== 'scripts' && entry !== '.git')
        symlinkSync(path.join(ROOT, entry), path.join(this.directory, entry));
    }
    for (const entry of readdirSync(path.join(ROOT, 'scripts'))) {
      symlinkSync(path.join(ROOT, 'scripts', entry), path.join(this.directory, 'scripts', entry));
    }
    // Without its look for what is to be set up, which takes longer than most commands.
    const tunpath = path.join(this.directory, 'scripts/tunpath');
    rmSync(tunpath);
    writeFileSync(tunpath, `#!/bin/sh\nexec '${process.execPath}' '${MAIN}' "$@"\n`);
    chmodSync(tunpath, 0o755);
    const programs = path.join(base, 'programs');
    mkdirSync(programs);
    symlinkSync(tunpath, path.join(programs, 'tunpath'));
    symlinkSync(kubectlPath(KUBECTLS[0]), path.join(programs, 'kubectl'));
    const { KUBECONFIG: _, ...env } = process.env;
    this.shell = spawn(
      'unshare',
      ['--mount', '--net', '--pid', '--fork', '--kill-child', '--mount-proc', 'bash', '--noprofile', '--norc'],
      {
        cwd: this.directory,
        env: { ...env, HOME: base, PATH: `${programs}:${process.env.PATH}:/usr/sbin:/sbin` },
      },
    );
    this.shell.stdout.setEncoding('utf8').on('data', (text: string) => {
      this.said += text;
    });
    this.closed = new Promise(resolve => this.shell.once('close', resolve));
    this.shell.stderr.resume();
    this.shell.stdin.on('error', () => {});
    this.shell.stdin.write(PRELUDE);
  }

  /** Writes a file where the commands are. */
  write(name: string, text: string): void {
    const file = path.join(this.directory, name);
    mkdirSync(path.dirname(file), { recursive: true });
    writeFileSync(file, text);
  }

  /**
   * Types a command and waits for its end. One that ends in `&` and says in its comment that it says "ready" is waited for
   * until it has.
   */
  async type(command: string, isEndless: boolean): Promise<Outcome> {
    const output = path.join(this.outputs, `${++this.typed}`);
    writeFileSync(output, '');
    const quoted = `'${command.replaceAll("'", "'\\''")}'`;
    const redirected = `</dev/null >>'${output}' 2>&1`;
    const run = isEndless
      ? `{ eval ${quoted}; } ${redirected} & interrupted $! '${output}' >>'${output}' 2>&1`
      : `eval ${quoted} ${redirected}`;
    const awaited = /&\s*#.*"ready"/.test(command)
      ? `; until grep -q '^ready' '${output}'; do kill -0 $! || break; sleep 0.1; done`
      : '';
    this.shell.stdin.write(`${run}; code=$?${awaited}\necho "ended ${this.typed} $code"\n`);
    const ended = new RegExp(`^ended ${this.typed} (\\d+)$`, 'm');
    for (const deadline = Date.now() + PATIENCE_MS; ; ) {
      const match = ended.exec(this.said);
      if (match !== null) return { code: Number(match[1]), output: readFileSync(output, 'utf8') };
      if (Date.now() > deadline || this.shell.exitCode !== null) {
        return { code: Session.ENDLESS, output: `it does not end\n${readFileSync(output, 'utf8')}` };
      }
      await new Promise(resolve => setTimeout(resolve, 10));
    }
  }

  /** Ends everything that the page has left. */
  async close(): Promise<void> {
    this.shell.kill('SIGKILL');
    await this.closed;
    rmSync(path.dirname(this.directory), { recursive: true, force: true });
  }
}
