import { describe, expect, test } from "bun:test"
import { finiteDifferences, largestDifference } from "../internal/testing/gradient.ts"
import { toyLogprobs } from "../internal/testing/toy.ts"
import { cpoLoss, type CpoMathSettings } from "./cpo.ts"
import { orpoLoss } from "./orpo.ts"
import { tpoLoss, type TpoSettings } from "./tpo.ts"

const cpoDefaults: CpoMathSettings = {
  loss: "sigmoid",
  beta: 0.1,
  labelSmoothing: 0,
  gamma: 0.5,
  alpha: 0,
  nllWeight: 0,
}
// Completions of one token, so that sums and means are the same: chosen -0.5 and -1, rejected -0.9 and -0.7.
const single = [
  { chosen: Float64Array.of(-0.5), rejected: Float64Array.of(-0.9) },
  { chosen: Float64Array.of(-1), rejected: Float64Array.of(-0.7) },
]
const wave = (n: number, phase: number) => Float64Array.from({ length: n }, (_, t) => -1.2 + Math.sin(1.7 * t + phase))
const many = Array.from({ length: 4 }, (_, i) => ({
  chosen: wave(2 + i, i),
  rejected: wave(5 - i, 3 * i),
  prompt: wave(3, 5 * i),
  gold: wave(1 + i, 7 * i),
}))

describe("CPO, SimPO and AlphaPO", () => {
  const goldens: readonly (readonly [string, Partial<CpoMathSettings>, number])[] = [
    ["sigmoid", {}, 0.69080342],
    ["hinge", { loss: "hinge" }, 0.995],
    ["ipo", { loss: "ipo" }, 24.625],
    ["simpo", { loss: "simpo", beta: 2 }, 0.97084528],
    ["alphapo", { loss: "simpo", beta: 2, alpha: 0.25 }, 0.99391314],
  ]
  for (const [name, settings, expected] of goldens)
    test(`${name} against TRL`, () => {
      const { loss } = cpoLoss(single, { ...cpoDefaults, ...settings }, { rows: 2, tokens: 2 })
      expect(Math.abs(loss - expected) / expected).toBeLessThan(1e-6)
    })
  test("the weight of the chosen tokens", () => {
    const without = cpoLoss(many, cpoDefaults, { rows: 4, tokens: 14 }).loss
    const nll = -many.reduce((n, p) => n + p.chosen.reduce((a, b) => a + b, 0), 0) / 14
    const result = cpoLoss(many, { ...cpoDefaults, nllWeight: 0.3 }, { rows: 4, tokens: 14 })
    expect(result.loss).toBeCloseTo(without + 0.3 * nll, 12)
    expect(result.metrics["nll_loss"]).toBeCloseTo(nll, 12)
  })
  for (const loss of ["sigmoid", "hinge", "ipo", "simpo"] as const)
    for (const alpha of [0, 0.25])
      test(`gradient of ${loss}, alpha ${alpha}`, () => {
        const settings = { ...cpoDefaults, loss, alpha, beta: 0.7, labelSmoothing: 0.1, nllWeight: 0.4 }
        const counts = { rows: 4, tokens: 14 }
        const given = cpoLoss(many, settings, counts).gradients.flatMap((g) => [g.chosen, g.rejected])
        const found = finiteDifferences(
          (x) =>
            cpoLoss(
              many.map((_, i) => ({ chosen: x[2 * i]!, rejected: x[2 * i + 1]! })),
              settings,
              counts,
            ).loss,
          many.flatMap((p) => [p.chosen, p.rejected]),
        )
        expect(largestDifference(given, found)).toBeLessThan(1e-6)
      })
})

describe("ORPO", () => {
  test("the odds ratio against TRL", () => {
    const pairs = single.map((p) => ({ ...p, prompt: new Float64Array() }))
    const { loss, metrics } = orpoLoss(pairs, { beta: 0.1 }, { rows: 2, tokens: 2 })
    expect(metrics["log_odds_ratio"]).toBeCloseTo(-0.67955828, 7) // TRL computes it in f32
    expect(metrics["log_odds_chosen"]).toBeCloseTo(0.14162541, 7)
    expect(loss - metrics["nll_loss"]!).toBeCloseTo(0.06795583, 7)
    expect(metrics["nll_loss"]).toBeCloseTo(0.75, 12)
  })
  test("gradient, with prompts", () => {
    const counts = { rows: 4, tokens: 26 }
    const given = orpoLoss(many, { beta: 0.8 }, counts).gradients.flatMap((g, i) => [
      many[i]!.chosen.map(() => g.chosen),
      many[i]!.rejected.map(() => g.rejected),
      many[i]!.prompt.map(() => g.prompt),
    ])
    const found = finiteDifferences(
      (x) =>
        orpoLoss(
          many.map((_, i) => ({ chosen: x[3 * i]!, rejected: x[3 * i + 1]!, prompt: x[3 * i + 2]! })),
          { beta: 0.8 },
          counts,
        ).loss,
      many.flatMap((p) => [p.chosen, p.rejected, p.prompt]),
    )
    expect(largestDifference(given, found)).toBeLessThan(1e-6)
  })
  test("completions of probability 1 and of probability almost 0 stay finite", () => {
    for (const [chosen, rejected] of [
      [0, -400],
      [-400, 0],
    ] as const) {
      const pair = { chosen: Float64Array.of(chosen), rejected: Float64Array.of(rejected), prompt: new Float64Array() }
      const { loss, gradients } = orpoLoss([pair], { beta: 0.1 }, { rows: 1, tokens: 1 })
      expect([loss, gradients[0]!.chosen, gradients[0]!.rejected].every(Number.isFinite)).toBe(true)
    }
  })
})

describe("TPO", () => {
  const defaults: TpoSettings = { loss: "sigmoid", beta: 0.1, gamma: 0.5, nllWeight: 1, labelSmoothing: 0 }
  const toy = [0, 1].map((i) => ({
    chosen: toyLogprobs(i, 0),
    rejected: toyLogprobs(i + 2, 0),
    gold: toyLogprobs(i + 4, 0),
  }))
  // TRL 1.16.0's `TPOTrainer._compute_loss` on the toy batch with rows 4 and 5 as gold, float64.
  const goldens: readonly (readonly [TpoSettings["loss"], number, number, number])[] = [
    ["sigmoid", 0.05, 2.767014804704935, 1.0361597974358272],
    ["hinge", 0, 3.3522912642249336, 1.6214362569558256],
    ["ipo", 0, 46.23291442541291, 44.5020594181438],
    ["tpo-l", 0.05, 2.7787877962762293, 1.0479327890071217],
  ]
  for (const [loss, labelSmoothing, whole, without] of goldens)
    test(`${loss} against TRL`, () => {
      const run = (nllWeight: number) =>
        tpoLoss(toy, { ...defaults, loss, labelSmoothing, nllWeight }, { rows: 2, tokens: 7 }).loss
      expect(Math.abs(run(1) - whole) / whole).toBeLessThan(1e-12)
      expect(Math.abs(run(0) - without) / without).toBeLessThan(1e-12)
    })
  for (const [loss] of goldens)
    test(`gradient of ${loss}`, () => {
      const settings = { ...defaults, loss, labelSmoothing: 0.1, beta: 0.6 }
      const counts = { rows: 4, tokens: 10 }
      const given = tpoLoss(many, settings, counts).gradients.flatMap((g, i) =>
        (["chosen", "rejected", "gold"] as const).map((side) => many[i]![side].map(() => g[side])),
      )
      const found = finiteDifferences(
        (x) =>
          tpoLoss(
            many.map((_, i) => ({ chosen: x[3 * i]!, rejected: x[3 * i + 1]!, gold: x[3 * i + 2]! })),
            settings,
            counts,
          ).loss,
        many.flatMap((p) => [p.chosen, p.rejected, p.gold]),
      )
      expect(largestDifference(given, found)).toBeLessThan(1e-6)
    })
})
