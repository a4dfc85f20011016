import { existsSync } from "node:fs"
import { resolve } from "node:path"
import { fileURLToPath } from "node:url"
import * as Schema from "effect/Schema"
import { decodeConfig, isSlothError, listRuns, SlothError } from "@sloth/core"
import { readRunRecord, type RunRecord } from "@sloth/sloth"
import type { PluginPlace, SessionFlags } from "./command.ts"
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

const placeOf = (given: string | PluginPlace, cwd: string): PluginPlace =>
  typeof given === "string" ? { specifier: given, from: cwd } : given

/** The path of a plugin that is named by one. */
const pathOf = ({ specifier, from }: PluginPlace): string | undefined =>
  specifier.startsWith("file:")
    ? fileURLToPath(specifier)
    : /^\.{0,2}[/\\]|^\.{1,2}$|^[A-Za-z]:[/\\]/.test(specifier)
      ? resolve(from, specifier)
      : undefined

const isGone = (place: PluginPlace): boolean => {
  const path = pathOf(place)
  return path !== undefined && !["", ".ts", ".mts", ".js", ".mjs"].some((ending) => existsSync(`${path}${ending}`))
}

/** The plugins of a run with those of the command line, which take the place of the same ones, and of files that are gone. */
const pluginsOf = (own: readonly PluginPlace[], given: readonly PluginPlace[]): readonly PluginPlace[] => {
  const kept = given.length === 0 ? own : own.filter((place) => !isGone(place))
  return [...new Map([...kept, ...given].map((place) => [pathOf(place) ?? place.specifier, place])).values()]
}

/** What a command line leaves for a resumption. */
export const commandLineRecord = (
  { plugin = [], backend, isa }: SessionFlags,
  cwd: string,
  config: string | undefined,
  samples: readonly string[] | undefined,
): CommandLineRecord => ({
  ...(config === undefined ? {} : { config: resolve(cwd, config) }),
  ...(plugin.length === 0 ? {} : { plugins: plugin.map((given) => placeOf(given, cwd)) }),
  ...(backend === undefined ? {} : { backend }),
  ...(isa === undefined ? {} : { isa }),
  ...(samples === undefined ? {} : { samples }),
})

/** What {@link commandLineRecord} left in a run. */
const recordOf = ({ commandLine }: RunRecord): CommandLineRecord =>
  commandLine === undefined ? {} : decodeConfig(RecordSchema, commandLine, { name: "config.json" })

/**
 * The flags of a command line that resumes the run, over what the run's own were. A configuration file that is gone is left out, and that of another folder is not taken for a run that had
 * none; `config` is the one of the record.
 */
export const resumedFlags = (
  flags: SessionFlags,
  record: RunRecord,
  cwd: string,
): {
  readonly session: SessionFlags
  readonly samples: readonly string[] | undefined
  readonly config: string | undefined
} => {
  const { config, plugins = [], backend, isa, samples } = recordOf(record)
  const { plugin = [], ...given } = flags
  const named = pluginsOf(
    plugins,
    plugin.map((one) => placeOf(one, cwd)),
  )
  // A run that was started in code says nothing of files.
  const file =
    config !== undefined && existsSync(config) ? config : record.commandLine === undefined ? undefined : false
  return {
    session: {
      ...(file === undefined ? {} : { config: file }),
      ...(named.length === 0 ? {} : { plugin: named }),
      ...(backend === undefined ? {} : { backend }),
      ...(isa === undefined ? {} : { isa }),
      ...given,
    },
    samples,
    config,
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
