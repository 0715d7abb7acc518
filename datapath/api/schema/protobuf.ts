/**
 * Objects in Kubernetes' protobuf form, read into JSON: `k8s`, a zero byte, then a message runtime.Unknown around the object
 * (apimachinery/pkg/runtime/serializer/protobuf). What a message holds, the schema says; protobuf-fields.ts, under which number.
 */
import { badRequest, unsupportedMediaType } from '../errors.ts';
import type { Json } from '../object.ts';
import { findKind } from '../resources.ts';
import { definition, definitionName, kindSchema, resolveRef, type Schema } from './definitions.ts';
import { FIELDS } from './protobuf-fields.ts';

export const PROTOBUF = 'application/vnd.kubernetes.protobuf';

const MAGIC = Buffer.from('k8s\0');
const REF = '#/components/schemas/';

/** Go writes these also when they are zero, which JSON leaves out. */
const UNSET_AT_ZERO = new Set([
  ...[
    'generation',
    'minReadySeconds',
    'nodePort',
    'hostPort',
    'healthCheckNodePort',
    'hostNetwork',
    'hostPID',
    'hostIPC',
  ],
  ...['stdin', 'stdinOnce', 'tty', 'readOnly', 'paused', 'publishNotReadyAddresses', 'initialDelaySeconds'],
  ...['timeoutSeconds', 'periodSeconds', 'successThreshold', 'failureThreshold', 'readOnlyRootFilesystem'],
]);

/** Maps of bytes, which JSON has as base64. */
const BYTES = new Set(['Secret.data', 'ConfigMap.binaryData']);

interface Field {
  number: number;
  /** Of wire type 0: the value. */
  value: number;
  /** Of wire type 2: the contents; otherwise empty. */
  bytes: Buffer;
}

/** Kinds that are asked of the API but are no resources. Of reviews nobody reads more than the kind. */
const OTHERS: Record<string, string | null> = {
  DeleteOptions: 'io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions',
  Eviction: 'io.k8s.api.policy.v1.Eviction',
  SelfSubjectAccessReview: null,
  SelfSubjectReview: null,
};

/** @throws ApiError (400, 415) for bytes that are no such message, or one of a kind that is not read in this form */
export function decodeProtobuf(body: Buffer): Json {
  if (!body.subarray(0, 4).equals(MAGIC)) throw badRequest('the body does not begin as protobuf does');
  let apiVersion = '';
  let kind = '';
  let raw: Buffer = Buffer.alloc(0);
  for (const field of fieldsOf(body.subarray(4))) {
    if (field.number === 2) raw = field.bytes;
    if (field.number !== 1) continue;
    for (const { number, bytes } of fieldsOf(field.bytes)) {
      if (number === 1) apiVersion = bytes.toString();
      if (number === 2) kind = bytes.toString();
    }
  }
  const resource = findKind(apiVersion, kind);
  const other = resource === undefined ? OTHERS[kind] : undefined;
  if (other === null) return { apiVersion, kind };
  if ((resource === undefined && other === undefined) || FIELDS[kind] === undefined) {
    throw unsupportedMediaType(`${apiVersion}, Kind=${kind} is not read as protobuf: send application/json`);
  }
  const version = apiVersion.slice(apiVersion.indexOf('/') + 1);
  const schema = other === undefined ? kindSchema(resource!, version) : definition(other);
  return {
    ...decodeMessage(raw, other === undefined ? definitionName(resource!, version) : other, schema),
    apiVersion,
    kind,
  };
}

function decodeMessage(bytes: Buffer, name: string, schema: Schema): Record<string, Json> {
  const type = name.slice(name.lastIndexOf('.') + 1);
  const names = FIELDS[type]?.split(' ');
  if (names === undefined) throw unsupportedMediaType(`${type} is not read as protobuf: send application/json`);
  const message: Record<string, Json> = {};
  for (const field of fieldsOf(bytes)) {
    const named = names[field.number - 1];
    if (named === undefined || named === '-') {
      throw unsupportedMediaType(`field ${field.number} of ${type} is not read as protobuf: send application/json`);
    }
    const [key, inner] = named.split('@') as [string, string | undefined];
    if (inner !== undefined) {
      // Its fields are those of this message's schema, or of its own where they are a type beside it.
      Object.assign(message, decodeMessage(field.bytes, inner, schema));
      continue;
    }
    const property = schema.properties?.[key];
    // What nobody but the API says, or a field that this version of the schemas does not have.
    if (property === undefined || key === 'status') continue;
    const target = resolveRef(property);
    if (target.type === 'array') {
      message[key] = [...(message[key] ?? []), decodeValue(field, property.items ?? target.items!, false)];
    } else if (typeof target.additionalProperties === 'object' && target.properties === undefined) {
      const [at, value] = decodeEntry(field.bytes, target.additionalProperties, BYTES.has(`${type}.${key}`));
      message[key] = { ...message[key], [at]: value };
    } else {
      const value = decodeValue(field, property, false);
      const isUnset = value === undefined || value === '' || (!value && UNSET_AT_ZERO.has(key));
      if (!isUnset) message[key] = value;
    }
  }
  return message;
}

function decodeEntry(bytes: Buffer, schema: Schema, isBytes: boolean): [string, Json] {
  let key = '';
  let value: Json = '';
  for (const field of fieldsOf(bytes)) {
    if (field.number === 1) key = field.bytes.toString();
    if (field.number === 2) value = decodeValue(field, schema, isBytes);
  }
  return [key, value];
}

function decodeValue(field: Field, schema: Schema, isBytes: boolean): Json {
  const ref = (schema.$ref ?? schema.allOf?.[0]?.$ref)?.slice(REF.length);
  if (ref === undefined) {
    if (schema.type === 'boolean') return field.value !== 0;
    if (schema.type === 'integer') return field.value;
    return isBytes ? field.bytes.toString('base64') : field.bytes.toString();
  }
  const type = ref.slice(ref.lastIndexOf('.') + 1);
  const inner = (number: number): Field | undefined => fieldsOf(field.bytes).find(other => other.number === number);
  if (type === 'Time' || type === 'MicroTime') {
    const seconds = inner(1)?.value;
    return seconds === undefined ? undefined : new Date(seconds * 1000).toISOString().replace('.000Z', 'Z');
  }
  if (type === 'Quantity') return inner(1)?.bytes.toString();
  if (type === 'IntOrString') return inner(1)?.value === 1 ? inner(3)?.bytes.toString() : (inner(2)?.value ?? 0);
  return decodeMessage(field.bytes, ref, resolveRef(schema));
}

/** The fields of a message. @throws ApiError (400) where it ends too early */
function fieldsOf(bytes: Buffer): Field[] {
  const fields: Field[] = [];
  let at = 0;
  const varint = (): number => {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = bytes[at++];
      if (byte === undefined) break;
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return Number(BigInt.asIntN(64, value));
    }
    throw badRequest('the protobuf message is cut off');
  };
  while (at < bytes.length) {
    const tag = varint();
    const wire = tag & 7;
    const field: Field = { number: tag >>> 3, value: 0, bytes: Buffer.alloc(0) };
    if (wire === 0) field.value = varint();
    else if (wire === 2) {
      const length = varint();
      if (length < 0 || length > bytes.length - at) throw badRequest('the protobuf message is cut off');
      field.bytes = bytes.subarray(at, at + length);
      at += length;
    } else if (wire === 1 || wire === 5) at += wire === 1 ? 8 : 4;
    else throw badRequest(`the protobuf message has a field of wire type ${wire}`);
    fields.push(field);
  }
  return fields;
}
