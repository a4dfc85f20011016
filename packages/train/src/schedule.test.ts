import { expect, test } from "bun:test"
import { scheduleFactor, warmupOf } from "./schedule.ts"

const curve = (schedule: "linear" | "cosine" | "constant", total: number, warmupSteps = 0, warmupRatio = 0) =>
  Array.from({ length: total }, (_, i) => scheduleFactor({ schedule, warmupSteps, warmupRatio }, i + 1, total))

// Values of transformers 5: get_linear_schedule_with_warmup, get_cosine_schedule_with_warmup, get_constant_schedule_with_warmup, lr_lambda(0..4).
test("linear", () => {
  expect(curve("linear", 5)).toEqual([1, 0.8, 0.6, 0.4, 0.2])
  expect(curve("linear", 5, 2)).toEqual([0, 0.5, 1, 2 / 3, 1 / 3])
})

test("cosine", () => {
  expect(curve("cosine", 4)).toEqual(
    [1, 0.5 * (1 + Math.SQRT1_2), 0.5, 0.5 * (1 - Math.SQRT1_2)].map((v) => expect.closeTo(v, 12) as never),
  )
  expect(curve("cosine", 5, 1)[1]).toBe(1)
})

test("constant", () => {
  expect(curve("constant", 4)).toEqual([1, 1, 1, 1])
  expect(curve("constant", 4, 2)).toEqual([0, 0.5, 1, 1])
})

test("a ratio is rounded up", () => {
  expect(warmupOf({ warmupSteps: 0, warmupRatio: 0.03 }, 100)).toBe(3)
  expect(warmupOf({ warmupSteps: 0, warmupRatio: 0.03 }, 101)).toBe(4)
  expect(warmupOf({ warmupSteps: 7, warmupRatio: 0 }, 100)).toBe(7)
})
