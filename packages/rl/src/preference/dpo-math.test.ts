import { describe, expect, test } from "bun:test"
import { finiteDifferences, largestDifference } from "../internal/testing/gradient.ts"
import { toyCollision, toyLogprobs } from "../internal/testing/toy.ts"
import { DIVERGENCES } from "./divergence.ts"
import { DPO_LOSSES } from "./dpo-losses.ts"
import { dpoLoss, type DpoMathSettings, type PairLogprobs } from "./dpo-math.ts"

const defaults: DpoMathSettings = {
  losses: ["sigmoid"],
  weights: [1],
  beta: 0.1,
  labelSmoothing: 0,
  discopopTau: 0.05,
  divergence: "reverse_kl",
  divergenceAlpha: 0.5,
  ldAlpha: 1,
  wpo: false,
}

const completion = (b: number) => ({
  policy: toyLogprobs(b, 0),
  reference: toyLogprobs(b, 0.5),
  collision: toyCollision(b),
})
// Rows 0 and 1 are chosen, 2 and 3 rejected: completions of 4, 3, 2 and 4 tokens.
const toy: PairLogprobs[] = [0, 1].map((i) => ({ chosen: completion(i), rejected: completion(i + 2) }))
const counts = { rows: 2, tokens: 7 }
const run = (settings: Partial<DpoMathSettings>, pairs = toy) => dpoLoss(pairs, { ...defaults, ...settings }, counts)

// TRL 1.13.0's own loss code, float64.
const goldens: readonly (readonly [string, Partial<DpoMathSettings>, number])[] = [
  ["sigmoid", { losses: ["sigmoid"] }, 0.7609179],
  ["hinge", { losses: ["hinge"] }, 1.1257913],
  ["ipo", { losses: ["ipo"] }, 27.46993656],
  ["exo_pair", { losses: ["exo_pair"], labelSmoothing: 1e-3 }, 2.98173746],
  ["nca_pair", { losses: ["nca_pair"] }, 1.42220073],
  ["robust", { losses: ["robust"], labelSmoothing: 0.1 }, 0.77664182],
  ["bco_pair", { losses: ["bco_pair"] }, 1.4536231],
  ["sppo_hard", { losses: ["sppo_hard"] }, 66.12835204],
  ["aot", { losses: ["aot"], labelSmoothing: 0.1 }, 0.74833877],
  ["aot_unpaired", { losses: ["aot_unpaired"], labelSmoothing: 0.1 }, 0.74699878],
  ["apo_zero", { losses: ["apo_zero"] }, 1.03140336],
  ["apo_down", { losses: ["apo_down"] }, 0.99817103],
  ["discopop", { losses: ["discopop"] }, 0.85450983],
  ["sft", { losses: ["sft"] }, 3.46582137],
  ["sigmoid_norm", { losses: ["sigmoid_norm"] }, 0.70390341],
  ["sigmoid with forward KL", { divergence: "forward_kl" }, 0.78977979],
  ["sigmoid with Jensen-Shannon", { divergence: "js_divergence" }, 0.72615336],
  ["LD-DPO", { ldAlpha: 0.5 }, 0.75159224],
  ["WPO", { wpo: true }, 0.02162702],
  ["MPO", { losses: ["sigmoid", "bco_pair", "sft"], weights: [0.8, 0.2, 1] }, 4.36528031],
]

describe("the toy batch against TRL", () => {
  test("is the same batch", () => {
    const sums = (side: "policy" | "reference") =>
      [0, 1, 2, 3].map((b) => completion(b)[side].reduce((a, x) => a + x, 0))
    expect(largestDifference([sums("policy")], [[-12.83271008, -11.42803952, -2.87616002, -8.95586444]])).toBeLessThan(
      1e-8,
    )
    expect(
      largestDifference([sums("reference")], [[-11.71219078, -9.90011303, -1.48706399, -10.21234075]]),
    ).toBeLessThan(1e-8)
  })
  for (const [name, settings, expected] of goldens)
    test(name, () => expect(Math.abs(run(settings).loss - expected) / expected).toBeLessThan(1e-6))

  test("metrics", () => {
    const { metrics } = run({})
    expect(metrics["rewards/chosen"]).toBeCloseTo(-0.13242229, 8)
    expect(metrics["rewards/rejected"]).toBeCloseTo(-0.00663099, 8)
    expect(metrics["rewards/margins"]).toBeCloseTo(-0.13242229 + 0.00663099, 8)
    expect(metrics["rewards/accuracies"]).toBe(0.5)
    expect(metrics["logps/chosen"]).toBeCloseTo((-12.83271008 - 11.42803952) / 2, 7)
    expect(metrics["logps/rejected"]).toBeCloseTo((-2.87616002 - 8.95586444) / 2, 7)
  })

  test("the alpha divergence becomes reverse KL at 1, and forward KL has the form of its limit at 0", () => {
    expect(run({ divergence: "alpha_divergence", divergenceAlpha: 1 }).loss).toBe(run({}).loss)
    expect(run({ divergence: "alpha_divergence", divergenceAlpha: 1.0001 }).loss).toBeCloseTo(run({}).loss, 4)
    expect(run({ divergence: "alpha_divergence", divergenceAlpha: 0 }).loss).toBeCloseTo(
      run({ divergence: "forward_kl" }).loss,
      12,
    )
  })
})

// Six pairs of several lengths with moderate log-ratios, so that no sort has a tie.
const wave = (n: number, phase: number) => Float64Array.from({ length: n }, (_, t) => -1.2 + Math.sin(1.7 * t + phase))
const many: PairLogprobs[] = Array.from({ length: 6 }, (_, i) => ({
  chosen: { policy: wave(2 + i, i), reference: wave(2 + i, i + 0.4), collision: wave(2 + i, 2 * i) },
  rejected: { policy: wave(5 - (i % 4), 3 * i), reference: wave(5 - (i % 4), 3 * i - 0.3), collision: wave(5, i) },
}))
const gradientError = (settings: Partial<DpoMathSettings>): number => {
  const full = { ...defaults, ...settings }
  const total = { rows: 6, tokens: 27 }
  const inputs = many.flatMap((p) => [p.chosen.policy, p.rejected.policy])
  const given = dpoLoss(many, full, total).gradients.flatMap((g) => [g.chosen, g.rejected])
  const found = finiteDifferences(
    (arrays) =>
      dpoLoss(
        many.map((p, i) => ({
          chosen: { ...p.chosen, policy: arrays[2 * i]! },
          rejected: { ...p.rejected, policy: arrays[2 * i + 1]! },
        })),
        full,
        total,
      ).loss,
    inputs,
  )
  return largestDifference(given, found)
}

describe("gradients against finite differences", () => {
  for (const name of DPO_LOSSES)
    test(name, () =>
      expect(
        gradientError({ losses: [name], labelSmoothing: 0.1, beta: 0.3, discopopTau: 0.5, ldAlpha: 0.6 }),
      ).toBeLessThan(1e-6),
    )
  for (const divergence of DIVERGENCES)
    for (const name of ["sigmoid", "ipo", "sigmoid_norm", "discopop"] as const)
      test(`${name} with ${divergence}`, () =>
        expect(gradientError({ losses: [name], divergence, beta: 0.3, discopopTau: 0.5 })).toBeLessThan(1e-5))
  test("several losses", () =>
    expect(
      gradientError({ losses: ["sigmoid", "aot", "sft"], weights: [0.8, 0.3, 0.5], labelSmoothing: 0.05 }),
    ).toBeLessThan(1e-6))
  test("WPO's weights give none", () => {
    const one = { rows: 1, tokens: 3 }
    const plain = dpoLoss(many.slice(1, 2), defaults, one)
    const weighted = dpoLoss(many.slice(1, 2), { ...defaults, wpo: true }, one)
    const ratio = weighted.loss / plain.loss
    expect(ratio).not.toBeCloseTo(1, 2)
    expect(
      largestDifference([weighted.gradients[0]!.chosen], [plain.gradients[0]!.chosen.map((g) => g * ratio)]),
    ).toBeLessThan(1e-12)
  })
})

test("the parts of a split step add up to the whole, tokens and pairs each by their own count", () => {
  const settings = { ...defaults, losses: ["sigmoid", "sft"] as const, weights: [1, 0.5], ldAlpha: 0.7 }
  const total = { rows: 6, tokens: 27 }
  const whole = dpoLoss(many, settings, total)
  const parts = [many.slice(0, 1), many.slice(1, 5), many.slice(5)].map((p) => dpoLoss(p, settings, total))
  expect(parts.reduce((n, p) => n + p.loss, 0)).toBeCloseTo(whole.loss, 12)
  expect(
    largestDifference(
      parts.flatMap((p) => p.gradients.map((g) => g.rejected)),
      whole.gradients.map((g) => g.rejected),
    ),
  ).toBeLessThan(1e-15)
  for (const [name, value] of Object.entries(whole.metrics))
    expect(parts.reduce((n, p) => n + p.metrics[name]!, 0)).toBeCloseTo(value, 12)
})

test("extreme log-ratios stay finite", () => {
  for (const d of [-5000, 5000])
    for (const name of DPO_LOSSES) {
      if (name === "discopop" && d < 0) continue // its exponential part is e^500 by definition
      const pair = {
        chosen: { policy: Float64Array.of(d), reference: 0 },
        rejected: { policy: Float64Array.of(-d), reference: 0 },
      }
      const result = dpoLoss([pair], { ...defaults, losses: [name], labelSmoothing: 0.1 }, { rows: 1, tokens: 1 })
      expect(Number.isFinite(result.loss)).toBe(true)
      expect(Number.isFinite(result.gradients[0]!.chosen[0]!)).toBe(true)
    }
})
