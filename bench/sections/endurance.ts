import { runOwnJob } from "../lib/child.ts"
import type { BenchContext } from "../lib/context.ts"
import { spread } from "../lib/stats.ts"

interface Result {
  readonly steps: number
  readonly parts: readonly { readonly seconds: number; readonly residentBytes: number; readonly liveBuffers: number }[]
}

/** Whether a long run grows or slows down: the last tenth of a nano run against its second. */
export const endurance = async ({ threads, quick, add, say }: BenchContext): Promise<void> => {
  const steps = quick ? 500 : 10_000
  const at = { section: "endurance", group: `nano's shape, ${steps} LoRA steps in one process` }
  say(at.group)
  const result = await runOwnJob<Result>("endurance.ts", ["--steps", String(steps), "--threads", String(threads)])
  if (!result.ok) return add({ ...at, name: "the run", missing: result.error })
  const { parts } = result.values.at(-1)!
  const [early, late] = [parts[1]!, parts.at(-1)!]
  add({ ...at, name: "milliseconds a step", value: spread(parts.map((p) => p.seconds * 1e3)), unit: "ms" })
  add({
    ...at,
    name: "resident memory, last tenth / second tenth",
    value: spread(parts.slice(1).map((p) => p.residentBytes / 1e6)),
    unit: "MB",
    score: late.residentBytes / early.residentBytes,
    scoreOf: "x",
    bar: { must: 1.1, aim: 1.02, below: true },
    note: `${early.liveBuffers} live buffers early, ${late.liveBuffers} late`,
  })
  add({
    ...at,
    name: "seconds a step, last tenth / second tenth",
    value: spread([late.seconds / early.seconds]),
    unit: "x",
    score: late.seconds / early.seconds,
    scoreOf: "x",
    bar: { must: 1.1, aim: 1.03, below: true },
  })
}
