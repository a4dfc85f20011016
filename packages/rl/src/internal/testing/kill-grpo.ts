import { spawn } from "node:child_process"
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { readEvents, runPaths, type StepEvent } from "@sloth/core"
import { readSamples } from "@sloth/train"

/** What a run of GRPO does, one after the other. */
export const PHASES = ["rollout", "scoring", "update"] as const

/** Where a run was killed, and whether those that were resumed are the run that was not. */
export interface KillReport {
  /** Kills by what the run had begun last. */
  readonly hits: Readonly<Record<string, number>>
  readonly kills: number
  readonly runs: number
  /** What differs, in words; nothing when all is equal. */
  readonly differences: readonly string[]
}

/** One start of the run in `folder`: killed `delay` ms after it has begun `phase` for the `nth` time. Where it was then; undefined when it ended by itself. */
const part = (
  folder: string,
  maxStaleness: number,
  variant: string,
  kill?: { readonly phase: string; readonly nth: number; readonly delay: number },
): Promise<string | undefined> =>
  new Promise((resolve, reject) => {
    const script = join(import.meta.dirname, "child-grpo.ts")
    const child = spawn(process.execPath, [script, folder, String(maxStaleness), variant], {
      stdio: ["ignore", "pipe", "pipe"],
    })
    let [said, seen, errors, last] = ["", 0, "", "start"]
    child.stdout.on("data", (data: Buffer) => {
      said += data.toString()
      const lines = said.split("\n")
      said = lines.pop()!
      for (const line of lines) {
        last = line
        if (line === kill?.phase && ++seen === kill.nth) setTimeout(() => child.kill("SIGKILL"), kill.delay)
      }
    })
    child.stderr.on("data", (data: Buffer) => void (errors += data.toString()))
    child.on("close", (code, signal) => {
      if (code === 0) resolve(undefined)
      else if (signal === "SIGKILL") resolve(last)
      else reject(new Error(`The run failed with ${signal ?? code}: ${errors.slice(-2000)}`))
    })
  })

const outcome = (folder: string): Readonly<Record<string, string>> => ({
  adapter: readFileSync(join(folder, "adapter", "adapter_model.safetensors")).toString("base64"),
  samples: JSON.stringify(readSamples(runPaths(folder).samples)),
  losses: JSON.stringify(
    readEvents(runPaths(folder).events)
      .filter((event): event is StepEvent => event.type === "step")
      .map(({ step, loss, gradNorm }) => [step, loss, gradNorm]),
  ),
})

/** Kills runs of a tiny model with signal 9, in turn in a rollout, in scoring and in an update, resumes each to its end, and compares them with one that was left alone. */
export const killGrpo = async (
  folder: string,
  {
    kills,
    maxStaleness = 0,
    variant = "grpo",
    say,
  }: {
    readonly kills: number
    readonly maxStaleness?: number
    /** A name of `variants`. */
    readonly variant?: string
    say?(n: number): void
  },
): Promise<KillReport> => {
  const whole = join(folder, `whole-${variant}-${maxStaleness}`)
  await part(whole, maxStaleness, variant)
  const expected = outcome(whole)
  const hits: Record<string, number> = {}
  const differences: string[] = []
  let [done, runs] = [0, 0]
  while (done < kills) {
    const run = join(folder, `killed-${variant}-${maxStaleness}-${runs++}`)
    for (;;) {
      say?.(done)
      const kill = { phase: PHASES[done % 3]!, nth: 1 + Math.floor(Math.random() * 3), delay: Math.random() * 12 }
      const at = await part(run, maxStaleness, variant, done < kills ? kill : undefined)
      if (at === undefined) break
      hits[at] = (hits[at] ?? 0) + 1
      done++
    }
    const got = outcome(run)
    for (const [name, value] of Object.entries(expected))
      if (got[name] !== value) differences.push(`${name} of run ${runs}`)
    if (readdirSync(run).some((name) => name.endsWith(".tmp"))) differences.push(`a torn file in run ${runs}`)
  }
  return { hits, kills: done, runs, differences }
}
