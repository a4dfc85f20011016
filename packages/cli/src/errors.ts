import { isSlothError, type SlothError } from "@sloth/core"
import type { Terminal } from "./terminal/terminal.ts"

/** Exit statuses of the program; scripts may rely on them. */
export const EXIT = { ok: 0, failure: 1, usage: 2, interrupted: 130 } as const

const usageCodes = new Set([
  "SLOTH_CONFIG_INVALID",
  "SLOTH_CONFIG_FILE",
  "SLOTH_TRAIN_NO_MODEL",
  "SLOTH_TRAIN_NO_DATA",
  "SLOTH_PLUGIN_UNKNOWN_ID",
])

/** The exit status of an error: 2 for what is wrong in the command line or settings, 130 for an abort, else 1. */
export const exitStatus = (error: SlothError): number =>
  error.code === "SLOTH_ABORTED"
    ? EXIT.interrupted
    : usageCodes.has(error.code) || error.code.startsWith("SLOTH_CLI_")
      ? EXIT.usage
      : EXIT.failure

const plain = (value: unknown): unknown => {
  try {
    return JSON.parse(
      JSON.stringify(value, (_key, inner: unknown) => (typeof inner === "bigint" ? String(inner) : inner)),
    ) as unknown
  } catch {
    return String(value)
  }
}

/** An error for a person, or as one line of JSON. */
export const errorText = (error: SlothError, terminal: Terminal, json: boolean): string => {
  const { code, what, why, next, fields } = error
  if (json) return JSON.stringify({ error: { code, what, why, next, fields: plain(fields) } })
  const { red, bold, dim, cyan } = terminal.errorStyle
  const lines = [`${red(bold("error"))} ${bold(code)}: ${what}`]
  if (why !== undefined && why !== "") lines.push(`  ${dim("why:")} ${why}`)
  if (next !== undefined && next !== "") lines.push(`  ${cyan("next:")} ${next}`)
  return lines.join("\n")
}

/** Says what went wrong on stderr; a stack trace only with `debug`. Returns the exit status. */
export const reportError = async (
  thrown: unknown,
  terminal: Terminal,
  options: { readonly debug: boolean; readonly json: boolean },
): Promise<number> => {
  // The facade is large; a command line that is only mistyped does not wait for it.
  const error = isSlothError(thrown) ? thrown : (await import("@sloth/sloth")).toSlothError(thrown)
  terminal.say(errorText(error, terminal, options.json))
  if (options.debug) {
    terminal.say(error.stack ?? String(error))
    for (let cause = error.cause; cause !== undefined; cause = cause instanceof Error ? cause.cause : undefined)
      terminal.say(`caused by ${cause instanceof Error ? (cause.stack ?? String(cause)) : String(cause)}`)
    if (Object.keys(error.fields).length > 0) terminal.say(`fields ${JSON.stringify(plain(error.fields))}`)
  }
  return exitStatus(error)
}
