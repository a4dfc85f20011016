import { describe, expect, test } from "bun:test"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { runPaths, type RolloutFactory } from "@sloth/core"
import { readSamples } from "@sloth/train"
import { finiteDifferences, largestDifference } from "../internal/testing/gradient.ts"
import { killGrpo } from "../internal/testing/kill-grpo.ts"
import { codeOf, meanOf, stepsOf, tinyRuns } from "../internal/testing/online-runs.ts"
import { onlineDpo, xpo } from "./online-dpo.ts"
import { pairLoss, pairSigns, penalised, type SampledPair } from "./pairs.ts"

interface Golden {
  readonly loss: "sigmoid" | "ipo"
  readonly beta: number
  readonly alpha: number
  readonly scores: number[]
  readonly policy: readonly [number[][], number[][]]
  readonly reference: readonly [number[][], number[][]]
  readonly onlineDpo: { readonly loss: number; readonly own: number[][]; readonly other: number[][] }
  readonly xpo: { readonly loss: number; readonly own: number[][]; readonly other: number[][] }
}
const goldens = (
  JSON.parse(
    readFileSync(join(import.meta.dirname, "..", "..", "..", "..", "tests", "golden", "online.json"), "utf8"),
  ) as { readonly pairs: readonly Golden[] }
).pairs

const { folder, run: start } = tinyRuns({
  settings: { temperature: 1 },
  config: { batch: 8, schedule: "constant" },
})

const sampledOf = ({ policy, reference, scores }: Golden): SampledPair[] => {
  const signs = pairSigns(Float64Array.from(scores))
  const both = (of: Golden["policy"], i: number) =>
    [Float64Array.from(of[0][i]!), Float64Array.from(of[1][i]!)] as const
  return policy[0].map((_, i) => ({
    policy: both(policy, i),
    reference: both(reference, i),
    signs: [signs[2 * i]!, signs[2 * i + 1]!],
  }))
}

describe("losses of sampled pairs against TRL's formulas", () => {
  for (const golden of goldens)
    for (const method of ["onlineDpo", "xpo"] as const)
      test(`${method}, ${golden.loss}: value, gradients, finite differences`, () => {
        const settings = { loss: golden.loss, beta: golden.beta, alpha: method === "xpo" ? golden.alpha : 0 }
        const sampled = sampledOf(golden)
        const { loss, gradients } = pairLoss(sampled, settings, 3)
        const expected = golden[method]
        expect(Math.abs(loss / expected.loss - 1)).toBeLessThan(1e-9)
        expect(
          largestDifference(
            gradients.map(([own]) => own),
            expected.own,
          ),
        ).toBeLessThan(1e-9)
        expect(
          largestDifference(
            gradients.map(([, other]) => other),
            expected.other,
          ),
        ).toBeLessThan(1e-9)
        const flat = sampled.flatMap(({ policy }) => policy)
        const found = finiteDifferences(
          (x) =>
            pairLoss(
              sampled.map((pair, i) => ({ ...pair, policy: [x[2 * i]!, x[2 * i + 1]!] })),
              settings,
              3,
            ).loss,
          flat,
        )
        // The losses of IPO are near 30: a difference of 2e-6 leaves 1e-8 of rounding.
        expect(largestDifference(gradients.flat(), found)).toBeLessThan(golden.loss === "ipo" ? 1e-7 : 1e-8)
      })

  test("ties go to the first, pairs without a score teach nothing, and cut completions lose", () => {
    expect([...pairSigns(Float64Array.of(1, 1, 0, 2, Number.NaN, 3))]).toEqual([1, -1, -1, 1, 0, 0])
    expect([...pairSigns(Float64Array.of(1, 1, 0, 2), true)]).toEqual([0, 0, -1, 1])
    expect([...penalised(Float64Array.of(1, 1), ["stop", "length"], 0.5)]).toEqual([1, 0.5])
    const [pair] = sampledOf(goldens[0]!)
    const { loss, gradients } = pairLoss([{ ...pair!, signs: [0, 0] }], { loss: "sigmoid", beta: 0.1, alpha: 1 }, 1)
    expect([loss, gradients.flat().every((row) => row.every((g) => g === 0))]).toEqual([0, true])
  })
})

const run = (objective: typeof onlineDpo | typeof xpo, settings: object, config: object, rollout?: RolloutFactory) =>
  start({ objective, settings, config, ...(rollout === undefined ? {} : { rollout }) })

describe("runs", () => {
  test("the first step of both is log 2, and both learn what is rewarded", async () => {
    for (const objective of [onlineDpo, xpo]) {
      const { run: path } = await run(
        objective,
        { beta: 0.05, alpha: objective === xpo ? 1e-5 : undefined },
        { steps: 60 },
      )
      const events = stepsOf(path)
      // B of a fresh adapter is 0: policy and reference are the same. XPO's bonus is 1e-5 of some -60 nats.
      expect(Math.abs(events[0]!.loss - Math.LN2)).toBeLessThan(1e-3)
      expect(meanOf("rewards/margins", events.slice(-5))).toBeGreaterThan(0.05)
      const own = (from: number, to: number) => {
        const some = readSamples(runPaths(path).samples).filter(
          ({ step, index }) => step > from && step <= to && (objective === onlineDpo || index === 0),
        )
        return some.reduce((n, { reward }) => n + (reward as number), 0) / some.length
      }
      // 64 completions of 6 tokens that are even by chance: the mean of ten rollouts is 0.5 ± 0.03 when nothing is learnt.
      expect(own(50, 60)).toBeGreaterThan(own(0, 10) + 0.1)
    }
  }, 120_000)

  test("XPO's second completion is the reference's: as the policy moves, it stays what it was", async () => {
    const sampled = async (objective: typeof onlineDpo | typeof xpo, learningRate: number) => {
      const { run: path } = await run(objective, {}, { steps: 6, learningRate })
      return readSamples(runPaths(path).samples).filter(({ index, step }) => index === 1 && step > 3)
    }
    const texts = (some: readonly { readonly [name: string]: unknown }[]) => some.map(({ completion }) => completion)
    // Seeds are the same: what moves is the weights.
    expect(texts(await sampled(xpo, 5e-2))).toEqual(texts(await sampled(xpo, 1e-6)))
    expect(texts(await sampled(onlineDpo, 5e-2))).not.toEqual(texts(await sampled(onlineDpo, 1e-6)))
  }, 60_000)

  test("a pair is never cut apart, however small the micro-batches", async () => {
    const [whole, small] = await Promise.all(
      [2048, 8].map((tokenBudget) => run(onlineDpo, {}, { steps: 3, tokenBudget })),
    )
    const [a, b] = [stepsOf(whole!.run), stepsOf(small!.run)]
    for (const [i, { loss }] of b.entries()) expect(loss).toBeCloseTo(a[i]!.loss, 5)
  })

  test("an engine elsewhere has no reference to sample from", async () => {
    const elsewhere = { name: "far", elsewhere: true, create: () => Promise.reject(new Error("never")) }
    expect(await codeOf(run(xpo, {}, { steps: 1 }, elsewhere as unknown as RolloutFactory))).toBe("SLOTH_RL_OPPONENT")
  })

  for (const variant of ["onlineDpo", "xpo"])
    test(`kill -9 in rollout, scoring and update of ${variant}: the same bits`, async () => {
      const report = await killGrpo(folder, { kills: 3, variant })
      expect([report.kills, report.differences]).toEqual([3, []])
    }, 100_000)
})
