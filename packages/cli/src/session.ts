import { resolve } from "node:path"
import { findConfig, loadConfigFile, loadPlugin } from "@sloth/core"
import type { LoadedConfig, Logger, Plugin } from "@sloth/core"
import { createSloth, standardPlugins, type Sloth } from "@sloth/sloth"
import type { CommandInput, SessionFlags } from "./command.ts"

/** Sections of `sloth.config.*`: one a command that takes settings. */
const SECTIONS = ["train"] as const

/** Sloth as the command line and the configuration file compose it. */
export interface Session extends AsyncDisposable {
  readonly sloth: Sloth
  readonly configFile: string | undefined
  /** The section of a command in the configuration file. */
  section(name: (typeof SECTIONS)[number]): Readonly<Record<string, unknown>>
}

const loadConfig = (flags: SessionFlags, cwd: string): Promise<LoadedConfig> | undefined => {
  if (flags.config === false) return undefined
  const path = flags.config === undefined ? findConfig(cwd) : resolve(cwd, flags.config)
  return path === undefined ? undefined : loadConfigFile(path, { sections: SECTIONS })
}

/** Plugins of the command line and the configuration file over those that come with Sloth; a plugin of the same name takes the place of ours. */
const composePlugins = async (
  flags: SessionFlags,
  config: LoadedConfig | undefined,
  cwd: string,
): Promise<readonly Plugin[]> => {
  const own: Plugin[] = []
  for (const plugin of config?.plugins ?? [])
    own.push(typeof plugin === "string" ? await loadPlugin(plugin, config!.directory) : plugin)
  for (const plugin of flags.plugin ?? [])
    own.push(
      typeof plugin === "string" ? await loadPlugin(plugin, cwd) : await loadPlugin(plugin.specifier, plugin.from),
    )
  const names = new Set(own.map(({ name }) => name))
  return [...(standardPlugins() as readonly Plugin[]).filter(({ name }) => !names.has(name)), ...own]
}

/** The folder of runs, as the configuration file has it. Errors: SLOTH_CONFIG_*. */
export const runsFolder = async (flags: SessionFlags, cwd: string): Promise<string> => {
  const config = await loadConfig(flags, cwd)
  return config === undefined ? resolve(cwd, "runs") : resolve(config.directory, config.runs ?? "runs")
}

/** Composes Sloth for a command. Errors: SLOTH_CONFIG_*, SLOTH_PLUGIN_*. */
export const openSession = async (
  input: { readonly session: SessionFlags; readonly logger: Logger; readonly cwd: string },
  options: { readonly threads?: number; readonly memoryBudget?: number } = {},
): Promise<Session> => {
  const { session: flags, logger, cwd } = input
  const config = await loadConfig(flags, cwd)
  const plugins = await composePlugins(flags, config, cwd)
  const threads = options.threads ?? flags.threads
  const memoryBudget = options.memoryBudget ?? flags.memoryBudget
  const sloth = (await createSloth({
    plugins,
    logger,
    cwd,
    ...(config === undefined
      ? {}
      : {
          pluginConfig: config.pluginConfig,
          runs: resolve(config.directory, config.runs ?? "runs"),
          ...(config.cache === undefined ? {} : { cache: resolve(config.directory, config.cache) }),
        }),
    ...(flags.backend === undefined ? {} : { backend: flags.backend as never }),
    ...(flags.isa === undefined ? {} : { isa: flags.isa }),
    ...(threads === undefined ? {} : { threads }),
    ...(memoryBudget === undefined ? {} : { memoryBudget }),
    ...(flags.precision === undefined ? {} : { precision: flags.precision }),
    ...(flags.offline === undefined ? {} : { offline: flags.offline }),
  })) as unknown as Sloth
  return {
    sloth,
    configFile: config?.path,
    section: (name) => config?.sections[name] ?? {},
    [Symbol.asyncDispose]: () => sloth.close(),
  }
}

/** Runs `body` with a composed Sloth and closes it. */
export const withSession = async <R>(
  input: Pick<CommandInput<unknown>, "session" | "logger" | "cwd">,
  body: (session: Session) => Promise<R>,
): Promise<R> => {
  const session = await openSession(input)
  try {
    return await body(session)
  } finally {
    await session[Symbol.asyncDispose]()
  }
}
