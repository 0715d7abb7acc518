/** Objects of a lab's API, through its controllers, to the services in its nodes' configurations. No devices. */
import assert from 'node:assert/strict';
import { stringify } from 'yaml';
import { compileServices } from '../../datapath/api/agent/services.ts';
import { openApi } from '../../datapath/api/api.ts';
import { Cluster } from '../../datapath/api/controllers/cluster.ts';
import { startControllers } from '../../datapath/api/controllers/index.ts';
import type { Json, KubeObject } from '../../datapath/api/object.ts';
import { loadConfig } from '../../datapath/control/load-config.ts';
import { nodeObject, podObject, podStatus, serviceObjects } from '../../datapath/lab/api-objects.ts';
import { nodeConfig } from '../../datapath/lab/modes.ts';
import { addressOf, type Topology } from '../../datapath/lab/topology.ts';
import { TOPOLOGIES } from '../../datapath/lab/topology-file.ts';

async function clusterOf(
  topology: Topology,
): Promise<{ cluster: Cluster; settle(): Promise<void>; stop(): Promise<void> }> {
  const api = await openApi();
  const cluster = new Cluster(api.registry, 'test');
  for (const node of topology.nodes)
    await cluster.create('Node', nodeObject(node, cluster.now, { kernel: '6.1', cpus: 2, memoryKi: 4096 }));
  for (const service of serviceObjects(topology)) await cluster.create('Service', service);
  for (const pod of topology.pods) {
    const made = await cluster.create('Pod', podObject(pod));
    const node = topology.nodes.find(({ name }) => name === pod.node)!;
    await cluster.setStatus(made!, podStatus(pod, addressOf(node.address), cluster.now));
  }
  const errors: string[] = [];
  const controllers = startControllers(api.registry, {}, text => errors.push(text));
  await controllers.settle();
  return {
    cluster,
    settle: () => controllers.settle(),
    stop: async () => {
      controllers.stop();
      await api.close();
      assert.deepEqual(errors, []);
    },
  };
}

function compiled(cluster: Cluster): Json[] {
  const services = cluster.list('Service').filter(({ metadata }) => metadata.name !== 'kubernetes');
  return compileServices(services, cluster.list('EndpointSlice')).services;
}

describe('what nodes make of services', () => {
  for (const [name, topology] of Object.entries(TOPOLOGIES)) {
    it(`the objects of lab ${name} mean the services that its nodes start with`, async () => {
      const { cluster, stop } = await clusterOf(topology);
      const services = compiled(cluster);
      const node = topology.nodes[0]!;
      const config = nodeConfig('lab', topology, node, { mode: 'vxlan' });
      const summary = (service: Json) => ({
        name: service.name,
        address: service.clusterIP ?? service.addresses[0],
        ports: service.ports.map(({ port, nodePort }: Json) => [port, nodePort]),
        endpoints: service.endpoints
          .map(({ address, ports }: Json) => [
            address,
            ports === undefined ? (service.ports[0].targetPort ?? service.ports[0].port) : Object.values(ports)[0],
          ])
          .sort(),
        policy: service.externalTrafficPolicy ?? 'Cluster',
      });
      const byName = (a: Json, b: Json) => (a.name < b.name ? -1 : 1);
      assert.deepEqual(services.map(summary), config.spec.services.map(summary).sort(byName));
      const text = stringify({ ...config, spec: { ...config.spec, services } });
      assert.equal(loadConfig(text, 'node.yaml').problems, undefined);
      await stop();
    });
  }

  it('a load balancer, affinity, source ranges, a named port and a pod that is not ready', async () => {
    const { cluster, settle, stop } = await clusterOf(TOPOLOGIES.cilium!);
    await cluster.create('CiliumLoadBalancerIPPool', {
      metadata: { name: 'pool' },
      spec: { blocks: [{ start: '192.168.10.211', stop: '192.168.10.215' }] },
    });
    await cluster.create('Service', {
      metadata: { name: 'lb', namespace: 'default' },
      spec: {
        type: 'LoadBalancer',
        selector: { app: 'webpod' },
        ports: [{ name: 'web', port: 8080, targetPort: 80 }],
        sessionAffinity: 'ClientIP',
        sessionAffinityConfig: { clientIP: { timeoutSeconds: 60 } },
        loadBalancerSourceRanges: ['192.0.2.0/24'],
        externalTrafficPolicy: 'Local',
      },
    });
    await settle();
    const pod = cluster.find('Pod', 'default', 'webpod-w1') as KubeObject;
    await cluster.setStatus(pod, { conditions: [{ type: 'Ready', status: 'False' }] });
    await settle();
    const lb = compiled(cluster).find(({ name }) => name === 'default/lb');
    assert.deepEqual(lb.loadBalancerIPs, ['192.168.10.211']);
    assert.deepEqual([lb.sessionAffinity, lb.sessionAffinityTimeoutSeconds], ['ClientIP', 60]);
    assert.deepEqual([lb.loadBalancerSourceRanges, lb.externalTrafficPolicy], [['192.0.2.0/24'], 'Local']);
    assert.deepEqual(
      lb.endpoints.map(({ address, ready, nodeName, ports }: Json) => [address, ready, nodeName, ports.web]),
      [
        ['172.20.0.131', true, 'k8s-ctr', 80],
        ['172.20.2.73', true, 'k8s-w0', 80],
        ['172.20.1.217', false, 'k8s-w1', 80],
      ],
    );
    await stop();
  });

  it('headless services and external names are no matter of the datapath', () => {
    const service = (name: string, spec: Json): KubeObject => ({
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name, namespace: 'default' },
      spec,
    });
    const { services, refused } = compileServices(
      [
        service('a', { clusterIP: 'None' }),
        service('b', { type: 'ExternalName' }),
        service('c', { clusterIP: 'fd00::1' }),
      ],
      [],
    );
    assert.deepEqual(services, []);
    assert.deepEqual(refused, [{ place: 'default/c', message: 'fd00::1: only IPv4 is forwarded' }]);
  });
});
