import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import type { ProvidedModel, PluginSlots, SlotName } from "./contracts.ts"
import { isSlothError, SlothError } from "./errors.ts"
import {
  buildTables,
  checkApiVersion,
  checkShape,
  checkVersion,
  decodePluginConfig,
  orderByRequirement,
} from "./internal/plugin-checks.ts"
import type { SlotTables } from "./internal/plugin-checks.ts"
import { suggest } from "./internal/suggest.ts"
import { silentLogger } from "./logger.ts"
import type { Logger } from "./logger.ts"
import { slothPaths } from "./paths.ts"
import type { SlothPaths } from "./paths.ts"
import type { Plugin } from "./plugin.ts"
import { slothVersion } from "./version.ts"

/** Options of {@link registerPlugins}. */
export interface RegisterOptions {
  /** Settings by plugin name, over those given with `configurePlugin`. */
  readonly configs?: Readonly<Record<string, unknown>>
  readonly logger?: Logger
  readonly paths?: SlothPaths
}

/** Words for a slot's items in messages. */
const slotWords: { readonly [S in SlotName]: string } = {
  models: "model family",
  backends: "backend",
  objectives: "training method",
  rewards: "reward",
  exporters: "export format",
  trackers: "tracker",
  readers: "dataset reader",
  commands: "command",
  rollouts: "rollout engine",
  environments: "environment",
  callbacks: "callback",
}

/** The plugins of one composition, checked and set up; disposing of it releases what they acquired, in reverse order. */
export class PluginRegistry implements AsyncDisposable {
  /** In the order of set-up. */
  readonly plugins: readonly Plugin[]
  /** Services that the plugins' layers provide. */
  readonly context: Context.Context<never>
  readonly #tables: SlotTables
  readonly #configs: ReadonlyMap<string, unknown>
  readonly #scope: Scope.Closeable
  #closing: Promise<void> | undefined

  constructor(
    plugins: readonly Plugin[],
    tables: SlotTables,
    configs: ReadonlyMap<string, unknown>,
    scope: Scope.Closeable,
    context: Context.Context<never>,
  ) {
    this.plugins = plugins
    this.context = context
    this.#tables = tables
    this.#configs = configs
    this.#scope = scope
  }

  /** All items of a slot, in order; `T` is the full contract of the package that owns the slot. */
  list<S extends SlotName, T extends PluginSlots[S] = PluginSlots[S]>(slot: S): readonly T[] {
    return [...this.#tables[slot].values()].map((entry) => entry.item as T)
  }

  /** The ids in a slot. */
  names(slot: SlotName): readonly string[] {
    return [...this.#tables[slot].keys()]
  }

  /** An item by id. Errors: SLOTH_PLUGIN_UNKNOWN_ID, with what there is. */
  get<S extends SlotName, T extends PluginSlots[S] = PluginSlots[S]>(slot: S, name: string): T {
    const entry = this.#tables[slot].get(name)
    if (entry !== undefined) return entry.item as T
    const names = this.names(slot)
    const near = suggest(
      name,
      names.map((id) => ({ name: id })),
    )
    throw new SlothError("SLOTH_PLUGIN_UNKNOWN_ID", {
      what: `There is no ${slotWords[slot]} named "${name}".`,
      why: names.length === 0 ? "No plugin here provides any." : `There are: ${names.join(", ")}.`,
      next:
        near === undefined
          ? `Add the plugin that provides it: "plugins" in code and in sloth.config.*, --plugin on the command line.`
          : `Did you mean "${near}"?`,
      fields: { slot, name, known: names, suggestion: near },
    })
  }

  /** The plugin that an item came from. */
  ownerOf(slot: SlotName, name: string): Plugin | undefined {
    return this.#tables[slot].get(name)?.plugin
  }

  /** The model family of an architecture, by its Hugging Face or its GGUF name; the last plugin that claims it wins. */
  findModel<T extends ProvidedModel = ProvidedModel>(query: {
    readonly architecture?: string
    readonly ggufArchitecture?: string
  }): T | undefined {
    return this.list<"models", T>("models").findLast(
      (model) =>
        (query.architecture !== undefined && model.architectures.includes(query.architecture)) ||
        (query.ggufArchitecture !== undefined && model.ggufArchitectures.includes(query.ggufArchitecture)),
    )
  }

  /** The decoded settings of a plugin. */
  config(plugin: string): unknown {
    return this.#configs.get(plugin)
  }

  /**
   * Releases what the plugins acquired, last first; every release is tried. Closing twice is harmless.
   * Errors: SLOTH_PLUGIN_TEARDOWN.
   */
  close(): Promise<void> {
    this.#closing ??= closeScope(this.#scope)
    return this.#closing
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}

const closeScope = async (scope: Scope.Closeable): Promise<void> => {
  const exit = await Effect.runPromiseExit(Scope.close(scope, Exit.void))
  if (Exit.isSuccess(exit)) return
  const causes = exit.cause.reasons.map((reason) =>
    "defect" in reason ? reason.defect : "error" in reason ? reason.error : reason,
  )
  throw new SlothError("SLOTH_PLUGIN_TEARDOWN", {
    what: "A plugin could not release what it held.",
    why: causes.map((cause) => (cause instanceof Error ? cause.message : String(cause))).join(" "),
    fields: { causes },
    cause: causes[0],
  })
}

const setupError = (plugin: Plugin, cause: unknown): SlothError =>
  new SlothError("SLOTH_PLUGIN_SETUP", {
    what: `The plugin ${plugin.name} could not be set up.`,
    why: cause instanceof Error ? cause.message : String(cause),
    next: isSlothError(cause) ? cause.next : "Fix what it reports, or leave it out.",
    fields: { plugin: plugin.name, ...(isSlothError(cause) ? { cause: cause.code } : {}) },
    cause,
  })

const setUp = async (
  plugin: Plugin,
  config: unknown,
  scope: Scope.Scope,
  options: { readonly logger: Logger; readonly paths: SlothPaths },
): Promise<Context.Context<never>> => {
  if (plugin.setup === undefined) return Context.empty()
  let failure: unknown
  try {
    const made: unknown = plugin.setup(
      { logger: options.logger.child(plugin.name), paths: options.paths, slothVersion: slothVersion() },
      config,
    )
    if (Layer.isLayer(made)) {
      return (await Effect.runPromise(
        Layer.buildWithScope(made as unknown as Layer.Layer<never, unknown>, scope),
      )) as Context.Context<never>
    }
    if (Effect.isEffect(made)) {
      await Effect.runPromise(Scope.provide(made as Effect.Effect<unknown, unknown, Scope.Scope>, scope))
      return Context.empty()
    }
    failure = new TypeError("setup must return an Effect Layer or a scoped Effect.")
  } catch (error) {
    failure = error
  }
  throw setupError(plugin, failure)
}

/**
 * Checks plugins and sets them up. The checks, in this order over all plugins, each with its code, and before anything is acquired: shape
 * (SLOTH_PLUGIN_SHAPE), contract number (SLOTH_PLUGIN_API_VERSION), version range (SLOTH_PLUGIN_VERSION), required plugins
 * (SLOTH_PLUGIN_REQUIRES), duplicate ids (SLOTH_PLUGIN_DUPLICATE), settings (SLOTH_PLUGIN_CONFIG). Then `setup` runs in order, required plugins
 * first; when one fails (SLOTH_PLUGIN_SETUP) those before it are released in reverse order.
 */
export const registerPlugins = async (
  list: readonly Plugin[],
  options: RegisterOptions = {},
): Promise<PluginRegistry> => {
  const plugins = list.map(checkShape)
  plugins.forEach(checkApiVersion)
  const { default: semver } = await import("semver")
  for (const plugin of plugins) checkVersion(plugin, semver)
  const ordered = orderByRequirement(plugins, semver)
  const tables = buildTables(plugins)
  const unknown = Object.keys(options.configs ?? {}).filter((name) => !plugins.some((plugin) => plugin.name === name))
  if (unknown.length > 0) {
    throw new SlothError("SLOTH_PLUGIN_CONFIG", {
      what: `There are settings for ${unknown.join(", ")}, which ${unknown.length === 1 ? "is not a plugin" : "are not plugins"} of the list.`,
      why: `The plugins are: ${plugins.map((plugin) => plugin.name).join(", ") || "none"}.`,
      next: "Correct the name or add the plugin.",
      fields: { plugins: unknown },
    })
  }
  const configs = new Map(
    plugins.map((plugin) => [plugin.name, decodePluginConfig(plugin, options.configs?.[plugin.name])]),
  )
  const scope = Scope.makeUnsafe("sequential")
  const surroundings = { logger: options.logger ?? silentLogger(), paths: options.paths ?? slothPaths() }
  let context = Context.empty() as Context.Context<never>
  try {
    for (const plugin of ordered) {
      context = Context.merge(context, await setUp(plugin, configs.get(plugin.name), scope, surroundings))
    }
  } catch (error) {
    // the failure to set up is the one to report; a release that fails on top of it is its follower
    await closeScope(scope).catch((follower: unknown) =>
      surroundings.logger.warn("SLOTH_PLUGIN_TEARDOWN", isSlothError(follower) ? follower.message : String(follower)),
    )
    throw error
  }
  return new PluginRegistry(ordered, tables, configs, scope, context)
}

/** {@link registerPlugins} as a scoped Effect: the plugins are released when the scope closes. */
export const registerPluginsEffect = (
  list: readonly Plugin[],
  options: RegisterOptions = {},
): Effect.Effect<PluginRegistry, SlothError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.tryPromise({
      try: () => registerPlugins(list, options),
      catch: (error) =>
        isSlothError(error) ? error : new SlothError("SLOTH_PLUGIN_SETUP", { what: String(error), cause: error }),
    }),
    (registry) => Effect.promise(() => registry.close()),
  )
