import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import { CliConfig, CliError, CliOutput, Command, GlobalFlag } from "effect/cli"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { consoleLogger, describeConfig, isSlothError, SlothError } from "@sloth/core"
import type { CliCommand, CommandInput } from "./command.ts"
import { commands } from "./commands/index.ts"
import { EXIT, reportError } from "./errors.ts"
import { commandParameters, readFlags, suggestFlag } from "./flags.ts"
import { commandHelp, rootHelp } from "./help.ts"
import { processTerminal, type Terminal } from "./terminal/terminal.ts"
import { cliVersion } from "./version.ts"

/** The errors of a command line that the parser refused, as one SlothError. */
const usageError = (command: CliCommand | undefined, errors: readonly CliError.NonShowHelpErrors[]): SlothError => {
  const method = command?.method === undefined ? "" : ` ${command.method.chosen}`
  const help = `See: sloth ${command === undefined ? "" : command.name}${method} --help`.replace("  ", " ")
  const lines = errors.map((error): { what: string; near?: string | undefined } => {
    switch (error._tag) {
      case "UnrecognizedOption": {
        const near = (command === undefined ? undefined : suggestFlag(command, error.option)) ?? error.suggestions[0]
        return { what: `${error.option} is no flag of sloth${command === undefined ? "" : ` ${command.name}`}.`, near }
      }
      case "UnknownSubcommand":
        return { what: `There is no command "${error.subcommand}".`, near: error.suggestions[0] }
      case "UnexpectedArgument":
        return { what: `${error.arguments.map((word) => `"${word}"`).join(", ")} does not belong here.` }
      case "MissingArgument":
        return { what: `<${error.argument}> is missing.` }
      case "MissingOption":
        return { what: `--${error.option.replace(/^-+/, "")} is missing.` }
      case "InvalidValue":
        if (/^\d+ occurrences$/.test(error.value))
          return {
            what: `--${error.option.replace(/^-+/, "")} is given ${error.value.split(" ")[0]} times; it takes one value.`,
          }
        return {
          what: `--${error.option.replace(/^-+/, "")}: "${error.value}" does not do. ${error.expected}.`.replace(
            "..",
            ".",
          ),
        }
      default:
        return { what: error.message }
    }
  })
  const near = lines.find((line) => line.near !== undefined)?.near
  return new SlothError(
    errors.some(({ _tag }) => _tag === "UnknownSubcommand") ? "SLOTH_CLI_COMMAND" : "SLOTH_CLI_USAGE",
    {
      what: lines.map(({ what }) => what).join(" "),
      next: near === undefined ? help : `Did you mean ${near}? ${help}`,
      fields: {
        errors: errors.map(({ _tag }) => _tag),
        unknown: errors.flatMap((error) => (error._tag === "UnrecognizedOption" ? [error.option] : [])),
        ...(near === undefined ? {} : { suggestion: near }),
      },
    },
  )
}

/** Says of an unknown flag that it belongs to a training method, another one than `chosen` or where none was chosen. */
const withMethodHint = async (
  error: unknown,
  argv: readonly string[],
  chosen: string | undefined,
): Promise<unknown> => {
  if (!isSlothError(error) || error.code !== "SLOTH_CLI_USAGE") return error
  const { unknown, suggestion } = error.fields as {
    readonly unknown?: readonly string[]
    readonly suggestion?: string
  }
  if (unknown === undefined || unknown.length === 0 || suggestion !== undefined) return error
  const { methodsWith, valuesOf } = await import("./method-flags.ts")
  const methods = await methodsWith(unknown[0]!, argv)
  if (methods.length === 0) return error
  const [named = chosen] = valuesOf(argv, "--method")
  return new SlothError("SLOTH_CLI_USAGE", {
    what: error.what,
    next:
      named === undefined
        ? `It is a setting of ${methods.join(", ")}: name the method with --method.`
        : `${named} has no such setting; it is one of ${methods.join(", ")}.`,
    fields: { ...error.fields, methods },
  })
}

const wants = (argv: readonly string[], flag: string): boolean => {
  const end = argv.indexOf("--")
  return (end < 0 ? argv : argv.slice(0, end)).includes(flag)
}

/** The command that the words name: one of ours, else one of a plugin. */
const findCommand = async (argv: readonly string[], terminal: Terminal): Promise<CliCommand | undefined> => {
  const word = argv.find((arg) => !arg.startsWith("-"))
  if (word === undefined) return undefined
  const entry = commands.find(({ name }) => name === word)
  if (entry !== undefined) {
    const { command } = await entry.load()
    if (command.takesMethod !== true) return command
    const { withMethodFlags } = await import("./method-flags.ts")
    return withMethodFlags(command, argv)
  }
  const { pluginCommand } = await import("./plugin-command.ts")
  return pluginCommand(word, argv, terminal)
}

/** Runs a command line; returns the exit status. */
export const main = async (argv: readonly string[], terminal: Terminal = processTerminal()): Promise<number> => {
  const debug = wants(argv, "--debug")
  const json = wants(argv, "--json")
  const words = argv.filter((arg) => arg !== "--debug")
  let status: number = EXIT.ok
  let takesMethod = false
  let method: string | undefined
  try {
    const command = await findCommand(words, terminal)
    takesMethod = command?.takesMethod === true
    method = command?.method?.chosen.replace(/^--method /, "")
    const handler = (parsed: Readonly<Record<string, unknown>>) =>
      Effect.tryPromise({
        try: async () => {
          if (command === undefined) return
          const { options, settings, methodSettings, environmentSettings, session, positionals } = readFlags(
            command,
            parsed,
          )
          const returned = await command.run({
            options,
            settings,
            methodSettings,
            environmentSettings,
            session,
            positionals,
            terminal,
            logger: consoleLogger({ level: debug ? "debug" : "info" }),
            debug,
            cwd: process.cwd(),
          } as unknown as CommandInput<never>)
          status = typeof returned === "number" ? returned : EXIT.ok
        },
        catch: (error) => error,
      })
    // A command that does not run is only a name here: its code is not loaded, its flags are not needed.
    const subcommands = [
      ...commands
        .filter(({ name }) => name !== command?.name)
        .map(({ name, summary }) => Command.make(name, {}, () => Effect.void).pipe(Command.withDescription(summary))),
      ...(command === undefined
        ? []
        : [
            Command.make(command.name, commandParameters(command), handler).pipe(
              Command.withDescription(command.summary),
            ),
          ]),
    ]
    const root = Command.make("sloth").pipe(Command.withSubcommands(subcommands as [(typeof subcommands)[number]]))
    const presenter = CliOutput.layerPresenter({
      present: (event) =>
        Effect.sync(() => {
          switch (event._tag) {
            case "Version":
              terminal.print(event.version)
              return
            case "Help": {
              const text =
                command === undefined || event.commandPath.length < 2
                  ? rootHelp(commands, terminal.style, terminal.width)
                  : commandHelp(command, terminal.style, terminal.width)
              terminal.print(text)
              return
            }
            case "InvalidInvocation":
              throw usageError(command, event.errors)
          }
        }),
    })
    const program = Command.runWith(root, { version: cliVersion() })(words).pipe(
      Effect.provide(
        Layer.mergeAll(
          NodeServices.layer,
          presenter,
          CliConfig.layer({ builtIns: [GlobalFlag.Help, GlobalFlag.Version, GlobalFlag.Completions] }),
        ),
      ),
    )
    const exit = await Effect.runPromiseExit(program as Effect.Effect<void, unknown>)
    if (Exit.isFailure(exit)) {
      const [reason] = exit.cause.reasons
      const failure: unknown =
        reason === undefined
          ? exit.cause
          : "error" in reason
            ? reason.error
            : "defect" in reason
              ? reason.defect
              : reason
      // Help that was shown because no command was named is no failure of its own.
      if (CliError.isCliError(failure) && failure._tag === "ShowHelp" && failure.errors.length === 0)
        return words.length === 0 ? EXIT.ok : EXIT.usage
      throw failure
    }
    return status
  } catch (error) {
    const told = takesMethod ? await withMethodHint(error, words, method).catch(() => error) : error
    return await reportError(told, terminal, { debug, json })
  }
}

/** Flags of a schema, for tests that check that every setting has one. */
export const flagsOf = (command: CliCommand): readonly string[] =>
  [command.options, ...(command.settings === undefined ? [] : [command.settings.schema])].flatMap((schema) =>
    describeConfig(schema).map(({ flag }) => flag),
  )
