/** What can be done with the containers of pods that run: the interface between the API and whoever runs them. */
import type { Duplex, Readable, Writable } from 'node:stream';
import type { KubeObject } from '../object.ts';

/** A process in a container. */
export interface ContainerProcess {
  /** Absent where there is nothing to write to. */
  stdin?: Writable;
  /** With a terminal, what it prints in all. */
  stdout: Readable;
  /** Absent with a terminal. */
  stderr?: Readable;
  /** Sets the size of the terminal. */
  resize?(columns: number, rows: number): void;
  /** Its exit status; 128 and the number of the signal that ended it. */
  exit: Promise<number>;
  kill(): void;
}

export interface LogOptions {
  follow: boolean;
  /** Only so many lines from the end. */
  tailLines?: number;
  limitBytes?: number;
  /** Of the container's run before this one. */
  previous: boolean;
}

export interface PodRuntime {
  /** @throws ApiError where the pod does not run */
  exec(
    pod: KubeObject,
    container: string,
    command: readonly string[],
    options: { stdin: boolean; tty: boolean },
  ): Promise<ContainerProcess>;
  /** What the container's own process prints from now on. @throws ApiError */
  attach(pod: KubeObject, container: string, options: { stdin: boolean; tty: boolean }): Promise<ContainerProcess>;
  /** @throws ApiError */
  logs(pod: KubeObject, container: string, options: LogOptions): Promise<Readable>;
  /** A connection to a TCP port of the pod. @throws Error when nobody answers */
  connect(pod: KubeObject, port: number): Promise<Duplex>;
}
