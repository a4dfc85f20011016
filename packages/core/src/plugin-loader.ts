import { existsSync, statSync } from "node:fs"
import { dirname, isAbsolute, join, resolve } from "node:path"
import { fileURLToPath, pathToFileURL } from "node:url"
import { isSlothError, SlothError } from "./errors.ts"
import { importError } from "./internal/import-error.ts"
import { isPlugin } from "./plugin.ts"
import type { Plugin } from "./plugin.ts"

const extensions = ["", ".ts", ".mts", ".js", ".mjs", "/index.ts", "/index.js"]

const isFileSpecifier = (specifier: string): boolean =>
  specifier.startsWith("./") ||
  specifier.startsWith("../") ||
  specifier === "." ||
  specifier === ".." ||
  specifier.startsWith("file:") ||
  isAbsolute(specifier)

/** The command that installs a package, in the words of the package manager that the project uses. */
const installHint = (specifier: string, fromDir: string): string => {
  const name = specifier
    .split("/")
    .slice(0, specifier.startsWith("@") ? 2 : 1)
    .join("/")
  const managers: readonly (readonly [string, string])[] = [
    ["bun.lock", `bun add -d ${name}`],
    ["bun.lockb", `bun add -d ${name}`],
    ["pnpm-lock.yaml", `pnpm add -D ${name}`],
    ["yarn.lock", `yarn add -D ${name}`],
    ["package-lock.json", `npm install -D ${name}`],
    ["deno.lock", `deno add npm:${name}`],
  ]
  for (let place = fromDir; ; place = dirname(place)) {
    const found = managers.find(([file]) => existsSync(join(place, file)))
    if (found !== undefined) return found[1]
    if (dirname(place) === place) return `npm install -D ${name}`
  }
}

const resolveFile = (specifier: string, fromDir: string): URL => {
  const path = specifier.startsWith("file:") ? fileURLToPath(specifier) : resolve(fromDir, specifier)
  const found = extensions
    .map((extension) => path + extension)
    .find((candidate) => statSync(candidate, { throwIfNoEntry: false })?.isFile() === true)
  if (found !== undefined) return pathToFileURL(found)
  throw new SlothError("SLOTH_PLUGIN_NOT_FOUND", {
    what: `The plugin file ${path} does not exist.`,
    why: `"${specifier}" is looked up from ${fromDir}.`,
    next: "Check the path.",
    fields: { specifier, from: fromDir, path },
  })
}

/** Conditions of `exports` that this runtime's own resolution uses. */
const conditions = (): ReadonlySet<string> => {
  const runtime = process.versions["bun"] !== undefined ? ["bun"] : "Deno" in globalThis ? ["deno"] : []
  return new Set([...runtime, "node", "import"])
}

const resolvePackage = async (specifier: string, fromDir: string): Promise<URL> => {
  // the user's project is the parent, not this package: Node offers no stable call for that
  const { moduleResolve } = await import("import-meta-resolve")
  try {
    return moduleResolve(specifier, pathToFileURL(join(fromDir, "package.json")), conditions() as Set<string>)
  } catch (error) {
    throw new SlothError("SLOTH_PLUGIN_NOT_FOUND", {
      what: `The plugin "${specifier}" is not installed in ${fromDir}.`,
      why: error instanceof Error ? error.message : undefined,
      next: `Install it: ${installHint(specifier, fromDir)}`,
      fields: { specifier, from: fromDir },
      cause: error,
    })
  }
}

/**
 * Loads a plugin by the name or path that the user gave, from the user's project; nothing is searched for. The module's default export is a
 * plugin, or a function that returns one when it is called without arguments. TypeScript files load under Bun and Deno.
 * Errors: SLOTH_PLUGIN_NOT_FOUND with the command that installs it, SLOTH_PLUGIN_IMPORT, SLOTH_PLUGIN_NO_DEFAULT, SLOTH_PLUGIN_NOT_A_PLUGIN.
 */
export const loadPlugin = async (specifier: string, fromDir: string): Promise<Plugin> => {
  const from = resolve(fromDir)
  if (specifier.trim() === "") {
    throw new SlothError("SLOTH_PLUGIN_NOT_FOUND", {
      what: "The name of a plugin is empty.",
      fields: { specifier, from },
    })
  }
  const url = isFileSpecifier(specifier) ? resolveFile(specifier, from) : await resolvePackage(specifier, from)
  let loaded: { readonly default?: unknown }
  try {
    loaded = (await import(url.href)) as { readonly default?: unknown }
  } catch (error) {
    throw importError("SLOTH_PLUGIN_IMPORT", `The plugin "${specifier}"`, url, error)
  }
  const fields = { specifier, from, url: url.href }
  if (loaded.default === undefined) {
    throw new SlothError("SLOTH_PLUGIN_NO_DEFAULT", {
      what: `The plugin "${specifier}" has no default export.`,
      why: `It exports: ${Object.keys(loaded).join(", ") || "nothing"}.`,
      next: "A plugin module ends in `export default definePlugin({ ... })`, or exports a function that returns that.",
      fields,
    })
  }
  let value: unknown = loaded.default
  if (typeof value === "function") {
    try {
      value = await (value as () => unknown)()
    } catch (error) {
      if (isSlothError(error)) throw error
      throw importError("SLOTH_PLUGIN_IMPORT", `The plugin "${specifier}"`, url, error)
    }
  }
  if (isPlugin(value)) return value
  throw new SlothError("SLOTH_PLUGIN_NOT_A_PLUGIN", {
    what: `The default export of "${specifier}" is not a Sloth plugin.`,
    next: "It must be the result of `definePlugin`, or a function that returns it.",
    fields,
  })
}
