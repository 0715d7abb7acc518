import { pathToFileURL } from 'node:url';
import { isMainThread } from 'node:worker_threads';

/** True for the module that `node` was started with, as opposed to one that is imported. @param url its import.meta.url */
export function isMainModule(url: string): boolean {
  return isMainThread && process.argv[1] !== undefined && url === pathToFileURL(process.argv[1]).href;
}
