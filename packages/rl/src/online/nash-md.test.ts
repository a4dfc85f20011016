import { describe, expect, test } from "bun:test"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { runPaths, type RolloutEngine } from "@sloth/core"
import { localRollout, MixtureRollout, PagedCache, type MixtureOptions } from "@sloth/infer"
import {
  buildMicroBatch,
  makeTrainable,
  readLogprobs,
  readSamples,
  resolveTrainConfig,
  unitFromTokens,
} from "@sloth/train"
import { finiteDifferences, largestDifference } from "../internal/testing/gradient.ts"
import { killGrpo } from "../internal/testing/kill-grpo.ts"
import { codeOf, stepsOf, tinyRuns } from "../internal/testing/online-runs.ts"
import { tinyModel, tinyPrompts } from "../internal/testing/tiny-grpo.ts"
import { nashMd, nashMdLoss, preferenceMargins } from "./nash-md.ts"
import { xpo } from "./online-dpo.ts"
import type { SampledPair } from "./pairs.ts"

const golden = (
  JSON.parse(
    readFileSync(join(import.meta.dirname, "..", "..", "..", "..", "tests", "golden", "online.json"), "utf8"),
  ) as {
    readonly pairs: readonly {
      readonly beta: number
      readonly scores: number[]
      readonly policy: readonly [number[][], number[][]]
      readonly reference: readonly [number[][], number[][]]
      readonly nash: { readonly loss: number; readonly own: number[][] }
    }[]
  }
).pairs[0]!

const { engine, folder, ...runs } = tinyRuns({
  objective: nashMd,
  settings: { temperature: 1 },
  config: { batch: 8, schedule: "constant" },
})

test("the loss against TRL's formula: value, gradient, finite differences with the ratio held fixed", () => {
  const margins = preferenceMargins(Float64Array.from(golden.scores))
  const sampled = golden.policy[0].map((_, i): SampledPair => ({
    policy: [Float64Array.from(golden.policy[0][i]!), Float64Array.from(golden.policy[1][i]!)],
    reference: [Float64Array.from(golden.reference[0][i]!), Float64Array.from(golden.reference[1][i]!)],
    signs: [margins[2 * i]!, margins[2 * i + 1]!],
  }))
  const { loss, gradients } = nashMdLoss(sampled, golden, 3)
  expect(Math.abs(loss / golden.nash.loss - 1)).toBeLessThan(1e-9)
  expect(
    largestDifference(
      gradients.map(([own]) => own),
      golden.nash.own,
    ),
  ).toBeLessThan(1e-9)
  expect(gradients.every(([, other]) => other.every((g) => g === 0))).toBe(true)
  // Moving the reference with the policy keeps the ratio: what is left is the gradient.
  const found = finiteDifferences(
    (x) =>
      nashMdLoss(
        sampled.map((pair, i) => ({
          ...pair,
          policy: [x[i]!, pair.policy[1]],
          reference: [pair.reference[0].map((r, t) => r + x[i]![t]! - pair.policy[0][t]!), pair.reference[1]],
        })),
        golden,
        3,
      ).loss,
    sampled.map(({ policy }) => policy[0]),
  )
  expect(
    largestDifference(
      gradients.map(([own]) => own),
      found,
    ),
  ).toBeLessThan(1e-8)
  expect([...preferenceMargins(Float64Array.of(1, 1, Number.NaN, 0))]).toEqual([0, 0, 0, 0])
})

describe("the mixture", () => {
  const options = { maxTokens: 5, temperature: 0.8, seed: 3 } as const
  const prompts = tinyPrompts.slice(0, 4).map(({ tokens }) => ({ tokens, count: 2 }))
  const all = async (from: RolloutEngine) => {
    const found: string[] = []
    for await (const { prompt, index, tokens } of from.generate(prompts, options))
      found.push(`${prompt}.${index}: ${tokens.join(" ")}`)
    return found.sort()
  }

  test("share 0 draws what the policy draws, share 1 what the reference draws, and between it is between", async () => {
    using model = tinyModel().build(engine)
    const { tokenizer } = tinyModel()
    makeTrainable(model, resolveTrainConfig({ rank: 4 }))
    for (const [i, { tensor }] of model.trainables().entries())
      engine.backend.kernels.randomNormal(tensor.handle, 0, 0.4, tensor.size, 5, i)
    await using policy = localRollout.create(model, { tokenizer })
    await using reference = localRollout.create(model, { tokenizer, adapters: false })
    const [own, other] = [await all(policy), await all(reference)]
    expect(own).not.toEqual(other)
    const mixed = async (mixture: number, options: Omit<MixtureOptions, "mixture" | "tokenizer"> = {}) => {
      await using engine = new MixtureRollout(model, { tokenizer, mixture, ...options })
      return await all(engine)
    }
    expect(await mixed(0)).toEqual(own)
    expect(await mixed(1)).toEqual(other)
    const half = await mixed(0.5)
    expect(half).not.toEqual(own)
    // However many grow at a time, how prompts are cut, and when texts have to give their place up.
    for (const options of [{ maxBatch: 3 }, { prefillChunk: 4 }, { cacheTokens: 48, maxBatch: 3 }])
      expect(await mixed(0.5, options)).toEqual(half)
    // The log-prob of the first token, from those of the two models over the whole vocabulary.
    const prompt = prompts[0]!.tokens
    const batch = buildMicroBatch(
      Array.from({ length: 131 }, (_, id) =>
        unitFromTokens(Int32Array.from([...prompt, id]), (t) => t === prompt.length, id)!,
      ),
    )
    const [on, off] = await Promise.all(
      [true, false].map(async (adapters) => (await readLogprobs(model, batch, { adapters })).logprobs),
    )
    const logits = Float64Array.from(on!, (x, id) => 0.3 * off![id]! + 0.7 * x)
    const norm = Math.log(logits.reduce((n, x) => n + Math.exp(x), 0))
    await using some = new MixtureRollout(model, { tokenizer, mixture: 0.3 })
    for await (const { tokens, logprobs } of some.generate([{ tokens: prompt, count: 3 }], options))
      expect(logprobs[0]).toBeCloseTo(logits[tokens[0]!]! - norm, 4)
  }, 60_000)
})

const run = (settings: object, config: object) => runs.run({ settings, config })

describe("runs", () => {
  test("what is learnt from is the preference over the mixture", async () => {
    const { run: path } = await run({}, { steps: 2, batch: 4 })
    const events = stepsOf(path)
    // B of a fresh adapter is 0: policy and reference are the same, to rounding.
    expect(Math.abs(events[0]!.metrics!["kl/sequence"]!)).toBeLessThan(1e-4)
    expect(events[0]!.gradNorm).toBeGreaterThan(0)
    const samples = readSamples(runPaths(path).samples)
    expect(samples).toHaveLength(16)
    for (const { step, metrics } of events) {
      const own = samples.filter((sample) => sample.step === step)
      const wins = own.flatMap((first, i) => {
        if (i % 2 === 1) return []
        const p = 1 / (1 + Math.exp((own[i + 1]!["reward"] as number) - (first["reward"] as number)))
        expect([first["index"], own[i + 1]!["index"], own[i + 1]!["advantage"]]).toEqual([0, 1, 0])
        expect(first["advantage"]).toBeCloseTo(p - 0.5, 12)
        return [p]
      })
      expect(metrics!["rewards/preferred"]).toBeCloseTo(wins.reduce((n, p) => n + p, 0) / wins.length, 12)
    }
  }, 100_000)

  test("it learns what is rewarded, and the opponent follows half the way", async () => {
    const { run: path } = await run({ beta: 0.01, rewardWeights: [8] }, { steps: 50, batch: 16, seed: 1 })
    const samples = readSamples(runPaths(path).samples)
    const mean = (from: number, to: number, who: number) => {
      const some = samples.filter(({ step, index }) => step > from && step <= to && index === who)
      return some.reduce((n, { reward }) => n + (reward as number) / 8, 0) / some.length
    }
    // 160 completions of 6 tokens that are even by chance: 0.5 ± 0.016 when nothing is learnt.
    expect(Math.abs(mean(0, 10, 0) - 0.5)).toBeLessThan(0.1)
    expect(mean(40, 50, 0)).toBeGreaterThan(0.8)
    expect(mean(40, 50, 1)).toBeGreaterThan(0.6)
    expect(mean(40, 50, 1)).toBeLessThan(mean(40, 50, 0))
  }, 120_000)

  test("the plan counts the caches of both models", async () => {
    const bytes = async (objective: typeof nashMd | typeof xpo) =>
      (await runs.plan({ objective, config: { epochs: 1 } })).memory.rolloutBytes!
    const [one, both] = [await bytes(xpo), await bytes(nashMd)]
    using model = tinyModel().build(engine)
    using cache = new PagedCache(model, { maxTokens: 1 << 20 })
    // Eight prompts of at most 11 tokens, two completions of 6 each: a block of 16 tokens, or two, a text, and no fewer than the prompts and completions hold.
    const tokens = tinyPrompts.slice(0, 8).reduce((n, prompt) => n + prompt.tokens.length + 12, 0)
    expect(both - one).toBeGreaterThan(tokens * cache.bytesPerToken)
  })

  test("settings out of range are refused", async () => {
    expect(await codeOf(runs.plan({ settings: { mixture: 1.5 }, config: { batch: 5 } }))).toBe("SLOTH_CONFIG_INVALID")
  })

  test("kill -9 in rollout, scoring and update: the same bits", async () => {
    const report = await killGrpo(folder, { kills: 3, variant: "nashMd" })
    expect([report.kills, report.differences]).toEqual([3, []])
  }, 100_000)
})
