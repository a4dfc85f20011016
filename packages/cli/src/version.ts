import { createRequire } from "node:module"

/** The version of this program. */
export const cliVersion = (): string =>
  // the manifest stands one folder up from the sources and from the compiled files alike
  (createRequire(import.meta.url)("../package.json") as { version: string }).version
