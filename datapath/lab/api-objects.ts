/** A topology as objects of a Kubernetes API: its nodes, its pods as they run, and its services. Pure. */
import type { Json } from '../api/object.ts';
import { addressOf, type LabPod, type Topology } from './topology.ts';

/** Pods that the lab itself runs: their namespaces and processes are there before the API. */
export const LAB_POD = 'tunpath.dev/lab-pod';

/** What a lab's nodes share. */
export interface Machine {
  /** Release of its kernel. */
  kernel: string;
  cpus: number;
  memoryKi: number;
}

/** As kubelet's default. */
const MOST_PODS = '110';

export function nodeObject(node: Topology['nodes'][number], now: string, machine: Machine): Json {
  const { kernel, cpus, memoryKi } = machine;
  // Without these kubectl describe divides by nothing.
  const capacity = { cpu: `${cpus}`, memory: `${memoryKi}Ki`, pods: MOST_PODS };
  return {
    apiVersion: 'v1',
    kind: 'Node',
    metadata: {
      name: node.name,
      labels: { 'kubernetes.io/arch': 'amd64', 'kubernetes.io/hostname': node.name, 'kubernetes.io/os': 'linux' },
    },
    spec: { podCIDR: node.podCidr, podCIDRs: [node.podCidr] },
    status: {
      addresses: [
        { type: 'InternalIP', address: addressOf(node.address) },
        { type: 'Hostname', address: node.name },
      ],
      conditions: [
        {
          type: 'Ready',
          status: 'True',
          reason: 'KubeletReady',
          message: 'the datapath of the node runs',
          lastHeartbeatTime: now,
          lastTransitionTime: now,
        },
      ],
      capacity,
      allocatable: capacity,
      nodeInfo: {
        architecture: 'amd64',
        bootID: '',
        containerRuntimeVersion: 'tunpath://0.1.0',
        kernelVersion: kernel,
        kubeProxyVersion: '',
        kubeletVersion: 'v1.35.0',
        machineID: '',
        operatingSystem: 'linux',
        osImage: 'tunpath lab',
        systemUUID: '',
      },
    },
  };
}

const NETSHOOT = 'nicolaka/netshoot';

function imageOf(pod: LabPod): string {
  if (pod.dns) return 'coredns';
  if (pod.memory !== undefined) return `tunpath.dev/memory-${pod.memory}`;
  return pod.hostname === undefined ? NETSHOOT : 'traefik/whoami';
}

/** As the article's manifests call it: after what the pod is. */
function containerOf({ name, labels }: LabPod): string {
  return labels.app ?? labels['k8s-app'] ?? name;
}

export function podObject(pod: LabPod): Json {
  const port = pod.dns ? { containerPort: 53, protocol: 'UDP' } : { containerPort: pod.port ?? 80 };
  const serves = pod.dns || pod.hostname !== undefined || pod.memory !== undefined;
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      name: pod.name,
      namespace: namespaceOfPod(pod),
      labels: pod.labels,
      annotations: { [LAB_POD]: pod.name },
    },
    spec: {
      nodeName: pod.node,
      terminationGracePeriodSeconds: 0,
      containers: [
        {
          name: containerOf(pod),
          image: imageOf(pod),
          ...(serves ? { ports: [port] } : { command: pod.command ?? ['tail', '-f', '/dev/null'] }),
        },
      ],
    },
  };
}

/** The name server is the cluster's own. */
function namespaceOfPod({ dns }: LabPod): string {
  return dns ? 'kube-system' : 'default';
}

/** @param hostIP address of its node */
export function podStatus(pod: LabPod, hostIP: string, now: string): Json {
  const state = { running: { startedAt: now } };
  return {
    phase: 'Running',
    podIP: pod.address,
    podIPs: [{ ip: pod.address }],
    hostIP,
    startTime: now,
    conditions: ['PodScheduled', 'Initialized', 'ContainersReady', 'Ready'].map(type => ({
      type,
      status: 'True',
      lastTransitionTime: now,
    })),
    containerStatuses: [
      {
        name: containerOf(pod),
        image: imageOf(pod),
        imageID: '',
        ready: true,
        started: true,
        restartCount: 0,
        state,
      },
    ],
  };
}

export function serviceObjects({ services }: Topology): Json[] {
  return services.map(service => {
    const [namespace, name] = service.name.split('/');
    return {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name, namespace, labels: service.selector },
      spec: {
        type: service.ports.some(port => port.nodePort !== undefined) ? 'NodePort' : 'ClusterIP',
        clusterIP: service.address,
        selector: service.selector,
        ports: service.ports,
        ...(service.externalTrafficPolicy === undefined
          ? {}
          : { externalTrafficPolicy: service.externalTrafficPolicy }),
      },
    };
  });
}
