import { describe, expect, test } from "bun:test"
import { finiteDifferences, largestDifference } from "../internal/testing/gradient.ts"
import { toyLogprobs } from "../internal/testing/toy.ts"
import { bcoLoss, updateRunningMean } from "./bco.ts"
import { klEstimate, ktoLoss, type KtoSettings } from "./kto.ts"
import { ratedSums, type RatedLogprobs } from "./rated-unit.ts"

const toy: RatedLogprobs[] = [0, 1, 2, 3].map((b) => ({
  policy: toyLogprobs(b, 0),
  reference: toyLogprobs(b, 0.5),
  desirable: b < 2,
}))
const counts = { rows: 4, desirable: 2 }
const kto = { loss: "kto", beta: 0.1, desirableWeight: 1, undesirableWeight: 1 } as const
const kl = klEstimate([-3, -2, -4, -1].map((policy, i) => policy - [-3.5, -2.2, -4.1, -1.6][i]!))

describe("KTO", () => {
  test("against TRL", () => {
    expect(kl).toBeCloseTo(0.35, 12)
    expect(Math.abs(ktoLoss(toy, kto, counts, kl).loss - 0.51569645)).toBeLessThan(1e-8)
    expect(Math.abs(ktoLoss(toy, { ...kto, loss: "apo_zero_unpaired" }, counts, kl).loss - 0.51570168)).toBeLessThan(
      1e-8,
    )
  })
  test("the estimate is never below 0", () => {
    expect(klEstimate([-2])).toBe(0)
  })
  test("weights, metrics and a sum in place of the reference's tokens", () => {
    const { loss, metrics } = ktoLoss(toy, { ...kto, desirableWeight: 2, undesirableWeight: 0 }, counts, kl)
    const only = ktoLoss(toy.slice(0, 2), kto, { rows: 2, desirable: 2 }, kl)
    expect(loss).toBeCloseTo(only.loss, 12)
    expect(metrics["rewards/chosen"]).toBeCloseTo(-0.13242229, 8)
    expect(metrics["rewards/rejected"]).toBeCloseTo(-0.00663099, 8)
    expect(metrics["rewards/margins"]).toBeCloseTo(-0.13242229 + 0.00663099, 8)
    expect(only.metrics["rewards/rejected"]).toBeUndefined()
    const summed = toy.map((row) => ({ ...row, reference: ratedSums(row).policy - ratedSums(row).ratio }))
    expect(ktoLoss(summed, kto, counts, kl).loss).toBeCloseTo(ktoLoss(toy, kto, counts, kl).loss, 12)
  })
})

describe("BCO", () => {
  // No published value: these are the formulas of TRL 1.13 written out for one row each.
  test("by hand", () => {
    const row = (ratio: number, desirable: boolean) => ({
      policy: Float64Array.of(ratio),
      reference: 0,
      desirable,
    })
    const s = (x: number) => 1 / (1 + Math.exp(-x))
    const rows = [row(3, true), row(-2, false)]
    const { loss } = bcoLoss(rows, { beta: 0.5 }, { rows: 2, desirable: 1 }, 0.2)
    expect(loss).toBeCloseTo((-Math.log(s(0.5 * 3 - 0.2)) - Math.log(s(-(0.5 * -2 - 0.2)))) / 2, 12)
  })
  test("with delta 0 it is DPO's bco_pair, spread over the rows", () => {
    // bco_pair on the toy batch is 1.4536231 a pair, so half of it a row.
    expect(Math.abs(bcoLoss(toy, { beta: 0.1 }, counts, 0).loss * 2 - 1.4536231)).toBeLessThan(1e-7)
  })
  test("the running mean counts rows", () => {
    const one = updateRunningMean({ mean: 0, count: 0 }, [1, 2, 3])
    expect(one).toEqual({ mean: 2, count: 3 })
    expect(updateRunningMean(one, [10])).toEqual({ mean: 4, count: 4 })
    expect(updateRunningMean(one, [])).toEqual(one)
  })
})

describe("gradients against finite differences", () => {
  const check = (run: (rows: readonly RatedLogprobs[]) => { loss: number; gradients: Float64Array }): void => {
    const { gradients } = run(toy)
    const found = finiteDifferences(
      (x) => run(toy.map((row, i) => ({ ...row, policy: x[i]! }))).loss,
      toy.map((row) => row.policy),
    )
    expect(
      largestDifference(
        toy.map((row, i) => row.policy.map(() => gradients[i]!)),
        found,
      ),
    ).toBeLessThan(1e-8)
  }
  for (const loss of ["kto", "apo_zero_unpaired"] as const satisfies readonly KtoSettings["loss"][])
    test(loss, () => check((rows) => ktoLoss(rows, { ...kto, loss, desirableWeight: 1.5, beta: 0.4 }, counts, kl)))
  test("bco", () => check((rows) => bcoLoss(rows, { beta: 0.4 }, counts, 0.3)))
})
