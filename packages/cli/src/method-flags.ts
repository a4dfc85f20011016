import { resolve } from "node:path"
import { describeConfig, findConfig, isSlothError, keyToFlag, silentLogger, type ConfigSchema } from "@sloth/core"
import type { RunRecord } from "@sloth/sloth"
import type { CliCommand, SessionFlags } from "./command.ts"
import { flagGroups } from "./flags.ts"
import { resumedFlags, resumedRecord } from "./resumed-run.ts"
import { openSession, type Session } from "./session.ts"

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
  /** The flag that chooses what the settings are of, with its value. */
  readonly chosen: string
  readonly schema: ConfigSchema
  /** Flags by key. A name that the training configuration has too gets the method's in front: `--alphapo-alpha`. */
  readonly flags: ReadonlyMap<string, string>
}

/** Flags for the settings of a method, or of an environment, beside flags that are taken; `name` goes in front of a name that is taken. */
export const methodFlags = (
  what: "method" | "environment",
  name: string,
  schema: ConfigSchema,
  taken: ReadonlySet<string>,
): MethodFlags => ({
  title: `Settings of the ${what} ${name}`,
  chosen: `--${what} ${name}`,
  schema,
  flags: new Map(
    describeConfig(schema).map(({ key, flag }) => [
      key,
      taken.has(flag) ? keyToFlag(`${what === "method" ? name : what}-${flag.slice(2)}`) : flag,
    ]),
  ),
})

/** Words of a command line that is not parsed yet which belong to no flag; those after a flag that is not known count as its value. */
export const wordsOf = (command: CliCommand, argv: readonly string[]): readonly string[] => {
  const alone = new Set(
    flagGroups(command).flatMap(({ fields }) =>
      fields.filter(({ type }) => type === "boolean").map(({ flag }) => flag),
    ),
  )
  const words = argv.filter((word, i) => {
    const before = argv[i - 1] ?? ""
    return !word.startsWith("-") && (!before.startsWith("-") || before.includes("=") || alone.has(before))
  })
  return words.slice(1)
}

/** The run that a command line which is not parsed yet resumes. */
const resumedOf = (command: CliCommand, argv: readonly string[]): Promise<RunRecord | undefined> => {
  const named = [...valuesOf(argv, "--resume"), ...wordsOf(command, argv), ...valuesOf(argv, "--run")]
  return resumedRecord(
    argv,
    sessionFlagsOf(argv),
    named.filter((path) => !path.startsWith("-")),
  )
}

/**
 * Adds the flags of the chosen method, and of the chosen environment, to a command that trains. What does not exist adds none: the command says so when it runs.
 * Errors: SLOTH_CONFIG_* and SLOTH_PLUGIN_* of composing the plugins; those of finding the environment.
 */
export const withMethodFlags = async (command: CliCommand, argv: readonly string[]): Promise<CliCommand> => {
  if (command.takesMethod !== true) return command
  const resumed = await resumedOf(command, argv)
  const [named = resumed?.method] = valuesOf(argv, "--method")
  const [played = resumed?.environment] = valuesOf(argv, "--environment")
  const own = sessionFlagsOf(argv)
  const flags = resumed === undefined ? own : resumedFlags(own, resumed, process.cwd()).session
  const file = flags.config ?? findConfig(process.cwd()) ?? false
  if (named === undefined && played === undefined && file === false) return command
  await using session = await openSession({ session: flags, logger: silentLogger(), cwd: process.cwd() })
  const taken = new Set(
    [command.options, ...(command.settings === undefined ? [] : [command.settings.schema])].flatMap((schema) =>
      describeConfig(schema).map(({ flag }) => flag),
    ),
  )
  // A run goes on with its own settings, whatever the file says now.
  const section = resumed === undefined ? session.section("train") : {}
  const chosen = named ?? section["method"]
  const objective = session.sloth.registry.list("objectives").find(({ name }) => name === chosen)
  const method =
    objective?.config === undefined ? undefined : methodFlags("method", objective.name, objective.config, taken)
  for (const flag of method?.flags.values() ?? []) taken.add(flag)
  const inFile = section["environment"]
  const place = played ?? (typeof inFile === "string" ? inFile : undefined)
  const environment =
    place === undefined ? undefined : await environmentFlags(session, place, played, taken, argv.includes("--help"))
  return {
    ...command,
    ...(method === undefined ? {} : { method }),
    ...(environment === undefined ? {} : { environment }),
  }
}

/** Names of the training methods that have a setting of this flag. */
export const methodsWith = async (flag: string, argv: readonly string[]): Promise<readonly string[]> => {
  await using session = await openSession({
    session: sessionFlagsOf(argv),
    logger: silentLogger(),
    cwd: process.cwd(),
  })
  const wanted = flag.replace(/=.*$/, "")
  return session.sloth.registry
    .list("objectives")
    .filter(({ config }) => config !== undefined && describeConfig(config).some((field) => field.flag === wanted))
    .map(({ name }) => name)
}

/** Flags of an environment; none where it cannot be found and only help is wanted. */
const environmentFlags = async (
  session: Session,
  place: string,
  played: string | undefined,
  taken: ReadonlySet<string>,
  help: boolean,
): Promise<MethodFlags | undefined> => {
  const { environmentSettingsSchema, findEnvironment } = await import("@sloth/sloth")
  const home =
    played !== undefined || session.configFile === undefined ? process.cwd() : resolve(session.configFile, "..")
  try {
    const { factory } = await findEnvironment(session.sloth.registry, home, place)
    return methodFlags("environment", factory.name, environmentSettingsSchema(factory), taken)
  } catch (error) {
    if (help && isSlothError(error)) return undefined
    throw error
  }
}
