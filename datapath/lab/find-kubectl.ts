/** Where kubectl is. */
import { existsSync, readdirSync } from 'node:fs';
import { homedir } from 'node:os';
import { delimiter, join } from 'node:path';

/** The machine's kubectl, or one that `scripts/setup --test` has put aside; undefined where there is neither. */
export function findKubectl(): string | undefined {
  const onPath = (process.env.PATH ?? '').split(delimiter).map(directory => join(directory, 'kubectl'));
  const found = onPath.find(path => existsSync(path));
  if (found !== undefined) return found;
  const cache = join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'tunpath');
  const kept = existsSync(cache) ? readdirSync(cache).filter(name => name.startsWith('kubectl-')) : [];
  return kept.length === 0 ? undefined : join(cache, kept.sort().at(-1)!);
}
