/** A lab with its API: real kubectl changes what real packets meet. */
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { ApiClient } from '../../datapath/api/client/client.ts';
import { readKubeconfig } from '../../datapath/api/client/kubeconfig.ts';
import type { Json } from '../../datapath/api/object.ts';
import { Etcd } from '../../datapath/api/store/etcd.ts';
import { EtcdClient } from '../../datapath/api/store/etcd-client.ts';
import { Store } from '../../datapath/api/store/store.ts';
import { callNode } from '../../datapath/control/client.ts';
import { Lab } from '../../datapath/lab/lab.ts';
import { apiDirOf, kubeconfigOf, NETNS_DIR } from '../../datapath/lab/names.ts';
import { EtcdServer } from '../api/etcd.ts';
import { kubectlPath } from '../api/kubectl.ts';
import { MAIN } from '../fixtures/program.ts';
import { killApi, killNow } from './api-kills.ts';

const NAME = `la${process.pid}`;

const WHOAMI = fileURLToPath(new URL('../../datapath/lab/whoami.js', import.meta.url));

const SECOND = `
apiVersion: v1
kind: Service
metadata: { name: second }
spec: { clusterIP: 10.96.5.5, selector: { app: webpod }, ports: [{ name: web, port: 8080, targetPort: 80 }] }
`;

const ARTICLE = `
apiVersion: apps/v1
kind: Deployment
metadata: { name: web }
spec:
  replicas: 3
  selector: { matchLabels: { app: web } }
  template:
    metadata: { labels: { app: web } }
    spec:
      affinity:
        podAntiAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
            - labelSelector: { matchExpressions: [{ key: app, operator: In, values: [web] }] }
              topologyKey: kubernetes.io/hostname
      terminationGracePeriodSeconds: 1
      containers:
        - name: web
          image: traefik/whoami
          ports: [{ name: http, containerPort: 80 }]
          readinessProbe: { httpGet: { path: /, port: http }, periodSeconds: 1 }
---
apiVersion: v1
kind: Service
metadata: { name: web, labels: { app: web } }
spec: { type: ClusterIP, selector: { app: web }, ports: [{ protocol: TCP, port: 80, targetPort: http }] }
`;

const BROKEN = `
apiVersion: v1
kind: Pod
metadata: { name: unknown }
spec: { containers: [{ name: main, image: "registry.example/none:1" }] }
---
apiVersion: v1
kind: Pod
metadata: { name: ends }
spec:
  nodeName: k8s-w1
  restartPolicy: Never
  containers:
    - name: main
      image: busybox
      command: [sh, -c, 'echo $(NODE) says $WORD; exit 3']
      env:
        - { name: NODE, valueFrom: { fieldRef: { fieldPath: spec.nodeName } } }
        - { name: WORD, value: hello }
`;

const EXTERNAL = `
apiVersion: v1
kind: Node
metadata: { name: ext }
spec: { podCIDR: 172.20.9.0/24, podCIDRs: [172.20.9.0/24] }
status: { addresses: [{ type: InternalIP, address: 192.168.99.1 }] }
---
apiVersion: v1
kind: Pod
metadata: { name: far, labels: { app: far }, annotations: { tunpath.dev/netns: NETNS } }
spec: { nodeName: ext, containers: [{ name: far, image: traefik/whoami }] }
---
apiVersion: v1
kind: Service
metadata: { name: far }
spec: { clusterIP: 10.96.7.7, selector: { app: far }, ports: [{ port: 80 }] }
`;

/** What the cluster does not say of the node that follows it. */
const FOLLOWER = `
apiVersion: tunpath.dev/v1
kind: NodeConfig
metadata: { name: ${NAME}ext }
spec:
  uplink: { kind: tap, device: ul0, mac: 02:00:00:00:99:01, address: 192.168.99.1/24 }
  host: { device: tp0, address: 172.20.9.1/32 }
`;

/** Of a namespace that the API's loopback does not reach. */
function unixKubeconfig(socket: string): string {
  return `
current-context: c
contexts: [{ name: c, context: { cluster: c } }]
clusters: [{ name: c, cluster: { server: "unix://${socket}" } }]
`;
}

describe('a lab and kubectl', function () {
  this.timeout(90_000);
  let lab: Lab;
  let home: string;
  before(async () => {
    await Lab.down(NAME);
    home = mkdtempSync(join(tmpdir(), 'tunpath-lab-api-'));
    lab = await Lab.up({ name: NAME, mode: 'vxlan', api: true });
  });
  after(async () => {
    await Lab.down(NAME);
    rmSync(home, { recursive: true });
  });

  const start = (argv: string[]): ChildProcess =>
    spawn(kubectlPath('1.35'), argv, { env: { PATH: process.env.PATH, HOME: home, KUBECONFIG: kubeconfigOf(NAME) } });
  const kubectl = async (line: string, input = ''): Promise<{ code: number; stdout: string; stderr: string }> => {
    const child = start(line.split(' '));
    const result = { code: -1, stdout: '', stderr: '' };
    child.stdout!.on('data', chunk => (result.stdout += chunk));
    child.stderr!.on('data', chunk => (result.stderr += chunk));
    child.stdin!.end(input);
    const [code] = await once(child, 'close');
    return { ...result, code };
  };
  /** What the second service answers, asked until it is as wanted or time is up. */
  const ask = async (wanted: (code: number) => boolean): Promise<number> => {
    let code = -1;
    for (let tries = 0; tries < 20; tries++) {
      ({ exitCode: code } = await lab.exec('curl-pod', ['curl', '-s', '-m', '1', '10.96.5.5:8080']));
      if (wanted(code)) break;
    }
    return code;
  };

  it('nobody else may use it', () => {
    assert.equal(statSync(kubeconfigOf(NAME)).mode & 0o777, 0o600);
    assert.equal(statSync(`${apiDirOf(NAME)}/api.sock`).mode & 0o777, 0o600);
  });

  it('shows what runs, and where', async () => {
    const pods = await kubectl('get pods -o wide');
    assert.match(pods.stdout, /^curl-pod +1\/1 +Running +0 +\S+ +172\.20\.0\.89 +k8s-ctr /m, pods.stderr);
    assert.match((await kubectl('get nodes')).stdout, /^k8s-w1 +Ready /m);
    const { stdout } = await kubectl('get endpointslices -l kubernetes.io/service-name=webpod');
    assert.match(
      stdout,
      /80 +172\.20\.0\.131,172\.20\.2\.73,172\.20\.1\.217|80 +172\.20\.0\.131,172\.20\.1\.217,172\.20\.2\.73/,
    );
  });

  it('exec runs in the pod, whose packets go through the datapath', async () => {
    const { code, stdout, stderr } = await kubectl('exec curl-pod -- curl -s -m 3 10.96.129.95');
    assert.equal(code, 0, stderr);
    assert.match(stdout, /^Hostname: webpod-697b545f57-/);
  });

  it('a service that is applied answers, and one that is deleted does not', async () => {
    assert.notEqual((await lab.exec('curl-pod', ['curl', '-s', '-m', '1', '10.96.5.5:8080'])).exitCode, 0);
    const applied = await kubectl('apply -f -', SECOND);
    assert.equal(applied.stdout, 'service/second created\n', applied.stderr);
    assert.equal(await ask(code => code === 0), 0);
    await kubectl('delete service second');
    assert.notEqual(await ask(code => code !== 0), 0);
  });

  it("the article's manifests run: three pods answer through the service, by its name", async () => {
    const applied = await kubectl('apply -f -', ARTICLE);
    assert.equal(applied.code, 0, applied.stderr);
    const status = await kubectl('rollout status deploy/web --timeout=60s');
    assert.equal(status.code, 0, status.stderr);
    const pods = await kubectl('get pods -l app=web -o wide');
    assert.match(pods.stdout, /^web-\S+ +1\/1 +Running +0 +\S+ +172\.20\.2\.\d+ +k8s-w0 /m);
    const names = new Set<string>();
    for (let tries = 0; names.size < 3 && tries < 60; tries++) {
      const { stdout } = await lab.exec('curl-pod', ['curl', '-s', '-m', '2', 'web']);
      const name = /^Hostname: (\S+)$/m.exec(stdout)?.[1];
      if (name !== undefined) names.add(name);
    }
    assert.equal(names.size, 3);
  });

  it('readiness decides where packets go', async () => {
    const name = (await kubectl('get pods -l app=web -o jsonpath={.items[0].metadata.name}')).stdout;
    const address = (await kubectl(`get pod ${name} -o jsonpath={.status.podIP}`)).stdout;
    await kubectl(`label pod ${name} app=lonely --overwrite`);
    const status = await kubectl('rollout status deploy/web --timeout=60s');
    assert.equal(status.code, 0, status.stderr);
    const { stdout } = await kubectl('get endpointslices -l kubernetes.io/service-name=web');
    assert.doesNotMatch(stdout, new RegExp(`${address.replaceAll('.', '\\.')}(,|$)`, 'm'));
    // It runs on, but nobody's pod any more.
    assert.equal((await kubectl(`exec ${name} -- hostname`)).stdout, `${name}\n`);
    assert.equal((await kubectl(`delete pod ${name}`)).code, 0);
  });

  it('run --rm -i runs a command with its input, and leaves nothing', async () => {
    const ran = await kubectl(
      'run --rm -i once --image=busybox --restart=Never -- sh',
      'hostname; wget -qO- web | head -1\n',
    );
    assert.match(ran.stdout, /^once\nHostname: web-\S+$/m, ran.stderr);
    assert.equal((await kubectl('get pod once')).code, 1);
    assert.ok(!existsSync(`${NETNS_DIR}/tp-${NAME}-default.once`));
  });

  it('an image that is none, and a command that ends, are said', async () => {
    const created = await kubectl('apply -f -', BROKEN);
    assert.equal(created.code, 0, created.stderr);
    const waited = await kubectl(
      'wait --for=jsonpath={.status.containerStatuses[0].state.waiting.reason}=ImagePullBackOff pod/unknown --timeout=60s',
    );
    assert.equal(waited.code, 0, waited.stderr);
    const failed = await kubectl('wait --for=jsonpath={.status.phase}=Failed pod/ends --timeout=60s');
    assert.equal(failed.code, 0, failed.stderr);
    assert.equal((await kubectl('logs ends')).stdout, 'k8s-w1 says hello\n');
    const exitCode = 'get pod ends -o jsonpath={.status.containerStatuses[0].state.terminated.exitCode}';
    assert.equal((await kubectl(exitCode)).stdout, '3');
    assert.equal((await kubectl('delete pod unknown ends')).code, 0);
  });

  it('a node outside of the lab follows its API, also when that is away', async () => {
    const [self, other] = [`tp-${NAME}-ext`, `tp-${NAME}-extpod`];
    for (const netns of [self, other]) execFileSync('ip', ['netns', 'add', netns]);
    const file = (name: string, text: string): string => {
      writeFileSync(join(home, name), text);
      return join(home, name);
    };
    const kubeconfig = file('follow.kubeconfig', unixKubeconfig(`${apiDirOf(NAME)}/api.sock`));
    const config = file('follow.yaml', FOLLOWER);
    assert.equal((await kubectl('apply -f -', EXTERNAL.replaceAll('NETNS', other))).code, 0);
    const status = { podIP: '172.20.9.2', phase: 'Running', conditions: [{ type: 'Ready', status: 'True' }] };
    const patch = ['patch', 'pod', 'far', '--subresource=status', '-p', JSON.stringify({ status })];
    await once(start(patch), 'close');
    const argv = ['node', '--config', config, '--kubeconfig', kubeconfig, '--node-name', 'ext'];
    const node = spawn('ip', ['netns', 'exec', self, process.execPath, MAIN, ...argv], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    const closed = once(node, 'close');
    let log = '';
    node.stderr!.on('data', chunk => (log += chunk));
    const until = async (what: string, holds: () => boolean | Promise<boolean>): Promise<void> => {
      for (const deadline = Date.now() + 30_000; !(await holds()); await sleep(20)) {
        assert.ok(Date.now() < deadline, `never ${what}: ${log}`);
      }
    };
    try {
      await until('ready', () => /^ready$/m.test(log));
      const services = async (): Promise<string[]> =>
        ((await callNode(`/run/tunpath/${NAME}ext.sock`, 'get', { kind: 'services' })) as { name: string }[]).map(
          ({ name }) => name,
        );
      // To itself, through a service whose endpoint it is, by its own node.
      const whoami = spawn('ip', ['netns', 'exec', other, process.execPath, WHOAMI, '80', 'far'], { stdio: 'ignore' });
      const answer = () =>
        spawnSync('ip', ['netns', 'exec', self, 'curl', '-s', '-m', '1', '10.96.7.7'], { encoding: 'utf8' }).stdout;
      await until('an answer', () => answer().startsWith('Hostname: far'));
      await killNow(lab);
      await until('said to be away', () => /does not answer.*packets flow on/.test(log));
      assert.match(answer(), /^Hostname: far/);
      await lab.restartApi();
      await until('said to be back', () => /answers again/.test(log));
      assert.equal((await kubectl('delete service far')).code, 0);
      await until('without the service', async () => !(await services()).includes('default/far'));
      whoami.kill();
    } finally {
      node.kill('SIGTERM');
      await closed;
      await kubectl('delete pod far --force --grace-period=0');
      await kubectl('delete node ext');
      for (const netns of [self, other]) execFileSync('ip', ['netns', 'del', netns]);
    }
  });

  it('an API that is killed at random moments loses no write and no packet', () =>
    // By itself api-kills.ts does it as often as one likes.
    killApi(lab, { kills: 2, seed: 1, say: () => {} }));

  it('packets flow on when the API is killed, and it goes on with its pods when it is there again', async () => {
    const what =
      'get pods -l app=web -o jsonpath={.items[*].metadata.name}/{.items[*].status.podIP}/{.items[*]..restartCount}';
    const before = (await kubectl(what)).stdout;
    assert.match(before, /\/0 0 0$/);
    const flow = lab.spawn('curl-pod', ['ping', '-q', '-i', '0.02', '-c', '50', '172.20.1.217']);
    let printed = '';
    flow.stdout!.on('data', chunk => (printed += chunk));
    await killNow(lab);
    await once(flow, 'close');
    assert.match(printed, /50 packets transmitted, 50 received/);
    assert.notEqual((await kubectl('get pods --request-timeout=2s')).code, 0);
    assert.ok(lab.hasLostApi);
    await lab.restartApi();
    const after = await kubectl(what);
    assert.equal(after.stdout, before, after.stderr);
    assert.match((await lab.exec('curl-pod', ['curl', '-s', '-m', '2', 'web'])).stdout, /^Hostname: web-/);
    // The pods that the other process started are this one's to end.
    assert.equal((await kubectl('delete deploy web')).code, 0);
    const gone = await kubectl('wait --for=delete pod -l app=web --timeout=60s');
    assert.equal(gone.code, 0, gone.stderr);
    assert.deepEqual(
      readdirSync(NETNS_DIR).filter(name => name.startsWith(`tp-${NAME}-default.`)),
      [],
    );
  });
});

describe('a lab whose API is in etcd', function () {
  this.timeout(90_000);
  const ETCD_NAME = `le${process.pid}`;
  let etcd: EtcdServer;
  before(async () => {
    await Lab.down(ETCD_NAME);
    etcd = await EtcdServer.start();
  });
  after(async () => {
    await Lab.down(ETCD_NAME);
    await etcd.stop();
  });

  it('has its pods and services there, and nothing of a lab before it', async () => {
    const left = new Etcd({ address: etcd.address, prefix: `/tunpath/${ETCD_NAME}` });
    const store = await Store.open(left);
    const metadata = { name: 'left', namespace: 'default' };
    await store.put('configmaps', 'default/left', { apiVersion: 'v1', kind: 'ConfigMap', metadata }, 0);
    await store.close();
    await Lab.up({ name: ETCD_NAME, mode: 'vxlan', api: true, etcd: etcd.address });
    const client = new ApiClient(readKubeconfig(kubeconfigOf(ETCD_NAME)));
    const maps = await client.get('/api/v1/namespaces/default/configmaps');
    assert.deepEqual(maps.items, []);
    const [pods, rows] = [await client.get('/api/v1/namespaces/default/pods'), new EtcdClient(etcd.address)];
    const keys: string[] = [];
    for await (const page of rows.pages(`/tunpath/${ETCD_NAME}/objects/pods/default/`, 0)) {
      keys.push(...page.map(({ key }) => key));
    }
    assert.deepEqual(
      keys,
      pods.items.map(({ metadata: { name } }: Json) => `/tunpath/${ETCD_NAME}/objects/pods/default/${name}`),
    );
    assert.ok(keys.length > 0);
    rows.close();
    client.close();
  });
});
