/** Kubernetes objects in files, and the commands that bring them to an API. No devices. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { readManifests } from '../../datapath/api/client/manifests.ts';
import { isForNode } from '../../datapath/cli/cluster.ts';
import { MAIN } from '../fixtures/program.ts';
import { ServedApi } from './kubectl.ts';

const SERVICE =
  'apiVersion: v1\nkind: Service\nmetadata: { name: web }\nspec: { selector: { app: web }, ports: [{ port: 80 }] }\n';
const MAP = 'apiVersion: v1\nkind: ConfigMap\nmetadata: { name: map }\ndata: { a: "{{ not a template of ours }}" }\n';

describe('manifests', () => {
  it('are documents, and lists of them', () => {
    const list = `apiVersion: v1\nkind: List\nitems:\n${[SERVICE, MAP].map(text => text.replace(/^/gm, '    ').replace('    ', '  - ').trimEnd()).join('\n')}\n`;
    const { found, problems } = readManifests(`---\n${SERVICE}---\n# nothing\n---\n${list}`, 'f');
    assert.deepEqual(problems, []);
    assert.deepEqual(
      found.map(({ object, place }) => [object.kind, place]),
      [
        ['Service', 'f:2'],
        ['Service', 'f:9'],
        ['ConfigMap', 'f:9'],
      ],
    );
  });

  it('name all that is wrong at once, templates as such', () => {
    const text = `${SERVICE}---\nkind: Pod\n---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: {{ .Release.Name }}\n---\napiVersion: v1\nkind: Pod\nmetadata: { name: "\${NAME}" }\n---\n[1]\n`;
    const { found, problems } = readManifests(text, 'f');
    assert.equal(found.length, 1);
    assert.equal(problems.length, 4, problems.join('\n'));
    assert.match(problems[0]!, /^f:6: apiVersion: got undefined, expected a text$/);
    assert.match(
      problems[1]!,
      /^f:11: got an unrendered template \{\{ \.Release\.Name \}\}, expected YAML: helm template makes it$/,
    );
    assert.match(problems[2]!, /^f:15: got an unrendered template \$\{NAME\}, .*envsubst makes it$/);
    assert.match(problems[3]!, /^f:17: got \[1\], expected an object$/);
  });

  it('no text makes it fail', () => {
    fc.assert(
      fc.property(
        fc.string({ unit: fc.constantFrom('a', ':', ' ', '\n', '-', '{', '}', '[', '$', '"', 'kind') }),
        text => {
          const { found, problems } = readManifests(text, 'f');
          return found.length + problems.length >= 0;
        },
      ),
    );
  });

  it('are told from configurations of nodes', () => {
    assert.ok(isForNode('apiVersion: tunpath.dev/v1\nkind: NodeConfig\n'));
    assert.ok(isForNode('spec: {}\n'));
    assert.ok(!isForNode(SERVICE));
  });
});

describe('tunpath apply, diff and delete of objects', function () {
  this.timeout(60_000);
  let served: ServedApi;
  before(async () => {
    served = await ServedApi.start();
  });
  after(() => served.stop());
  const run = async (argv: string[], input = ''): Promise<{ code: number; stdout: string; stderr: string }> => {
    const child: ChildProcess = spawn(process.execPath, [MAIN, ...argv], {
      env: { ...process.env, KUBECONFIG: served.kubeconfig },
    });
    const result = { code: -1, stdout: '', stderr: '' };
    child.stdout!.on('data', chunk => (result.stdout += chunk));
    child.stderr!.on('data', chunk => (result.stderr += chunk));
    child.stdin!.end(input);
    return new Promise(resolve => child.on('close', code => resolve({ ...result, code: code ?? -1 })));
  };

  it('create, leave alone, change and remove, and name what is not known', async () => {
    const directory = join(served.directory, 'manifests');
    mkdirSync(directory);
    writeFileSync(join(directory, 'a.yaml'), SERVICE);
    writeFileSync(join(directory, 'b.yml'), MAP);
    const created = await run(['apply', '-f', directory]);
    assert.equal(created.stdout, 'service/web created\nconfigmap/map created\n', created.stderr);
    const again = await run(['apply', '-f', '-'], SERVICE);
    assert.equal(again.stdout, 'service/web unchanged\n', again.stderr);
    const changed = SERVICE.replace('port: 80 }', 'port: 81, prot: TCP }');
    const diff = await run(['diff', '-f', '-'], changed);
    assert.equal(diff.code, 1);
    assert.match(diff.stdout, /^--- service\/web\n.*spec\.ports.*81/s);
    const configured = await run(['apply', '-f', '-'], changed);
    assert.equal(configured.stdout, 'service/web configured\n');
    assert.match(configured.stderr, /service\/web: unknown field "spec\.ports\[0\]\.prot"/);
    const refused = await run(['apply', '-f', '-'], `${SERVICE.replace('port: 80', 'port: x')}---\n${MAP}`);
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /^standard input:1: service\/web: /);
    assert.equal(refused.stdout, 'configmap/map unchanged\n');
    const deleted = await run(['delete', '-f', directory]);
    assert.equal(deleted.stdout, 'configmap/map deleted\nservice/web deleted\n', deleted.stderr);
    assert.equal((await run(['delete', '-f', directory])).code, 1);
    const unknown = await run(['apply', '-f', '-'], 'apiVersion: x.example/v1\nkind: Thing\nmetadata: { name: a }\n');
    assert.match(unknown.stderr, /the API has no kind Thing of x\.example\/v1/);
  });
});
