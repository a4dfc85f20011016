import { describe, expect, test } from "bun:test"

import { expectClose, isas, numbers, onThreads, sizes } from "../test-kit/session.ts"

describe.each(isas)("reductions on %s", (isa) => {
  test.each(sizes)("n = %p", async (n) => {
    const x = numbers(n, 7, 3)
    const broken = x.slice()
    broken[0] = NaN
    broken[n - 1] = n === 1 ? NaN : -Infinity
    const [totals, counts] = await onThreads(isa, async (s) => {
      const [hx, hb, out, count] = [s.f32(x), s.f32(broken), s.alloc(24), s.alloc(8)]
      s.backend.memory.write(out, new Float64Array([-1, -1, -1]))
      s.k.sum(out, 0, hx, n)
      s.k.sumSquares(out, 2, hx, n)
      s.k.countNonFinite(count, 0, hx, n)
      s.k.countNonFinite(count, 1, hb, n)
      return [await s.readF64(out), await s.readI32(count)] as const
    })
    const sum = x.reduce((a, v) => a + v, 0)
    const squares = x.reduce((a, v) => a + v * v, 0)
    expectClose(totals, [sum, -1, squares], 1e-12, 1e-10)
    expect([...counts]).toEqual([0, n === 1 ? 1 : 2])
  })

  test("sums in double precision what f32 would lose", async () => {
    const n = 100_000
    const [totals] = await onThreads(isa, async (s) => {
      const [hx, out] = [s.f32(new Float32Array(n).fill(0.1)), s.alloc(8)]
      s.k.sum(out, 0, hx, n)
      return [await s.readF64(out)]
    })
    expect(Math.abs(totals![0]! - n * Math.fround(0.1))).toBeLessThan(1e-8)
  })

  test.each([
    [1, 1],
    [5, 123],
    [123, 5],
    [400, 333],
  ])("sumRows [%p, %p]", async (rows, cols) => {
    const [x, start] = [numbers(rows * cols, 8), numbers(cols, 9)]
    const [plain, accumulated] = await onThreads(isa, async (s) => {
      const [hx, out, more] = [s.f32(x), s.alloc(cols * 4), s.f32(start)]
      s.k.sumRows(out, hx, rows, cols, 0)
      s.k.sumRows(more, hx, rows, cols, 1)
      return [await s.readF32(out), await s.readF32(more)]
    })
    const expected = new Float64Array(cols)
    x.forEach((v, i) => (expected[i % cols]! += v))
    expectClose(plain!, expected, 1e-7, 1e-7)
    expectClose(accumulated!, expected.map((v, c) => v + start[c]!), 1e-7, 1e-7) // prettier-ignore
  })

  test("an empty tensor sums to zero", async () => {
    const [totals] = await onThreads(isa, async (s) => {
      const [x, out] = [s.alloc(0), s.alloc(16)]
      s.k.sum(out, 0, x, 0)
      s.k.sumSquares(out, 1, x, 0)
      return [await s.readF64(out)]
    })
    expect([...totals!]).toEqual([0, 0])
  })
})
