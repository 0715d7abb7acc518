/** One container of a pod: it is started, probed, and started again as its pod's restartPolicy says. */
import { existsSync, renameSync, statSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { type Json, type KubeObject, timestamp } from '../../api/object.ts';
import { ConfigError, environmentOf, expand, type Sources } from '../../api/pods/environment.ts';
import { findImage, type Image, knownImages, wordsOf } from '../../api/pods/images.ts';
import { type Prober, runProbe } from '../../api/pods/probes.ts';
import { startCommand } from '../../api/pods/process.ts';
import type { ContainerState } from '../../api/pods/status.ts';
import type { ProcessIdentity } from '../processes.ts';
import { findProgram, type Launch, RunningContainer, UNKNOWN_EXIT, wrapped } from './container-process.ts';

const FIRST_BACK_OFF_MS = 10_000;
const MAX_BACK_OFF_MS = 300_000;
/** One that has run so long begins anew. */
const FORGET_BACK_OFF_MS = 600_000;
const CONFIG_RETRY_MS = 2000;
const NOT_FOUND = 127;

const WHOAMI = fileURLToPath(new URL('../whoami.js', import.meta.url));
const DNS = fileURLToPath(new URL('../dns-server.js', import.meta.url));
const IMAGE_SERVER = fileURLToPath(new URL('./image-server.js', import.meta.url));

/** What a container needs of its pod. */
export interface Surroundings {
  namespace: string;
  hostname: string;
  /** Directories of programs; the second where the image's own are busybox's. */
  path: { host: string; busybox: string; tools: string };
  /** What every process has, besides what its container says. */
  env: NodeJS.ProcessEnv;
  sources: Sources;
  /** Domain and zone file of the cluster's names, for name servers. */
  zone: { domain: string; file: string };
  connect: Prober['connect'];
  /** Something of its state has changed. */
  changed(): void;
  event(type: 'Normal' | 'Warning', reason: string, message: string): void;
}

export class Container {
  readonly state: ContainerState;
  /** Absent while none runs. */
  running: RunningContainer | undefined;
  private readonly spec: Json;
  private readonly pod: KubeObject;
  private readonly around: Surroundings;
  readonly log: string;
  private stopping = false;
  private wake: () => void = () => {};
  private timers: NodeJS.Timeout[] = [];

  /** @param log path of its log; that of the run before has `.1` behind it */
  constructor(pod: KubeObject, spec: Json, around: Surroundings, log: string) {
    this.pod = pod;
    this.spec = spec;
    this.around = around;
    this.log = log;
    this.state = {
      name: spec.name,
      image: spec.image,
      state: { waiting: { reason: 'ContainerCreating' } },
      ready: false,
      started: false,
      restartCount: 0,
    };
  }

  /**
   * Runs it until it is not to be started again, or is told to end.
   * @param adopted what runs of it already
   * @param policy Always, OnFailure, Never
   */
  async run(policy: string, adopted?: ProcessIdentity): Promise<void> {
    let first = adopted === undefined ? undefined : RunningContainer.adopt(adopted, this.log);
    let lost = adopted !== undefined && first === undefined;
    let backOff = 0;
    while (!this.stopping) {
      const began = Date.now();
      if (lost) this.ended(UNKNOWN_EXIT, timestamp(began), 'ContainerStatusUnknown');
      const code = lost ? UNKNOWN_EXIT : await this.runOnce(first);
      first = undefined;
      lost = false;
      if (code === null || this.stopping) return;
      if (policy === 'Never' || (policy === 'OnFailure' && code === 0)) return;
      if (Date.now() - began > FORGET_BACK_OFF_MS) backOff = 0;
      if (backOff > 0) {
        const message = `back-off ${backOff / 1000}s restarting failed container=${this.state.name} pod=${this.pod.metadata.name}`;
        this.setWaiting('CrashLoopBackOff', message);
        this.around.event('Warning', 'BackOff', `Back-off restarting failed container ${this.state.name}`);
        await this.sleep(backOff);
      }
      backOff = Math.min(MAX_BACK_OFF_MS, backOff === 0 ? FIRST_BACK_OFF_MS : 2 * backOff);
      if (!this.stopping) this.state.restartCount++;
    }
  }

  /** Starts nothing more; what runs has to be told. */
  stop(): void {
    this.stopping = true;
    this.endTimers();
    this.wake();
  }

  /** Its command, the user that it runs as and its variables, for another command in it. */
  launchOf(words: readonly string[]): Launch {
    const { namespace, hostname, env } = this.around;
    const image = findImage(this.spec.image) ?? {};
    const security = { ...this.pod.spec.securityContext, ...this.spec.securityContext };
    const user =
      security.runAsUser === undefined ? {} : { user: { uid: security.runAsUser, gid: security.runAsGroup ?? 0 } };
    const cwd = existsSync(this.spec.workingDir ?? '/') ? (this.spec.workingDir ?? '/') : '/';
    const own = environmentOf(this.pod, this.spec, this.around.sources);
    return {
      namespace,
      hostname,
      words,
      cwd,
      path: own.PATH ?? this.pathOf(image),
      env: { ...env, HOSTNAME: hostname, HOME: '/root', ...own, PATH: this.around.path.host },
      ...user,
    };
  }

  /** Runs a command in it. @returns its exit status */
  async exec(command: readonly string[], timeoutMs: number): Promise<number> {
    const launch = this.launchOf(command);
    const child = startCommand(wrapped(launch), { stdin: false, tty: false, env: launch.env });
    child.stdout.resume();
    child.stderr?.resume();
    const timer = setTimeout(child.kill, timeoutMs);
    try {
      return await child.exit;
    } finally {
      clearTimeout(timer);
    }
  }

  /** @returns its exit status; null where it is not to be tried again */
  private async runOnce(adopted: RunningContainer | undefined): Promise<number | null> {
    const startedAt = timestamp(Date.now());
    let process = adopted;
    if (process === undefined) {
      const started = await this.start();
      if (started === null || typeof started === 'number') return started;
      process = started;
    }
    this.running = process;
    this.state.started = this.spec.startupProbe === undefined;
    this.state.ready = this.spec.readinessProbe === undefined && this.state.started;
    this.setState({ running: { startedAt } });
    if (adopted === undefined) this.around.event('Normal', 'Started', `Started container ${this.state.name}`);
    this.startProbes();
    if (this.stopping) process.kill('SIGTERM');
    const exitCode = await process.exit;
    this.endTimers();
    this.running = undefined;
    this.ended(exitCode, startedAt, exitCode === 0 ? 'Completed' : 'Error');
    return exitCode;
  }

  /** @returns a running process; an exit status where it failed at once; null where it is not to be tried again */
  private async start(): Promise<RunningContainer | number | null> {
    const { image: reference, name } = this.spec;
    const image = findImage(reference);
    if (image === undefined) {
      const message = `no image of this name is here: expected one of ${knownImages().join(', ')}`;
      this.around.event('Warning', 'Failed', `Failed to pull image "${reference}": ${message}`);
      this.around.event('Warning', 'Failed', 'Error: ImagePullBackOff');
      this.setWaiting('ImagePullBackOff', `Back-off pulling image "${reference}": ${message}`);
      return null;
    }
    this.around.event('Normal', 'Pulled', `Container image "${reference}" already present on machine`);
    let launch: Launch;
    try {
      launch = this.launchOf([]);
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      this.setWaiting('CreateContainerConfigError', error.message);
      this.around.event('Warning', 'Failed', `Error: ${error.message}`);
      await this.sleep(CONFIG_RETRY_MS);
      return this.stopping ? null : this.start();
    }
    const env = launch.env as Record<string, string>;
    const inner = (words: string[] | undefined): string[] | undefined => words?.map(word => expand(word, env));
    const words = wordsOf(image, inner(this.spec.command), inner(this.spec.args));
    if (words !== null && !findProgram(words[0]!, launch.path!)) {
      const message = `exec: "${words[0]}": executable file not found in $PATH`;
      this.around.event('Warning', 'Failed', `Error: ${message}`);
      this.ended(NOT_FOUND, timestamp(Date.now()), 'StartError', message);
      return NOT_FOUND;
    }
    this.turnLog();
    const from = existsSync(this.log) ? statSync(this.log).size : 0;
    const argv = words ?? this.serverWords(image, inner(this.spec.args) ?? [], env);
    const process = await RunningContainer.start(
      { ...launch, words: argv },
      this.log,
      this.spec.stdin === true,
      this.spec.tty === true,
    );
    // Its port is open when others hear that it runs.
    if (words === null) await process.untilPrinted('listening', from);
    this.around.event('Normal', 'Created', `Created container: ${name}`);
    return process;
  }

  /** The command of a server that comes along. */
  private serverWords(image: Image, args: readonly string[], env: Readonly<Record<string, string>>): string[] {
    const { hostname, sources, zone } = this.around;
    const flag = (name: string): string | undefined => {
      const at = args.findIndex(arg => new RegExp(`^--?${name}(=|$)`).test(arg));
      if (at < 0) return undefined;
      return args[at]!.includes('=') ? args[at]!.slice(args[at]!.indexOf('=') + 1) : args[at + 1];
    };
    const node = process.execPath;
    const port = String(image.port);
    switch (image.server!) {
      case 'whoami':
        return [node, WHOAMI, flag('port') ?? env.WHOAMI_PORT_NUMBER ?? port, hostname, '127.0.0.1', sources.podIP];
      case 'dns':
        return [node, DNS, port, zone.domain, `@${zone.file}`];
      case 'http-echo':
        return [
          node,
          IMAGE_SERVER,
          'http-echo',
          (flag('listen') ?? `:${port}`).replace(/^.*:/, ''),
          hostname,
          flag('text') ?? env.ECHO_TEXT ?? '',
        ];
      case 'hello-app':
        return [node, IMAGE_SERVER, 'hello-app', env.PORT ?? port, hostname];
      default:
        return [node, IMAGE_SERVER, image.server!, port, hostname];
    }
  }

  private pathOf(image: Image): string {
    const { host, busybox, tools } = this.around.path;
    if (image.agent) return `${tools}:${host}:${busybox}`;
    return image.busybox ? `${busybox}:${host}` : `${host}:${busybox}`;
  }

  /** The log of the run before is kept, and one alone. */
  private turnLog(): void {
    if (existsSync(this.log) && this.state.restartCount > 0) renameSync(this.log, `${this.log}.1`);
  }

  private startProbes(): void {
    const { startupProbe, readinessProbe, livenessProbe } = this.spec;
    const begin = (): void => {
      if (readinessProbe !== undefined) {
        this.probe(readinessProbe, 'Readiness', well => {
          if (this.state.ready === well) return;
          this.state.ready = well;
          this.around.changed();
        });
      }
      if (livenessProbe !== undefined) this.probe(livenessProbe, 'Liveness', well => this.unlessWell(well, 'liveness'));
    };
    if (startupProbe === undefined) {
      begin();
      return;
    }
    let isOver = false;
    this.probe(startupProbe, 'Startup', well => {
      if (isOver) return;
      if (!well) return this.unlessWell(false, 'startup');
      isOver = true;
      this.state.started = true;
      this.state.ready = readinessProbe === undefined;
      this.endTimers();
      this.around.changed();
      begin();
    });
  }

  private unlessWell(well: boolean, which: string): void {
    if (well || this.running === undefined) return;
    this.around.event('Normal', 'Killing', `Container ${this.state.name} failed ${which} probe, will be restarted`);
    this.running.kill('SIGTERM');
    const { running } = this;
    setTimeout(() => running.kill('SIGKILL'), (this.pod.spec.terminationGracePeriodSeconds ?? 30) * 1000).unref();
  }

  /** @param heard called each time that the thresholds say so */
  private probe(probe: Json, what: string, heard: (well: boolean) => void): void {
    let successes = 0;
    let failures = 0;
    const { running } = this;
    const look = async (): Promise<void> => {
      const prober = {
        connect: this.around.connect,
        exec: (command: readonly string[], ms: number) => this.exec(command, ms),
      };
      const fault = await runProbe(probe, this.spec, prober);
      if (this.stopping || this.running !== running) return;
      if (fault === undefined) {
        failures = 0;
        if (++successes >= probe.successThreshold) heard(true);
        return;
      }
      successes = 0;
      this.around.event('Warning', 'Unhealthy', `${what} probe failed: ${fault}`);
      if (++failures >= probe.failureThreshold) heard(false);
    };
    const begin = setTimeout(
      () => {
        void look();
        this.timers.push(setInterval(look, probe.periodSeconds * 1000));
      },
      (probe.initialDelaySeconds ?? 0) * 1000,
    );
    this.timers.push(begin);
  }

  private endTimers(): void {
    for (const timer of this.timers) clearTimeout(timer);
    this.timers = [];
  }

  private ended(exitCode: number, startedAt: string, reason: string, message?: string): void {
    this.state.ready = false;
    this.state.started = false;
    const finishedAt = timestamp(Date.now());
    const signal = exitCode > 128 ? { signal: exitCode - 128 } : {};
    const said = message === undefined ? {} : { message };
    this.setState({ terminated: { exitCode, ...signal, reason, ...said, startedAt, finishedAt } });
  }

  private setWaiting(reason: string, message: string): void {
    this.setState({ waiting: { reason, message } });
  }

  private setState(state: Json): void {
    if (this.state.state.terminated !== undefined) this.state.lastState = { terminated: this.state.state.terminated };
    this.state.state = state;
    this.around.changed();
  }

  private sleep(ms: number): Promise<void> {
    return new Promise(resolve => {
      const timer = setTimeout(resolve, ms);
      this.wake = () => {
        clearTimeout(timer);
        resolve();
      };
      if (this.stopping) this.wake();
    });
  }
}

/** The data of a ConfigMap or Secret as text. */
export function dataOf(object: KubeObject | undefined, kind: string): Record<string, string> | undefined {
  if (object === undefined) return undefined;
  const data = (object.data ?? {}) as Record<string, string>;
  if (kind === 'ConfigMap') return data;
  return Object.fromEntries(Object.entries(data).map(([key, text]) => [key, Buffer.from(text, 'base64').toString()]));
}

/** What of a pod is not done, in words for people. */
export function unsupportedParts({ spec }: KubeObject): string[] {
  const volumes = (spec.volumes ?? []).filter(({ name }: Json) => !String(name).startsWith('kube-api-access'));
  return [
    ...(volumes.length > 0
      ? [
          `volumes (${volumes.map(({ name }: Json) => name).join(', ')}) are not mounted: containers see the host's files`,
        ]
      : []),
    ...(spec.containers.some(({ lifecycle }: Json) => lifecycle !== undefined) ? ['lifecycle hooks are not run'] : []),
    ...(spec.containers.some(({ ports }: Json) => ports?.some(({ hostPort }: Json) => hostPort) && !spec.hostNetwork)
      ? ['hostPort is not opened']
      : []),
  ];
}
