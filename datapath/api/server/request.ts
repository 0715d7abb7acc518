/** What a request asks for: its path, its query, in which form it wants its answer, and its body. */
import type { IncomingMessage } from 'node:http';
import { parseYaml } from '../../control/parse-yaml.ts';
import { badRequest, entityTooLarge, unsupportedMediaType } from '../errors.ts';
import type { Json } from '../object.ts';
import { decodeProtobuf, PROTOBUF } from '../schema/protobuf.ts';

/** A path of a kind: /api/v1/namespaces/NS/pods/NAME/log */
export interface ResourcePath {
  group: string;
  version: string;
  namespace: string | undefined;
  plural: string;
  name: string | undefined;
  subresource: string | undefined;
}

/** @returns undefined for a path that is none of a kind; groups and versions by themselves are not */
export function parseResourcePath(pathname: string): ResourcePath | undefined {
  let parts: string[];
  try {
    parts = pathname.split('/').slice(1).map(decodeURIComponent);
  } catch {
    throw badRequest(`the path ${pathname} is not well-formed`);
  }
  if (parts.at(-1) === '') parts.pop();
  let group = '';
  if (parts[0] === 'apis') {
    group = parts[1] ?? '';
    parts.splice(0, 2);
  } else if (parts[0] === 'api') {
    parts.splice(0, 1);
  } else {
    return undefined;
  }
  const version = parts.shift();
  if (version === undefined || parts.length === 0) return undefined;
  let namespace: string | undefined;
  const [first] = parts as [string];
  if (first === 'namespaces' && parts.length > 2 && parts[2] !== 'status' && parts[2] !== 'finalize') {
    namespace = parts[1];
    parts.splice(0, 2);
  }
  const [plural, name, subresource, ...rest] = parts;
  if (plural === undefined || rest.length > 0) return undefined;
  return { group, version, namespace, plural, name, subresource };
}

/** In which form a client wants objects. */
export type Form = 'object' | 'table' | 'partial';

/** The first of the forms that the client accepts and we can make. @returns undefined if there is none */
export function acceptedForm(accept: string | undefined): Form | undefined {
  if (accept === undefined || accept.trim() === '') return 'object';
  for (const range of accept.split(',')) {
    const [type, ...parameters] = range.split(';').map(part => part.trim());
    if (type !== 'application/json' && type !== '*/*' && type !== 'application/*') continue;
    const as = parameters.find(parameter => parameter.startsWith('as='))?.slice(3);
    if (as === undefined) return 'object';
    if (!parameters.includes('g=meta.k8s.io')) continue;
    if (as === 'Table' && parameters.includes('v=v1')) return 'table';
    if (as.startsWith('PartialObjectMetadata') && parameters.includes('v=v1')) return 'partial';
  }
  return undefined;
}

/** The version of aggregated discovery that the client accepts first, or undefined for the old form. */
export function acceptedDiscovery(accept: string | undefined): 'v2' | 'v2beta1' | undefined {
  for (const range of (accept ?? '').split(',')) {
    if (!range.includes('as=APIGroupDiscoveryList') || !range.includes('application/json')) continue;
    const version = /;v=(v2beta1|v2)(;|$)/.exec(range.replaceAll(' ', ''))?.[1];
    if (version !== undefined) return version as 'v2' | 'v2beta1';
  }
  return undefined;
}

/** The type of a body without its parameters: `application/json`. */
export function contentTypeOf(request: IncomingMessage): string {
  return (request.headers['content-type'] ?? 'application/json').split(';')[0]!.trim().toLowerCase();
}

/** @throws ApiError (413) before more than `limit` bytes are held */
export async function readBody(request: IncomingMessage, limit: number): Promise<Buffer> {
  const tooLarge = () => entityTooLarge(`the request has more than ${limit} bytes`);
  if (Number(request.headers['content-length'] ?? 0) > limit) throw tooLarge();
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of request) {
    length += (chunk as Buffer).length;
    if (length > limit) throw tooLarge();
    chunks.push(chunk as Buffer);
  }
  return Buffer.concat(chunks);
}

/** @throws ApiError (400, 415) */
export function decodeBody(body: Buffer, contentType: string): Json {
  if (contentType === PROTOBUF) return decodeProtobuf(body);
  const text = body.toString('utf8');
  // As a key it would be the prototype of whatever is copied from it.
  if (text.includes('__proto__')) throw badRequest('the body has a field __proto__');
  const isYaml = /yaml$/.test(contentType);
  if (!isYaml && !/json$/.test(contentType)) {
    throw unsupportedMediaType(
      `the body of the request was in an unknown format - accepted media types include: application/json, application/yaml (got ${contentType})`,
    );
  }
  try {
    if (!isYaml || text.trimStart().startsWith('{')) return JSON.parse(text);
  } catch (error) {
    throw badRequest(`the body of the request cannot be read: ${(error as Error).message}`);
  }
  const parsed = parseYaml(text, 'line');
  if ('faults' in parsed) throw badRequest(`the body of the request cannot be read: ${parsed.faults[0]}`);
  return parsed.values[0] as Json;
}
