import { describe, expect, test } from "bun:test"
import { finiteDifferences, largestDifference } from "../internal/testing/gradient.ts"
import { CORRECTION_MODES, IMPORTANCE_LEVELS } from "./importance.ts"
import { KL_ESTIMATORS } from "./kl.ts"
import {
  adaptEntropy,
  bonusWeight,
  entropyThreshold,
  POLICY_LOSS_DEFAULTS,
  POLICY_LOSSES,
  policyLoss,
  type PolicyLossSettings,
  type PolicySequence,
} from "./policy-loss.ts"
import { rlooLoss } from "./rloo.ts"

// The toy batch of the golden values: four completions of 4, 2, 3 and 1 tokens. Values: TRL 1.13.0's own code, float64.
const f = (...values: number[]) => Float64Array.from(values)
const advantages = [0.7, -0.7, -0.6, 0.6]
const policy = [f(-0.5, -1.2, -0.3, -0.9), f(-0.7, -0.4), f(-1.1, -0.2, -0.6), f(-0.8)]
const old = [f(-0.6, -1, -0.35, -1.4), f(-0.5, -0.45), f(-1, -0.5, -0.6), f(-1.3)]
const reference = [f(-0.55, -1.1, -0.4, -1), f(-0.6, -0.5), f(-0.9, -0.3, -0.7), f(-0.9)]
const entropy = [f(0.9, 1.4, 0.2, 1.1), f(0.6, 0.3), f(1.3, 0.4, 0.8), f(0.7)]
const shift = [f(0.1, -0.2, 0.05, -0.3), f(0.02, -0.01), f(-0.6, -0.4, -0.5), f(0.3)]
const toy: PolicySequence[] = policy.map((p, i) => ({
  policy: p,
  old: old[i]!,
  reference: reference[i]!,
  entropy: entropy[i]!,
  advantage: advantages[i]!,
}))
const sampled = toy.map((s, i) => ({ ...s, sampling: s.old!.map((x, t) => x + shift[i]![t]!) }))
const totals = { rows: 4, tokens: 10 }
const base: PolicyLossSettings = { ...POLICY_LOSS_DEFAULTS, epsilonHigh: 0.28, maxCompletionLength: 4 }
const run = (settings: Partial<PolicyLossSettings>, sequences = toy, of: object = totals) =>
  policyLoss(sequences, { ...base, ...settings }, { ...totals, ...of })
const top = entropyThreshold(toy, 0.5)

const goldens: readonly (readonly [string, () => number, number])[] = [
  ["grpo", () => run({ loss: "grpo" }).loss, -0.05180384],
  ["bnpo", () => run({ loss: "bnpo" }).loss, -0.04848019],
  ["dapo", () => run({ loss: "dapo" }).loss, -0.04848019],
  ["dr_grpo", () => run({ loss: "dr_grpo" }).loss, -0.03030012],
  ["cispo", () => run({ loss: "cispo", epsilonHigh: 5 }).loss, 0.13106815],
  ["sapo", () => run({ loss: "sapo" }).loss, -0.15012639],
  ["vespo", () => run({ loss: "vespo" }).loss, -0.08887619],
  ["luspo", () => run({ loss: "luspo", importance: "sequence" }).loss, -0.16961776],
  ["GSPO", () => run({ loss: "grpo", importance: "sequence" }).loss, -0.06514167],
  ["KL, bias-corrected", () => run({ beta: 0.1 }).loss, -0.04781338],
  ["KL, uncorrected", () => run({ beta: 0.1, klCorrection: false }).loss, -0.04786021],
  ["delta", () => run({ delta: 1.1 }).loss, -0.02890975],
  ["top entropy", () => run({ entropyThreshold: top.threshold }).loss, -0.10998287],
  ["off-policy mask", () => run({ offPolicyThreshold: 0.05 }).loss, -0.17938032],
  ["entropy bonus", () => run({ entropyCoef: 0.01 }).loss, -0.05618019],
  [
    "on policy",
    () =>
      run(
        {},
        toy.map((s) => ({ ...s, old: undefined })),
      ).loss,
    -0.02,
  ],
  ["token_truncate", () => run({ correction: { mode: "token_truncate", max: 3 } }, sampled).loss, 0.0613344],
  ["token_mask", () => run({ correction: { mode: "token_mask", max: 3 } }, sampled).loss, 0.0613344],
  ["sequence_truncate", () => run({ correction: { mode: "sequence_truncate", max: 3 } }, sampled).loss, 0.2358617],
  ["sequence_mask", () => run({ correction: { mode: "sequence_mask", max: 3 } }, sampled).loss, -0.34998362],
  ["RLOO", () => rlooLoss(toy, { epsilon: 0.2, epsilonHigh: 0.2 }, 4).loss, -0.05616569],
]

describe("the toy batch against TRL", () => {
  for (const [name, value, expected] of goldens)
    test(name, () => expect(Math.abs(value() - expected) / Math.abs(expected)).toBeLessThan(1e-6))
  test("metrics", () => {
    const { metrics, clipped } = run({ beta: 0.1 })
    expect(metrics["kl"]).toBeCloseTo(0.006668, 6)
    expect(metrics["clip_ratio/high_mean"]).toBeCloseTo(0.2, 12)
    expect(metrics["clip_ratio/low_mean"]).toBe(0)
    expect(Math.max(...clipped.high)).toBe(1)
    expect(metrics["entropy"]).toBeCloseTo(0.77, 12)
  })
})

describe("gradients against finite differences", () => {
  const check = (settings: Partial<PolicyLossSettings>, sequences: readonly PolicySequence[] = sampled): void => {
    const loss = (x: readonly Float64Array[]) => {
      // Weights that have no gradient (vespo's, cispo's, corrections on the policy) must not move with the step of the difference.
      const moved = sequences.map((s, i) => ({ ...s, policy: x[i]! }))
      return policyLoss(moved, { ...base, ...settings }, totals).loss
    }
    const { gradients } = policyLoss(sequences, { ...base, ...settings }, totals)
    expect(
      largestDifference(
        gradients,
        finiteDifferences(
          loss,
          sequences.map((s) => s.policy),
        ),
      ),
    ).toBeLessThan(1e-8)
  }
  for (const loss of POLICY_LOSSES.filter((name) => name !== "cispo" && name !== "vespo"))
    for (const importance of ["token", "sequence"] as const)
      for (const klEstimator of KL_ESTIMATORS)
        test(`${loss}, ${importance}, ${klEstimator}`, () => check({ loss, importance, klEstimator, beta: 0.3 }))
  test("delta, masks and corrections", () => {
    check({ delta: 1.1, entropyThreshold: 0.7, klCorrection: false, beta: 0.2 })
    for (const mode of CORRECTION_MODES) check({ correction: { mode, max: 1.4, min: 0.8 }, importance: "sequence" })
  })
  test("advantages of tokens, and tokens that do not count", () =>
    check(
      { loss: "grpo", importance: "sequence", beta: 0.1 },
      sampled.map((s, i) => ({
        ...s,
        advantage: s.policy.map((_, t) => Math.sin(3 * i + t)),
        mask: Uint8Array.from(s.policy, (_, t) => (t === 1 ? 0 : 1)),
      })),
    ))
  test("cispo and vespo: the log-prob times a weight that is held fixed", () => {
    for (const loss of ["cispo", "vespo"] as const) {
      const { gradients, loss: value } = run({ loss, epsilonHigh: 1.15 })
      // The loss is linear in the log-probs for a fixed weight, so it is the gradient's product with them.
      const product = gradients.reduce((n, g, i) => n + g.reduce((m, x, t) => m + x * policy[i]![t]!, 0), 0)
      expect(product).toBeCloseTo(value, 12)
    }
  })
  test("GSPO-token: the value of the sequence's ratio, the gradient of each token's", () => {
    const [token, sequence] = [run({ importance: "sequence_token" }), run({ importance: "sequence" })]
    expect(token.loss).toBeCloseTo(sequence.loss, 12)
    // With one advantage for the whole completion the sum over tokens is the same, whatever its spread.
    for (const i of [0, 1, 2, 3])
      expect(token.gradients[i]!.reduce((a, b) => a + b, 0)).toBeCloseTo(
        sequence.gradients[i]!.reduce((a, b) => a + b, 0),
        12,
      )
    const varied = toy.map((s) => ({ ...s, advantage: s.policy.map((_, t) => (t === 0 ? 1 : 0)) }))
    expect(run({ importance: "sequence_token" }, varied).gradients[0]![1]).toBeCloseTo(0, 15)
    expect(run({ importance: "sequence" }, varied).gradients[0]![1]).not.toBeCloseTo(0, 3)
  })
  test("on policy the ratio is 1 and its gradient lives", () => {
    const plain = toy.map((s) => ({ ...s, old: undefined }))
    const same = toy.map((s) => ({ ...s, old: s.policy }))
    for (const loss of POLICY_LOSSES)
      for (const importance of IMPORTANCE_LEVELS)
        expect(
          largestDifference(run({ loss, importance }, plain).gradients, run({ loss, importance }, same).gradients),
        ).toBe(0)
  })
  test("entropy", () => {
    const settings = { ...base, entropyCoef: 0.3, entropyThreshold: top.threshold }
    const of = { ...totals, entropyTokens: top.tokens }
    const given = policyLoss(toy, settings, of).entropyGradients!
    const found = finiteDifferences(
      (x) =>
        policyLoss(
          toy.map((s, i) => ({ ...s, entropy: x[i]! })),
          settings,
          of,
        ).loss,
      entropy,
      1e-9,
    )
    expect(largestDifference(given, found)).toBeLessThan(1e-6)
  })
  test("RLOO", () => {
    const settings = { epsilon: 0.2, epsilonHigh: 0.2 }
    const found = finiteDifferences(
      (x) =>
        rlooLoss(
          toy.map((s, i) => ({ ...s, policy: x[i]! })),
          settings,
          4,
        ).loss,
      policy,
    )
    expect(largestDifference(rlooLoss(toy, settings, 4).gradients, found)).toBeLessThan(1e-8)
  })
})

test("the parts of a split step add up to the whole", () => {
  for (const loss of POLICY_LOSSES) {
    const settings = { loss, beta: 0.1, entropyCoef: 0.02, correction: { mode: "token_truncate", max: 2 } } as const
    const whole = run(settings, sampled)
    const parts = [sampled.slice(0, 1), sampled.slice(1, 3), sampled.slice(3)].map((part) => run(settings, part))
    expect(parts.reduce((n, p) => n + p.loss, 0)).toBeCloseTo(whole.loss, 12)
    for (const [name, value] of Object.entries(whole.metrics))
      expect(parts.reduce((n, p) => n + p.metrics[name]!, 0)).toBeCloseTo(value, 12)
    expect(
      largestDifference(
        parts.flatMap((p) => p.gradients),
        whole.gradients,
      ),
    ).toBe(0)
  }
})

describe("masks", () => {
  test("a completion without a token that counts gives nothing, and no NaN", () => {
    const masked = toy.map((s, i) => (i === 2 ? { ...s, mask: new Uint8Array(3) } : s))
    for (const loss of POLICY_LOSSES) {
      const { gradients, loss: value } = run({ loss, beta: 0.1 }, masked)
      expect(Number.isFinite(value)).toBe(true)
      expect([...gradients[2]!]).toEqual([0, 0, 0])
    }
  })
  test("log-probs of the sampler that are not numbers count as no difference", () => {
    const broken = sampled.map((s) => ({ ...s, sampling: s.sampling.map((x, t) => (t === 0 ? Number.NaN : x)) }))
    const { loss } = run({ correction: { mode: "sequence_truncate", max: 3 } }, broken)
    expect(Number.isFinite(loss)).toBe(true)
  })
  test("vespo stays finite far off policy", () => {
    const far = toy.map((s) => ({ ...s, old: s.policy.map(() => -200) }))
    expect(Number.isFinite(run({ loss: "vespo" }, far).loss)).toBe(true)
  })
})

describe("entropy", () => {
  test("the threshold lies between ranks as numpy's quantile has it", () => {
    // numpy.quantile([.2, .3, .4, .6, .7, .8, .9, 1.1, 1.3, 1.4], .5)
    expect(top.threshold).toBeCloseTo(0.75, 12)
    expect(top.tokens).toBe(5)
    expect(entropyThreshold(toy, 1)).toEqual({ threshold: 0.2, tokens: 10 })
    expect(entropyThreshold([], 0.5)).toEqual({ threshold: 0, tokens: 0 })
  })
  test("the adaptive bonus waits for the first step, then follows its target", () => {
    const settings = { target: 0.2, delta: 0.005, min: 0, max: 0.01 }
    let state = { coef: 0, lastEntropy: Number.POSITIVE_INFINITY }
    expect(bonusWeight(state, 0.2)).toBe(0)
    const weights: number[] = []
    for (const h of [0.1, 0.1, 0.1, 0.5, 0.1]) {
      state = adaptEntropy(state, h, settings)
      weights.push(bonusWeight(state, 0.2))
    }
    expect(weights).toEqual([0.005, 0.01, 0.01, 0, 0.01])
  })
})
