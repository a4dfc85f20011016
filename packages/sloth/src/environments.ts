import { basename, extname, resolve } from "node:path"
import { SlothError, type PluginRegistry } from "@sloth/core"
import type { AnyEnvironment, ChosenEnvironment, EnvironmentFactory } from "@sloth/rl"
import { loadUserModule, namesFile } from "./load-module.ts"

/** An environment: itself, or where it is: a file, or a name that plugins provide. */
export type EnvironmentChoice = AnyEnvironment | string

/** What an environment is made by, and how a record names it; undefined for one given in code. */
export interface FoundEnvironment {
  readonly factory: Pick<EnvironmentFactory, "name" | "config" | "create">
  readonly name: string | undefined
}

/** The factory of a file: its default export (an environment, a factory, or a function from settings to an environment), else the only one among its exports. */
const fromFile = async (path: string): Promise<FoundEnvironment["factory"]> => {
  const { isEnvironment, isEnvironmentFactory } = await import("@sloth/rl")
  const loaded = await loadUserModule(path, "environment", "SLOTH_ENVIRONMENT")
  const usable = (value: unknown): boolean => isEnvironment(value) || isEnvironmentFactory(value)
  const among = Object.values(loaded).filter(usable)
  const chosen = loaded["default"] ?? (among.length === 1 ? among[0] : undefined)
  const name = basename(path, extname(path))
  if (isEnvironment(chosen)) return { name, create: () => chosen }
  if (isEnvironmentFactory(chosen)) return chosen
  if (typeof chosen === "function") return { name, create: chosen as EnvironmentFactory["create"] }
  throw new SlothError("SLOTH_ENVIRONMENT_EXPORT", {
    what: `The file ${path} exports no environment.`,
    why:
      among.length > 1
        ? `It has no default export and exports ${among.length} environments.`
        : chosen === undefined
          ? `It exports: ${Object.keys(loaded).join(", ") || "nothing"}.`
          : "Its default export has no function reset.",
    next: "End it with `export default defineEnvironment({ ... })`.",
    fields: { path, exports: Object.keys(loaded) },
  })
}

/**
 * Finds an environment by name, in a file, or as it is. Errors: SLOTH_ENVIRONMENT_NOT_FOUND, SLOTH_ENVIRONMENT_IMPORT, SLOTH_ENVIRONMENT_EXPORT, and those of the registry for an
 * unknown name.
 */
export const findEnvironment = async (
  registry: PluginRegistry,
  cwd: string,
  choice: EnvironmentChoice,
): Promise<FoundEnvironment> => {
  if (typeof choice !== "string") return { factory: { name: choice.name, create: () => choice }, name: undefined }
  if (!namesFile(choice)) {
    const factory = registry.get("environments", choice) as unknown as EnvironmentFactory
    return { factory, name: choice }
  }
  const path = resolve(cwd, choice)
  return { factory: await fromFile(path), name: path }
}

/** Finds an environment and makes it. Errors: as {@link findEnvironment}, and SLOTH_CONFIG_INVALID for its settings. */
export const resolveEnvironment = async (
  registry: PluginRegistry,
  cwd: string,
  choice: EnvironmentChoice,
  settings: unknown,
): Promise<ChosenEnvironment & { readonly name: string | undefined }> => {
  const { createEnvironment } = await import("@sloth/rl")
  const { factory, name } = await findEnvironment(registry, cwd, choice)
  return { ...createEnvironment(factory, settings), name }
}
