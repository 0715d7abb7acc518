/** What is in the place of a device that has been closed: nothing comes from it, and nothing gets through. */
import type { Device } from './device.ts';
import { EBADFD } from './errors.ts';

export const gone: Device = {
  name: '',
  layer: 3,
  mtu: 65535,
  offloads: 0,
  fd: -1,
  readBurst: () => 0,
  write: () => EBADFD,
  close: () => {},
};
