import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { runtimeProject, RUNTIMES, type RuntimeProject } from "./support/runtimes.ts"

/** What a user of each runtime does, with the compiled package. */
const script = `import { createSandbox } from "@sloth/sandbox"
const words = []
for (const language of ["javascript", "python"]) {
  const sandbox = createSandbox({ language, processes: 1, timeMs: 1000 })
  const python = language === "python"
  const loop = python ? "while True:\\n  try:\\n    while True: pass\\n  except BaseException: pass" : "for (;;);"
  const host = python ? "import os\\nos.system('id')" : "process.exit()"
  words.push((await sandbox.run(loop)).status, (await sandbox.run(host)).status)
  const call = { function: "f", args: [20] }
  const outcome = await sandbox.run(python ? "def f(x): return x + 1" : "const f = (x) => x + 1", { call })
  words.push(outcome.value)
}
console.log(words.join(" "))`

describe("the sandbox under each runtime", () => {
  let project: RuntimeProject | undefined
  beforeAll(() => void (project = runtimeProject("@sloth/sandbox", script)), 120_000)
  afterAll(() => project?.remove())

  for (const [runtime, command, args] of RUNTIMES)
    test(
      runtime,
      () => {
        // It ends by itself although no one has disposed of the sandboxes.
        const { stdout, stderr } = project!.run(command, args)
        expect(stdout.trim(), stderr).toBe("timeout error 21 timeout forbidden 21")
      },
      120_000,
    )
})
