/**
 * What runs where a container names an image: nothing is pulled. A well-known image stands for a server that comes along, or
 * for the host's own programs; any other is one that cannot be had. Pure.
 */

/** Servers that come along, by what they do. */
export type ServerKind = 'whoami' | 'nginx' | 'echoserver' | 'http-echo' | 'hello-app' | 'dns';

export interface Image {
  /** What the image runs itself; a container's `command` stands instead of it. */
  server?: ServerKind;
  /** Its port where no argument says another. */
  port?: number;
  /** ENTRYPOINT: what `args` are given to. */
  entrypoint?: string[];
  /** CMD: what `args` stand instead of. */
  command?: string[];
  /** An agent of a cluster's network: the lab's tools are its programs, and the node's datapath does its work. */
  agent?: true;
  /** Its programs are busybox's, also where the host has others of the same name. */
  busybox?: boolean;
}

const SHELL: Image = { command: ['sh'] };
const AGENT: Image = { entrypoint: ['sleep', 'infinity'], agent: true };

/** By repository, without registry where that is Docker Hub. */
const IMAGES: Record<string, Image> = {
  'traefik/whoami': { server: 'whoami', port: 80 },
  'containous/whoami': { server: 'whoami', port: 80 },
  nginx: { server: 'nginx', port: 80 },
  'nginxinc/nginx-unprivileged': { server: 'nginx', port: 8080 },
  'hashicorp/http-echo': { server: 'http-echo', port: 5678 },
  'gcr.io/google-samples/hello-app': { server: 'hello-app', port: 8080 },
  'us-docker.pkg.dev/google-samples/containers/gke/hello-app': { server: 'hello-app', port: 8080 },
  'coredns/coredns': { server: 'dns', port: 53 },
  'nicolaka/netshoot': { command: ['sh'] },
  busybox: { ...SHELL, busybox: true },
  alpine: { ...SHELL, busybox: true },
  'curlimages/curl': { entrypoint: ['curl'], command: ['--help'] },
  'quay.io/cilium/cilium': AGENT,
  'calico/node': AGENT,
  'quay.io/calico/node': AGENT,
  'ghcr.io/flannel-io/flannel': AGENT,
  'flannel/flannel': AGENT,
  ubuntu: { command: ['bash'] },
  debian: { command: ['bash'] },
};

/** In the project's own registries, old and new. */
const KUBERNETES_IMAGES: Record<string, Image> = {
  echoserver: { server: 'echoserver', port: 8080 },
  'e2e-test-images/echoserver': { server: 'echoserver', port: 8080 },
  'coredns/coredns': { server: 'dns', port: 53 },
  coredns: { server: 'dns', port: 53 },
  pause: { entrypoint: ['sleep', 'infinity'] },
  'e2e-test-images/busybox': { ...SHELL, busybox: true },
};
const KUBERNETES_REGISTRIES = [
  'registry.k8s.io/',
  'k8s.gcr.io/',
  'gcr.io/google_containers/',
  'gcr.io/google-containers/',
];

/** @returns undefined for an image that nobody here knows */
export function findImage(reference: string): Image | undefined {
  const repository = repositoryOf(reference);
  const registry = KUBERNETES_REGISTRIES.find(prefix => repository.startsWith(prefix));
  const [table, name] =
    registry === undefined ? [IMAGES, repository] : [KUBERNETES_IMAGES, repository.slice(registry.length)];
  return Object.hasOwn(table, name) ? table[name] : undefined;
}

/** `docker.io/library/nginx:1.27@sha256:...` -> `nginx` */
export function repositoryOf(reference: string): string {
  const untagged = reference.replace(/@.*$/, '').replace(/:[^:/]*$/, '');
  return untagged.replace(/^(index\.)?docker\.io\//, '').replace(/^library\//, '');
}

/** For messages: the images that run here. */
export function knownImages(): string[] {
  return [...Object.keys(IMAGES), ...Object.keys(KUBERNETES_IMAGES).map(name => `registry.k8s.io/${name}`)].sort();
}

/**
 * The words that a container runs: its own command, or what the image runs. (Kubernetes: `command` is instead of ENTRYPOINT
 * and CMD, `args` instead of CMD.)
 * @returns null where it is the image's server; its arguments are the container's
 */
export function wordsOf(
  image: Image,
  command: readonly string[] | undefined,
  args: readonly string[] | undefined,
): string[] | null {
  if (command !== undefined && command.length > 0) return [...command, ...(args ?? [])];
  if (image.server !== undefined) return null;
  return [...(image.entrypoint ?? []), ...(args !== undefined && args.length > 0 ? args : (image.command ?? []))];
}
