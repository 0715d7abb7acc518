/** exec, attach, logs and port-forward of a lab's pods: their processes are in their namespaces on this machine. */
import { existsSync } from 'node:fs';
import { badRequest } from '../../api/errors.ts';
import type { KubeObject } from '../../api/object.ts';
import { readLog, startCommand } from '../../api/pods/process.ts';
import type { PodRuntime } from '../../api/streams/runtime.ts';
import { LAB_POD } from '../api-objects.ts';
import { memberEnvironment, stateDirOf } from '../names.ts';
import { connectInside } from './connect.ts';
import { wrapped } from './container-process.ts';
import type { Kubelet } from './kubelet.ts';

/** @param kubelet undefined as long as there is none: then no pod runs */
export function labRuntime(lab: string, kubelet: () => Kubelet | undefined): PodRuntime {
  const labPodOf = (pod: KubeObject): string | undefined => pod.metadata.annotations?.[LAB_POD];
  /** @throws ApiError (400) for a pod that does not run */
  const namespaceOf = (pod: KubeObject): string => {
    const found = kubelet()?.namespaceFor(pod);
    if (found === undefined || pod.status?.phase !== 'Running') {
      throw badRequest(`pod ${pod.metadata.name} does not run (${pod.status?.phase ?? 'Unknown'})`);
    }
    return found;
  };
  const runningOf = (pod: KubeObject, name: string) => {
    const running = kubelet()?.workerOf(pod)?.container(name)?.running;
    if (running === undefined) throw badRequest(`container ${name} of pod ${pod.metadata.name} does not run`);
    return running;
  };
  return {
    async exec(pod, name, command, options) {
      const namespace = namespaceOf(pod);
      if (labPodOf(pod) !== undefined) {
        const env = { ...memberEnvironment(lab), HOSTNAME: pod.metadata.name };
        const launch = { namespace, hostname: pod.metadata.name, words: command, env };
        return startCommand(wrapped(launch), { ...options, env });
      }
      runningOf(pod, name);
      const launch = kubelet()!.workerOf(pod)!.container(name)!.launchOf(command);
      return startCommand(wrapped(launch), { ...options, env: launch.env });
    },
    async attach(pod, name, { stdin }) {
      if (labPodOf(pod) !== undefined) {
        throw badRequest(
          `pod ${pod.metadata.name} came with the lab, which holds no end of its streams: use exec, or logs -f`,
        );
      }
      return runningOf(pod, name).attach(stdin);
    },
    async logs(pod, name, options) {
      const own = labPodOf(pod);
      if (own !== undefined) {
        if (options.previous) throw badRequest('previous terminated container not found');
        const path = `${stateDirOf(lab)}/${own}.log`;
        return readLog(existsSync(path) ? path : '/dev/null', options, () => !existsSync(path));
      }
      const path = `${stateDirOf(lab)}/pods/${pod.metadata.uid}/${name}.log${options.previous ? '.1' : ''}`;
      if (!existsSync(path)) {
        if (options.previous)
          throw badRequest(`previous terminated container "${name}" in pod "${pod.metadata.name}" not found`);
        const waiting = pod.status?.containerStatuses?.find((status: { name: string }) => status.name === name)?.state
          ?.waiting;
        const why = waiting === undefined ? 'has not started' : `is waiting to start: ${waiting.reason}`;
        throw badRequest(`container "${name}" in pod "${pod.metadata.name}" ${why}`);
      }
      return readLog(path, options, () => kubelet()?.workerOf(pod)?.container(name)?.running === undefined);
    },
    connect: (pod, port) => connectInside(namespaceOf(pod), '127.0.0.1', port),
  };
}
