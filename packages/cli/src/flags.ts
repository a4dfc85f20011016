import * as Option from "effect/Option"
import { Argument, Flag } from "effect/cli"
import { configError, decodeConfig, describeConfig, isSlothError, keyToFlag, parseFlags } from "@sloth/core"
import type { ConfigIssue, ConfigSchema, FieldDescription, FlagValue } from "@sloth/core"
import type { CliCommand } from "./command.ts"
import type { MethodFlags } from "./method-flags.ts"
import { SessionFlagsSchema } from "./session-flags.ts"

/** A group of flags of a command, as help shows them. */
export interface FlagGroup {
  readonly title: string
  readonly fields: readonly FieldDescription[]
  readonly schema: ConfigSchema
}

/** Flags of a command in the order in which help shows them; a flag belongs to the first group that has it. */
export const flagGroups = (command: CliCommand): readonly FlagGroup[] => {
  const seen = new Set<string>()
  const group = (title: string, schema: ConfigSchema, flags?: ReadonlyMap<string, string>): FlagGroup => {
    const fields = describeConfig(schema)
      .map((field) => ({ ...field, flag: flags?.get(field.key) ?? field.flag }))
      .filter(({ flag }) => !seen.has(flag))
    for (const { flag } of fields) seen.add(flag)
    return { title, fields, schema }
  }
  return [
    group("Flags", command.options),
    ...(command.method === undefined ? [] : [group(command.method.title, command.method.schema, command.method.flags)]),
    ...(command.environment === undefined
      ? []
      : [group(command.environment.title, command.environment.schema, command.environment.flags)]),
    ...(command.settings === undefined ? [] : [group(command.settings.title, command.settings.schema)]),
    ...(command.session ? [group("Plugins and backend", SessionFlagsSchema)] : []),
  ].filter(({ fields }) => fields.length > 0)
}

/** What Effect's parser hands over for one flag. */
type Parsed = Option.Option<string> | Option.Option<boolean> | readonly string[]

const nameOf = (field: FieldDescription): string => field.flag.replace(/^--/, "")

const effectFlag = (command: CliCommand, field: FieldDescription): Flag.Flag<Parsed> => {
  const name = nameOf(field)
  const alias = command.aliases?.[field.key]
  const described = <A>(flag: Flag.Flag<A>): Flag.Flag<A> => {
    const told = field.description === undefined ? flag : flag.pipe(Flag.withDescription(field.description))
    return alias === undefined ? told : told.pipe(Flag.withAlias(alias))
  }
  if (field.type === "boolean") return described(Flag.Boolean(name)).pipe(Flag.optional)
  if (field.type === "list" || field.type === "union") return described(Flag.String(name)).pipe(Flag.atLeast(0))
  if (field.type === "choice" && field.choices?.every((choice) => typeof choice === "string") === true)
    return described(Flag.Literals(name, field.choices as readonly string[])).pipe(Flag.optional)
  const bare = command.optionalValues?.[field.key]
  const text = described(Flag.String(name))
  return (bare === undefined ? text : text.pipe(Flag.withOptionalValue(bare))).pipe(Flag.optional)
}

/** The parameters of a command for Effect's parser: every flag as text, decoded afterwards all at once. */
export const commandParameters = (
  command: CliCommand,
): Record<string, Flag.Flag<Parsed> | Argument.Argument<unknown>> => {
  const parameters: Record<string, Flag.Flag<Parsed> | Argument.Argument<unknown>> = {}
  for (const { fields } of flagGroups(command))
    for (const field of fields) parameters[`flag:${field.flag}`] = effectFlag(command, field)
  for (const positional of command.positionals ?? []) {
    const text = Argument.String(positional.name).pipe(Argument.withDescription(positional.description))
    parameters[`argument:${positional.name}`] =
      positional.many === true
        ? text.pipe(Argument.atLeast(positional.required === true ? 1 : 0))
        : positional.required === true
          ? text
          : text.pipe(Argument.optional)
  }
  return parameters
}

const given = (value: unknown): FlagValue | undefined => {
  if (Array.isArray(value)) return value.length === 0 ? undefined : (value as string[])
  if (!Option.isOption(value)) return value as FlagValue
  return Option.isSome(value) ? (value.value as FlagValue) : undefined
}

/** What a command line says, sorted. */
export interface ReadFlags {
  readonly options: unknown
  readonly settings: Readonly<Record<string, unknown>>
  readonly methodSettings: Readonly<Record<string, unknown>>
  readonly environmentSettings: Readonly<Record<string, unknown>>
  readonly session: Readonly<Record<string, unknown>>
  readonly positionals: readonly string[]
}

/** Runs steps that may each report wrong flags, and throws all of them as one error. */
class Collected {
  readonly #issues: ConfigIssue[] = []

  /** The result, or undefined where flags were wrong. */
  try<R>(body: () => R, flags?: ReadonlyMap<string, string>): R | undefined {
    try {
      return body()
    } catch (error) {
      const issues = isSlothError(error) ? (error.fields["issues"] as readonly ConfigIssue[] | undefined) : undefined
      if (issues === undefined) throw error
      // What a method must be given may stand in the configuration file, which is read later.
      const own = flags === undefined ? issues : issues.filter(({ problem }) => problem !== "missing")
      this.#issues.push(...own.map((issue) => asFlag(issue, flags)))
      return undefined
    }
  }

  throw(): void {
    if (this.#issues.length > 0) throw configError("command line", this.#issues)
  }
}

/** An issue of a key, told as its flag. */
const asFlag = (issue: ConfigIssue, flags?: ReadonlyMap<string, string>): ConfigIssue => {
  if (issue.key.startsWith("--")) return issue
  const flag = flags?.get(issue.key) ?? keyToFlag(issue.key)
  return {
    ...issue,
    key: flag,
    message:
      issue.problem === "missing"
        ? `${flag} is missing: ${lower(issue.expected ?? "")}`
        : issue.message.replace(issue.key, flag),
  }
}

const lower = (expected: string): string => /^text \((.*)\)$/.exec(expected)?.[1] ?? expected

/** Sorts and decodes what was parsed. Errors: SLOTH_CONFIG_INVALID with every wrong flag. */
export const readFlags = (command: CliCommand, parsed: Readonly<Record<string, unknown>>): ReadFlags => {
  const wrong = new Collected()
  const name = { name: "command line" }
  const groups = new Map<ConfigSchema, Record<string, unknown>>()
  for (const { fields, schema } of flagGroups(command)) {
    const values: Record<string, unknown> = {}
    for (const { key, flag } of fields)
      Object.assign(
        values,
        wrong.try(() => parseFlags(schema, { [key]: given(parsed[`flag:${flag}`]) }, name)),
      )
    groups.set(schema, values)
  }
  const options = wrong.try(() => decodeConfig(command.options, groups.get(command.options) ?? {}, name))
  const session = wrong.try(() => decodeConfig(SessionFlagsSchema, groups.get(SessionFlagsSchema) ?? {}, name))
  const settings = (command.settings === undefined ? undefined : groups.get(command.settings.schema)) ?? {}
  if (command.settings !== undefined) wrong.try(() => decodeConfig(command.settings!.schema, settings, name))
  const chosen = (flags: MethodFlags | undefined): Record<string, unknown> => {
    if (flags === undefined) return {}
    const given = groups.get(flags.schema) ?? {}
    wrong.try(() => decodeConfig(flags.schema, given, name), flags.flags)
    return given
  }
  const methodSettings = chosen(command.method)
  const environmentSettings = chosen(command.environment)
  wrong.throw()
  const positionals = (command.positionals ?? []).flatMap((positional) => {
    const value = given(parsed[`argument:${positional.name}`])
    return value === undefined ? [] : Array.isArray(value) ? (value as string[]) : [String(value)]
  })
  return { options, settings, methodSettings, environmentSettings, session: session ?? {}, positionals }
}

/** The flag that was probably meant: by spelling, or by the name that another tool gives the same setting. */
export const suggestFlag = (command: CliCommand, wrong: string): string | undefined => {
  for (const { schema, fields } of flagGroups(command)) {
    try {
      parseFlags(schema, { [wrong.replace(/^-+/, "").replace(/=.*$/, "")]: "" }, { name: "" })
    } catch (error) {
      const issues = (error as { fields?: { issues?: readonly { suggestion?: string }[] } }).fields?.issues
      const suggestion = issues?.[0]?.suggestion
      // The method's own flag may have another name than its key.
      if (suggestion !== undefined) return fields.find(({ key }) => keyToFlag(key) === suggestion)?.flag ?? suggestion
    }
  }
  return undefined
}
