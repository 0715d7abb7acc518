import assert from 'node:assert/strict';
import fc from 'fast-check';
import { freeNetwork, freePodAddress } from '../../datapath/api/controllers/nodes.ts';
import { planRollout } from '../../datapath/api/controllers/workloads.ts';
import type { Json, KubeObject } from '../../datapath/api/object.ts';
import { ClusterRig, T0 } from './cluster-rig.ts';

const WEB = (replicas: number, extra = '') => `
apiVersion: apps/v1
kind: Deployment
metadata: { name: web }
spec:
  replicas: ${replicas}
  selector: { matchLabels: { app: web } }
  template:
    metadata: { labels: { app: web } }
    spec:
      containers: [{ name: web, image: nginx, ports: [{ name: http, containerPort: 8080 }] }]
      ${extra}
`;

const SERVICE = `
apiVersion: v1
kind: Service
metadata: { name: web }
spec: { selector: { app: web }, ports: [{ name: a, port: 80, targetPort: http }, { name: b, port: 81, targetPort: 9000 }] }
`;

const BALANCER = (name: string, annotations = '', port = 80) => `
apiVersion: v1
kind: Service
metadata: { name: ${name}, annotations: { ${annotations} } }
spec: { type: LoadBalancer, selector: { app: web }, ports: [{ port: ${port} }] }
`;

const POOL = (name: string, blocks: string) => `
apiVersion: cilium.io/v2
kind: CiliumLoadBalancerIPPool
metadata: { name: ${name} }
spec: { blocks: ${blocks} }
`;

describe('controllers', () => {
  let rig: ClusterRig;
  beforeEach(async () => {
    rig = await ClusterRig.start();
  });
  afterEach(async () => {
    await rig.stop();
    assert.deepEqual(rig.errors, []);
  });

  it('a deployment has its pods, spread over the nodes', async () => {
    await rig.create(WEB(3));
    assert.deepEqual(
      rig
        .pods('web')
        .map(({ spec }) => spec.nodeName)
        .sort(),
      ['a', 'b', 'c'],
    );
    const { status } = rig.get('Deployment', 'web');
    assert.equal(status.availableReplicas, 3);
    assert.equal(status.conditions.find(({ type }: Json) => type === 'Available').status, 'True');
    assert.equal(status.conditions.find(({ type }: Json) => type === 'Progressing').reason, 'NewReplicaSetAvailable');
    await rig.delete('Pod', rig.pods('web')[0]!.metadata.name);
    assert.equal(rig.pods('web').length, 3);
    await rig.change('Deployment', 'web', object => (object.spec.replicas = 1));
    assert.equal(rig.pods('web').length, 1);
  });

  it('rolls to a new template and back, and stops where it does not become ready', async () => {
    await rig.create(WEB(4));
    await rig.change('Deployment', 'web', object => (object.spec.template.spec.containers[0].image = 'nginx:2'));
    assert.deepEqual(
      rig.pods('web').map(({ spec }) => spec.containers[0].image),
      Array(4).fill('nginx:2'),
    );
    const revisions = rig.cluster
      .list('ReplicaSet')
      .map(({ metadata, spec }) => [metadata.annotations!['deployment.kubernetes.io/revision'], spec.replicas]);
    assert.deepEqual(revisions.sort(), [
      ['1', 0],
      ['2', 4],
    ]);
    rig.isBroken = pod => pod.spec.containers[0].image === 'nginx:3';
    await rig.change('Deployment', 'web', object => (object.spec.template.spec.containers[0].image = 'nginx:3'));
    // 25 % of four: one more, and one fewer.
    const images = rig
      .pods('web')
      .map(({ spec }) => spec.containers[0].image)
      .sort();
    assert.deepEqual(images, ['nginx:2', 'nginx:2', 'nginx:2', 'nginx:3', 'nginx:3']);
    await rig.change('Deployment', 'web', object => (object.spec.template.spec.containers[0].image = 'nginx'));
    assert.deepEqual(
      rig.pods('web').map(({ spec }) => spec.containers[0].image),
      Array(4).fill('nginx'),
    );
    assert.equal(rig.get('Deployment', 'web').metadata.annotations!['deployment.kubernetes.io/revision'], '4');
  });

  it('a rollout never has more pods than the surge allows, nor fewer ready than may be missing, and it ends', () => {
    const set = (name: string, revision: number, replicas: number, available: number): KubeObject => ({
      apiVersion: 'apps/v1',
      kind: 'ReplicaSet',
      metadata: { name, annotations: { 'deployment.kubernetes.io/revision': `${revision}` } },
      spec: { replicas },
      status: { replicas, availableReplicas: available },
    });
    const amount = fc.oneof(
      fc.integer({ min: 0, max: 5 }),
      fc.integer({ min: 0, max: 100 }).map(n => `${n}%`),
    );
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 20 }),
        amount,
        amount,
        fc.infiniteStream(fc.boolean()),
        (wanted, maxSurge, maxUnavailable, luck) => {
          const deployment = {
            spec: {
              replicas: wanted,
              strategy: { type: 'RollingUpdate', rollingUpdate: { maxSurge, maxUnavailable } },
            },
          } as KubeObject;
          let old = set('old', 1, wanted, wanted);
          let current = set('new', 2, 0, 0);
          const share = (value: number | string, up: boolean) =>
            typeof value === 'number'
              ? value
              : (up ? Math.ceil : Math.floor)((Number.parseInt(value, 10) * wanted) / 100);
          const surge = share(maxSurge, true);
          const missing = surge === 0 && share(maxUnavailable, false) === 0 ? 1 : share(maxUnavailable, false);
          for (let step = 0; old.spec.replicas > 0 || current.status.availableReplicas < wanted; step++) {
            assert.ok(step < 500, 'ends');
            const planned = new Map(
              planRollout(deployment, current, [old]).map(({ set: { metadata }, replicas }) => [
                metadata.name,
                replicas,
              ]),
            );
            const olds = planned.get('old') ?? old.spec.replicas;
            const news = planned.get('new') ?? current.spec.replicas;
            assert.ok(olds + news <= wanted + surge, `${olds} and ${news} of ${wanted}`);
            const ready =
              Math.min(olds, old.status.availableReplicas) + Math.min(news, current.status.availableReplicas);
            assert.ok(ready >= wanted - missing, `${ready} of ${wanted} are ready, ${missing} may be missing`);
            old = set('old', 1, olds, olds);
            const up = luck.next().value ? 1 : 0;
            current = set('new', 2, news, Math.min(news, current.status.availableReplicas + up));
          }
          assert.equal(current.spec.replicas, wanted);
        },
      ),
      { numRuns: 200 },
    );
  });

  it('anti-affinity keeps pods apart, and what fits nowhere says why', async () => {
    await rig.create(
      WEB(
        4,
        'affinity: { podAntiAffinity: { requiredDuringSchedulingIgnoredDuringExecution: [{ topologyKey: kubernetes.io/hostname, labelSelector: { matchLabels: { app: web } } }] } }',
      ),
    );
    const nodes = rig.pods('web').map(({ spec }) => spec.nodeName);
    assert.deepEqual(nodes.filter(Boolean).sort(), ['a', 'b', 'c']);
    const waiting = rig.pods('web').find(({ spec }) => spec.nodeName === undefined)!;
    const scheduled = waiting.status.conditions.find(({ type }: Json) => type === 'PodScheduled');
    assert.equal(scheduled.message, "0/3 nodes are available: 3 node(s) didn't match pod anti-affinity rules.");
    const events = rig.cluster.list('Event').filter(({ reason }) => reason === 'FailedScheduling');
    assert.equal(events.length, 1);
    await rig.create('{ apiVersion: v1, kind: Node, metadata: { name: d } }');
    assert.ok(
      rig.pods('web').every(({ spec }) => spec.nodeName !== undefined),
      'a new node takes it',
    );
  });

  it('selectors and taints of nodes hold', async () => {
    await rig.change('Node', 'a', node => (node.metadata.labels.disk = 'fast'));
    await rig.change('Node', 'b', node => (node.spec.taints = [{ key: 'only', value: 'x', effect: 'NoSchedule' }]));
    await rig.create(WEB(2, 'nodeSelector: { disk: fast }'));
    assert.deepEqual(
      rig.pods('web').map(({ spec }) => spec.nodeName),
      ['a', 'a'],
    );
    const spec = { containers: [{ name: 'c', image: 'busybox' }] };
    for (const name of ['p1', 'p2', 'p3'])
      await rig.create(JSON.stringify({ apiVersion: 'v1', kind: 'Pod', metadata: { name }, spec }));
    assert.ok(rig.pods().every(pod => pod.spec.nodeName !== 'b'));
    await rig.create(
      JSON.stringify({
        apiVersion: 'v1',
        kind: 'Pod',
        metadata: { name: 'p4' },
        spec: { ...spec, tolerations: [{ key: 'only', operator: 'Exists' }] },
      }),
    );
    assert.equal(rig.get('Pod', 'p4').spec.nodeName, 'b');
  });

  it('a daemon set has a pod on each node, and rolls one at a time', async () => {
    await rig.create(WEB(1).replace('kind: Deployment', 'kind: DaemonSet').replace('replicas: 1', ''));
    assert.deepEqual(
      rig
        .pods('web')
        .map(({ spec }) => spec.nodeName)
        .sort(),
      ['a', 'b', 'c'],
    );
    await rig.create('{ apiVersion: v1, kind: Node, metadata: { name: d } }');
    assert.equal(rig.pods('web').length, 4);
    rig.isBroken = pod => pod.spec.containers[0].image === 'nginx:bad';
    await rig.change('DaemonSet', 'web', set => (set.spec.template.spec.containers[0].image = 'nginx:bad'));
    assert.equal(rig.pods('web').filter(pod => rig.isBroken(pod)).length, 1);
    rig.isBroken = () => false;
    await rig.pass(0);
    assert.equal(rig.pods('web').filter(({ spec }) => spec.containers[0].image === 'nginx:bad').length, 4);
    assert.equal(rig.get('DaemonSet', 'web').status.numberReady, 4);
  });

  it('endpoints follow pods: ready, serving, terminating, named ports', async () => {
    await rig.create(WEB(2));
    await rig.create(SERVICE);
    const slice = () => rig.cluster.list('EndpointSlice', 'default')[0]!;
    assert.deepEqual(
      slice().ports.map(({ name, port }: Json) => [name, port]),
      [
        ['a', 8080],
        ['b', 9000],
      ],
    );
    assert.equal(slice().endpoints.length, 2);
    const [first] = slice().endpoints;
    assert.deepEqual(first.conditions, { ready: true, serving: true, terminating: false });
    assert.equal(first.zone, `z-${first.nodeName}`);
    assert.equal(slice().metadata.labels!['kubernetes.io/service-name'], 'web');
    const { subsets } = rig.get('Endpoints', 'web');
    assert.equal(subsets[0].addresses.length, 2);
    rig.isBroken = pod => pod.metadata.name === first.targetRef.name;
    await rig.pass(0);
    const same = slice().endpoints.find(({ targetRef }: Json) => targetRef.name === first.targetRef.name);
    assert.deepEqual(same.conditions, { ready: false, serving: false, terminating: false });
    assert.equal(rig.get('Endpoints', 'web').subsets[0].notReadyAddresses.length, 1);
    await rig.change('Service', 'web', service => (service.spec.publishNotReadyAddresses = true));
    assert.ok(slice().endpoints.every(({ conditions }: Json) => conditions.ready));
    await rig.delete('Service', 'web');
    assert.equal(rig.cluster.list('EndpointSlice', 'default').length, 0);
    assert.equal(rig.cluster.find('Endpoints', 'default', 'web'), undefined);
  });

  it('a service without pods has an empty slice, and more than a hundred have several', async () => {
    await rig.create(SERVICE);
    assert.deepEqual(
      rig.cluster.list('EndpointSlice', 'default').map(({ endpoints }) => endpoints),
      [[]],
    );
    await rig.create(WEB(110));
    assert.deepEqual(
      rig.cluster
        .list('EndpointSlice', 'default')
        .map(({ endpoints }) => endpoints.length)
        .sort(),
      [10, 100],
    );
  });

  it('what an owner leaves behind goes with it, unless it is to stay', async () => {
    await rig.create(WEB(2));
    await rig.delete('Deployment', 'web');
    assert.deepEqual([rig.cluster.list('ReplicaSet').length, rig.pods('web').length], [0, 0]);
    await rig.create(WEB(2));
    const { resource, version } = {
      resource: (await import('../../datapath/api/resources.ts')).resourceOf('apps/v1', 'Deployment'),
      version: 'v1',
    };
    await rig.api.registry.delete({ resource, version, namespace: 'default' }, 'web', { propagationPolicy: 'Orphan' });
    await rig.settle();
    assert.equal(rig.cluster.find('Deployment', 'default', 'web'), undefined);
    assert.equal(rig.pods('web').length, 2);
    await rig.create(WEB(2));
    await rig.api.registry.delete({ resource, version, namespace: 'default' }, 'web', {
      propagationPolicy: 'Foreground',
    });
    await rig.settle();
    assert.equal(rig.cluster.find('Deployment', 'default', 'web'), undefined);
  });

  it('a namespace takes everything along', async () => {
    await rig.create('{ apiVersion: v1, kind: Namespace, metadata: { name: team } }');
    assert.ok(rig.cluster.find('ServiceAccount', 'team', 'default'));
    await rig.create(WEB(2).replace('name: web }', 'name: web, namespace: team }'));
    assert.equal(rig.pods('web').length, 2);
    await rig.delete('Namespace', 'team');
    for (let n = 0; n < 20 && rig.cluster.find('Namespace', undefined, 'team') !== undefined; n++) {
      await new Promise(next => setTimeout(next, 50));
      await rig.settle();
    }
    assert.equal(rig.cluster.find('Namespace', undefined, 'team'), undefined);
    assert.deepEqual(rig.pods('web'), []);
  });

  it('nodes get networks that do not meet, and lose their readiness with their lease', async () => {
    assert.deepEqual(
      rig.cluster.list('Node').map(({ spec }) => spec.podCIDR),
      ['10.244.0.0/24', '10.244.1.0/24', '10.244.2.0/24'],
    );
    await rig.create(WEB(3));
    const lease = (renewTime: string) =>
      JSON.stringify({
        apiVersion: 'coordination.k8s.io/v1',
        kind: 'Lease',
        metadata: { name: 'a', namespace: 'kube-node-lease' },
        spec: { holderIdentity: 'a', renewTime },
      });
    await rig.create(lease(new Date(T0).toISOString()));
    await rig.pass(39_000);
    const ready = () => rig.get('Node', 'a').status.conditions.find(({ type }: Json) => type === 'Ready').status;
    assert.equal(ready(), 'True');
    rig.isBroken = pod => pod.spec.nodeName === 'a';
    await rig.pass(2000);
    assert.equal(ready(), 'Unknown');
  });

  it('parts of a network', () => {
    assert.equal(freeNetwork('10.0.0.0/22', 24, ['10.0.0.0/25', undefined, '10.0.1.0/24']), '10.0.2.0/24');
    assert.equal(freeNetwork('10.0.0.0/24', 25, ['10.0.0.0/16']), undefined);
    assert.equal(freePodAddress('10.0.0.0/29', new Set(['10.0.0.2', '10.0.0.3'])), '10.0.0.4');
    assert.equal(freePodAddress('10.0.0.0/30', new Set(['10.0.0.2'])), undefined);
  });

  it('load balancers: the pool, a requested address, one that is shared, conflicts and counts', async () => {
    const ip = (name: string) => rig.get('Service', name).status.loadBalancer.ingress?.[0]?.ip;
    const why = (name: string) =>
      rig.get('Service', name).status.conditions?.find(({ type }: Json) => type === 'cilium.io/IPAMRequestSatisfied')
        .reason;
    const count = (type: string, pool = 'pool') =>
      rig
        .get('CiliumLoadBalancerIPPool', pool)
        .status.conditions.find((condition: Json) => condition.type === `cilium.io/${type}`).message;
    await rig.create(BALANCER('early'));
    assert.equal(ip('early'), undefined);
    await rig.create(POOL('pool', '[{ start: 192.0.2.211, stop: 192.0.2.215 }]'));
    assert.equal(ip('early'), '192.0.2.211');
    await rig.create(BALANCER('asks', 'lbipam.cilium.io/ips: 192.0.2.215'));
    assert.equal(ip('asks'), '192.0.2.215');
    await rig.create(BALANCER('same', 'lbipam.cilium.io/ips: 192.0.2.215'));
    assert.deepEqual([ip('same'), why('same')], [undefined, 'already_allocated']);
    await rig.create(BALANCER('outside', 'lbipam.cilium.io/ips: 192.0.2.99'));
    assert.deepEqual([ip('outside'), why('outside')], [undefined, 'no_pool']);
    await rig.create(BALANCER('one', 'lbipam.cilium.io/sharing-key: k'));
    await rig.create(BALANCER('two', 'lbipam.cilium.io/sharing-key: k', 81));
    await rig.create(BALANCER('three', 'lbipam.cilium.io/sharing-key: k', 81));
    assert.equal(ip('one'), ip('two'));
    assert.notEqual(ip('three'), ip('two'));
    assert.deepEqual([count('IPsTotal'), count('IPsAvailable'), count('IPsUsed')], ['5', '1', '4']);
    await rig.create(POOL('late', '[{ cidr: 192.0.2.208/29 }]'));
    const late = rig
      .get('CiliumLoadBalancerIPPool', 'late')
      .status.conditions.find(({ type }: Json) => type === 'cilium.io/PoolConflict');
    assert.deepEqual([late.status, late.reason], ['True', 'cidr_overlap']);
    await rig.delete('Service', 'asks');
    assert.equal(ip('same'), '192.0.2.215', 'an address that is given back goes to who waits for it');
    await rig.change('Service', 'early', service => (service.spec.type = 'ClusterIP'));
    assert.equal(ip('early'), undefined);
  });

  it('identities are the same for the same labels, whatever their pods are called', async () => {
    await rig.create(WEB(2));
    await rig.create(
      '{ apiVersion: v1, kind: Pod, metadata: { name: curl, labels: { app: curl } }, spec: { containers: [{ name: c, image: busybox }] } }',
    );
    const id = (name: string) => rig.get('CiliumEndpoint', name).status.identity.id;
    const [one, two] = rig.pods('web').map(({ metadata }) => id(metadata.name));
    assert.equal(one, two);
    assert.notEqual(one, id('curl'));
    const numbers = rig.cluster.list('CiliumIdentity').map(({ metadata }) => metadata.name);
    assert.equal(numbers.length, 2);
    await rig.change('Deployment', 'web', object => (object.spec.template.spec.containers[0].image = 'nginx:2'));
    assert.equal(id(rig.pods('web')[0]!.metadata.name), one);
  });
});
