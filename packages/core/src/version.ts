import { createRequire } from "node:module"

let version: string | undefined

/** The version of `@sloth/core`, which plugins state the range of that they work with. */
export const slothVersion = (): string => {
  // the manifest stands one folder up from the sources and from the compiled files alike
  version ??= (createRequire(import.meta.url)("../package.json") as { version: string }).version
  return version
}
