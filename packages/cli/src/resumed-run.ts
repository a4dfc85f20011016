import { existsSync } from "node:fs"
import { resolve } from "node:path"
import * as Schema from "effect/Schema"
import { decodeConfig, isSlothError, listRuns, SlothError } from "@sloth/core"
import { readRunRecord, type RunRecord } from "@sloth/sloth"
import type { SessionFlags } from "./command.ts"
import { runsFolder } from "./session.ts"

/** The run that `--resume` means: the folder after it, `--run`, or the newest run. Errors: SLOTH_RESUME_NO_RUN. */
export const resumedRun = async (
  flags: SessionFlags,
  cwd: string,
  named: readonly (string | undefined)[],
): Promise<string> => {
  const given = named.find((path) => path !== undefined && path !== "")
  if (given !== undefined) return resolve(cwd, given)
  const runs = await runsFolder(flags, cwd)
  const newest = listRuns(runs)[0]
  if (newest !== undefined) return newest.path
  throw new SlothError("SLOTH_RESUME_NO_RUN", {
    what: `There is no run in ${runs} to resume.`,
    next: "Name its folder: sloth train --resume --run DIR.",
    fields: { path: runs },
  })
}

/** What a run keeps of its command line besides what training itself does. */
export interface CommandLineRecord {
  /** Absolute path of the configuration file. */
  readonly config?: string
  readonly plugins?: readonly { readonly specifier: string; readonly from: string }[]
  readonly backend?: string
  readonly isa?: string
  /** Questions for before and after. */
  readonly samples?: readonly string[]
}

const RecordSchema = Schema.Struct({
  config: Schema.optionalKey(Schema.String),
  plugins: Schema.optionalKey(Schema.Array(Schema.Struct({ specifier: Schema.String, from: Schema.String }))),
  backend: Schema.optionalKey(Schema.String),
  isa: Schema.optionalKey(Schema.String),
  samples: Schema.optionalKey(Schema.Array(Schema.String)),
})

/** What a command line leaves for a resumption. */
export const commandLineRecord = (
  { plugin = [], backend, isa }: SessionFlags,
  cwd: string,
  config: string | undefined,
  samples: readonly string[] | undefined,
): CommandLineRecord => ({
  ...(config === undefined ? {} : { config: resolve(cwd, config) }),
  ...(plugin.length === 0
    ? {}
    : { plugins: plugin.map((given) => (typeof given === "string" ? { specifier: given, from: cwd } : given)) }),
  ...(backend === undefined ? {} : { backend }),
  ...(isa === undefined ? {} : { isa }),
  ...(samples === undefined ? {} : { samples }),
})

/** What {@link commandLineRecord} left in a run. */
const recordOf = ({ commandLine }: RunRecord): CommandLineRecord =>
  commandLine === undefined ? {} : decodeConfig(RecordSchema, commandLine, { name: "config.json" })

/** The flags of a command line that resumes the run, over what the run's own were; a configuration file that is gone is left out. */
export const resumedFlags = (
  flags: SessionFlags,
  record: RunRecord,
): { readonly session: SessionFlags; readonly samples: readonly string[] | undefined } => {
  const { config, plugins, backend, isa, samples } = recordOf(record)
  const { plugin, ...given } = flags
  const named = plugin !== undefined && plugin.length > 0 ? plugin : plugins
  return {
    session: {
      ...(config === undefined || !existsSync(config) ? {} : { config }),
      ...(named === undefined ? {} : { plugin: named }),
      ...(backend === undefined ? {} : { backend }),
      ...(isa === undefined ? {} : { isa }),
      ...given,
    },
    samples,
  }
}

/** The record of the run that an unparsed command line resumes; undefined where it resumes none, or one that cannot be read: the command says so when it runs. */
export const resumedRecord = async (
  argv: readonly string[],
  flags: SessionFlags,
  named: readonly (string | undefined)[],
): Promise<RunRecord | undefined> => {
  if (!argv.some((arg) => arg === "--resume" || arg.startsWith("--resume="))) return undefined
  try {
    return readRunRecord(await resumedRun(flags, process.cwd(), named))
  } catch (error) {
    if (isSlothError(error)) return undefined
    throw error
  }
}
