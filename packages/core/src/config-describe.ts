import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as SchemaAST from "effect/SchemaAST"
import * as SchemaParser from "effect/SchemaParser"
import type { ConfigSchema } from "./config-fields.ts"
import { keyToFlag } from "./config-keys.ts"
import { alternatives, boundsOf, choicesOf, resolveShape, shapeText } from "./internal/json-shape.ts"
import type { JsonDocument, JsonShape } from "./internal/json-shape.ts"

/** Kinds of values that configuration fields hold. */
export type FieldType = "integer" | "number" | "boolean" | "text" | "choice" | "list" | "record" | "union" | "any"

/** One configuration key, as help, docs and command-line flags need it. */
export interface FieldDescription {
  /** Keys from the root: `["lora", "rank"]`. */
  readonly path: readonly string[]
  /** The path with dots: `lora.rank`. */
  readonly key: string
  /** The flag: `--lora.rank`, `--learning-rate`. */
  readonly flag: string
  readonly type: FieldType
  /** What a value must be, in words: "an integer between 1 and 64 (tokens)". */
  readonly expected: string
  readonly required: boolean
  readonly nullable: boolean
  readonly description?: string
  readonly unit?: string
  readonly aka?: readonly string[]
  /** The value used when the key is absent. */
  readonly default?: unknown
  readonly choices?: readonly (string | number | boolean)[]
  readonly min?: number
  readonly max?: number
  /** The value must be greater than this. */
  readonly above?: number
  /** The value must be less than this. */
  readonly below?: number
}

/** The JSON form of a schema's encoded side with its definitions. */
const jsonDocumentOf = (schema: Schema.Constraint): JsonDocument => {
  const document = Schema.toJsonSchemaDocument(schema)
  return { root: document.schema as JsonShape, definitions: document.definitions as Record<string, JsonShape> }
}

const typeOf = (shape: JsonShape, definitions: JsonDocument["definitions"]): FieldType => {
  const node = resolveShape(shape, definitions)
  const options = alternatives(node).map((option) => resolveShape(option, definitions))
  const real = options.filter((option) => option.type !== "null")
  if (real.length > 1) return real.every((option) => choicesOf(option) !== undefined) ? "choice" : "union"
  const only = real[0] ?? {}
  if (choicesOf(only) !== undefined) return "choice"
  switch (only.type) {
    case "integer":
    case "number":
    case "boolean":
      return only.type
    case "string":
      return "text"
    case "array":
      return "list"
    case "object":
      return "record"
    default:
      return "any"
  }
}

/** The object node that a field stands for when it is a nested configuration, so that its keys become fields of their own. */
const nestedObject = (ast: SchemaAST.AST): SchemaAST.Objects | undefined => {
  const node = SchemaAST.isSuspend(ast) ? undefined : ast
  if (node === undefined || !SchemaAST.isObjects(node)) return undefined
  return node.propertySignatures.length > 0 && node.indexSignatures.length === 0 ? node : undefined
}

/** The value that decoding gives an absent key, found by decoding; a key-level annotation is the fallback. */
const defaultOf = (ast: SchemaAST.AST, annotated: unknown): { readonly value: unknown } | undefined => {
  if (ast.encoding !== undefined) {
    const probe = Schema.Struct({ key: Schema.make<ConfigSchema & Schema.Top>(ast) })
    const result = SchemaParser.decodeUnknownResult(probe as unknown as ConfigSchema<{ key?: unknown }>)({})
    if (Result.isSuccess(result) && "key" in result.success) return { value: result.success.key }
  }
  return annotated === undefined ? undefined : { value: annotated }
}

/** True when the key may be absent from the input. */
const isOptionalKey = (ast: SchemaAST.AST): boolean => {
  const input = ast.encoding?.at(-1)?.to ?? ast
  return SchemaAST.isOptional(input)
}

/** Annotations of a property: those of its key over those of its value. */
const annotationsOf = (ast: SchemaAST.AST): Readonly<Record<string, unknown>> => ({
  ...SchemaAST.resolve(ast),
  ...ast.context?.annotations,
})

const textOf = (value: unknown): string | undefined => (typeof value === "string" && value !== "" ? value : undefined)

const describeProperty = (ast: SchemaAST.AST, path: readonly string[], inOptional: boolean): FieldDescription => {
  const notes = annotationsOf(ast)
  const { root, definitions } = jsonDocumentOf(Schema.make(SchemaAST.toType(ast)))
  const shape = resolveShape(root, definitions)
  const options = alternatives(shape).map((option) => resolveShape(option, definitions))
  const real = options.filter((option) => option.type !== "null")
  const type = typeOf(shape, definitions)
  const unit = textOf(notes["unit"])
  const description = textOf(notes["description"])
  const aka = notes["aka"] as readonly string[] | undefined
  const fallback = defaultOf(ast, notes["default"])
  const choices = real.flatMap((option) => choicesOf(option) ?? []).filter((choice) => choice !== null)
  return {
    path,
    key: path.join("."),
    flag: keyToFlag(path.join(".")),
    type,
    expected: shapeText(shape, definitions) + (unit === undefined ? "" : ` (${unit})`),
    required: !inOptional && !isOptionalKey(ast),
    nullable: options.some((option) => option.type === "null" || option.enum?.includes(null) === true),
    ...(description === undefined ? {} : { description }),
    ...(unit === undefined ? {} : { unit }),
    ...(aka === undefined ? {} : { aka }),
    ...(fallback === undefined ? {} : { default: fallback.value }),
    ...(choices.length === 0 || type !== "choice" ? {} : { choices }),
    ...(real.length === 1 ? boundsOf(real[0] ?? {}) : {}),
  }
}

const describeObject = (
  node: SchemaAST.Objects,
  path: readonly string[],
  inOptional: boolean,
  out: FieldDescription[],
): void => {
  for (const property of node.propertySignatures) {
    if (typeof property.name !== "string") continue
    const inner = [...path, property.name]
    const nested = nestedObject(property.type)
    if (nested === undefined) out.push(describeProperty(property.type, inner, inOptional))
    else describeObject(nested, inner, inOptional || isOptionalKey(property.type), out)
  }
}

const descriptions = new WeakMap<SchemaAST.AST, readonly FieldDescription[]>()

/** Every key of a configuration schema, nested objects flattened to dotted keys, in the order of the schema. */
export const describeConfig = (schema: ConfigSchema): readonly FieldDescription[] => {
  const known = descriptions.get(schema.ast)
  if (known !== undefined) return known
  const out: FieldDescription[] = []
  const root = nestedObject(schema.ast)
  if (root !== undefined) describeObject(root, [], false, out)
  const list = Object.freeze(out)
  descriptions.set(schema.ast, list)
  return list
}

/** What a value of this schema node must be, in words, with its unit. */
export const expectedText = (ast: SchemaAST.AST): string => {
  const unit = textOf(annotationsOf(ast)["unit"])
  const { root, definitions } = jsonDocumentOf(Schema.make(SchemaAST.toType(ast)))
  return shapeText(root, definitions) + (unit === undefined ? "" : ` (${unit})`)
}

const closed = (shape: unknown): unknown => {
  if (Array.isArray(shape)) return shape.map(closed)
  if (typeof shape !== "object" || shape === null) return shape
  const out: Record<string, unknown> = {}
  for (const [key, value] of Object.entries(shape))
    out[key] = key === "default" || key === "enum" ? value : closed(value)
  // decoding refuses unknown keys, so the schema that editors use must refuse them too
  if (out["type"] === "object" && out["properties"] !== undefined && out["additionalProperties"] === true) {
    out["additionalProperties"] = false
  }
  return out
}

/** Sets defaults, units and descriptions, which Effect leaves out where a key has a decoding default, on the JSON form. */
const decorate = (shape: Record<string, unknown>, fields: readonly FieldDescription[]): void => {
  for (const field of fields) {
    let node: Record<string, unknown> | undefined = shape
    for (const key of field.path) {
      const properties: Record<string, Record<string, unknown>> | undefined = node?.["properties"] as
        | Record<string, Record<string, unknown>>
        | undefined
      node = properties?.[key]
    }
    if (node === undefined || node["$ref"] !== undefined) continue
    if (field.description !== undefined) {
      node["description"] = field.unit === undefined ? field.description : `${field.description} Unit: ${field.unit}.`
    }
    if (field.default !== undefined) node["default"] = field.default
  }
}

/** JSON Schema (draft 2020-12) of a configuration, for editors; unknown keys are refused, as in decoding. */
export const configJsonSchema = (
  schema: ConfigSchema,
  options: { readonly title?: string; readonly id?: string } = {},
): Record<string, unknown> => {
  const { root, definitions } = jsonDocumentOf(schema)
  const body = closed(root) as Record<string, unknown>
  decorate(body, describeConfig(schema))
  return {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    ...(options.id === undefined ? {} : { $id: options.id }),
    ...(options.title === undefined ? {} : { title: options.title }),
    ...body,
    ...(Object.keys(definitions).length === 0 ? {} : { $defs: closed(definitions) }),
  }
}

/** The JSON form of one field of a schema, for reading flag text. */
export const fieldShape = (schema: ConfigSchema, path: readonly string[]): JsonDocument | undefined => {
  let node: SchemaAST.AST = schema.ast
  for (const key of path) {
    if (!SchemaAST.isObjects(node)) return undefined
    const next: SchemaAST.AST | undefined = node.propertySignatures.find((property) => property.name === key)?.type
    if (next === undefined) return undefined
    node = next
  }
  return jsonDocumentOf(Schema.make(SchemaAST.toType(node)))
}
