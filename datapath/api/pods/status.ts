/** The status of a pod, from what its containers do. Pure. (kubelet: pkg/kubelet/status/generate.go) */
import { withCondition } from '../controllers/cluster.ts';
import type { Json, KubeObject } from '../object.ts';

/** What one container of a pod does now. */
export interface ContainerState {
  name: string;
  image: string;
  /** As in containerStatuses: one of waiting, running, terminated. */
  state: Json;
  lastState?: Json;
  ready: boolean;
  started: boolean;
  restartCount: number;
}

export interface PodState {
  containers: readonly ContainerState[];
  initContainers: readonly ContainerState[];
  /** Undefined until it has one. */
  podIP?: string;
  hostIP: string;
  startTime: string;
}

export function podPhase(pod: KubeObject, { containers, initContainers }: PodState): string {
  const policy = pod.spec.restartPolicy;
  const failed = ({ state }: ContainerState): boolean =>
    state.terminated !== undefined && state.terminated.exitCode !== 0;
  if (initContainers.some(failed) && policy === 'Never') return 'Failed';
  if (initContainers.some(({ state }) => state.terminated === undefined)) return 'Pending';
  if (containers.some(({ state }) => state.running !== undefined)) return 'Running';
  if (containers.every(({ state }) => state.terminated !== undefined)) {
    if (policy === 'Always') return 'Running';
    if (!containers.some(failed)) return 'Succeeded';
    return policy === 'Never' ? 'Failed' : 'Running';
  }
  // One that has run and waits to be started again.
  return containers.some(({ restartCount, lastState }) => restartCount > 0 || lastState !== undefined)
    ? 'Running'
    : 'Pending';
}

/** The fields of status that whoever runs the pod sets. */
export function podStatus(pod: KubeObject, state: PodState, now: string): Json {
  const phase = podPhase(pod, state);
  const ended = phase === 'Succeeded' || phase === 'Failed';
  const unready = state.containers.filter(({ ready }) => !ready).map(({ name }) => name);
  const uninitialized = state.initContainers
    .filter(({ state: { terminated } }) => terminated?.exitCode !== 0)
    .map(({ name }) => name);
  const flag = (type: string, bad: readonly string[], reason: string, words: string): Json => {
    if (ended && type !== 'Initialized')
      return { type, status: 'False', reason: phase === 'Failed' ? 'PodFailed' : 'PodCompleted' };
    if (bad.length === 0) return { type, status: 'True' };
    return { type, status: 'False', reason, message: `containers with ${words} status: [${bad.join(' ')}]` };
  };
  const conditions = [
    { type: 'PodReadyToStartContainers', status: state.podIP === undefined ? 'False' : 'True' },
    flag('Initialized', uninitialized, 'ContainersNotInitialized', 'incomplete'),
    flag('ContainersReady', unready, 'ContainersNotReady', 'unready'),
    flag('Ready', unready, 'ContainersNotReady', 'unready'),
  ].reduce((all, condition) => withCondition(all, condition, now), pod.status?.conditions as Json[] | undefined);
  return {
    phase,
    conditions,
    hostIP: state.hostIP,
    hostIPs: [{ ip: state.hostIP }],
    startTime: state.startTime,
    ...(state.podIP === undefined ? {} : { podIP: state.podIP, podIPs: [{ ip: state.podIP }] }),
    containerStatuses: state.containers.map(statusOf),
    ...(state.initContainers.length === 0 ? {} : { initContainerStatuses: state.initContainers.map(statusOf) }),
  };
}

function statusOf({ name, image, state, lastState, ready, started, restartCount }: ContainerState): Json {
  return {
    name,
    image,
    imageID: '',
    ready,
    started,
    restartCount,
    state,
    ...(lastState === undefined ? {} : { lastState }),
  };
}
