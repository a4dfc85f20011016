import { describe, expect, test } from "bun:test"

import { createReferenceBackend } from "./backend.ts"
import { philox, seedWords } from "./random.ts"

describe("Philox4x32-10", () => {
  // Known answers that the authors publish with their library (Random123, kat_vectors).
  const vectors: [string, string, string][] = [
    ["00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"],
    ["ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"],
    ["243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"],
  ]
  for (const [counter, key, expected] of vectors) {
    test(expected, () => {
      const words = (text: string): number[] => text.split(" ").map((word) => Number.parseInt(word, 16))
      expect(philox(words(counter) as [number, number, number, number], words(key) as [number, number])).toEqual(
        words(expected) as [number, number, number, number],
      )
    })
  }

  test("a seed beyond 32 bits fills both key words", () => {
    expect(seedWords(7 * 2 ** 32 + 9)).toEqual([9, 7])
    expect(seedWords(Number.MAX_SAFE_INTEGER)).toEqual([0xffffffff, 0x1fffff])
    expect(seedWords(-1)).toEqual([0xffffffff, 0xffffffff])
    expect(seedWords(-(2 ** 32) - 2)).toEqual([0xfffffffe, 0xfffffffe])
  })
})

describe("distributions", () => {
  const n = 40_000
  const draw = (run: (b: ReturnType<typeof createReferenceBackend>, h: number) => void): Float64Array => {
    const backend = createReferenceBackend()
    const handle = backend.memory.alloc(n * 4)
    run(backend, handle)
    const values = backend.readFloat64(handle)
    backend.memory.free(handle)
    expect(backend.memory.stats().liveBuffers).toBe(0)
    return values
  }
  const moments = (x: Float64Array): [number, number] => {
    const mean = x.reduce((a, b) => a + b, 0) / x.length
    return [mean, x.reduce((a, b) => a + (b - mean) ** 2, 0) / x.length]
  }

  test("uniform has the moments of a uniform distribution and stays below its upper bound", () => {
    const x = draw((b, h) => b.kernels.randomUniform(h, -3, 5, n, 11, 2))
    const [mean, variance] = moments(x)
    // Five standard errors: variance 64/12, of the mean 64/12/n.
    expect(Math.abs(mean - 1)).toBeLessThan(5 * Math.sqrt(64 / 12 / n))
    expect(Math.abs(variance - 64 / 12)).toBeLessThan(0.15)
    for (const value of x) expect(value >= -3 && value < 5).toBe(true)
  })

  test("uniform never rounds up to its open end", () => {
    // Between 2^24 and 2^24 + 2 the only f32 are the two ends, so half of the draws would round to the upper one.
    const x = draw((b, h) => b.kernels.randomUniform(h, 2 ** 24, 2 ** 24 + 2, n, 1, 1))
    expect(new Set(x)).toEqual(new Set([2 ** 24]))
  })

  test("normal has the moments of a normal distribution", () => {
    const x = draw((b, h) => b.kernels.randomNormal(h, 2, 3, n, 11, 2))
    const [mean, variance] = moments(x)
    expect(Math.abs(mean - 2)).toBeLessThan((5 * 3) / Math.sqrt(n))
    expect(Math.abs(variance - 9)).toBeLessThan(5 * 9 * Math.sqrt(2 / n))
  })

  test("streams, seeds and steps differ", () => {
    const first = draw((b, h) => b.kernels.randomUniform(h, 0, 1, n, 1, 1))
    const stream = draw((b, h) => b.kernels.randomUniform(h, 0, 1, n, 1, 2))
    const seed = draw((b, h) => b.kernels.randomUniform(h, 0, 1, n, 2, 1))
    const same = (a: Float64Array, b: Float64Array): number => a.filter((v, i) => v === b[i]).length
    expect(same(first, stream)).toBeLessThan(5)
    expect(same(first, seed)).toBeLessThan(5)
  })

  test("dropout drops the asked share and keeps the mean", () => {
    const x = draw((b, h) => {
      b.kernels.fill(h, 1, n)
      b.kernels.dropout(h, h, 0.25, n, 3, 4, 5, 0)
    })
    const kept = x.filter((value) => value !== 0)
    expect(Math.abs(kept.length / n - 0.75)).toBeLessThan(5 * Math.sqrt((0.25 * 0.75) / n))
    for (const value of kept) expect(value).toBe(Math.fround(1 / 0.75))
  })
})
