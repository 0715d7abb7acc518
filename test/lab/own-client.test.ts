/** Our own client of an API says and does what kubectl says and does. */
import assert from 'node:assert/strict';
import { runOwnClient } from '../../datapath/lab/own-client.ts';
import { KUBECTLS, ServedApi } from '../api/kubectl.ts';

const SERVICE = (name: string) => `
apiVersion: v1
kind: Service
metadata: { name: ${name}, labels: { app: web } }
spec: { clusterIP: None, selector: { app: web }, ports: [{ port: 80 }] }
`;
const POOL = (name: string, cidr: string) => `
apiVersion: cilium.io/v2
kind: CiliumLoadBalancerIPPool
metadata: { name: ${name} }
spec: { blocks: [{ cidr: ${cidr} }] }
`;

/** Command lines, and what they read. NAME is each client's own. */
const LINES: [line: string, input?: string][] = [
  ['get lbippools'],
  ['apply -f -', `${SERVICE('NAME')}---${POOL('NAME', '192.0.2.0/28')}`],
  ['apply -f -', SERVICE('NAME').replace('port: 80', 'port: 81')],
  ['get svc NAME'],
  ['get svc NAME -o jsonpath={.spec.ports[0].port}'],
  ['get svc/NAME -o jsonpath={.spec.externalName}'],
  ['get lbippools'],
  ['annotate svc NAME lbipam.cilium.io/ips=192.0.2.1 lbipam.cilium.io/sharing-key=1'],
  ['get svc NAME -o jsonpath={.metadata.annotations.none}'],
  ['label svc NAME app=other --overwrite'],
  ['get svc NAME -o jsonpath={.metadata.labels}'],
  ['label svc NAME app-'],
  ['patch svc NAME -p {"spec":{"selector":{"app":"x"}}}'],
  ['get svc NAME -o jsonpath={.spec.selector.app}'],
  ['get lease -n kube-system'],
  ['delete svc NAME'],
  ['get svc NAME'],
  ['delete lbippools NAME'],
];

describe('a client for machines without kubectl', function () {
  this.timeout(60_000);

  it('prints what kubectl prints, with the same exit code', async () => {
    const served = await ServedApi.start();
    try {
      for (const [line, input] of LINES) {
        const as = (name: string) => [line, input ?? ''].map(text => text.replaceAll('NAME', name)) as [string, string];
        const [theirs, theirInput] = as('kubectl');
        const [ours, ourInput] = as('ourself');
        const expected = await served.run(KUBECTLS[0], theirs.split(' '), { input: theirInput });
        const seen = await runOwnClient(served.kubeconfig, ours.split(' '), ourInput);
        // Of the other client's objects, only that they are there; ages are what they are.
        const plain = (text: string) =>
          text
            .replaceAll('ourself', 'kubectl')
            .replaceAll(/ +\d+s$/gm, ' AGE')
            .replace(/(unlabeled|labeled)$/m, 'labeled');
        const shown = line === 'get lbippools' ? plain(seen.stdout).split('\n')[0] : plain(seen.stdout);
        assert.equal(
          shown,
          line === 'get lbippools' ? plain(expected.stdout).split('\n')[0] : plain(expected.stdout),
          line,
        );
        assert.equal(seen.exitCode, expected.code, line);
        if (seen.exitCode !== 0) assert.equal(plain(seen.stderr), plain(expected.stderr), line);
      }
    } finally {
      await served.stop();
    }
  });

  it('takes no command for all objects of a kind, and no file for another', async () => {
    const served = await ServedApi.start();
    try {
      const config = served.kubeconfig;
      await runOwnClient(config, ['apply', '-f', '-'], SERVICE('kept'));
      const refused: [line: string, why: RegExp][] = [
        ['delete svc', /expected a name/],
        ['delete svc -l app=web', /expected a name/],
        ['label svc app=web', /expected a name|has no/],
        ['delete', /expected a kind/],
        ['get', /expected a kind/],
        ['apply', /expected -f FILE/],
        ['apply -f /nonexistent/web.yaml', /web\.yaml cannot be read/],
      ];
      for (const [line, why] of refused) {
        const seen = await runOwnClient(config, line.split(' ')).catch((error: Error) => ({
          exitCode: 1,
          stderr: error.message,
        }));
        assert.equal(seen.exitCode, 1, line);
        if (line !== 'label svc app=web') assert.match(seen.stderr, why, line);
      }
      await assert.rejects(runOwnClient(config, ['apply', '-f', '-'], 'kind: Service\n'), /standard input:1/);
      assert.equal((await runOwnClient(config, ['get', 'svc', 'kept'])).exitCode, 0);
    } finally {
      await served.stop();
    }
  });

  it('says what it does not know', async () => {
    const served = await ServedApi.start();
    try {
      for (const line of ['rollout restart ds/cilium', 'get svc -o jsonpath={.items[*].metadata.name}', 'get nosuch']) {
        await assert.rejects(runOwnClient(served.kubeconfig, line.split(' ')), /no kubectl here|has no kind/, line);
      }
    } finally {
      await served.stop();
    }
  });
});
