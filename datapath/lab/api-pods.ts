/** Pods in a lab's API that the lab did not bring along: nothing starts them, which they say, and nothing has to end them. */
import type { Controller } from '../api/controllers/manager.ts';
import { type Json, placeOf } from '../api/object.ts';
import { LAB_POD } from './api-objects.ts';

const REASON = 'CreateContainerError';
const MESSAGE = 'a lab runs no other pods than those it was brought up with';

export const strayPods: Controller = {
  name: 'stray-pods',
  *keys(cluster) {
    for (const pod of cluster.values('Pod')) yield placeOf(pod);
  },
  *affected({ storage, place, type }) {
    if (storage === 'pods' && type !== 'DELETED') yield place;
  },
  async reconcile(key, cluster) {
    const [namespace, name] = key.split('/') as [string, string];
    const pod = cluster.find('Pod', namespace, name);
    if (pod?.spec.nodeName === undefined) return undefined;
    if (pod.metadata.deletionTimestamp !== undefined) {
      await cluster.delete(pod, 0);
      return undefined;
    }
    if (pod.metadata.annotations?.[LAB_POD] !== undefined || pod.status?.containerStatuses !== undefined)
      return undefined;
    await cluster.setStatus(pod, {
      containerStatuses: pod.spec.containers.map(({ name: container, image }: Json) => ({
        name: container,
        image,
        imageID: '',
        ready: false,
        restartCount: 0,
        state: { waiting: { reason: REASON, message: MESSAGE } },
      })),
    });
    await cluster.event(pod, 'Warning', 'Failed', `Error: ${MESSAGE}`);
    return undefined;
  },
};
