import { existsSync, readFileSync, statSync } from "node:fs"
import { dirname, extname, join, resolve } from "node:path"
import { pathToFileURL } from "node:url"
import { configError } from "./config-decode.ts"
import type { ConfigIssue } from "./config-decode.ts"
import { SlothError } from "./errors.ts"
import { fileError } from "./file-error.ts"
import { importError } from "./internal/import-error.ts"
import { showValue, suggest } from "./internal/suggest.ts"
import { isPlugin } from "./plugin.ts"
import type { Plugin } from "./plugin.ts"

/**
 * The sections of `sloth.config.ts`, one a command; a package that owns a command adds its type here by declaration merging:
 * `declare module "@sloth/core" { interface ConfigSections { train: Partial<TrainConfig> } }`.
 */
export interface ConfigSections {}

/** What `sloth.config.ts` exports. */
export interface SlothConfig<P extends readonly (Plugin | string)[] = readonly (Plugin | string)[]> {
  /** Plugins, or names and paths that are loaded from this project. */
  readonly plugins?: P
  /** Settings by plugin name. */
  readonly pluginConfig?: Readonly<Record<string, unknown>>
  /** Folder for runs, relative to the file; `runs` when absent. */
  readonly runs?: string
  /** Folder for downloads and prepared data. */
  readonly cache?: string
}

/** The names that `sloth.config.*` may have, in the order in which they are looked for. */
export const CONFIG_FILE_NAMES = [
  "sloth.config.ts",
  "sloth.config.mts",
  "sloth.config.js",
  "sloth.config.mjs",
  "sloth.config.json",
] as const

/** Types the configuration of a project; returns it as it is. */
export const defineConfig = <const P extends readonly (Plugin | string)[] = readonly []>(
  config: SlothConfig<P> & { readonly [S in keyof ConfigSections]?: ConfigSections[S] } & {
    readonly [section: string]: unknown
  },
): typeof config => config

/** The configuration file of a folder or of the nearest folder above it. */
export const findConfig = (cwd: string): string | undefined => {
  for (let place = resolve(cwd); ; place = dirname(place)) {
    for (const name of CONFIG_FILE_NAMES) {
      const path = join(place, name)
      if (existsSync(path) && statSync(path).isFile()) return path
    }
    if (dirname(place) === place) return undefined
  }
}

/** A configuration file as loaded: settings of its own and the sections, which their commands decode. */
export interface LoadedConfig {
  readonly path: string
  /** The folder of the file: plugins and relative paths start here. */
  readonly directory: string
  readonly plugins: readonly (Plugin | string)[]
  readonly pluginConfig: Readonly<Record<string, unknown>>
  readonly runs?: string
  readonly cache?: string
  readonly sections: Readonly<Record<string, Readonly<Record<string, unknown>>>>
}

const own = ["plugins", "pluginConfig", "runs", "cache", "$schema"] as const

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

const readValue = async (path: string): Promise<unknown> => {
  let text: string
  try {
    text = readFileSync(path, "utf8")
  } catch (error) {
    throw fileError(error, path, "read")
  }
  if (extname(path) === ".json") {
    try {
      return JSON.parse(text)
    } catch (error) {
      throw importError("SLOTH_CONFIG_FILE", "The configuration", pathToFileURL(path), error)
    }
  }
  let loaded: { readonly default?: unknown }
  try {
    loaded = (await import(pathToFileURL(path).href)) as { readonly default?: unknown }
  } catch (error) {
    throw importError("SLOTH_CONFIG_FILE", "The configuration", pathToFileURL(path), error)
  }
  if (loaded.default === undefined) {
    throw new SlothError("SLOTH_CONFIG_FILE", {
      what: `${path} has no default export.`,
      next: "It ends in `export default defineConfig({ ... })`.",
      fields: { path },
    })
  }
  return loaded.default
}

/**
 * Loads `sloth.config.*`. `sections` are the commands that are known: a section of another name is refused with a suggestion.
 * Errors: SLOTH_CONFIG_FILE, SLOTH_CONFIG_INVALID with every wrong field, SLOTH_FILE_NOT_FOUND.
 */
export const loadConfigFile = async (
  file: string,
  options: { readonly sections?: readonly string[] } = {},
): Promise<LoadedConfig> => {
  const path = resolve(file)
  const value = await readValue(path)
  const issues: ConfigIssue[] = []
  const wrong = (key: string, expected: string, received: unknown, at: readonly (string | number)[] = [key]): void => {
    issues.push({
      path: at,
      key,
      problem: "type",
      expected,
      received,
      message: `${key}: expected ${expected}, received ${showValue(received)}`,
    })
  }
  const given = isRecord(value) ? value : {}
  if (!isRecord(value)) wrong("default export", "an object", value, [])
  const { plugins = [], pluginConfig = {}, runs, cache, $schema: _, ...rest } = given
  if (!Array.isArray(plugins)) wrong("plugins", "a list", plugins)
  else {
    for (const [at, plugin] of (plugins as readonly unknown[]).entries()) {
      if (typeof plugin === "string" || isPlugin(plugin)) continue
      wrong(`plugins[${at}]`, "a plugin or its name", plugin, ["plugins", at])
    }
  }
  if (!isRecord(pluginConfig)) wrong("pluginConfig", "an object", pluginConfig)
  if (runs !== undefined && typeof runs !== "string") wrong("runs", "text", runs)
  if (cache !== undefined && typeof cache !== "string") wrong("cache", "text", cache)
  for (const [name, section] of Object.entries(rest)) {
    if (section === undefined) continue
    if (options.sections !== undefined && !options.sections.includes(name)) {
      const near = suggest(
        name,
        [...own, ...options.sections].map((known) => ({ name: known })),
      )
      const help =
        near === undefined
          ? `known: ${[...own.slice(0, -1), ...options.sections].join(", ")}`
          : `did you mean "${near}"?`
      issues.push({
        path: [name],
        key: name,
        problem: "unknown",
        expected: undefined,
        received: section,
        ...(near === undefined ? {} : { suggestion: near }),
        message: `${name}: unknown key; ${help}`,
      })
    } else if (!isRecord(section)) wrong(name, "an object", section)
  }
  if (issues.length > 0) throw configError(path, issues)
  return {
    path,
    directory: dirname(path),
    plugins: plugins as readonly (Plugin | string)[],
    pluginConfig: pluginConfig as Readonly<Record<string, unknown>>,
    ...(runs === undefined ? {} : { runs: runs as string }),
    ...(cache === undefined ? {} : { cache: cache as string }),
    sections: Object.fromEntries(Object.entries(rest).filter(([, section]) => section !== undefined)) as Record<
      string,
      Readonly<Record<string, unknown>>
    >,
  }
}
