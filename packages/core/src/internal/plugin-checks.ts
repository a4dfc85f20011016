/** The checks of plugin registration, each with its own code, in the order in which they are made. */
import { decodeConfig } from "../config-decode.ts"
import type { ConfigIssue } from "../config-decode.ts"
import type { PluginSlots, SlotName } from "../contracts.ts"
import { isSlothError, SlothError } from "../errors.ts"
import { isPlugin, PLUGIN_API_VERSION } from "../plugin.ts"
import type { Plugin } from "../plugin.ts"
import { slothVersion } from "../version.ts"
import { showValue } from "./suggest.ts"

type Item = Readonly<Record<string, unknown>>

const isTextList = (value: unknown): boolean => Array.isArray(value) && value.every((part) => typeof part === "string")
const isFunction = (value: unknown): boolean => typeof value === "function"

/** What core needs of an item of each slot beyond its name: property, test, words. */
const slotShape: { readonly [S in SlotName]: readonly (readonly [string, (value: unknown) => boolean, string])[] } = {
  models: [
    ["architectures", isTextList, "a list of text"],
    ["ggufArchitectures", isTextList, "a list of text"],
  ],
  backends: [
    ["probe", isFunction, "a function"],
    ["create", isFunction, "a function"],
  ],
  objectives: [],
  rewards: [["score", isFunction, "a function"]],
  exporters: [["export", isFunction, "a function"]],
  trackers: [["open", isFunction, "a function"]],
  readers: [["extensions", isTextList, "a list of text"]],
  commands: [
    ["description", (value) => typeof value === "string", "text"],
    ["run", isFunction, "a function"],
  ],
  rollouts: [["create", isFunction, "a function"]],
  environments: [["create", isFunction, "a function"]],
  callbacks: [["on", (value) => typeof value === "object" && value !== null, "an object of handlers"]],
}

/** All slot names. */
export const slotNames = Object.keys(slotShape) as readonly SlotName[]

const shapeError = (name: string, problems: readonly string[]): SlothError =>
  new SlothError("SLOTH_PLUGIN_SHAPE", {
    what: `The plugin ${name} is not well formed: ${problems.join("; ")}.`,
    next: "See docs/plugins.md for what definePlugin takes.",
    fields: { plugin: name, problems },
  })

/** Check 1. Errors: SLOTH_PLUGIN_SHAPE, with every problem of the plugin. */
export const checkShape = (value: unknown, position: number): Plugin => {
  if (!isPlugin(value)) {
    const what =
      typeof value === "function" ? "is a function: call it" : `was not made by definePlugin: ${showValue(value)}`
    throw shapeError(`at position ${position + 1}`, [`it ${what}`])
  }
  const problems: string[] = []
  const text = (key: "name" | "version" | "sloth"): void => {
    if (typeof value[key] !== "string" || value[key] === "") problems.push(`"${key}" must be text`)
  }
  text("name")
  text("version")
  text("sloth")
  if (!Number.isInteger(value.apiVersion)) problems.push('"apiVersion" must be an integer')
  if (value.requires !== undefined && !isTextList(value.requires)) problems.push('"requires" must be a list of text')
  if (value.setup !== undefined && !isFunction(value.setup)) problems.push('"setup" must be a function')
  if (value.config !== undefined && typeof (value.config as { ast?: unknown }).ast !== "object") {
    problems.push('"config" must be an Effect Schema')
  }
  for (const [slot, items] of Object.entries(value.provides as Record<string, unknown>)) {
    const shape = slotShape[slot as SlotName] as (typeof slotShape)[SlotName] | undefined
    if (shape === undefined) {
      problems.push(`"provides.${slot}" is not a slot; the slots are ${slotNames.join(", ")}`)
      continue
    }
    if (!Array.isArray(items)) {
      problems.push(`"provides.${slot}" must be a list`)
      continue
    }
    for (const [at, item] of (items as readonly (Item | null | undefined)[]).entries()) {
      const place = `provides.${slot}[${at}]`
      if (typeof item !== "object" || item === null) {
        problems.push(`"${place}" must be an object`)
        continue
      }
      if (typeof item["name"] !== "string" || item["name"] === "") problems.push(`"${place}.name" must be text`)
      for (const [key, test, words] of shape) if (!test(item[key])) problems.push(`"${place}.${key}" must be ${words}`)
    }
  }
  if (problems.length > 0)
    throw shapeError(typeof value.name === "string" ? value.name : `at position ${position + 1}`, problems)
  return value
}

/** Check 2. Errors: SLOTH_PLUGIN_API_VERSION. */
export const checkApiVersion = (plugin: Plugin): void => {
  if (plugin.apiVersion === PLUGIN_API_VERSION) return
  const newer = plugin.apiVersion > PLUGIN_API_VERSION
  throw new SlothError("SLOTH_PLUGIN_API_VERSION", {
    what: `The plugin ${plugin.name} was written for plugin contract ${plugin.apiVersion}; this Sloth speaks ${PLUGIN_API_VERSION}.`,
    next: newer ? "Update Sloth, or install an older version of the plugin." : "Install a newer version of the plugin.",
    fields: { plugin: plugin.name, expected: PLUGIN_API_VERSION, got: plugin.apiVersion },
  })
}

interface Semver {
  readonly satisfies: (version: string, range: string, options: { includePrerelease: boolean }) => boolean
  readonly valid: (version: string) => string | null
  readonly validRange: (range: string) => string | null
}

/** Check 3. Errors: SLOTH_PLUGIN_VERSION for a plugin version or range that cannot be read, and for a range that this Sloth is not in. */
export const checkVersion = (plugin: Plugin, semver: Semver): void => {
  const problem = (what: string, next: string): SlothError =>
    new SlothError("SLOTH_PLUGIN_VERSION", {
      what,
      next,
      fields: { plugin: plugin.name, version: plugin.version, range: plugin.sloth, sloth: slothVersion() },
    })
  if (semver.valid(plugin.version) === null) {
    throw problem(
      `The plugin ${plugin.name} has the version "${plugin.version}".`,
      "It must be a semantic version such as 1.2.0.",
    )
  }
  if (semver.validRange(plugin.sloth) === null) {
    throw problem(`The plugin ${plugin.name} works with Sloth "${plugin.sloth}".`, "It must be a range such as ^0.1.0.")
  }
  if (!semver.satisfies(slothVersion(), plugin.sloth, { includePrerelease: true })) {
    throw problem(
      `The plugin ${plugin.name} ${plugin.version} works with Sloth ${plugin.sloth}; this is ${slothVersion()}.`,
      "Install versions of the two that fit.",
    )
  }
}

const splitRequirement = (text: string): { readonly name: string; readonly range: string } => {
  const at = text.lastIndexOf("@")
  return at > 0 ? { name: text.slice(0, at), range: text.slice(at + 1) } : { name: text, range: "*" }
}

/** Check 4, and the order of set-up: what is required comes first. Errors: SLOTH_PLUGIN_REQUIRES. */
export const orderByRequirement = (plugins: readonly Plugin[], semver: Semver): readonly Plugin[] => {
  const byName = new Map(plugins.map((plugin) => [plugin.name, plugin]))
  const problem = (plugin: Plugin, what: string, next: string): SlothError =>
    new SlothError("SLOTH_PLUGIN_REQUIRES", { what, next, fields: { plugin: plugin.name, requires: plugin.requires } })
  const order: Plugin[] = []
  const state = new Map<Plugin, "open" | "done">()
  const visit = (plugin: Plugin, chain: readonly string[]): void => {
    if (state.get(plugin) === "done") return
    if (state.get(plugin) === "open") {
      throw problem(
        plugin,
        `The plugins ${[...chain.slice(chain.indexOf(plugin.name)), plugin.name].join(" -> ")} require each other.`,
        "One of them must do without.",
      )
    }
    state.set(plugin, "open")
    for (const requirement of plugin.requires ?? []) {
      const { name, range } = splitRequirement(requirement)
      const other = byName.get(name)
      if (other === undefined) {
        throw problem(
          plugin,
          `The plugin ${plugin.name} needs the plugin ${name}, which is not in the list.`,
          `Add ${name} to "plugins".`,
        )
      }
      if (!semver.satisfies(other.version, range, { includePrerelease: true })) {
        throw problem(
          plugin,
          `The plugin ${plugin.name} needs ${name} ${range}; ${other.version} is here.`,
          `Install a version of ${name} in that range.`,
        )
      }
      visit(other, [...chain, plugin.name])
    }
    state.set(plugin, "done")
    order.push(plugin)
  }
  for (const plugin of plugins) visit(plugin, [])
  return order
}

/** The items of all plugins by slot and id, with the plugin that each came from. */
export type SlotTables = {
  readonly [S in SlotName]: ReadonlyMap<string, { readonly item: PluginSlots[S]; readonly plugin: Plugin }>
}

const duplicate = (kind: string, id: string, first: Plugin, second: Plugin): SlothError =>
  new SlothError("SLOTH_PLUGIN_DUPLICATE", {
    what:
      first === second
        ? `The plugin ${first.name} provides the ${kind} "${id}" twice.`
        : `The plugins ${first.name} and ${second.name} both provide the ${kind} "${id}".`,
    next:
      first === second
        ? "Rename one."
        : `Leave one of them out, or set "override: true" in ${second.name} if it is meant to replace the other.`,
    fields: { kind, id, plugins: [first.name, second.name] },
  })

/** Check 5. Errors: SLOTH_PLUGIN_DUPLICATE for a plugin, an item or a model architecture that is there twice without `override`. */
export const buildTables = (plugins: readonly Plugin[]): SlotTables => {
  const names = new Map<string, Plugin>()
  for (const plugin of plugins) {
    if (names.has(plugin.name)) {
      throw new SlothError("SLOTH_PLUGIN_DUPLICATE", {
        what: `The plugin ${plugin.name} is in the list twice.`,
        next: "List it once.",
        fields: { kind: "plugin", id: plugin.name, plugins: [plugin.name] },
      })
    }
    names.set(plugin.name, plugin)
  }
  const tables = Object.fromEntries(slotNames.map((slot) => [slot, new Map()])) as Record<
    SlotName,
    Map<string, { item: never; plugin: Plugin }>
  >
  const architectures = new Map<string, Plugin>()
  const claim = (kind: string, id: string, plugin: Plugin): void => {
    const key = `${kind}\n${id}`
    const first = architectures.get(key)
    if (first !== undefined && (first === plugin || plugin.override !== true)) throw duplicate(kind, id, first, plugin)
    architectures.set(key, plugin)
  }
  for (const plugin of plugins) {
    for (const slot of slotNames) {
      for (const item of plugin.provides[slot] ?? []) {
        const first = tables[slot].get(item.name)
        if (first !== undefined && (first.plugin === plugin || plugin.override !== true)) {
          throw duplicate(slot.replace(/s$/, ""), item.name, first.plugin, plugin)
        }
        tables[slot].set(item.name, { item: item as never, plugin })
      }
    }
    for (const model of plugin.provides.models ?? []) {
      for (const id of model.architectures) claim("model architecture", id, plugin)
      for (const id of model.ggufArchitectures) claim("GGUF architecture", id, plugin)
    }
  }
  return tables as unknown as SlotTables
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

/** Check 6. Errors: SLOTH_PLUGIN_CONFIG, with every wrong field of the plugin. */
export const decodePluginConfig = (plugin: Plugin, configured: unknown): unknown => {
  const input =
    isRecord(plugin.input) && isRecord(configured) ? { ...plugin.input, ...configured } : (configured ?? plugin.input)
  if (plugin.config === undefined) {
    if (input === undefined) return undefined
    throw new SlothError("SLOTH_PLUGIN_CONFIG", {
      what: `The plugin ${plugin.name} takes no settings.`,
      next: "Remove them.",
      fields: { plugin: plugin.name, issues: [] },
    })
  }
  try {
    return decodeConfig(plugin.config, input ?? {}, { name: `plugin ${plugin.name}` })
  } catch (error) {
    if (!isSlothError(error)) throw error
    throw new SlothError("SLOTH_PLUGIN_CONFIG", {
      what: error.what,
      fields: { plugin: plugin.name, issues: error.fields["issues"] as readonly ConfigIssue[] },
      cause: error,
    })
  }
}
