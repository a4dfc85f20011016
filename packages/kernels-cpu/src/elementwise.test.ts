import { describe, expect, test } from "bun:test"

import { expectClose, isas, numbers, onThreads, sizes } from "../test-kit/session.ts"

describe.each(isas)("elementwise kernels on %s", (isa) => {
  test.each(sizes)("n = %p", async (n) => {
    const [a, b] = [numbers(n, 1), numbers(n, 2)]
    const [filled, copied, added, multiplied, scaled, accumulated, inPlace] = await onThreads(isa, async (s) => {
      const [x, y, out] = [s.f32(a), s.f32(b), s.alloc(n * 4)]
      const results: Float32Array[] = []
      const keep = async (): Promise<void> => void results.push(await s.readF32(out))
      s.k.fill(out, 0.1, n)
      await keep()
      s.k.copy(out, x, n * 4)
      await keep()
      s.k.add(out, x, y, n)
      await keep()
      s.k.mul(out, x, y, n)
      await keep()
      s.k.scale(out, x, 0.3, n, 0)
      await keep()
      s.k.scale(out, y, -2, n, 1)
      await keep()
      s.k.add(out, out, x, n)
      await keep()
      return results
    })
    const sum = a.map((v, i) => v + b[i]!)
    const third = a.map((v) => Math.fround(0.3) * v)
    const both = third.map((v, i) => v - 2 * b[i]!)
    expect(filled).toEqual(new Float32Array(n).fill(0.1))
    expect(copied).toEqual(a)
    expect(added).toEqual(sum)
    expect(multiplied).toEqual(a.map((v, i) => v * b[i]!))
    expect(scaled).toEqual(third)
    expectClose(accumulated!, both, 2e-7, 1e-7)
    expectClose(inPlace!, both.map((v, i) => v + a[i]!), 2e-7, 2e-7) // prettier-ignore
  })

  test.each([
    [1, 1],
    [5, 123],
    [123, 5],
    [301, 333],
  ])("scaleRows [%p, %p]", async (rows, cols) => {
    const [x, scale, start] = [numbers(rows * cols, 3), numbers(rows, 4), numbers(rows * cols, 5)]
    const [plain, accumulated] = await onThreads(isa, async (s) => {
      const [hx, hs, out] = [s.f32(x), s.f32(scale), s.alloc(rows * cols * 4)]
      s.k.scaleRows(out, hx, hs, rows, cols, 0)
      const first = await s.readF32(out)
      s.backend.memory.write(out, start)
      s.k.scaleRows(out, hx, hs, rows, cols, 1)
      return [first, await s.readF32(out)]
    })
    const expected = x.map((v, i) => v * scale[Math.floor(i / cols)]!)
    expect(plain).toEqual(expected)
    expectClose(accumulated!, expected.map((v, i) => v + start[i]!), 2e-7, 1e-7) // prettier-ignore
  })

  test("copy moves overlapping views like memmove", async () => {
    const data = numbers(50_000, 6)
    const [moved] = await onThreads(isa, async (s) => {
      const whole = s.f32(data)
      const from = s.backend.memory.view(whole, 0, 40_000 * 4)
      const to = s.backend.memory.view(whole, 10_000 * 4, 40_000 * 4)
      s.k.copy(to, from, 40_000 * 4)
      s.backend.memory.free(from)
      s.backend.memory.free(to)
      return [await s.readF32(whole)]
    })
    expect(moved!.slice(10_000)).toEqual(data.slice(0, 40_000))
    expect(moved!.slice(0, 10_000)).toEqual(data.slice(0, 10_000))
  })
})
