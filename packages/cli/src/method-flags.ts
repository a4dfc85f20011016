import { describeConfig, findConfig, keyToFlag, silentLogger, type ConfigSchema } from "@sloth/core"
import type { CliCommand, SessionFlags } from "./command.ts"
import { openSession } from "./session.ts"

/** Values of a repeated flag, wherever it stands. */
export const valuesOf = (argv: readonly string[], flag: string): readonly string[] =>
  argv.flatMap((arg, i) =>
    arg === flag ? [argv[i + 1] ?? ""] : arg.startsWith(`${flag}=`) ? [arg.slice(flag.length + 1)] : [],
  )

/** Plugins and configuration file of a command line that is not parsed yet: they decide which commands and flags there are. */
export const sessionFlagsOf = (argv: readonly string[]): SessionFlags => {
  const [config] = valuesOf(argv, "--config")
  return { plugin: valuesOf(argv, "--plugin"), ...(config === undefined ? {} : { config }) }
}

/** The settings of the training method that a command line or its configuration file names, as flags. */
export interface MethodFlags {
  readonly title: string
  readonly schema: ConfigSchema
  /** Flags by key. A name that the training configuration has too gets the method's in front: `--alphapo-alpha`. */
  readonly flags: ReadonlyMap<string, string>
}

/** Flags for the settings of a method beside flags that are taken. */
export const methodFlags = (method: string, schema: ConfigSchema, taken: readonly ConfigSchema[]): MethodFlags => {
  const used = new Set(taken.flatMap((other) => describeConfig(other).map(({ flag }) => flag)))
  return {
    title: `Settings of the method ${method}`,
    schema,
    flags: new Map(
      describeConfig(schema).map(({ key, flag }) => [
        key,
        used.has(flag) ? keyToFlag(`${method}-${flag.slice(2)}`) : flag,
      ]),
    ),
  }
}

/**
 * Adds the flags of the chosen method to a command that trains. A method that does not exist adds none: the command says so when it runs.
 * Errors: SLOTH_CONFIG_* and SLOTH_PLUGIN_* of composing the plugins.
 */
export const withMethodFlags = async (command: CliCommand, argv: readonly string[]): Promise<CliCommand> => {
  if (command.takesMethod !== true || command.settings === undefined) return command
  const [named] = valuesOf(argv, "--method")
  const flags = sessionFlagsOf(argv)
  if (named === undefined && flags.config === undefined && findConfig(process.cwd()) === undefined) return command
  await using session = await openSession({
    session: flags,
    logger: silentLogger(),
    cwd: process.cwd(),
  })
  const method = named ?? session.section("train")["method"]
  if (typeof method !== "string") return command
  const schema = session.sloth.registry.list("objectives").find(({ name }) => name === method)?.config
  if (schema === undefined) return command
  return { ...command, method: methodFlags(method, schema, [command.options, command.settings.schema]) }
}
