import { spawn } from "node:child_process"
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { root } from "../lib/child.ts"
import type { BenchContext } from "../lib/context.ts"
import { spread } from "../lib/stats.ts"

/** Seconds from starting `sloth train` to the event of its first step. */
const startOnce = async (threads: number): Promise<number> => {
  const folder = mkdtempSync(join(tmpdir(), "sloth-start-"))
  const run = join(folder, "run")
  const words = ["train", "--model", "nano", "--data", join(root, "packages/nano/data/quickstart.jsonl")]
  const child = spawn(
    process.execPath,
    [
      join(root, "packages/cli/src/bin.ts"),
      ...words,
      "--steps",
      "1",
      "--batch",
      "4",
      "--threads",
      String(threads),
      "--run",
      run,
    ],
    { cwd: folder, stdio: ["ignore", "pipe", "pipe"] },
  )
  let errors = ""
  child.stdout.resume()
  child.stderr.on("data", (d: Buffer) => void (errors = (errors + d.toString()).slice(-2000)))
  const started = performance.now()
  const ended = new Promise<void>((resolve) => child.once("close", () => resolve()))
  let over = false
  void ended.then(() => (over = true))
  try {
    for (;;) {
      let events = ""
      try {
        events = readFileSync(join(run, "events.jsonl"), "utf8")
      } catch {
        // The run folder is not there yet.
      }
      if (events.includes('"type":"step"')) return (performance.now() - started) / 1000
      if (over) throw new Error(`sloth train made no step: ${errors.trim().split("\n").slice(-2).join(" | ")}`)
      await new Promise((resolve) => setTimeout(resolve, 2))
    }
  } finally {
    await ended
    rmSync(folder, { recursive: true, force: true })
  }
}

/** From the command to the first optimizer step of nano. */
export const start = async ({ threads, rounds, add, say }: BenchContext): Promise<void> => {
  const at = { section: "start", group: "sloth train --model nano", name: "command to first step" }
  if (!existsSync(join(root, "packages/nano/model/model.safetensors")))
    return add({ ...at, missing: "nano's weights are not there" })
  say(at.group)
  try {
    const seconds: number[] = []
    for (let i = 0; i < Math.max(3, rounds); i++) seconds.push(await startOnce(threads))
    const value = spread(seconds)
    add({ ...at, value, unit: "s", score: value.median, scoreOf: "s", bar: { must: 1.5, below: true } })
  } catch (error) {
    add({ ...at, missing: String((error as Error).message) })
  }
}
