import { describe, expect, test } from "bun:test"

import { expectClose, isas, numbers, onThreads, sizes } from "../test-kit/session.ts"

const MASK = 0xffffffffn

/** Philox4x32-10 in big integers, straight from the paper. */
function philox(counter: readonly number[], key: readonly number[]): number[] {
  let c = counter.map(BigInt)
  let [k0, k1] = key.map(BigInt) as [bigint, bigint]
  for (let round = 0; round < 10; round++) {
    const p0 = c[0]! * 0xd2511f53n
    const p1 = c[2]! * 0xcd9e8d57n
    c = [(p1 >> 32n) ^ c[1]! ^ k0, p1 & MASK, (p0 >> 32n) ^ c[3]! ^ k1, p0 & MASK]
    k0 = (k0 + 0x9e3779b9n) & MASK
    k1 = (k1 + 0xbb67ae85n) & MASK
  }
  return c.map(Number)
}

const words = (n: number, seed: number, stream: number, step: number): number[] => {
  const key = [Number(BigInt(seed) & MASK), Number((BigInt(seed) >> 32n) & MASK)]
  const out: number[] = []
  for (let block = 0; out.length < n + 4; block++) out.push(...philox([block, step, stream, 0], key))
  return out
}

const uniform = (word: number): number => (word >>> 8) * 2 ** -24

test("the big-integer Philox gives the published vectors", () => {
  // Random123 known-answer tests (kat_vectors, philox4x32 10 rounds).
  expect(philox([0, 0, 0, 0], [0, 0])).toEqual([0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8])
  const ones = 0xffffffff
  expect(philox([ones, ones, ones, ones], [ones, ones])).toEqual([0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd])
})

describe.each(isas)("random kernels on %s", (isa) => {
  test.each(sizes)("n = %p", async (n) => {
    const seed = 2 ** 40 + 12345
    const x = numbers(n, 10)
    const [uniforms, normals, dropped, again] = await onThreads(isa, async (s) => {
      const [u, g, hx, d, e] = [s.alloc(n * 4), s.alloc(n * 4), s.f32(x), s.alloc(n * 4), s.alloc(n * 4)]
      s.k.randomUniform(u, -2, 3, n, seed, 7)
      s.k.randomNormal(g, 0.5, 2, n, -seed, 8)
      s.k.dropout(d, hx, 0.3, n, seed, 9, 11, 0)
      s.k.dropout(e, hx, 0.3, n, seed, 9, 11, 0)
      return [await s.readF32(u), await s.readF32(g), await s.readF32(d), await s.readF32(e)]
    })
    const [w1, w2, w3] = [words(n, seed, 7, 0), words(n, -seed, 8, 0), words(n, seed, 9, 11)]
    expect(uniforms).toEqual(Float32Array.from({ length: n }, (_, i) => -2 + 5 * uniform(w1[i]!)))
    const expectedNormals = Float32Array.from({ length: n }, (_, i) => {
      const pair = i - (i % 2)
      const radius = Math.sqrt(-2 * Math.log(((w2[pair]! >>> 8) + 1) * 2 ** -24))
      const angle = 2 * Math.PI * uniform(w2[pair + 1]!)
      return 0.5 + 2 * radius * (i % 2 === 0 ? Math.cos(angle) : Math.sin(angle))
    })
    expectClose(normals!, expectedNormals, 1.2e-7, 1e-7)
    expect(dropped).toEqual(x.map((v, i) => (uniform(w3[i]!) >= 0.3 ? v * (1 / 0.7) : 0)))
    expect(again).toEqual(dropped!)
  })

  test("uniform numbers stay below an end that f32 cannot tell from them", async () => {
    const n = 5000
    const low = 1
    const high = 1 + 2 ** -23
    const [u] = await onThreads(isa, async (s) => {
      const out = s.alloc(n * 4)
      s.k.randomUniform(out, low, high, n, 1, 1)
      return [await s.readF32(out)]
    })
    expect(u!.every((v) => v >= low && v < high)).toBe(true)
  })

  test("normal numbers have the moments asked for", async () => {
    const n = 70_000
    const [g] = await onThreads(isa, async (s) => {
      const out = s.alloc(n * 4)
      s.k.randomNormal(out, 3, 0.5, n, 42, 1)
      return [await s.readF32(out)]
    })
    const mean = g!.reduce((a, v) => a + v, 0) / n
    const variance = g!.reduce((a, v) => a + (v - mean) ** 2, 0) / n
    expect(Math.abs(mean - 3)).toBeLessThan(0.01)
    expect(Math.abs(Math.sqrt(variance) - 0.5)).toBeLessThan(0.01)
  })
})
