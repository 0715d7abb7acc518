/** Something the lab could not do, said in one sentence. `exitCode` is what the command ends with. */
export class LabError extends Error {
  override name = 'LabError';
  readonly exitCode: number;

  /** @param options.usage  the caller asked for something that cannot be: exit code 2 rather than 1 */
  constructor(message: string, options: { usage?: boolean; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.exitCode = options.usage ? 2 : 1;
  }
}

/** @param what makes namespaces. @throws LabError for an ordinary user */
export function requireRoot(what: string): void {
  if (process.getuid?.() === 0) return;
  throw new LabError(`${what} makes network namespaces: run it as root (CAP_NET_ADMIN, CAP_NET_RAW and CAP_SYS_ADMIN)`);
}
