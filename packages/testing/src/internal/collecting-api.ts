import type { TestApi } from "../test-api.ts"

/** A test that a kit declared. */
export interface CollectedTest {
  /** Names of the enclosing groups and of the test itself. */
  readonly path: readonly string[]
  readonly skipped: boolean
  run(): void | Promise<void>
}

/** A {@link TestApi} that runs nothing: it lists what a kit declares, so that the kits themselves can be tested. */
export function collectingApi(): TestApi & { readonly tests: readonly CollectedTest[] } {
  const tests: CollectedTest[] = []
  const groups: string[] = []
  const add =
    (skipped: boolean) =>
    (name: string, run: () => void | Promise<void>): void =>
      void tests.push({ path: [...groups, name], skipped, run })
  return {
    tests,
    describe(name, body) {
      groups.push(name)
      body()
      groups.pop()
    },
    test: Object.assign(add(false), { skip: add(true) }),
  }
}

/** Runs tests in order until one fails; its name and message, or undefined when all pass. */
export async function firstFailureOf(tests: readonly CollectedTest[]): Promise<string | undefined> {
  for (const { path, skipped, run } of tests) {
    if (skipped) continue
    try {
      await run()
    } catch (error) {
      return `${path.join(" > ")}: ${error instanceof Error ? error.message : String(error)}`
    }
  }
  return undefined
}
