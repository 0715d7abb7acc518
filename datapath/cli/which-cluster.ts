/** Which cluster's API a command speaks to: that of --kubeconfig, of KUBECONFIG, or of the only lab. */
import { existsSync } from 'node:fs';
import { ApiClient } from '../api/client/client.ts';
import { readKubeconfig } from '../api/client/kubeconfig.ts';
import { Lab } from '../lab/lab.ts';
import { kubeconfigOf } from '../lab/names.ts';
import { UsageError } from './exit.ts';

/** @throws UsageError where nothing says which, KubeconfigError */
export function openCluster(kubeconfig: string | undefined): ApiClient {
  return new ApiClient(readKubeconfig(kubeconfigPath(kubeconfig)));
}

/** Whether openCluster finds one without being told. */
export function isClusterHere(): boolean {
  return (process.env.KUBECONFIG ?? '') !== '' || labsWithApi().length > 0;
}

function labsWithApi(): string[] {
  return Lab.list().filter(name => existsSync(kubeconfigOf(name)));
}

/** @throws UsageError where nothing says which */
function kubeconfigPath(given: string | undefined): string {
  const named = given ?? process.env.KUBECONFIG;
  if (named !== undefined && named !== '') return named;
  const labs = labsWithApi();
  if (labs.length === 1) return kubeconfigOf(labs[0]!);
  const why = labs.length === 0 ? 'no lab with an API is up' : `several labs are up (${labs.join(', ')})`;
  throw new UsageError(`${why}: expected --kubeconfig FILE, or KUBECONFIG`);
}
