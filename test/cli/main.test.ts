import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { MAIN } from '../fixtures/program.ts';

function tunpath(...argv: string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, [MAIN, ...argv], { encoding: 'utf8' });
}

describe('tunpath', () => {
  const rows: [what: string, argv: string[], status: number, stdout: RegExp, stderr: RegExp][] = [
    ['help is output', ['--help'], 0, /^Usage: tunpath/, /^$/],
    ['help of a command', ['lab', '--help'], 0, /crosssubnet|compare/, /^$/],
    ['version', ['--version'], 0, /^\d+\.\d+\.\d+\n$/, /^$/],
    ['no command', [], 2, /^$/, /^Usage: tunpath/],
    ['unknown command', ['fly'], 2, /^$/, /unknown command 'fly'/],
    ['unknown command of a group', ['lab', 'fly'], 2, /^$/, /unknown command 'fly'/],
    ["another tool's command", ['logs', 'web'], 2, /^$/, /unknown command 'logs'\nhere that is: kubectl logs POD/],
    ["containerlab's command", ['lab', 'destroy'], 2, /^$/, /here that is: tunpath lab down\n/],
    ['help of a command of a group', ['help', 'lab', 'up'], 0, /^Usage: tunpath lab up/, /^$/],
    ['versions', ['version', '-o', 'json'], 0, /"linux": "\d/, /^$/],
    ["kubectl's explain", ['explain', 'spec.mtu'], 0, /^KIND: +NodeConfig\nFIELD: +spec\.mtu\n/, /^$/],
    ['unknown option', ['status', '--fly'], 2, /^$/, /unknown option '--fly'/],
    ['missing option', ['node'], 2, /^$/, /--config/],
    ['missing argument', ['get'], 2, /^$/, /missing required argument 'kind'/],
    [
      'unknown kind',
      ['get', 'flies', '--node', 'a'],
      2,
      /^$/,
      /no kind 'flies' \(did you mean flows\?\): expected one of routes/,
    ],
    ['unknown format', ['status', '-o', 'xml'], 2, /^$/, /expected one of table, wide, json, jsonl, yaml/],
    ['unknown mode', ['lab', 'up', '--mode', 'gre'], 2, /^$/, /expected one of native, ipip/],
    ['unknown profile', ['lab', 'up', '--profile', 'aws'], 2, /^$/, /expected one of linux, cilium/],
    ['unknown topology', ['lab', 'up', '--topology', 'gke'], 2, /^$/, /expected one of aws, calico, cilium, flannel/],
    ['unknown profile to conform to', ['conformance', '--profile', 'aws'], 2, /^$/, /expected linux, cilium/],
    ['unknown clause', ['conformance', '--clause', '1191/9'], 2, /^$/, /one of 1191 §3, 1191 §4/],
    ['a clause that holds', ['conformance', '--clause', '1191/6.3'], 0, /pass .*after 610 s fits/, /^$/],
    ['bad lab name', ['lab', 'up', '--name', 'a-b'], 2, /^$/, /lower-case letters and digits/],
    [
      'something to leave out, on a node that is not there',
      ['observe', '--not', '--pod', 'p1', '--node', 'nosuchnode', '--last', '1'],
      2,
      /^$/,
      /^tunpath: no (node runs here|node 'nosuchnode')/,
    ],
    ['nothing to leave out', ['observe', '--pod', 'p1', '--not'], 2, /^$/, /--not: expected another filter behind it/],
    ['a lab that is not up', ['lab', 'status', '--name', 'nosuchlab'], 1, /^$/, /no lab 'nosuchlab' is up/],
    ['exec without a command', ['lab', 'exec', 'router', '--'], 2, /^$/, /command/],
    [
      'no such file',
      ['node', '--config', '/nonexistent/a.yaml'],
      2,
      /^$/,
      /^\/nonexistent\/a.yaml: no such file or directory$/m,
    ],
    ['no such file to apply', ['apply', '-f', '/nonexistent/a.yaml'], 2, /^$/, /^tunpath: .*a.yaml: no such file/],
    ['no such file to prove', ['mtu', 'prove', '-f', '/nonexistent/a.yaml'], 2, /^$/, /a.yaml: no such file/],
    [
      'nothing to prove',
      ['mtu', 'prove', '-f', '/dev/null'],
      2,
      /^$/,
      /null: got none, expected at least one NodeConfig/,
    ],
    ['no such report', ['bench', 'compare', '/nonexistent/a', 'b'], 2, /^$/, /^tunpath: \/nonexistent\/a: .*\n$/],
    ['no report', ['bench', 'report', MAIN, '--html', '/dev/null'], 2, /^$/, /^tunpath: .*main(\.flat)?\.js: .*\n$/],
    ['--only without --build', ['bench', 'compare', 'a', 'b', '--only', 'encap'], 2, /^$/, /--only goes with --build/],
  ];
  for (const [what, argv, status, stdout, stderr] of rows) {
    it(`${what}: exit ${status}`, () => {
      const result = tunpath(...argv);
      assert.equal(result.status, status, result.stderr);
      assert.match(result.stdout, stdout);
      assert.match(result.stderr, stderr);
    });
  }
});
