import { describe, expect, test } from "bun:test"

import { expectClose, isas, numbers, onThreads, session } from "../test-kit/session.ts"

const indices = (n: number, limit: number, seed: number): Int32Array =>
  Int32Array.from(numbers(n, seed), (v) => Math.min(limit - 1, Math.floor(((v + 1) / 2) * limit)))

const shapes = [
  [1, 1, 1],
  [5, 3, 123],
  [123, 200, 5],
  [300, 150, 333],
] as const

describe.each(isas)("row kernels on %s", (isa) => {
  test.each(shapes)(
    "gatherRows, scatterRows, embeddingBackward (%p rows, %p outside, %p columns)",
    async (rows, outside, cols) => {
      const index = indices(rows, outside, 20)
      const [table, x] = [numbers(outside * cols, 21), numbers(rows * cols, 22)]
      const [gathered, scattered, added, gradient] = await onThreads(isa, async (s) => {
        const [ht, hx, hi] = [s.f32(table), s.f32(x), s.i32(index)]
        const [g, sc, ac, em] = [s.alloc(rows * cols * 4), s.alloc(outside * cols * 4), s.f32(table), s.f32(table)]
        s.k.gatherRows(g, ht, hi, rows, cols)
        s.k.scatterRows(sc, hx, hi, rows, cols, outside, 0)
        s.k.scatterRows(ac, hx, hi, rows, cols, outside, 1)
        s.k.embeddingBackward(em, hx, hi, rows, outside, cols, 0.5)
        return [await s.readF32(g), await s.readF32(sc), await s.readF32(ac), await s.readF32(em)]
      })
      const sums = new Float64Array(outside * cols)
      index.forEach((at, r) => {
        expect(gathered!.slice(r * cols, (r + 1) * cols)).toEqual(table.slice(at * cols, (at + 1) * cols))
        for (let c = 0; c < cols; c++) sums[at * cols + c]! += x[r * cols + c]!
      })
      expectClose(scattered!, sums, 1e-6, 1e-6)
      expectClose(added!, sums.map((v, i) => v + table[i]!), 1e-6, 1e-6) // prettier-ignore
      expectClose(gradient!, sums.map((v, i) => 0.5 * v + table[i]!), 1e-6, 1e-6) // prettier-ignore
    },
  )

  test("an index out of range is an error of the queue, and nothing outside is touched", async () => {
    await session(isa, 2, async (s) => {
      const guard = s.f32(new Float32Array(64).fill(7))
      const inner = s.backend.memory.view(guard, 64, 4 * 4 * 2)
      const [x, bad] = [s.f32(numbers(12, 23)), s.i32([0, -1, 99])]
      const error = (promise: Promise<unknown>): Promise<{ code?: string; fields?: Record<string, unknown> }> =>
        promise.then(
          () => ({}),
          (e: unknown) => e as { code: string },
        )
      s.k.scatterRows(inner, x, bad, 3, 4, 2, 0)
      expect(await error(s.backend.synchronize())).toMatchObject({
        code: "SLOTH_KERNEL_DATA",
        fields: { kernel: "scatterRows", index: 1, value: -1 },
      })
      s.k.gatherRows(inner, x, bad, 2, 4)
      expect(await error(s.backend.memory.read(guard))).toMatchObject({ code: "SLOTH_KERNEL_DATA" })
      s.k.embeddingBackward(inner, x, bad, 3, 2, 4, 1)
      expect(await error(s.backend.synchronize())).toMatchObject({ code: "SLOTH_KERNEL_DATA" })
      // The error was delivered once; the queue goes on.
      await s.backend.synchronize()
      const after = await s.readF32(guard)
      expect([...after.slice(0, 16), ...after.slice(24)].every((v) => v === 7)).toBe(true)
      s.backend.memory.free(inner)
    })
  })

  test.each([
    [1, 1],
    [5, 123],
    [301, 160],
  ])("cacheWrite of %p rows of %p", async (rows, width) => {
    const [blocks, blockSize, ldk, ldv] = [40, 16, width + 3, width]
    const [k, v, start] = [numbers(rows * ldk, 24), numbers(rows * ldv, 25), numbers(blocks * blockSize * width, 26)]
    // Distinct slots in a shuffled order; every seventh row is skipped.
    const slots = Int32Array.from({ length: rows }, (_, i) => (i % 7 === 6 ? -1 : (i * 37) % (blocks * blockSize)))
    const [keys, values] = await onThreads(isa, async (s) => {
      const [kc, vc] = [s.f32(start), s.f32(start)]
      s.k.cacheWrite(kc, vc, 0, s.f32(k), ldk, s.f32(v), ldv, s.i32(slots), rows, width)
      return [await s.readF32(kc), await s.readF32(vc)]
    })
    const [expectedKeys, expectedValues] = [start.slice(), start.slice()]
    slots.forEach((slot, r) => {
      if (slot < 0) return
      expectedKeys.set(k.subarray(r * ldk, r * ldk + width), slot * width)
      expectedValues.set(v.subarray(r * ldv, r * ldv + width), slot * width)
    })
    expect(keys).toEqual(expectedKeys)
    expect(values).toEqual(expectedValues)
  })
})
