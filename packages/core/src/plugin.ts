import type * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type { ConfigSchema } from "./config-fields.ts"
import type { PluginSlots, SlotName } from "./contracts.ts"
import type { Logger } from "./logger.ts"
import type { SlothPaths } from "./paths.ts"

/** The plugin contract that this version speaks; a plugin of another number is refused. */
export const PLUGIN_API_VERSION = 1

/** What a plugin brings, slot by slot. */
export type PluginProvides = { readonly [S in SlotName]?: readonly PluginSlots[S][] }

/** What `setup` may use; nothing is reached through globals. */
export interface PluginCapabilities {
  /** A logger that carries the plugin's name. */
  readonly logger: Logger
  readonly paths: SlothPaths
  /** Version of `@sloth/core`. */
  readonly slothVersion: string
}

/** What `setup` returns: acquired in order of registration, released in reverse order, also when a later plugin fails. */
export type PluginSetup = Layer.Layer<never, unknown> | Effect.Effect<unknown, unknown, Scope.Scope>

/** What {@link definePlugin} takes. */
export interface PluginDefinition<Name extends string, P extends PluginProvides, C> {
  /** The npm name of the package that exports it. */
  readonly name: Name
  /** Its own version, a semantic version. */
  readonly version: string
  /** {@link PLUGIN_API_VERSION} of the contract it was written for. */
  readonly apiVersion: number
  /** Range of `@sloth/core` versions it works with, such as "^0.1.0". */
  readonly sloth: string
  /** Plugins that must be present: "name" or "name@range". */
  readonly requires?: readonly string[]
  /** True when its ids may replace those of plugins before it. */
  readonly override?: boolean
  /** Settings, decoded before anything is set up. */
  readonly config?: ConfigSchema<C>
  readonly provides: P
  /** Acquires what lives as long as the composition: connections, processes, devices. */
  setup?(capabilities: PluginCapabilities, config: C): PluginSetup
}

/** A plugin: a frozen plain object, recognised by its brand in every copy of this package. */
export interface Plugin<
  Name extends string = string,
  P extends PluginProvides = PluginProvides,
  C = unknown,
> extends PluginDefinition<Name, P, C> {
  /** Settings given in code; see {@link configurePlugin}. */
  readonly input?: unknown
}

const brand: unique symbol = Symbol.for("@sloth/core/plugin") as never

const branded = <T extends object>(value: T): Readonly<T> => {
  Object.defineProperty(value, brand, { value: PLUGIN_API_VERSION, enumerable: false })
  return Object.freeze(value)
}

/** True for what `definePlugin` made, in this or another copy of this package. */
export const isPlugin = (value: unknown): value is Plugin =>
  typeof value === "object" && value !== null && brand in value

/**
 * Defines a plugin. Literal names in `provides` become the types of `method`, `format` and `backend`; everything is checked when the plugin is
 * registered, not here.
 */
export const definePlugin = <const Name extends string, const P extends PluginProvides, C = unknown>(
  definition: PluginDefinition<Name, P, C>,
): Plugin<Name, P, C> => {
  const provides: Record<string, unknown> = {}
  for (const [slot, items] of Object.entries(definition.provides ?? {})) {
    provides[slot] = Array.isArray(items) ? Object.freeze([...(items as unknown[])]) : items
  }
  return branded({
    ...definition,
    provides: Object.freeze(provides) as P,
    ...(!Array.isArray(definition.requires) ? {} : { requires: Object.freeze([...(definition.requires as string[])]) }),
  })
}

/** The same plugin with settings; they are decoded at registration, and `sloth.config.ts` overrides them key by key. */
export const configurePlugin = <const Name extends string, const P extends PluginProvides, C>(
  plugin: Plugin<Name, P, C>,
  input: unknown,
): Plugin<Name, P, C> => branded({ ...plugin, input })

type Union<T> = T extends readonly (infer Item)[] ? Item : T

type Items<P, S extends SlotName> = P extends { readonly provides: infer Provides }
  ? Provides extends { readonly [K in S]: readonly (infer Item)[] }
    ? Item
    : never
  : never

type NameOf<T> = T extends { readonly name: infer Name extends string } ? Name : never

/** The names in one slot of a plugin or of a list of plugins, as a union of literals. */
export type IdOf<P, S extends SlotName> = NameOf<Items<Union<P>, S>>

/** What `method` may be with these plugins. */
export type MethodOf<P> = IdOf<P, "objectives">

/** What `format` may be with these plugins. */
export type FormatOf<P> = IdOf<P, "exporters">

/** What `backend` may be with these plugins. */
export type BackendOf<P> = IdOf<P, "backends">

/** The settings that a training method takes, as they are given; unknown where its type says nothing of them. */
export type SettingsOf<P, Method extends string> =
  Extract<Items<Union<P>, "objectives">, { readonly name: Method }> extends { readonly config: infer C }
    ? C extends { readonly Encoded: infer Input }
      ? Input
      : unknown
    : unknown
