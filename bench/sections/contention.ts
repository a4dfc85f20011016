import { runOwnJob } from "../lib/child.ts"
import type { BenchContext } from "../lib/context.ts"
import { Peaks } from "../lib/peaks.ts"
import { median, spread } from "../lib/stats.ts"

interface Result {
  readonly tokens: number
  readonly seconds: readonly number[]
}

/** A training step while another process keeps one core busy: with T threads on a machine of T cores, (T - 1/2) / T of the speed is what fair sharing leaves. */
export const contention = async ({ threads, quick, rounds, add, say }: BenchContext): Promise<void> => {
  const group = "a second process keeps one core busy"
  const length = quick ? "128" : "256"
  const words = [
    "--rows",
    "2",
    "--length",
    length,
    "--policy",
    "recompute",
    "--steps",
    "2",
    "--threads",
    String(threads),
  ]
  const speed = async (): Promise<number> => {
    const result = await runOwnJob<Result>("train-step.ts", words)
    if (!result.ok) throw new Error(result.error)
    const r = result.values.at(-1)!
    return r.tokens / median(r.seconds)
  }
  try {
    const shares: number[] = []
    for (let round = 0; round < rounds; round++) {
      say(`${group}: round ${round + 1} of ${rounds}`)
      const alone = await speed()
      using other = await Peaks.open()
      const state = { over: false }
      const busy = (async () => {
        while (!state.over) await other.measure("f32", 1, 0.25)
      })()
      shares.push((await speed()) / alone)
      state.over = true
      await busy
    }
    const fair = (threads - 0.5) / threads
    const value = spread(shares.map((s) => s * 100))
    add({
      section: "contention",
      group,
      name: "LoRA step, speed kept",
      value,
      unit: "%",
      score: value.median / 100 / fair,
      scoreOf: "of a fair share",
      bar: { must: 0.7, aim: 0.9 },
    })
  } catch (error) {
    add({ section: "contention", group, name: "LoRA step", missing: String((error as Error).message) })
  }
}
