import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { spawnSync } from "node:child_process"
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

const root = join(import.meta.dirname, "..")

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
  let project = ""
  beforeAll(() => {
    const built = spawnSync(process.execPath, ["x", "turbo", "run", "build", "--filter=@sloth/sandbox"], {
      cwd: root,
      encoding: "utf8",
    })
    if (built.status !== 0) throw new Error(`${built.stdout}${built.stderr}`)
    project = mkdtempSync(join(tmpdir(), "sloth-sandbox-"))
    mkdirSync(join(project, "node_modules"))
    symlinkSync(join(root, "node_modules/@sloth"), join(project, "node_modules/@sloth"))
    writeFileSync(join(project, "package.json"), JSON.stringify({ type: "module" }))
    writeFileSync(join(project, "main.mjs"), script)
  }, 120_000)
  afterAll(() => project !== "" && rmSync(project, { recursive: true, force: true }))

  for (const [runtime, command, args] of [
    ["Bun", process.execPath, []],
    ["Node", "node", []],
    ["Deno", join(root, "node_modules/.bin/deno"), ["run", "--allow-all", "--node-modules-dir=manual"]],
  ] as const)
    test(
      runtime,
      () => {
        // It ends by itself although no one has disposed of the sandboxes.
        const { stdout, stderr } = spawnSync(command, [...args, "main.mjs"], {
          cwd: project,
          encoding: "utf8",
          timeout: 100_000,
        })
        expect(stdout.trim(), stderr).toBe("timeout error 21 timeout forbidden 21")
      },
      120_000,
    )
})
