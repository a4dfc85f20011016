import { afterAll, describe, expect, test } from "bun:test"
import { readdirSync } from "node:fs"
import { createSandbox, type SandboxLanguage } from "@sloth/sandbox"
import { hostilePrograms } from "../../../sandbox/src/internal/testing/hostile-programs.ts"
import { unitTests } from "./code.ts"

/** Far above what an honest program needs (a few ms), far below what a test may take. */
const TIME_MS = 200

/** The task: its answers depend on both numbers, which are drawn for each completion. */
const right = (a: number, b: number): number => a * 31 + b * 7 + 5
const honest = {
  python: "def solve(a, b):\n    return a * 31 + b * 7 + 5\n",
  javascript: "function solve(a, b) { return a * 31 + b * 7 + 5 }\n",
}

for (const language of ["javascript", "python"] as const satisfies readonly SandboxLanguage[])
  describe(`hostile programs in ${language}`, () => {
    const sandbox = createSandbox({
      language,
      timeMs: TIME_MS,
      totalMs: 2 * TIME_MS,
      processes: 2,
      memoryBytes: 96 * 2 ** 20,
    })
    afterAll(() => sandbox[Symbol.asyncDispose]())
    const reward = unitTests({
      language,
      sandbox,
      fresh: (_row, random) =>
        Array.from({ length: 3 }, () => {
          const [a, b] = [Math.floor(random() * 1e6) + 100, Math.floor(random() * 1e6) + 100]
          return { args: [a, b], expected: right(a, b) }
        }),
    })
    const programs = hostilePrograms[language]
    const sample = (code: string) => ({
      prompt: "",
      completion: `\`\`\`${language}\n${code}\n\`\`\``,
      completionTokens: [],
      finishReason: "stop" as const,
      row: { entry_point: "solve" },
    })

    test(`none of ${programs.length} hangs, escapes or scores, and the honest ones between them do`, async () => {
      expect(programs.length).toBeGreaterThan(100)
      await sandbox.warm()
      const files = readdirSync("/")
      const every = 20
      const mixed = programs.flatMap((program, i) =>
        i % every === every - 1
          ? [program, { family: "honest", name: `honest ${i}`, code: honest[language] }]
          : [program],
      )
      mixed.push({ family: "honest", name: "honest, last", code: honest[language] })
      // Two at a time, so that the time of each is its own.
      const results: { name: string; score: number | null; ms: number; family: string }[] = []
      let next = 0
      const worker = async (): Promise<void> => {
        for (let i = next++; i < mixed.length; i = next++) {
          const started = performance.now()
          const [score] = await reward.score([sample(mixed[i]!.code)])
          results.push({
            name: mixed[i]!.name,
            family: mixed[i]!.family,
            score: score!,
            ms: performance.now() - started,
          })
        }
      }
      await Promise.all([worker(), worker()])
      expect(results.filter((r) => r.family !== "honest" && r.score !== 0)).toEqual([])
      expect(results.filter((r) => r.family === "honest" && r.score !== 1)).toEqual([])
      // Both steps to their end, the grace, and the start of a new process on a busy machine.
      expect(results.filter((r) => r.ms > 30_000)).toEqual([])
      expect(({} as { polluted?: number }).polluted).toBeUndefined()
      expect(readdirSync("/")).toEqual(files)
    }, 600_000)
  })

test("there are 200 of them", () => {
  expect(hostilePrograms.python.length + hostilePrograms.javascript.length).toBeGreaterThanOrEqual(200)
})
