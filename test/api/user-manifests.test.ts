/**
 * Files as users have them (test/fixtures/manifests), applied by real kubectl and by ours: they make the same objects, and
 * what is not known is named by each. No devices.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Json, KubeObject } from '../../datapath/api/object.ts';
import { RESOURCES } from '../../datapath/api/resources.ts';
import { MAIN } from '../fixtures/program.ts';
import { KUBECTLS, type Result, ServedApi } from './kubectl.ts';

const MANIFESTS = fileURLToPath(new URL('../../../test/fixtures/manifests', import.meta.url)); // seen from dist/test/api

/** Every field in the files that no kind has. */
const UNKNOWN = [
  'metadata.label',
  'spec.colour',
  'spec.interface',
  'spec.loadBalancerIps',
  'spec.podSelector.matchLabel',
  'spec.policyType',
  'spec.ports[0].target',
  'spec.selectors',
  'spec.sessionAffinityConfig.timeoutSeconds',
];

const unknownIn = (text: string): string[] =>
  [...text.matchAll(/unknown field "([^"]+)"/g)].map(([, path]) => path!).sort();

function tunpath(kubeconfig: string, argv: readonly string[]): Promise<Result> {
  const child = spawn(process.execPath, [MAIN, ...argv], { env: { ...process.env, KUBECONFIG: kubeconfig } });
  const result = { code: -1, stdout: '', stderr: '' };
  child.stdout.on('data', chunk => (result.stdout += chunk));
  child.stderr.on('data', chunk => (result.stderr += chunk));
  return new Promise(resolve => child.on('close', code => resolve({ ...result, code: code ?? -1 })));
}

/** What the API holds, without who wrote it when. */
function contentOf({ api }: ServedApi): Json[] {
  const storages = [...new Set(RESOURCES.map(({ storage }) => storage))];
  return storages.flatMap(storage =>
    api.store.list(storage).map((object: KubeObject) => {
      const { uid, resourceVersion, creationTimestamp, managedFields, annotations, ...metadata } = object.metadata;
      const { 'kubectl.kubernetes.io/last-applied-configuration': applied, ...others } = annotations ?? {};
      return { ...object, metadata: { ...metadata, annotations: others } };
    }),
  );
}

describe("users' manifests", function () {
  this.timeout(240_000);
  const start = (): Promise<ServedApi> => ServedApi.start({ choose: () => 0 });

  it('make the same objects by whoever applies them, and no field is swallowed', async () => {
    const [ours, ...served] = await Promise.all([start(), ...KUBECTLS.map(start)]);
    try {
      const results = await Promise.all([
        tunpath(ours!.kubeconfig, ['apply', '-f', MANIFESTS]),
        ...KUBECTLS.map((version, i) => served[i]!.run(version, ['apply', '-f', MANIFESTS, '--validate=warn'])),
      ]);
      for (const { code, stderr } of results) {
        assert.equal(code, 0, stderr);
        assert.deepEqual(unknownIn(stderr), UNKNOWN);
      }
      const expected = contentOf(ours!);
      assert.ok(expected.length > 50, `${expected.length}`);
      for (const other of served) assert.deepEqual(contentOf(other), expected);
      // The same again changes nothing.
      const again = await tunpath(ours!.kubeconfig, ['apply', '-f', MANIFESTS]);
      assert.equal(again.code, 0);
      assert.doesNotMatch(again.stdout, /created|configured/);
    } finally {
      for (const api of [ours!, ...served]) await api.stop();
    }
  });

  it('are refused with the names of unknown fields where kubectl is strict; templates are named as such', async () => {
    const served = await start();
    try {
      const [strict, helm, envsubst] = await Promise.all([
        served.run('1.35', ['apply', '-f', join(MANIFESTS, 'typos.yaml')]),
        ...['helm', 'envsubst'].map(name =>
          tunpath(served.kubeconfig, ['apply', '-f', join(MANIFESTS, 'templates', `${name}.yaml`)]),
        ),
      ]);
      assert.equal(strict.code, 1);
      assert.deepEqual(unknownIn(strict.stderr).length, 7);
      assert.equal(helm!.code, 2);
      assert.match(helm!.stderr, /helm\.yaml:4: got an unrendered template \{\{ include .*helm template makes it/);
      assert.equal(envsubst!.code, 2);
      assert.match(envsubst!.stderr, /envsubst\.yaml:4: got an unrendered template \$\{SERVICE_NAME\}/);
    } finally {
      await served.stop();
    }
  });

  it('there are 30 and more of them', () => {
    assert.ok(readdirSync(MANIFESTS).length > 30);
  });
});
