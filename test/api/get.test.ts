/** `tunpath get` and `describe` of Kubernetes objects, beside the real kubectl on the same API. No devices. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { parse } from 'yaml';
import { resourceOf } from '../../datapath/api/resources.ts';
import { describeObject } from '../../datapath/cli/describe-object.ts';
import { ObjectTable } from '../../datapath/cli/object-table.ts';
import { MAIN } from '../fixtures/program.ts';
import { type Result, ServedApi } from './kubectl.ts';

const OBJECTS = `
apiVersion: v1
kind: Namespace
metadata: { name: shop }
---
apiVersion: apps/v1
kind: Deployment
metadata: { name: web, namespace: shop, labels: { tier: front } }
spec:
  replicas: 2
  selector: { matchLabels: { app: web } }
  template:
    metadata: { labels: { app: web } }
    spec: { containers: [{ name: web, image: traefik/whoami }] }
---
apiVersion: v1
kind: Service
metadata: { name: web, namespace: shop, labels: { tier: front } }
spec: { clusterIP: 10.96.7.7, selector: { app: web }, ports: [{ name: http, port: 80, targetPort: http }] }
---
apiVersion: v1
kind: Service
metadata: { name: other }
spec: { clusterIP: 10.96.7.8, ports: [{ port: 443 }] }
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: web-1, namespace: shop, labels: { kubernetes.io/service-name: web } }
addressType: IPv4
ports: [{ name: http, port: 8080, protocol: TCP }]
endpoints: [{ addresses: [10.244.1.5], nodeName: a, conditions: { ready: true } }]
---
apiVersion: v1
kind: Secret
metadata: { name: key, namespace: shop }
data: { password: aHVudGVyMg== }
---
apiVersion: cilium.io/v2alpha1
kind: CiliumLoadBalancerIPPool
metadata: { name: pool }
spec: { blocks: [{ start: 192.0.2.10, stop: 192.0.2.20 }] }
`;

describe('tunpath get and describe of objects', function () {
  this.timeout(120_000);
  let served: ServedApi;
  before(async () => {
    // Ages stand still, so that two who ask get the same.
    served = await ServedApi.start({ nowMs: () => Date.parse('2026-01-01T00:00:00Z') });
    const { code, stderr } = await served.run('1.35', ['apply', '-f', '-'], { input: OBJECTS });
    assert.equal(code, 0, stderr);
  });
  after(() => served.stop());

  const start = (line: string): ChildProcess =>
    spawn(process.execPath, [MAIN, ...line.split(' ')], { env: { ...process.env, KUBECONFIG: served.kubeconfig } });
  const run = (line: string): Promise<Result> => {
    const child = start(line);
    const result = { code: -1, stdout: '', stderr: '' };
    child.stdout!.on('data', chunk => (result.stdout += chunk));
    child.stderr!.on('data', chunk => (result.stderr += chunk));
    return new Promise(resolve => child.on('close', code => resolve({ ...result, code: code ?? -1 })));
  };
  const trimmed = (text: string): string => text.replace(/ +$/gm, '');

  it('prints what kubectl prints', async () => {
    const lines = [
      'get deploy web -n shop -o wide',
      'get services,deployments.apps -A',
      'get all -n shop -l tier=front',
      'get svc -A --sort-by .spec.clusterIP',
      'get nodes',
    ];
    const both = await Promise.all(lines.map(line => Promise.all([run(line), served.run('1.35', line.split(' '))])));
    for (const [i, [ours, kubectl]] of both.entries()) {
      assert.equal(trimmed(ours.stdout), trimmed(kubectl.stdout), `${lines[i]}: ${ours.stderr}`);
      assert.equal(ours.code, kubectl.code, lines[i]);
      assert.equal(ours.stderr, kubectl.stderr, lines[i]);
    }
  });

  it('gives programs the same objects', async () => {
    const [json, yaml, one, lines, names] = await Promise.all(
      ['-A -o json', '-n shop web -o yaml', '-n shop web -o json', '-A -o jsonl', '-A -o name'].map(rest =>
        run(`get service ${rest}`),
      ),
    );
    const kubectl = await served.run('1.35', ['get', 'service', '-A', '-o', 'json']);
    assert.deepEqual(JSON.parse(json!.stdout), JSON.parse(kubectl.stdout));
    assert.deepEqual(parse(yaml!.stdout), JSON.parse(one!.stdout));
    assert.equal(names!.stdout, 'service/kubernetes\nservice/other\nservice/web\n');
    assert.equal(lines!.stdout.trim().split('\n').length, JSON.parse(json!.stdout).items.length);
  });

  it('says what is not there, and what does not go together', async () => {
    const [missing, unknown, contradiction, watch, selector, bare] = await Promise.all([
      run('get deploy nosuch -n shop'),
      run('get deploymint'),
      run('get svc -A --node a'),
      run('get svc,deploy -w'),
      run('get deploy -l a==='),
      run('get svc -n'),
    ]);
    assert.deepEqual(missing, {
      code: 1,
      stdout: '',
      stderr: 'tunpath: deployments.apps "nosuch" not found\n',
    });
    assert.equal(unknown!.code, 2);
    assert.match(unknown!.stderr, /no kind 'deploymint' \(did you mean deployments?\?\): the API has .*daemonsets/);
    assert.match(contradiction!.stderr, /--all-namespaces is for a cluster, --node for a node/);
    assert.equal(watch!.code, 2);
    assert.match(watch!.stderr, /expected one kind to watch/);
    assert.equal(selector!.code, 1);
    assert.match(selector!.stderr, /^tunpath: .*a===/);
    assert.equal(bare!.code, 2);
  });

  it('watches, in the columns of the first rows', async () => {
    const child = start('get configmaps -n shop -w');
    let text = '';
    child.stdout!.on('data', chunk => (text += chunk));
    const until = async (pattern: RegExp): Promise<void> => {
      while (!pattern.test(text)) await once(child.stdout!, 'data');
    };
    const { registry } = served.api;
    const target = { resource: resourceOf('v1', 'ConfigMap'), version: 'v1', namespace: 'shop' };
    await registry.create(target, { metadata: { name: 'a-first' }, data: { a: 'b' } });
    await until(/a-first/);
    await registry.modify(target, 'a-first', object => ({ ...object, data: { a: 'c' } }));
    await registry.delete(target, 'a-first');
    await until(/(a-first.*\n){3}/);
    child.kill('SIGTERM');
    await once(child, 'close');
    assert.match(text, /^NAME +DATA +AGE\na-first +1 +0s\na-first +1 +0s\na-first +1 +0s\n$/);
  });

  it('describes an object with its events and endpoints, and no secrets', async () => {
    const [service, secret, pool] = await Promise.all([
      run('describe svc web -n shop'),
      run('describe secret key -n shop'),
      run('describe lbippool pool'),
    ]);
    assert.match(service!.stdout, /^Name: +web\nNamespace: +shop\nLabels: +tier=front\n/);
    assert.match(service!.stdout, /^ {2}Cluster IP: {2}10\.96\.7\.7$/m);
    assert.match(service!.stdout, /^Endpoints:\n {2}Address .*\n.*\n {2}10\.244\.1\.5 +8080\/TCP +a +ready$/m);
    assert.match(service!.stdout, /^Events: {2}<none>$/m);
    assert.match(secret!.stdout, /^ {2}password: {2}7 bytes$/m);
    assert.doesNotMatch(secret!.stdout, /aHVu|hunter/);
    assert.match(pool!.stdout, /^ {2}Blocks:\n {4}- Start: {2}192\.0\.2\.10\n {6}Stop: {2}192\.0\.2\.20$/m);
  });
});

describe('a table of the server', () => {
  const cells = (...texts: unknown[]) => ({ cells: texts, object: { metadata: { name: 'x' } } }) as never;
  it('stays as wide as it was, and shows the first line of a text', () => {
    const table = new ObjectTable({ wide: false, withNamespace: false, prefix: '' });
    const columnDefinitions = [
      { name: 'Name', priority: 0 },
      { name: 'Hidden', priority: 1 },
      { name: 'Text', priority: 0 },
    ];
    assert.equal(table.text({ columnDefinitions, rows: [], metadata: {} }), '');
    assert.equal(
      table.text({ columnDefinitions, rows: [cells('long-name', 1, 'a\nb')], metadata: {} }),
      'NAME        TEXT\nlong-name   a...\n',
    );
    assert.equal(table.text({ columnDefinitions: [], rows: [cells('x', 1, null)], metadata: {} }), 'x\n');
    assert.equal(table.text({ columnDefinitions: [], rows: [cells('x', 1, 3)], metadata: {} }), 'x           3\n');
  });
});

describe('the description of an object', () => {
  it('names fields as kubectl does, and shows events in the order of time', () => {
    const event = (reason: string, lastTimestamp: string) =>
      ({ type: 'Normal', reason, lastTimestamp, message: `${reason}\n twice`, metadata: {} }) as never;
    const text = describeObject(
      {
        apiVersion: 'v1',
        kind: 'Thing',
        metadata: { name: 'x', annotations: { b: '2', a: '1' } },
        spec: { podCIDR: '10.0.0.0/24', hostIPs: [], 'a.b/c': 1, nested: [[1, 2], 'z'] },
      },
      { events: [event('Later', '2026-01-01T00:00:05Z'), event('Sooner', '2026-01-01T00:00:00Z')], slices: [] },
    );
    assert.match(text, /^Annotations: +a: 1\n +b: 2$/m);
    assert.match(text, /^ {2}Pod CIDR: {2}10\.0\.0\.0\/24$/m);
    assert.match(text, /^ {2}a\.b\/c: {2}1$/m);
    assert.match(text, /Sooner twice\n.*Later twice\n$/);
  });
});
