import type { CommandSpec } from "@sloth/core"
import { consoleLogger } from "@sloth/core"
import type { CliCommand } from "./command.ts"
import { sessionFlagsOf } from "./method-flags.ts"
import { openSession } from "./session.ts"
import type { Terminal } from "./terminal/terminal.ts"

/** A command that a plugin of the configuration file or of `--plugin` provides; undefined where none has that name. */
export const pluginCommand = async (
  name: string,
  argv: readonly string[],
  terminal: Terminal,
): Promise<CliCommand | undefined> => {
  const flags = sessionFlagsOf(argv)
  const logger = consoleLogger({ level: "warn" })
  let spec: CommandSpec | undefined
  {
    await using session = await openSession({ session: flags, logger, cwd: process.cwd() })
    spec = session.sloth.registry.list("commands").find((item) => item.name === name)
  }
  if (spec === undefined) return undefined
  const found = spec
  const Schema = await import("effect/Schema")
  return {
    name,
    summary: found.description,
    description: found.description,
    positionals: [
      {
        name: found.usage?.replace(/[<>[\].]/g, "") || "arguments",
        description: "What the command works on.",
        many: true,
      },
    ],
    options: found.config ?? Schema.Struct({}),
    session: true,
    examples: found.examples ?? [],
    run: async (input) => {
      await using session = await openSession(input)
      return found.run({
        arguments: input.positionals,
        config: input.options,
        json: argv.includes("--json"),
        cwd: input.cwd,
        logger: session.sloth.logger,
        print: (line) => terminal.print(line),
        sloth: session.sloth,
      })
    },
  }
}
