import { afterAll, beforeAll, expect, test } from "bun:test"
import { spawn } from "node:child_process"
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { listCheckpoints, readEvents, runPaths, type StepEvent } from "@sloth/core"
import { verifyCheckpoint } from "./checkpoint.ts"
import { backends } from "./internal/testing/backends.ts"

let folder = ""
beforeAll(() => void (folder = mkdtempSync(join(tmpdir(), "sloth-kill-"))))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const child = join(import.meta.dirname, "internal", "testing", "child-run.ts")

/** Runs the child; kills it `delay` ms after it has printed `lines` lines. True when it ended by itself. */
const part = (run: string, backend: string, lines: number, delay: number): Promise<boolean> =>
  new Promise((resolve, reject) => {
    const process_ = spawn(process.execPath, [child, run, backend], { stdio: ["ignore", "pipe", "pipe"] })
    let seen = 0
    let errors = ""
    const kill = () => setTimeout(() => process_.kill("SIGKILL"), delay)
    if (lines === 0) kill()
    process_.stdout.on("data", (data: Buffer) => {
      const before = seen
      seen += data.toString().split("\n").length - 1
      if (before < lines && seen >= lines) kill()
    })
    process_.stderr.on("data", (data: Buffer) => void (errors += data.toString()))
    process_.on("exit", (code, signal) => {
      if (code === 0) resolve(true)
      else if (signal === "SIGKILL") resolve(false)
      else reject(new Error(`The run failed with ${code}: ${errors}`))
    })
  })

const output = (run: string) => readFileSync(join(run, "adapter", "adapter_model.safetensors"))

for (const backend of backends)
  test.skipIf(backend.missing !== undefined)(
    `kill -9 at random instants, ${backend.name}: resumed to the end, the adapter has the same bytes and no file is torn`,
    async () => {
      const whole = join(folder, `whole-${backend.name}`)
      expect(await part(whole, backend.name, Number.POSITIVE_INFINITY, 0)).toBe(true)
      const broken = join(folder, `broken-${backend.name}`)
      let kills = 0
      for (let tries = 0; ; tries++) {
        // A run that is killed early again and again would never end: after some tries it may.
        const lines = tries >= 9 ? Number.POSITIVE_INFINITY : Math.floor(Math.random() * 9)
        const done = await part(broken, backend.name, lines, Math.random() * (lines === 0 ? 400 : 25))
        for (const { path } of listCheckpoints(broken)) await verifyCheckpoint(path)
        if (done) break
        kills++
      }
      expect(kills).toBeGreaterThan(2)
      expect(output(broken).equals(output(whole))).toBe(true)
      const curve = (run: string) =>
        readEvents(runPaths(run).events)
          .filter((e): e is StepEvent => e.type === "step")
          .map((e) => [e.step, e.loss, e.gradNorm])
      expect(curve(broken)).toEqual(curve(whole))
      // Nothing half-written is left behind.
      expect(readdirSync(broken).filter((n) => n.endsWith(".tmp"))).toEqual([])
      expect(readdirSync(join(broken, "checkpoints")).filter((n) => n.endsWith(".tmp"))).toEqual([])
    },
    120_000,
  )
