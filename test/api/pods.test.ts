/** What a pod's container runs, what its status says, how its names resolve. No process but those of probes. */
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import fc from 'fast-check';
import { compilePolicies } from '../../datapath/api/agent/policies.ts';
import type { Json, KubeObject } from '../../datapath/api/object.ts';
import { environmentOf, expand, type Sources } from '../../datapath/api/pods/environment.ts';
import { findImage, repositoryOf, wordsOf } from '../../datapath/api/pods/images.ts';
import { portOf, runProbe } from '../../datapath/api/pods/probes.ts';
import { type ContainerState, podPhase, podStatus } from '../../datapath/api/pods/status.ts';
import { recordsOf } from '../../datapath/lab/dns-server.ts';
import { hostsFile, namedServices, zoneFile } from '../../datapath/lab/pods/pod-names.ts';

describe('images of containers', () => {
  it('are known by their names, wherever they come from and whatever version is asked for', () => {
    for (const name of [
      'nginx',
      'nginx:1.27',
      'docker.io/library/nginx',
      'index.docker.io/library/nginx:latest@sha256:0a1b',
    ]) {
      assert.equal(findImage(name)?.server, 'nginx', name);
    }
    assert.equal(findImage('k8s.gcr.io/echoserver:1.5')?.port, 8080);
    assert.equal(findImage('registry.k8s.io/coredns/coredns:v1.11.1')?.server, 'dns');
    assert.equal(repositoryOf('registry.example:5000/a/b:v1'), 'registry.example:5000/a/b');
    for (const name of ['postgres', 'example.com/nginx', 'constructor', 'registry.k8s.io/toString']) {
      assert.equal(findImage(name), undefined, name);
    }
  });

  it('command stands instead of all that an image runs, args instead of its arguments', () => {
    const busybox = findImage('busybox')!;
    const curl = findImage('curlimages/curl')!;
    assert.deepEqual(wordsOf(busybox, undefined, undefined), ['sh']);
    assert.deepEqual(wordsOf(busybox, undefined, ['sleep', '1']), ['sleep', '1']);
    assert.deepEqual(wordsOf(curl, undefined, ['-s', 'web']), ['curl', '-s', 'web']);
    assert.deepEqual(wordsOf(curl, ['sh', '-c'], ['exit']), ['sh', '-c', 'exit']);
    assert.equal(wordsOf(findImage('traefik/whoami')!, undefined, ['--port=8080']), null);
    assert.deepEqual(wordsOf(findImage('traefik/whoami')!, ['sleep', '1'], undefined), ['sleep', '1']);
  });
});

describe('variables of containers', () => {
  const pod = {
    metadata: { name: 'p', namespace: 'n', labels: { app: 'web' } },
    spec: { nodeName: 'k8s-w1' },
  } as unknown as KubeObject;
  const sources: Sources = {
    podIP: '10.0.0.2',
    hostIP: '192.168.10.101',
    data: (kind, name) => (name === 'c' ? { key: `of ${kind}` } : undefined),
  };
  const of = (env: Json[], envFrom: Json[] = []) => environmentOf(pod, { env, envFrom }, sources);

  it('come from values, fields, ConfigMaps and Secrets', () => {
    assert.deepEqual(
      of(
        [
          { name: 'A', value: 'a' },
          { name: 'B', value: '$(A)b $$(A) $(C)' },
          { name: 'IP', valueFrom: { fieldRef: { fieldPath: 'status.podIP' } } },
          { name: 'APP', valueFrom: { fieldRef: { fieldPath: "metadata.labels['app']" } } },
          { name: 'S', valueFrom: { secretKeyRef: { name: 'c', key: 'key' } } },
          { name: 'NONE', valueFrom: { configMapKeyRef: { name: 'x', key: 'key', optional: true } } },
        ],
        [{ configMapRef: { name: 'c' }, prefix: 'P_' }],
      ),
      { P_key: 'of ConfigMap', A: 'a', B: 'ab $(A) $(C)', IP: '10.0.0.2', APP: 'web', S: 'of Secret' },
    );
  });

  it('what is missing is named', () => {
    assert.throws(
      () => of([{ name: 'A', valueFrom: { configMapKeyRef: { name: 'x', key: 'k' } } }]),
      /configmap "x" not found/,
    );
    assert.throws(
      () => of([{ name: 'A', valueFrom: { configMapKeyRef: { name: 'c', key: 'k' } } }]),
      /couldn't find key k/,
    );
    assert.throws(() => of([], [{ secretRef: { name: 'x' } }]), /secret "x" not found/);
    assert.throws(() => of([{ name: 'A', valueFrom: { fieldRef: { fieldPath: 'spec.x' } } }]), /no field spec\.x/);
  });

  it('no text without a dollar is changed, and none makes it fail', () => {
    fc.assert(fc.property(fc.string(), text => expand(text.replaceAll('$', ''), {}) === text.replaceAll('$', '')));
    fc.assert(
      fc.property(
        fc.string({ unit: fc.constantFrom('$', '(', ')', 'A') }),
        text => typeof expand(text, { A: '1' }) === 'string',
      ),
    );
  });
});

describe('the status of a pod', () => {
  const container = (state: Json, more: Partial<ContainerState> = {}): ContainerState => ({
    name: 'main',
    image: 'busybox',
    state,
    ready: state.running !== undefined,
    started: state.running !== undefined,
    restartCount: 0,
    ...more,
  });
  const ended = (exitCode: number): Json => ({ terminated: { exitCode } });
  const phase = (restartPolicy: string, states: Json[], init: Json[] = []): string =>
    podPhase({ spec: { restartPolicy } } as unknown as KubeObject, {
      containers: states.map(state => container(state)),
      initContainers: init.map(state => container(state)),
      hostIP: '192.168.10.100',
      startTime: '2026-01-01T00:00:00Z',
    });

  it('follows from its containers and its restartPolicy', () => {
    assert.equal(phase('Always', [{ waiting: {} }]), 'Pending');
    assert.equal(phase('Always', [{ running: {} }, { waiting: {} }]), 'Running');
    assert.equal(phase('Always', [ended(0)]), 'Running');
    assert.equal(phase('Never', [ended(0)]), 'Succeeded');
    assert.equal(phase('Never', [ended(0), ended(1)]), 'Failed');
    assert.equal(phase('OnFailure', [ended(1)]), 'Running');
    assert.equal(phase('Never', [{ waiting: {} }], [ended(1)]), 'Failed');
    assert.equal(phase('Always', [{ waiting: {} }], [{ running: {} }]), 'Pending');
  });

  it('is ready when all containers are', () => {
    const pod = { spec: { restartPolicy: 'Always' }, status: {} } as unknown as KubeObject;
    const status = podStatus(
      pod,
      {
        containers: [container({ running: {} }), container({ running: {} }, { name: 'slow', ready: false })],
        initContainers: [],
        podIP: '10.0.0.2',
        hostIP: '192.168.10.100',
        startTime: '2026-01-01T00:00:00Z',
      },
      '2026-01-01T00:00:01Z',
    );
    const ready = status.conditions.find(({ type }: Json) => type === 'Ready');
    assert.equal(ready.status, 'False');
    assert.equal(ready.message, 'containers with unready status: [slow]');
    assert.deepEqual(status.podIPs, [{ ip: '10.0.0.2' }]);
  });
});

describe('probes', () => {
  const server = createServer((request, response) => {
    response.statusCode = request.url === '/ok' ? 200 : 503;
    response.end();
  });
  let port = 0;
  before(async () => {
    await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
    port = (server.address() as AddressInfo).port;
  });
  after(() => server.close());
  const container = { ports: [{ name: 'http', containerPort: 8080 }] };
  const prober = {
    connect: () =>
      new Promise<ReturnType<typeof connect>>((resolve, reject) => {
        const socket = connect(port, '127.0.0.1', () => resolve(socket));
        socket.on('error', reject);
      }),
    exec: async (command: readonly string[]) => Number(command[0]),
  };
  const run = (probe: Json) => runProbe({ timeoutSeconds: 20, ...probe }, container, prober);

  it('ask by HTTP, by a connection, by a command', async () => {
    assert.equal(await run({ httpGet: { path: '/ok', port: 'http', scheme: 'HTTP' } }), undefined);
    assert.match((await run({ httpGet: { path: '/', port: 8080, scheme: 'HTTP' } }))!, /statuscode: 503/);
    assert.equal(await run({ tcpSocket: { port: 'http' } }), undefined);
    assert.equal(await run({ exec: { command: ['0'] } }), undefined);
    assert.match((await run({ exec: { command: ['1'] } }))!, /exited with 1/);
    assert.match((await run({ grpc: { port: 1 } }))!, /only probes by/);
    assert.match((await run({ tcpSocket: { port: 'none' } }))!, /couldn't find port/);
    assert.equal(portOf('81', container), 81);
  });
});

describe('names of services in pods', () => {
  const service = (name: string, namespace: string, spec: Json) =>
    ({ metadata: { name, namespace }, spec }) as unknown as KubeObject;
  const slices = [
    {
      metadata: { name: 'x', namespace: 'a', labels: { 'kubernetes.io/service-name': 'peers' } },
      endpoints: [
        { addresses: ['10.0.0.2'], conditions: { ready: true } },
        { addresses: ['10.0.0.3'], conditions: { ready: false } },
        { addresses: ['10.0.0.4'] },
      ],
    },
  ] as unknown as KubeObject[];
  const services = namedServices(
    [
      service('web', 'a', { clusterIP: '10.96.0.7' }),
      service('db', 'b', { clusterIP: '10.96.0.8' }),
      service('peers', 'a', { clusterIP: 'None' }),
      service('out', 'a', { type: 'ExternalName' }),
    ],
    slices,
  );

  it('are short in their own namespace, and a headless one is its ready endpoints', () => {
    const lines = hostsFile(services, 'a').split('\n');
    assert.ok(lines.includes('10.96.0.7 web.a.svc.cluster.local web.a.svc web.a web'));
    assert.ok(lines.includes('10.96.0.8 db.b.svc.cluster.local db.b.svc db.b'));
    assert.equal(lines.filter(line => line.includes('peers')).length, 2);
  });

  it('are what a name server reads', () => {
    const records = recordsOf(zoneFile(services).trimEnd().split('\n'));
    assert.deepEqual(records.get('peers.a.svc.cluster.local'), ['10.0.0.2', '10.0.0.4']);
  });
});

describe('network policies for a node', () => {
  it('lose blocks of IPv6, and never a restriction', () => {
    const policy = {
      metadata: { name: 'p', namespace: 'n' },
      spec: {
        podSelector: {},
        policyTypes: ['Ingress'],
        ingress: [
          { from: [{ ipBlock: { cidr: 'fd00::/8' } }] },
          { from: [{ ipBlock: { cidr: 'fd00::/8' } }, { podSelector: {} }] },
          { ports: [{ port: 80 }] },
        ],
      },
    } as unknown as KubeObject;
    const { policies } = compilePolicies([policy], [], []);
    assert.deepEqual(policies[0].ingress, [
      { from: [{ podSelector: {} }], ports: [] },
      { from: [], ports: [{ port: 80 }] },
    ]);
    assert.deepEqual(compilePolicies([], [], [policy]), { policies: [], namespaces: [], remotePods: [] });
  });
});
