import { smollm2Path, SMOLLM2_ABSENT } from "../../tests/support/smollm2.ts"
import { runOwnJob } from "../lib/child.ts"
import type { BenchContext } from "../lib/context.ts"
import { median, spread } from "../lib/stats.ts"

interface StepResult {
  readonly seconds: readonly number[]
  readonly parts: Readonly<Record<"rollout" | "score" | "train", readonly number[]>>
  readonly tokens: number
  readonly sampled: number
  readonly peakRssBytes: number
  readonly plannedBytes: number
}

interface PrefixResult {
  readonly shared: readonly number[]
  readonly apart: readonly number[]
  readonly lossDifference: number
  readonly gradientDifference: number
}

/** GRPO with SmolLM2-135M: whole steps, and what sharing the prompt of a group brings. */
export const grpo = async ({ threads, quick, filter, add, say }: BenchContext): Promise<void> => {
  const section = "grpo"
  if (smollm2Path === undefined) {
    add({ section, group: "GRPO", name: "SmolLM2-135M Q4_1", missing: SMOLLM2_ABSENT })
    return
  }
  const rounds = quick ? 1 : 3
  const words = ["--threads", String(threads)]
  const step = "GRPO step, 2 prompts of 256 tokens, 8 completions of 64, LoRA r16"
  if (filter === undefined || step.includes(filter)) {
    say(step)
    const job = await runOwnJob<StepResult>("grpo.ts", [...words, "--steps", String(rounds)])
    if (!job.ok) add({ section, group: step, name: "sloth f32", missing: job.error })
    else
      for (const { seconds, parts, tokens, sampled, peakRssBytes, plannedBytes } of job.values) {
        const at = { section, group: step }
        add({
          ...at,
          name: "step",
          value: spread(seconds),
          unit: "s",
          note: `rollout ${median(parts.rollout).toFixed(2)} s, update ${median(parts.train).toFixed(2)} s`,
        })
        add({ ...at, name: "tokens of all texts", value: spread(seconds.map((s) => tokens / s)), unit: "tok/s" })
        add({ ...at, name: "tokens sampled", value: spread(parts.rollout.map((s) => sampled / s)), unit: "tok/s" })
        add({
          ...at,
          name: "peak memory",
          value: spread([peakRssBytes / 1e6]),
          unit: "MB",
          note: `planned ${(plannedBytes / 1e6).toFixed(0)} MB`,
        })
      }
  }
  const prefix = "update with a shared prompt of 512 tokens, 8 completions of 128"
  if (filter !== undefined && !prefix.includes(filter)) return
  say(prefix)
  const job = await runOwnJob<PrefixResult>("grpo-prefix.ts", [...words, "--rounds", String(rounds)])
  if (!job.ok) add({ section, group: prefix, name: "shared", missing: job.error })
  else
    for (const { shared, apart, lossDifference, gradientDifference } of job.values) {
      const at = { section, group: prefix }
      const ratios = shared.map((s, i) => apart[i]! / s)
      add({ ...at, name: "shared", value: spread(shared), unit: "s" })
      add({ ...at, name: "a copy for each", value: spread(apart), unit: "s" })
      add({
        ...at,
        name: "copies / shared",
        value: spread(ratios),
        unit: "x",
        note: `loss ${lossDifference.toExponential(1)} apart, gradients ${gradientDifference.toExponential(1)} relative`,
      })
    }
}
