import { describe, expect, test } from "bun:test"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { readPeftConfig, readSafetensors } from "@sloth/model"
import { type LogprobBatch } from "@sloth/train"
import { killGrpo } from "../internal/testing/kill-grpo.ts"
import { meanOf, stepsOf, tinyRuns } from "../internal/testing/online-runs.ts"
import { finiteDifferences, largestDifference } from "../internal/testing/gradient.ts"
import { packCounts } from "../internal/counts.ts"
import { ppo, ppoAdvantages, ppoObjectiveLoss } from "./ppo.ts"
import { sampledUnits, type SampledUnit } from "./sampled-unit.ts"

interface Golden {
  readonly klEstimator: "k1" | "k3"
  readonly whitenRewards: boolean
  readonly gamma: number
  readonly lambda: number
  readonly old: number[][]
  readonly reference: number[][]
  readonly values: number[][]
  readonly scores: number[]
  readonly policy: number[][]
  readonly said: number[][]
  readonly advantages: number[][]
  readonly returns: number[][]
  readonly policyLoss: number
  readonly valueLoss: number
  readonly loss: number
  readonly dpolicy: number[][]
  readonly dvalues: number[][]
  readonly valueClipFraction: number
}
const goldens = (
  JSON.parse(
    readFileSync(join(import.meta.dirname, "..", "..", "..", "..", "tests", "golden", "online.json"), "utf8"),
  ) as {
    readonly ppo: readonly Golden[]
  }
).ppo

const { folder, run } = tinyRuns({
  objective: ppo,
  settings: { temperature: 1 },
  config: { steps: 8, batch: 8, schedule: "constant" },
})

const rows = (values: number[][]) => values.map((row) => Float64Array.from(row))
const settings = { clip: 0.2, valueCoef: 0.1, valueClip: 0.2, maxCompletionLength: 5 }

/** The toy batch as units: a prompt of one token, so that positions are tokens. */
const batchOf = (golden: Golden, advantages: readonly Float64Array[], returns: readonly Float64Array[]) => {
  const units = golden.old.map(
    (old, i) =>
      sampledUnits(
        [1],
        [
          {
            tokens: old.map((_, t) => 2 + t),
            old: Float64Array.from(old),
            advantage: advantages[i]!,
            value: Float64Array.from(golden.values[i]!),
            returns: returns[i]!,
          },
        ],
        i,
      )[0]!,
  )
  return {
    units,
    starts: [0, 5, 10, 15, 20],
    indices: [0, 1, 2, 3],
    normaliser: packCounts(4, 20),
    step: 1,
    reference: undefined,
    entropy: new Float32Array(20),
  }
}
const flat = (values: readonly (readonly number[] | Float64Array)[]) => values.flatMap((row) => [...row])

describe("PPO against the formulas of TRL", () => {
  for (const golden of goldens)
    test(`${golden.klEstimator}, gamma ${golden.gamma}${golden.whitenRewards ? ", whitened rewards" : ""}`, () => {
      const kl = golden.old.map((row, i) => Float64Array.from(row, (x, t) => x - golden.reference[i]![t]!))
      const { advantages, returns } = ppoAdvantages(
        Float64Array.from(golden.scores),
        [5, 5, 5, 5],
        kl,
        { masks: [], finish: [], values: rows(golden.values) },
        { ...golden, klCoef: 0.05, missingEndPenalty: 0 },
      )
      // The file has 12 digits.
      expect(largestDifference(advantages, golden.advantages)).toBeLessThan(1e-9)
      expect(largestDifference(returns, golden.returns)).toBeLessThan(1e-9)
      const batch = batchOf(golden, advantages, returns)
      const loss = ppoObjectiveLoss(settings)
      // Log-probs and values come as f32 from the device; doubles in their place show the formulas.
      const compute = (policy: readonly Float64Array[], said: readonly Float64Array[]) =>
        loss.compute({
          ...batch,
          logprobs: Float64Array.from(flat(policy)) as unknown as Float32Array,
          values: Float64Array.from(flat(said)) as unknown as Float32Array,
        } satisfies LogprobBatch<SampledUnit>)
      const [policy, said] = [rows(golden.policy), rows(golden.said)]
      const result = compute(policy, said)
      expect(Math.abs(result.loss / golden.loss - 1)).toBeLessThan(1e-9)
      expect(Math.abs(result.metrics!["policy_loss"]! / golden.policyLoss - 1)).toBeLessThan(1e-9)
      expect(Math.abs(result.metrics!["value_loss"]! / golden.valueLoss - 1)).toBeLessThan(1e-9)
      expect(result.metrics!["value_clip_ratio"]).toBeCloseTo(golden.valueClipFraction, 12)
      expect(largestDifference([result.dlogp], [flat(golden.dpolicy)])).toBeLessThan(1e-9)
      expect(largestDifference([result.dvalues!], [flat(golden.dvalues)])).toBeLessThan(1e-9)
      const found = finiteDifferences((x) => compute(x.slice(0, 4), x.slice(4)).loss, [...policy, ...said])
      expect(
        largestDifference([result.dlogp, result.dvalues!], [flat(found.slice(0, 4)), flat(found.slice(4))]),
      ).toBeLessThan(1e-8)
    })

  test("tokens that do not count are as if they were not there, and what has no score teaches nothing", () => {
    const golden = goldens[0]!
    const of = (scores: number[], masked: boolean) => {
      const keep = (row: number[]): Float64Array =>
        Float64Array.from(masked ? [row[0]!, 9, row[1]!, row[2]!, 9, row[3]!, row[4]!] : row)
      return ppoAdvantages(
        Float64Array.from(scores),
        golden.old.map(() => (masked ? 7 : 5)),
        golden.old.map((row, i) => keep(row.map((x, t) => x - golden.reference[i]![t]!))),
        {
          masks: golden.old.map(() => (masked ? Uint8Array.of(1, 0, 1, 1, 0, 1, 1) : undefined)),
          finish: golden.old.map((_, i) => (i === 0 ? "length" : "stop")),
          values: golden.values.map(keep),
        },
        { ...golden, klCoef: 0.05, missingEndPenalty: 0.5 },
      )
    }
    const [plain, masked] = [of(golden.scores, false), of(golden.scores, true)]
    const counting = (row: Float64Array): number[] => Array.from(row).filter((_, t) => t !== 1 && t !== 4)
    for (const [i, row] of masked.advantages.entries()) {
      expect(counting(row)).toEqual(Array.from(plain.advantages[i]!))
      expect([row[1], row[4]]).toEqual([0, 0])
      expect(counting(masked.returns[i]!)).toEqual(Array.from(plain.returns[i]!))
    }
    // The penalty is taken off the first, which was cut.
    expect(plain.returns[0]![4]).toBeCloseTo(golden.returns[0]![4]! - 0.5, 9)
    const silent = of([1, Number.NaN, 0.25, 2], false)
    expect(silent.advantages[1]).toEqual(new Float64Array(5))
    expect(silent.returns[1]).toEqual(Float64Array.from(golden.values[1]!))
  })
})

describe("a run of PPO", () => {
  test("the first update of a rollout has ratios of 1 and values that are not clipped", async () => {
    const { run: path } = await run({ settings: { numIterations: 2 }, config: { steps: 4 } })
    for (const [i, { metrics }] of stepsOf(path).entries()) {
      if (i % 2 === 1) continue
      expect([metrics!["clip_ratio/region_mean"], metrics!["value_clip_ratio"]]).toEqual([0, 0])
      // Whitened advantages add up to 0, and so does the loss where every ratio is 1.
      expect(Math.abs(metrics!["policy_loss"]!)).toBeLessThan(1e-12)
      expect(metrics!["value_loss"]).toBeGreaterThan(0)
    }
  })

  test("it learns what is rewarded, the critic explains it, and the adapter is a language model's", async () => {
    const { run: path, adapter } = await run({
      settings: { numGenerations: 2, klCoef: 0.01, valueCoef: 1, valueClip: 10 },
      config: { steps: 120 },
    })
    const rollouts = stepsOf(path).filter(({ metrics }) => metrics!["reward"] !== undefined)
    expect(rollouts).toHaveLength(30)
    // 16 completions of 6 tokens that are even by chance: the mean of 5 rollouts is 0.5 ± 0.07 (three standard errors) when nothing is learnt.
    expect(meanOf("reward", rollouts.slice(-5))).toBeGreaterThan(meanOf("reward", rollouts.slice(0, 5)) + 0.15)
    expect(meanOf("value_loss", stepsOf(path).slice(-20))).toBeLessThan(
      meanOf("value_loss", stepsOf(path).slice(0, 20)),
    )
    expect(readPeftConfig(adapter!).scoreHead).toBe(false)
    const scored = (folder: string) =>
      readSafetensors(join(folder, "adapter_model.safetensors")).tensors.some(({ name }) => name.includes("score"))
    expect(scored(adapter!)).toBe(false)
    // A run that goes on does so with its critic.
    expect(scored(join(path, "checkpoints", "step-000120"))).toBe(true)
  }, 120_000)

  test("kill -9 in rollout, scoring and update: resumed to the end, critic included, everything has the same bits", async () => {
    const report = await killGrpo(folder, { kills: 4, variant: "ppo" })
    expect([report.kills, report.differences]).toEqual([4, []])
  }, 240_000)
})
