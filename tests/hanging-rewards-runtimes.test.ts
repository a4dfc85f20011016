import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { runtimeProject, RUNTIMES, type RuntimeProject } from "./support/runtimes.ts"

/** Rewards that never come back: interrupted where that is possible, with the process ended where it is not. */
const script = `import { endStuckProcess, runRewards } from "@sloth/rl"
const samples = [{ prompt: "p", completion: "c", completionTokens: [1], finishReason: "stop", row: {} }]
const run = async (score) => {
  const options = { timeoutSeconds: 0.2, onError: "null" }
  const { scores, problems } = await runRewards([{ name: "late", score }], samples, options)
  console.log(JSON.stringify(scores), problems.map(({ error }) => error.code).join())
}
endStuckProcess((error) => "SAID " + error.code)
await run(() => { for (;;); })
await run(async () => { for (;;); })
await run(() => { const ended = Date.now() + 1e9; while (Date.now() < ended) "x".repeat(100).match(/(x?){30}y/) })
await run(() => [1])
await run(async () => { await new Promise((done) => setTimeout(done, 20)); for (;;); })`

describe("rewards that hang, under each runtime", () => {
  let project: RuntimeProject | undefined
  beforeAll(() => void (project = runtimeProject("@sloth/rl", script)), 300_000)
  afterAll(() => project?.remove())

  for (const [runtime, command, args] of RUNTIMES)
    test(
      runtime,
      () => {
        const { stdout, stderr } = project!.run(command, args)
        const late = "[[null]] SLOTH_REWARD_TIMEOUT"
        expect(
          stdout
            .trim()
            .split("\n")
            .map((line) => line.trim()),
          stderr,
        ).toEqual([late, late, late, "[[1]]"])
        expect(stderr).toContain("SAID SLOTH_REWARD_TIMEOUT")
      },
      120_000,
    )
})
