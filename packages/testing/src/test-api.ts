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

interface BunTest {
  readonly describe: TestApi["describe"]
  readonly test: {
    (name: string, body: () => void | Promise<void>, timeout: number): void
    readonly skip: TestApi["test"]["skip"]
  }
}

/** The runner of this process: `bun:test` under Bun, else `node:test`. Errors: SLOTH_TESTING_RUNNER where neither can be loaded. */
export function defaultTestApi(): TestApi {
  // Loaded on demand, so that importing the kits outside a test run does nothing.
  const load = createRequire(import.meta.url)
  try {
    const { describe, test } = load("bun:test") as BunTest
    // Bun gives up on a test after 5 seconds; a comparison with the reference backend can take longer on a busy machine.
    const patient = (name: string, body: () => void | Promise<void>): void => test(name, body, 120_000)
    return { describe, test: Object.assign(patient, { skip: test.skip }) }
  } catch {
    // Not Bun.
  }
  try {
    const { describe, test } = load("node:test") as TestApi
    return { describe, test }
  } catch {
    // Neither.
  }
  throw new SlothError("SLOTH_TESTING_RUNNER", {
    what: "No test runner was found.",
    why: "Neither bun:test nor node:test can be loaded here.",
    next: "Pass the functions of your runner as the option `api`.",
  })
}
