import { describe, expect, test } from "bun:test"
import { thrown } from "../../../data/fixtures/thrown.ts"
import { finiteDifferences, largestDifference } from "../internal/testing/gradient.ts"
import { groupAdvantages, reinforceAdvantages, rlooAdvantages, weightedRewards, whiten } from "./advantages.ts"
import { generalisedAdvantages, klPenalty, tokenRewards, valueLoss } from "./gae.ts"
import { POLICY_LOSS_DEFAULTS, policyLoss } from "./policy-loss.ts"

const first = [1, 0, 0.5, 2]
const second = [0.2, 0.4, 0.9, 0.1]
const close = (found: ArrayLike<number>, expected: readonly number[], limit = 1e-7) =>
  expect(largestDifference([found], [expected])).toBeLessThan(limit)
const of = (settings: object, rewards: readonly (readonly (number | null)[])[] = [first], sizes = [2, 2]) =>
  groupAdvantages(rewards, sizes, { scale: "group", aggregation: "sum_then_normalize", ...settings })

// TRL 1.13.0's own code.
describe("advantages against TRL", () => {
  test("group", () => close(of({}).advantages, [0.7070068, -0.7070068, -0.7070401, 0.7070401]))
  test("none", () => close(of({ scale: "none" }).advantages, [0.5, -0.5, -0.75, 0.75]))
  test("batch", () => close(of({ scale: "batch" }).advantages, [0.58547148, -0.58547148, -0.87820722, 0.87820722]))
  test("RLOO", () =>
    close(rlooAdvantages(Float64Array.from(first), [2, 2], { beta: 0, normalize: false }), [1, -1, -1.5, 1.5]))
  test("GDPO", () =>
    close(
      of({ aggregation: "normalize_then_sum", weights: [1, 0.5] }, [first, second]).advantages,
      [0.86600188, -0.86600188, -0.86562481, 0.86562481],
    ))
})

describe("rewards that say nothing", () => {
  test("null is left out of the mean; a completion without any score has advantage 0", () => {
    const { advantages, rewards } = of({ scale: "none" }, [[1, null, 3, 5]], [4])
    close(advantages, [-2, 0, 0, 2])
    expect(rewards[1]).toBeNaN()
    expect([
      ...weightedRewards(
        [
          [1, null],
          [null, null],
        ],
        [2, 1],
      ),
    ]).toEqual([2, Number.NaN])
  })
  test("one scored completion, and equal ones, give no advantage", () => {
    for (const scale of ["group", "batch", "none"] as const) {
      close(of({ scale }, [[1, null]], [2]).advantages, [0, 0])
      close(of({ scale }, [[2, 2, 2]], [3]).advantages, [0, 0, 0])
    }
    close(of({ aggregation: "normalize_then_sum" }, [[null, 1]], [2]).advantages, [0, 0])
    close(rlooAdvantages(Float64Array.of(1, Number.NaN), [2], { beta: 0, normalize: false }), [0, 0])
  })
  test("flat groups are named and counted", () => {
    const { flatGroups, metrics } = of({}, [[1, 1, 0, 1, null, null]], [2, 2, 2])
    expect(flatGroups).toEqual([0, 2])
    expect(metrics["frac_reward_zero_std"]).toBeCloseTo(2 / 3, 12)
    expect(metrics["reward"]).toBeCloseTo(0.75, 12)
    expect(metrics["reward_std"]).toBeCloseTo(0.5, 12)
  })
  test("a table of the wrong size", async () => {
    expect((await thrown(() => of({}, [[1, 2]], [2, 2]))).code).toBe("SLOTH_RL_REWARD_TABLE")
    expect((await thrown(() => of({ weights: [1, 2] }))).code).toBe("SLOTH_RL_REWARD_TABLE")
  })
})

describe("RLOO", () => {
  test("clip, KL divergence, whole batch normalised", () => {
    const rewards = Float64Array.of(5, 0, 1)
    // Clipped to 2, 0, 1, less 0.1 · KL: 1.9, -0.2, 1; each against the mean of the others.
    const kl = Float64Array.of(1, 2, 0)
    const plain = rlooAdvantages(rewards, [3], { beta: 0.1, clip: [0, 2], normalize: false }, kl)
    close(plain, [1.9 - 0.4, -0.2 - 1.45, 1 - 0.85], 1e-12)
    const normal = rlooAdvantages(rewards, [3], { beta: 0.1, clip: [0, 2], normalize: true }, kl)
    expect(normal.reduce((a, b) => a + b, 0)).toBeCloseTo(0, 12)
  })
})

describe("REINFORCE++", () => {
  test("returns to come, discounted, whitened over all tokens", () => {
    const settings = { gamma: 0.5, klCoef: 0.1, baseline: false }
    const kl = [Float64Array.of(1, 2), Float64Array.of(0)]
    const found = reinforceAdvantages(Float64Array.of(1, 3), [1, 1], [2, 1], settings, kl)
    // Token rewards -0.1, 0.8 and 3; returns 0.3, 0.8 and 3.
    const expected = whiten([Float64Array.of(0.3, 0.8), Float64Array.of(3)])
    expect(largestDifference(found, expected)).toBeLessThan(1e-12)
    const all = found.flatMap((row) => [...row])
    expect(all.reduce((a, b) => a + b, 0)).toBeCloseTo(0, 12)
    expect(all.reduce((a, b) => a + b * b, 0) / 2).toBeCloseTo(1, 6)
  })
  test("the group's mean as a baseline", () => {
    const found = reinforceAdvantages(Float64Array.of(1, 3, 5, 5), [2, 2], [1, 2, 1, 1], {
      gamma: 1,
      klCoef: 0,
      baseline: true,
    })
    const raw = [Float64Array.of(-1), Float64Array.of(1, 1), Float64Array.of(0), Float64Array.of(0)]
    expect(largestDifference(found, whiten(raw))).toBeLessThan(1e-12)
  })
})

describe("PPO", () => {
  test("advantages by the definition: a discounted sum of one-step errors", () => {
    const [rewards, values] = [Float64Array.of(0.1, -0.2, 1), Float64Array.of(0.5, 0.3, 0.7)]
    const [gamma, lambda] = [0.9, 0.8]
    const error = [0.1 + 0.9 * 0.3 - 0.5, -0.2 + 0.9 * 0.7 - 0.3, 1 - 0.7]
    const expected = [0, 1, 2].map((t) => error.slice(t).reduce((n, e, k) => n + (gamma * lambda) ** k * e, 0))
    const { advantages, returns } = generalisedAdvantages(rewards, values, { gamma, lambda })
    close(advantages, expected, 1e-12)
    close(
      returns,
      expected.map((a, t) => a + values[t]!),
      1e-12,
    )
  })
  test("lambda 1 gives returns less values, lambda 0 one-step errors", () => {
    const [rewards, values] = [Float64Array.of(0, 0, 2), Float64Array.of(1, 1, 1)]
    close(generalisedAdvantages(rewards, values, { gamma: 1, lambda: 1 }).returns, [2, 2, 2], 1e-12)
    close(generalisedAdvantages(rewards, values, { gamma: 1, lambda: 0 }).advantages, [0, 0, 1], 1e-12)
  })
  test("the score comes at the last token, less the KL divergence at each", () => {
    const { perToken, total } = klPenalty(Float64Array.of(-1, -2), Float64Array.of(-1.5, -1))
    expect([...perToken]).toEqual([0.5, -1])
    expect(total).toBe(-0.5)
    close(tokenRewards(3, perToken, 0.1), [-0.05, 3.1], 1e-12)
  })
  test("whitening can keep the mean", () => {
    const kept = whiten([Float64Array.of(1, 2), Float64Array.of(6)], true).flatMap((row) => [...row])
    expect(kept.reduce((a, b) => a + b, 0) / 3).toBeCloseTo(3, 12)
    expect(whiten([])).toEqual([])
  })
  test("the value loss, and its gradient by finite differences", () => {
    const sequences = [
      { values: Float64Array.of(0.5, 1.4), old: Float64Array.of(0.45, 1), returns: Float64Array.of(1, 0.8) },
      { values: Float64Array.of(-0.3), old: Float64Array.of(0.2), returns: Float64Array.of(0.5) },
    ]
    const { loss, gradients, clipFraction } = valueLoss(sequences, 0.2, 3)
    // max(0.25, 0.25), max(0.36, 0.16), max(0.64, 0.25)
    expect(loss).toBeCloseTo((0.5 * (0.25 + 0.36 + 0.64)) / 3, 12)
    expect(clipFraction).toBe(0)
    const found = finiteDifferences(
      (x) =>
        valueLoss(
          sequences.map((s, i) => ({ ...s, values: x[i]! })),
          0.2,
          3,
        ).loss,
      sequences.map((s) => s.values),
    )
    expect(largestDifference(gradients, found)).toBeLessThan(1e-8)
    const held = valueLoss(
      [{ values: Float64Array.of(2), old: Float64Array.of(0), returns: Float64Array.of(2) }],
      0.2,
      1,
    )
    expect(held.loss).toBeCloseTo(0.5 * 1.8 ** 2, 12)
    expect(held.gradients[0]![0]).toBe(0)
    expect(held.clipFraction).toBe(1)
  })
  test("the policy loss is the token mean over advantages of tokens", () => {
    const sequence = {
      policy: Float64Array.of(-1, -0.5),
      old: Float64Array.of(-1.4, -0.6),
      advantage: Float64Array.of(1, -2),
    }
    const { loss } = policyLoss([sequence], { ...POLICY_LOSS_DEFAULTS, loss: "bnpo" }, { rows: 1, tokens: 2 })
    // max(-A·r, -A·clip(r)): -1.2 and 2·e^0.1.
    expect(loss).toBeCloseTo((-1.2 + 2 * Math.exp(0.1)) / 2, 12)
  })
})
