import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as SchemaAST from "effect/SchemaAST"

declare module "effect/Schema" {
  namespace Annotations {
    interface Annotations {
      /** Unit of a configuration value: tokens, bytes, seconds, nats, rows, steps. */
      readonly unit?: string | undefined
      /** Names that other tools use for the same setting, offered as a correction when they are typed. */
      readonly aka?: readonly string[] | undefined
    }
  }
}

/** An Effect Schema that decodes plain data to `T` without services: what every `config` of a plugin slot is. */
export type ConfigSchema<T = unknown> = Schema.ConstraintDecoder<T>

/** The decoded type of a {@link ConfigSchema}. */
export type ConfigOf<S extends ConfigSchema> = S["Type"]

/** What a configuration field says about itself; help, docs, errors and JSON Schema are made from it. */
export interface FieldInfo {
  readonly description: string
  /** tokens, bytes, seconds, nats, rows, steps. */
  readonly unit?: string
  /** Names of the same setting in other tools (TRL, Unsloth). */
  readonly aka?: readonly string[]
}

/** {@link FieldInfo} of a number, with its range. */
export interface NumberFieldInfo extends FieldInfo {
  /** Smallest value allowed. */
  readonly min?: number
  /** Largest value allowed. */
  readonly max?: number
  /** The value must be greater than this. */
  readonly above?: number
  /** The value must be less than this. */
  readonly below?: number
}

const annotations = (info: FieldInfo): { description: string; unit?: string; aka?: readonly string[] } => ({
  description: info.description,
  ...(info.unit === undefined ? {} : { unit: info.unit }),
  ...(info.aka === undefined ? {} : { aka: info.aka }),
})

const rangeChecks = (info: NumberFieldInfo): SchemaAST.Filter<number>[] => {
  const checks: SchemaAST.Filter<number>[] = []
  if (info.min !== undefined && info.max !== undefined) {
    checks.push(Schema.isBetween({ minimum: info.min, maximum: info.max }))
  } else if (info.min !== undefined) checks.push(Schema.isGreaterThanOrEqualTo(info.min))
  else if (info.max !== undefined) checks.push(Schema.isLessThanOrEqualTo(info.max))
  if (info.above !== undefined) checks.push(Schema.isGreaterThan(info.above))
  if (info.below !== undefined) checks.push(Schema.isLessThan(info.below))
  return checks
}

const checked = <S extends Schema.Int | Schema.Finite>(schema: S, info: NumberFieldInfo): S["Rebuild"] => {
  const [first, ...rest] = rangeChecks(info)
  const ranged = first === undefined ? schema : schema.check(first, ...rest)
  return ranged.annotate(annotations(info))
}

/**
 * Short forms of the schemas that configuration is made of; each is a plain Effect Schema with its annotations set.
 * Add `.pipe(withDefault(value))` or `.pipe(Schema.optionalKey)`; without either the key is required.
 */
export const field = {
  /** A whole number. */
  int: (info: NumberFieldInfo) => checked(Schema.Int, info),
  /** A finite number. */
  number: (info: NumberFieldInfo) => checked(Schema.Finite, info),
  /** true or false. */
  boolean: (info: FieldInfo) => Schema.Boolean.annotate(annotations(info)),
  /** Any text. */
  text: (info: FieldInfo) => Schema.String.annotate(annotations(info)),
  /** One of a fixed set. */
  choice: <const L extends readonly (string | number)[]>(choices: L, info: FieldInfo) =>
    Schema.Literals(choices).annotate(annotations(info)),
  /** A list of `items`. */
  list: <S extends Schema.Top>(items: S, info: FieldInfo) => Schema.Array(items).annotate(annotations(info)),
} as const

/** Makes a key optional in the input and gives it `value` when it is absent; the value is shown in help and JSON Schema. */
export const withDefault =
  <S extends Schema.Top>(value: S["Encoded"]) =>
  (schema: S): Schema.withDecodingDefaultKey<S> =>
    (schema.annotate({ default: value } as Parameters<S["annotate"]>[0]) as S).pipe(
      Schema.withDecodingDefaultKey(Effect.succeed(value)),
    )
