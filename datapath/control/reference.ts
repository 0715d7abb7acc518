/**
 * The configuration described field by field, out of the schema that also checks it: what `tunpath explain-config` prints,
 * docs/configuration.md and the JSON Schema for editors. The texts stand in field-texts.ts.
 */
import { z } from 'zod';
import { KIND, writtenConfig } from './config.ts';
import { FIELD_TEXTS, textPathOf } from './field-texts.ts';
import { SEGMENT_KIND, segmentConfig } from './segment-config.ts';
import { UNDERLAY_KIND, underlayConfig } from './underlay.ts';

/** One field. */
export interface Field {
  /** From the root, lists with `[]`: `spec.pods[].address`. */
  path: string;
  /** "text", "whole number from 1 to 65535", "one of a, b", "list of maps"... */
  type: string;
  /** As it would be written; undefined where it has none, or one that depends on other values. */
  default?: string;
  required: boolean;
  /** Where a map has several forms: those that have this field, by `kind` or `protocol`. */
  only?: string;
  text: string;
}

interface JsonSchema {
  type?: string;
  description?: string;
  const?: unknown;
  enum?: unknown[];
  minimum?: number;
  maximum?: number;
  default?: unknown;
  properties?: Record<string, JsonSchema>;
  required?: string[];
  items?: JsonSchema;
  prefixItems?: JsonSchema[];
  anyOf?: JsonSchema[];
  oneOf?: JsonSchema[];
  not?: object;
  additionalProperties?: boolean | JsonSchema;
  $schema?: string;
}

/** A kind of document, and what its fields mean, by textPathOf. */
export interface ReferenceKind {
  kind: string;
  schema: z.ZodType;
  texts: Readonly<Record<string, string>>;
}

export const CONFIG_KINDS: readonly ReferenceKind[] = [
  { kind: KIND, schema: writtenConfig, texts: FIELD_TEXTS[KIND]! },
  { kind: SEGMENT_KIND, schema: segmentConfig, texts: FIELD_TEXTS[SEGMENT_KIND]! },
  { kind: UNDERLAY_KIND, schema: underlayConfig, texts: FIELD_TEXTS[UNDERLAY_KIND]! },
];

/** What tells the forms of a map from each other. */
const DISCRIMINATORS = ['kind', 'protocol'];

/** A kind as a JSON Schema of draft 2020-12; a rule that it cannot say stands as the description of its value. */
function jsonSchemaOf({ schema }: ReferenceKind): JsonSchema {
  return z.toJSONSchema(schema, {
    io: 'input',
    unrepresentable: 'any',
    override: ({ zodSchema, jsonSchema }) => {
      const { type } = zodSchema._zod.def;
      if (type === 'custom') Object.assign(jsonSchema, describeRule(zodSchema as unknown as z.ZodType));
      if (type === 'pipe') {
        const { out } = (zodSchema as unknown as z.ZodPipe)._zod.def;
        // One network, or a list of them: what stands before the pipe takes both.
        if (out._zod.def.type === 'array' && Object.keys(jsonSchema).length === 0) {
          Object.assign(jsonSchema, { type: ['string', 'array'], description: 'a network or a list of networks' });
        }
      }
    },
  }) as JsonSchema;
}

/** What a rule in code says that it expects. */
function describeRule(schema: z.ZodType): JsonSchema {
  const expectedOf = (value: unknown) => schema.safeParse(value).error?.issues[0].message;
  const expected = expectedOf('') ?? expectedOf(null) ?? 'any value';
  const takesText = !/whole number|true, false|list of|VALUE\/MASK/.test(expected);
  return { ...(takesText ? { type: 'string' } : {}), description: expected };
}

/** Every field of a kind, in the order of the schema. */
export function fieldsOf(kind: ReferenceKind): Field[] {
  const fields = new Map<string, Field & { forms: string[] }>();
  collect(jsonSchemaOf(kind), '', kind, fields);
  return [...fields.values()].map(({ forms, ...field }) =>
    forms.length === 0 ? field : { ...field, only: forms.join(', ') },
  );
}

type Collected = Map<string, Field & { forms: string[] }>;

function collect(schema: JsonSchema, prefix: string, kind: ReferenceKind, into: Collected, form?: string): void {
  const forms = schema.oneOf ?? schema.anyOf;
  if (forms?.some(({ properties }) => properties !== undefined)) {
    for (const one of forms) collect(one, prefix, kind, into, formOf(one));
    return;
  }
  if (schema.items !== undefined) collect(schema.items, `${prefix}[]`, kind, into, form);
  for (const [name, property] of Object.entries(schema.properties ?? {})) {
    // A field that this form refuses.
    if (property.not !== undefined || (form !== undefined && isRefused(property))) continue;
    const path = prefix === '' ? name : `${prefix}.${name}`;
    const known = into.get(path);
    if (known === undefined) {
      into.set(path, {
        path,
        type: typeOf(property),
        ...(property.default === undefined ? {} : { default: inYaml(property.default) }),
        required: schema.required?.includes(name) ?? false,
        text: kind.texts[textPathOf(path)] ?? '',
        forms: form === undefined ? [] : [form],
      });
    } else {
      if (form !== undefined) known.forms.push(form);
      if (!known.type.includes(typeOf(property))) known.type = `${known.type}, ${typeOf(property)}`;
    }
    collect(property, path, kind, into);
  }
}

/** A kind for editors: with the texts of the fields beside their rules. */
export function editorSchema(kinds: readonly ReferenceKind[]): object {
  const schemas = kinds.map(kind => {
    const { $schema, ...schema } = jsonSchemaOf(kind);
    annotate(schema, '', kind);
    return schema;
  });
  return {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    title: 'tunpath configuration',
    oneOf: schemas,
  };
}

function annotate(schema: JsonSchema, prefix: string, kind: ReferenceKind): void {
  for (const form of schema.oneOf ?? schema.anyOf ?? []) annotate(form, prefix, kind);
  if (schema.items !== undefined) annotate(schema.items, `${prefix}[]`, kind);
  for (const [name, property] of Object.entries(schema.properties ?? {})) {
    const path = prefix === '' ? name : `${prefix}.${name}`;
    const text = kind.texts[textPathOf(path)];
    const rule = property.description;
    if (text !== undefined) property.description = rule === undefined ? text : `${text} Expected: ${rule}.`;
    annotate(property, path, kind);
  }
}

/** `undefined` alone, which JSON has not. */
function isRefused(property: JsonSchema): boolean {
  return Object.keys(property).length === 0;
}

function formOf({ properties }: JsonSchema): string | undefined {
  for (const name of DISCRIMINATORS) {
    const value = properties?.[name];
    const values = value?.enum ?? (value?.const === undefined ? [] : [value.const]);
    if (values.length > 0) return values.join(', ');
  }
  return undefined;
}

function typeOf(schema: JsonSchema): string {
  if (schema.const !== undefined) return String(schema.const);
  if (schema.enum !== undefined) return `one of ${schema.enum.join(', ')}`;
  if (schema.properties !== undefined || (schema.oneOf ?? schema.anyOf)?.some(({ properties }) => properties))
    return 'map';
  if (schema.prefixItems !== undefined) return 'list of two';
  if (schema.type === 'array') return listOf(schema.items ?? {});
  if (schema.type === 'integer') return `whole number from ${schema.minimum} to ${schema.maximum}`;
  if (schema.type === 'boolean') return 'true or false';
  if (schema.type === 'object') return 'map of names';
  return schema.description ?? 'text';
}

function listOf(item: JsonSchema): string {
  const type = typeOf(item);
  return type === 'map' ? 'list of maps' : `list, each ${type}`;
}

function inYaml(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(inYaml).join(', ')}]`;
  if (typeof value !== 'object' || value === null) return String(value);
  const fields = Object.entries(value).map(([name, inner]) => `${name}: ${inYaml(inner)}`);
  return fields.length === 0 ? '{}' : `{ ${fields.join(', ')} }`;
}
