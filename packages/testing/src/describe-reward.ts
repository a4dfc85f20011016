import type { Reward, RewardSample } from "@sloth/core"

import { check } from "./internal/assert.ts"
import { deepFreeze } from "./internal/freeze.ts"
import { defaultTestApi, type TestApi } from "./test-api.ts"

/** A sample and the score it must get. */
export interface RewardCase {
  readonly sample: RewardSample
  /** Expected score; null where the reward must have nothing to say. Leave it out where only the general rules are checked. */
  readonly score?: number | null
}

/** Settings of {@link describeReward}. */
export interface DescribeRewardOptions {
  /** At least one sample with the row columns that the reward needs. */
  readonly cases: readonly RewardCase[]
  /** Allowed difference from an expected score; 1e-9 when absent. */
  readonly tolerance?: number
  /** False for rewards that may judge the same sample differently, such as a model as judge. */
  readonly deterministic?: boolean
  /** False for rewards that compare the samples of a call with each other. */
  readonly independent?: boolean
  /** Functions of the test runner; `bun:test` or `node:test` when absent. */
  readonly api?: TestApi
}

// What models really write when training goes wrong: none of it may stop a run.
const HOSTILE = [
  "",
  " \n\t ",
  "\u0000\u001b[31m",
  "<think><answer></think>",
  "</answer></answer><answer>",
  '{"answer": [1, 2',
  "```js\nwhile (true) {",
  "\ud83d",
  "١٢٣ ½ −5 1e999 NaN",
  "((((".repeat(5000),
  "a".repeat(100_000),
  "0".repeat(5000),
]

const scores = async (reward: Reward, samples: readonly RewardSample[]): Promise<readonly (number | null)[]> => {
  const result = await reward.score(deepFreeze(structuredClone(samples)))
  check(Array.isArray(result), `${reward.name} must return an array`)
  check(result.length === samples.length, `${reward.name} gave ${result.length} scores for ${samples.length} samples`)
  for (const [i, score] of result.entries()) {
    check(
      score === null || (typeof score === "number" && Number.isFinite(score)),
      `${reward.name}: score ${i} is ${String(score)}, neither a finite number nor null`,
    )
  }
  return result
}

/**
 * Declares the conformance tests of a reward: one finite score or null a sample, in order; no change to the samples; no failure on the broken completions that
 * training brings; the same score each time and in any company (unless the options say otherwise); and the expected scores.
 */
export function describeReward(reward: Reward, options: DescribeRewardOptions): void {
  const { describe, test } = options.api ?? defaultTestApi()
  const { cases, tolerance = 1e-9, deterministic = true, independent = true } = options
  const samples = cases.map((item) => item.sample)

  describe(`reward ${reward.name}`, () => {
    test("has a name and a usable weight", () => {
      check(reward.name !== "", "a reward needs a name")
      check(reward.weight === undefined || Number.isFinite(reward.weight), `weight ${reward.weight} is not finite`)
      check(cases.length > 0, "give at least one case, with the columns that the reward reads")
    })

    test("gives one score a sample and leaves samples alone", async () => {
      await scores(reward, samples)
      check((await scores(reward, [])).length === 0, "no samples, no scores")
      await scores(reward, [...samples, ...samples, ...samples])
    })

    for (const [i, { sample, score }] of cases.entries()) {
      if (score === undefined) continue
      test(`case ${i} scores ${score}`, async () => {
        const [actual] = await scores(reward, [sample])
        const right =
          score === null || actual === null || actual === undefined
            ? actual === score
            : Math.abs(actual - score) <= tolerance
        check(right, `case ${i} scored ${String(actual)}, expected ${score}`)
      })
    }

    test("survives broken completions", async () => {
      for (const sample of samples) {
        const broken = HOSTILE.map((completion): RewardSample => ({ ...sample, completion, completionTokens: [] }))
        await scores(reward, broken)
      }
    })

    test("takes prompts as text and as messages", async () => {
      for (const sample of samples) {
        await scores(reward, [
          { ...sample, prompt: "" },
          { ...sample, prompt: [] },
          {
            ...sample,
            prompt: [
              { role: "system", content: "Be brief." },
              { role: "user", content: "Hello" },
            ],
          },
          { ...sample, finishReason: "length" },
        ])
      }
    })

    if (deterministic) {
      test("scores the same samples the same way each time", async () => {
        const [first, second] = [await scores(reward, samples), await scores(reward, samples)]
        check(
          first.every((score, i) => Object.is(score, second[i])),
          `scores changed from [${first.join(", ")}] to [${second.join(", ")}]`,
        )
      })
    }

    if (independent) {
      test("scores a sample by itself, whatever the others are", async () => {
        const together = await scores(reward, samples)
        const reversed = (await scores(reward, samples.toReversed())).toReversed()
        for (const [i, sample] of samples.entries()) {
          const [alone] = await scores(reward, [sample])
          check(
            Object.is(alone, together[i]) && Object.is(alone, reversed[i]),
            `sample ${i} scored ${String(alone)} alone, ${String(together[i])} in order, ${String(reversed[i])} in reverse`,
          )
        }
      })
    }
  })
}
