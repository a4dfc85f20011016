import { homedir } from "node:os"
import { join, resolve } from "node:path"

/** Folders that Sloth and its plugins use. */
export interface SlothPaths {
  /** The user's project: where `sloth.config.ts` stands, or the working directory. */
  readonly project: string
  /** Where runs go. */
  readonly runs: string
  /** Where downloads and prepared data are kept. */
  readonly cache: string
}

/** The default folders: `runs` in the project, and `$SLOTH_CACHE`, `$XDG_CACHE_HOME/sloth` or `~/.cache/sloth`. */
export const slothPaths = (
  options: {
    readonly project?: string
    readonly runs?: string
    readonly cache?: string
    readonly env?: Readonly<Record<string, string | undefined>>
  } = {},
): SlothPaths => {
  const env = options.env ?? process.env
  const project = resolve(options.project ?? process.cwd())
  const set = (name: string): string | undefined => (env[name] === "" ? undefined : env[name])
  const shared = set("XDG_CACHE_HOME") ?? join(set("HOME") ?? homedir(), ".cache")
  return {
    project,
    runs: resolve(project, options.runs ?? "runs"),
    cache: resolve(project, options.cache ?? set("SLOTH_CACHE") ?? join(shared, "sloth")),
  }
}
