/** Errors as Kubernetes clients read them: kind Status, with a reason that programs know and a message for people. */

/** One cause of an error, where there are several. */
export interface Cause {
  reason?: string;
  message: string;
  field?: string;
}

export interface Status {
  kind: 'Status';
  apiVersion: 'v1';
  metadata: Record<string, never>;
  status: 'Success' | 'Failure';
  message?: string;
  reason?: string;
  details?: {
    name?: string;
    group?: string;
    kind?: string;
    uid?: string;
    causes?: Cause[];
    retryAfterSeconds?: number;
  };
  code: number;
}

/** What an error is about: `{group: 'apps', plural: 'deployments'}` and a name. */
export interface Subject {
  group: string;
  plural: string;
}

export class ApiError extends Error {
  readonly status: Status;

  constructor(code: number, reason: string, message: string, details?: Status['details']) {
    super(message);
    this.status = { kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Failure', message, reason, code };
    if (details !== undefined) this.status.details = details;
  }

  get code(): number {
    return this.status.code;
  }

  get reason(): string {
    return this.status.reason!;
  }
}

/** `deployments.apps`, as messages name a kind. */
function titleOf({ group, plural }: Subject): string {
  return group === '' ? plural : `${plural}.${group}`;
}

function detailsOf({ group, plural }: Subject, name: string): Status['details'] {
  return { name, ...(group === '' ? {} : { group }), kind: plural };
}

export function notFound(subject: Subject, name: string): ApiError {
  return new ApiError(404, 'NotFound', `${titleOf(subject)} "${name}" not found`, detailsOf(subject, name));
}

export function alreadyExists(subject: Subject, name: string): ApiError {
  return new ApiError(409, 'AlreadyExists', `${titleOf(subject)} "${name}" already exists`, detailsOf(subject, name));
}

/** Someone else has written since the caller read. */
export function conflict(subject: Subject, name: string, message?: string): ApiError {
  const why = message ?? 'the object has been modified; please apply your changes to the latest version and try again';
  return new ApiError(
    409,
    'Conflict',
    `Operation cannot be fulfilled on ${titleOf(subject)} "${name}": ${why}`,
    detailsOf(subject, name),
  );
}

/** The object is well-formed, but its values are not right. @param kind `Service`, as messages name it */
export function invalid(group: string, kind: string, name: string, causes: Cause[]): ApiError {
  const title = group === '' ? kind : `${kind}.${group}`;
  const texts = causes.map(({ field, message }) => (field === undefined ? message : `${field}: ${message}`));
  const text = texts.length === 1 ? texts[0] : `[${texts.join(', ')}]`;
  return new ApiError(422, 'Invalid', `${title} "${name}" is invalid: ${text}`, {
    name,
    ...(group === '' ? {} : { group }),
    kind,
    causes,
  });
}

export function badRequest(message: string): ApiError {
  return new ApiError(400, 'BadRequest', message);
}

export function unauthorized(): ApiError {
  return new ApiError(401, 'Unauthorized', 'Unauthorized');
}

/** The caller's version of a list is no longer known: it has to list again. */
export function expired(message: string): ApiError {
  return new ApiError(410, 'Expired', message);
}

export function methodNotAllowed(method: string, path: string): ApiError {
  return new ApiError(405, 'MethodNotAllowed', `the server does not allow ${method} on ${path}`);
}

/** @param retryAfterSeconds when the client should try again */
export function tooManyRequests(message: string, retryAfterSeconds = 1): ApiError {
  return new ApiError(429, 'TooManyRequests', message, { retryAfterSeconds });
}

export function entityTooLarge(message: string): ApiError {
  return new ApiError(413, 'RequestEntityTooLarge', message);
}

export function unsupportedMediaType(message: string): ApiError {
  return new ApiError(415, 'UnsupportedMediaType', message);
}

export function serviceUnavailable(message: string): ApiError {
  return new ApiError(503, 'ServiceUnavailable', message);
}

export function internalError(message: string): ApiError {
  return new ApiError(500, 'InternalError', `Internal error occurred: ${message}`);
}

export function success(details?: Status['details']): Status {
  const status: Status = { kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Success', code: 200 };
  return details === undefined ? status : { ...status, details };
}
