import { createRequire } from "node:module"

import { SlothError } from "@sloth/core"

/** What a kit needs of a test runner; `bun:test` and `node:test` fit. */
export interface TestApi {
  describe(name: string, body: () => void): void
  readonly test: {
    (name: string, body: () => void | Promise<void>): void
    skip(name: string, body: () => void | Promise<void>): void
  }
}

/** The runner of this process: `bun:test` under Bun, else `node:test`. Errors: SLOTH_TESTING_RUNNER where neither can be loaded. */
export function defaultTestApi(): TestApi {
  // Loaded on demand, so that importing the kits outside a test run does nothing.
  const load = createRequire(import.meta.url)
  for (const runner of ["bun:test", "node:test"]) {
    try {
      const found = load(runner) as TestApi
      return { describe: found.describe, test: found.test }
    } catch {
      // The next runner may be there.
    }
  }
  throw new SlothError("SLOTH_TESTING_RUNNER", {
    what: "No test runner was found.",
    why: "Neither bun:test nor node:test can be loaded here.",
    next: "Pass the functions of your runner as the option `api`.",
  })
}
