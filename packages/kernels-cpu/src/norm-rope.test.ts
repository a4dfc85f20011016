import { describe, expect, test } from "bun:test"

import { expectClose, isas, numbers, onThreads } from "../test-kit/session.ts"

const shapes = [
  [1, 1],
  [5, 123],
  [123, 5],
  [7, 4099],
  [150, 576],
] as const

describe.each(isas)("rmsNorm on %s", (isa) => {
  test.each(shapes)("forward and backward [%p, %p]", async (rows, cols) => {
    const [x, w, dy] = [numbers(rows * cols, 30, 2), numbers(cols, 31), numbers(rows * cols, 32)]
    const [eps, offset] = [1e-5, 1]
    const result = await onThreads(isa, async (s) => {
      const [hx, hw, hdy] = [s.f32(x), s.f32(w), s.f32(dy)]
      const [y, bare, rstd] = [s.alloc(rows * cols * 4), s.alloc(rows * cols * 4), s.alloc(rows * 4)]
      const [dx, dw, more] = [s.alloc(rows * cols * 4), s.f32(w), s.f32(x)]
      s.k.rmsNorm(y, rstd, hx, hw, rows, cols, eps, offset)
      s.k.rmsNorm(bare, 0, hx, 0, rows, cols, eps, 0)
      s.k.rmsNormBackward(dx, dw, hdy, hx, hw, rstd, rows, cols, offset, 0)
      s.k.rmsNormBackward(more, 0, hdy, hx, hw, rstd, rows, cols, offset, 1)
      return [
        await s.readF32(y),
        await s.readF32(bare),
        await s.readF32(rstd),
        await s.readF32(dx),
        await s.readF32(dw),
        await s.readF32(more),
      ]
    })
    const [y, bare, rstd, dx, dw, more] = result as [Float32Array, Float32Array, Float32Array, Float32Array, Float32Array, Float32Array] // prettier-ignore
    const expectedDw = Float64Array.from(w)
    for (let r = 0; r < rows; r++) {
      const row = Array.from(x.subarray(r * cols, (r + 1) * cols))
      const inverse = 1 / Math.sqrt(row.reduce((a, v) => a + v * v, 0) / cols + eps)
      expectClose([rstd[r]!], [inverse], 1e-6, 0)
      const g = row.map((_, c) => dy[r * cols + c]! * (w[c]! + offset))
      const projection = row.reduce((a, v, c) => a + v * inverse * g[c]!, 0) / cols
      expectClose(y.subarray(r * cols, (r + 1) * cols), row.map((v, c) => v * inverse * (w[c]! + offset)), 1e-6, 1e-6) // prettier-ignore
      expectClose(bare.subarray(r * cols, (r + 1) * cols), row.map((v) => v * inverse), 1e-6, 1e-6) // prettier-ignore
      const gradient = row.map((v, c) => inverse * (g[c]! - v * inverse * projection))
      expectClose(dx.subarray(r * cols, (r + 1) * cols), gradient, 1e-5, 2e-5 * inverse)
      expectClose(more.subarray(r * cols, (r + 1) * cols), gradient.map((v, c) => v + row[c]!), 1e-5, 2e-5 * inverse) // prettier-ignore
      row.forEach((v, c) => (expectedDw[c]! += dy[r * cols + c]! * v * inverse))
    }
    expectClose(dw, expectedDw, 1e-5, 1e-5)
  })
})

describe.each(isas)("rope on %s", (isa) => {
  test.each([
    [1, 1, 2, 2],
    [5, 3, 20, 12],
    [123, 9, 64, 64],
  ])("%p rows, %p heads of %p, %p rotated", async (rows, heads, headDim, rotary) => {
    const ldx = heads * headDim + 5
    const half = rotary / 2
    const x = numbers(rows * ldx, 33)
    const angles = numbers(50 * half, 34, 3)
    const positions = Int32Array.from({ length: rows }, (_, i) => (i * 7) % 50)
    const [rotated, back] = await onThreads(isa, async (s) => {
      const [hx, c, sn, p] = [s.f32(x), s.f32(angles.map(Math.cos)), s.f32(angles.map(Math.sin)), s.i32(positions)]
      s.k.rope(hx, ldx, c, sn, p, rows, heads, headDim, rotary, 0)
      const forward = await s.readF32(hx)
      s.k.rope(hx, ldx, c, sn, p, rows, heads, headDim, rotary, 1)
      return [forward, await s.readF32(hx)]
    })
    const expected = Float64Array.from(x)
    for (let r = 0; r < rows; r++) {
      for (let h = 0; h < heads; h++) {
        for (let i = 0; i < half; i++) {
          const at = r * ldx + h * headDim + i
          const angle = angles[positions[r]! * half + i]!
          expected[at] = x[at]! * Math.cos(angle) - x[at + half]! * Math.sin(angle)
          expected[at + half] = x[at + half]! * Math.cos(angle) + x[at]! * Math.sin(angle)
        }
      }
    }
    expectClose(rotated!, expected, 1e-6, 3e-7)
    expectClose(back!, x, 1e-6, 3e-7)
    // Channels that are not rotated and the gap between rows stay as they were.
    expect(rotated!.filter((_, i) => i % ldx >= heads * headDim)).toEqual(
      x.filter((_, i) => i % ldx >= heads * headDim),
    )
  })

  test("a position outside the tables is an error of the queue", async () => {
    let code: unknown
    await onThreads(isa, async (s) => {
      const [x, t, p] = [s.f32([1, 2]), s.f32([1]), s.i32([1])]
      s.k.rope(x, 2, t, t, p, 1, 1, 2, 2, 0)
      code = await s.backend.synchronize().catch((e: { code: string }) => e.code)
      return [await s.readF32(x)]
    })
    expect(code).toBe("SLOTH_KERNEL_DATA")
  })
})
