import { spawn } from "node:child_process"
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { listCheckpoints, readEvents, runPaths, type StepEvent } from "@sloth/core"
import { verifyCheckpoint } from "@sloth/train"
import { writeRandomNano } from "../../tests/support/random-nano.ts"
import { exactly, type ParityContext } from "../lib/check.ts"
import { killGrpo, PHASES } from "../../packages/rl/src/internal/testing/kill-grpo.ts"
import { root } from "../lib/child.ts"

const STEPS = 40

const stepsSeen = (run: string): number => {
  try {
    return readFileSync(join(run, "events.jsonl"), "utf8").split('"type":"step"').length - 1
  } catch {
    return 0
  }
}

/** Starts or resumes `sloth train`; kills it `delay` ms after it has made `more` steps. True when it ended by itself. */
const part = async (words: readonly string[], run: string, more: number, delay: number): Promise<boolean> => {
  const child = spawn(process.execPath, [join(root, "packages/cli/src/bin.ts"), "train", ...words], {
    stdio: ["ignore", "ignore", "pipe"],
  })
  let errors = ""
  child.stderr.on("data", (d: Buffer) => void (errors = (errors + d.toString()).slice(-3000)))
  const state: { code?: number | null } = {}
  const ended = new Promise<void>((resolve) =>
    child.once("close", (code, signal) => {
      state.code = signal === "SIGKILL" ? -9 : code
      resolve()
    }),
  )
  const begin = stepsSeen(run)
  while (state.code === undefined && stepsSeen(run) < begin + more) await new Promise((r) => setTimeout(r, 3))
  if (Number.isFinite(delay)) {
    await new Promise((r) => setTimeout(r, delay))
    if (state.code === undefined) child.kill("SIGKILL")
  }
  await ended
  if (state.code === 0) return true
  if (state.code === -9) return false
  throw new Error(`sloth train ended with ${state.code}: ${errors.trim().split("\n").slice(-4).join(" | ")}`)
}

/** A run that is killed again and again ends with the same adapter as one that is not. */
export const kill = async ({ quick, threads, add, say }: ParityContext): Promise<void> => {
  const kills = quick ? 4 : 20
  const what = `kill -9 at ${kills} random instants of ${STEPS}-step runs, each resumed`
  const folder = mkdtempSync(join(tmpdir(), "sloth-kill-"))
  try {
    const model = join(folder, "model")
    await writeRandomNano(model)
    const data = join(folder, "rows.jsonl")
    const rows = Array.from({ length: 48 }, (_, r) => ({
      tokens: Array.from({ length: 20 + ((r * 13) % 40) }, (_, k) => (r * 31 + k * k * 7 + 11) % 2000),
      mask: Array.from({ length: 20 + ((r * 13) % 40) }, (_, k) => (k > 5 ? 1 : 0)),
    }))
    writeFileSync(data, rows.map((r) => `${JSON.stringify(r)}\n`).join(""))
    const fresh = (run: string): string[] =>
      [
        ["--model", model, "--data", data, "--run", run, "--steps", STEPS, "--batch", 4, "--rank", 4, "--dropout", 0.1],
        ["--learning-rate", 0.005, "--save-every", 2, "--seed", 3, "--threads", threads],
      ]
        .flat()
        .map(String)
    const whole = join(folder, "whole")
    say(`${what}: the uninterrupted run`)
    if (!(await part(fresh(whole), whole, Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY)))
      throw new Error("the uninterrupted run was killed")
    const adapter = (run: string) => readFileSync(join(run, "adapter/adapter_model.safetensors"))
    const curve = (run: string) =>
      JSON.stringify(
        readEvents(runPaths(run).events)
          .filter((e): e is StepEvent => e.type === "step")
          .map((e) => [e.step, e.loss, e.gradNorm]),
      )
    let done = 0
    let runs = 0
    let torn = 0
    let differing = 0
    while (done < kills) {
      const run = join(folder, `broken-${runs++}`)
      let begun = false
      for (;;) {
        say(`${what}: ${done} kills`)
        const more = Math.floor(Math.random() * 4)
        const last = done >= kills
        // A resumed run takes about a second to its first step; kills before that hit loading and restoring.
        const delay = last ? Number.POSITIVE_INFINITY : Math.random() * (more === 0 ? 2000 : 60)
        const words = begun ? ["--resume", "--run", run, "--threads", String(threads)] : fresh(run)
        const over = await part(words, run, last ? Number.POSITIVE_INFINITY : more, delay)
        begun = begun || over || readdirSync(folder).includes(`broken-${runs - 1}`)
        begun = begun && stepsSeen(run) > 0
        if (!begun) rmSync(run, { recursive: true, force: true })
        else
          for (const { path } of listCheckpoints(run))
            try {
              await verifyCheckpoint(path)
            } catch {
              torn++
            }
        if (over) break
        done++
      }
      if (!adapter(run).equals(adapter(whole)) || curve(run) !== curve(whole)) differing++
      torn += readdirSync(run).filter((n) => n.endsWith(".tmp")).length
    }
    add(
      exactly(
        what,
        differing === 0 && torn === 0
          ? "same bits, no torn file"
          : `${differing} of ${runs} runs differ, ${torn} torn files`,
        "same bits, no torn file",
        `${done} kills over ${runs} runs`,
      ),
    )
  } catch (error) {
    add({ what, value: String((error as Error).message), bar: "same bits, no torn file", ok: false })
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** GRPO runs that are killed in rollouts, scoring and updates end as one that is not, with rollouts made when they are needed and ahead. */
export const killOnline = async ({ quick, add, say }: ParityContext): Promise<void> => {
  const kills = quick ? 6 : 20
  for (const maxStaleness of [0, 4]) {
    const what = `GRPO, kill -9 at ${kills} instants in rollouts, scoring and updates, maxStaleness ${maxStaleness}`
    const folder = mkdtempSync(join(tmpdir(), "sloth-kill-grpo-"))
    try {
      const report = await killGrpo(folder, { kills, maxStaleness, say: (n) => say(`${what}: ${n} kills`) })
      const hits = Object.entries(report.hits).map(([phase, n]) => `${n} in ${phase}`)
      const missed = PHASES.filter((phase) => report.hits[phase] === undefined)
      add(
        exactly(
          what,
          report.differences.length > 0
            ? report.differences.join(", ")
            : missed.length > 0
              ? `no kill in ${missed.join(" and ")}`
              : "same bits",
          "same bits",
          `${report.kills} kills over ${report.runs} runs: ${hits.join(", ")}`,
        ),
      )
    } catch (error) {
      add({ what, value: String((error as Error).message), bar: "same bits", ok: false })
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
  }
}
