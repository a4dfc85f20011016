import { describe, expect, test } from "bun:test"

import { NONE } from "@sloth/core"

import { isas, numbers, onThreads, session, type Session } from "../test-kit/session.ts"

const FORMATS = { q4_0: [2, 18], q4_1: [3, 20], q8_0: [8, 34] } as const
type Format = keyof typeof FORMATS

/** A stored weight and the values that it stands for. */
const store = async (s: Session, format: Format, rows: number, cols: number, seed: number) => {
  const [code, bytes32] = FORMATS[format]
  const handle = s.alloc((rows * cols * bytes32) / 32)
  s.k.quantize(handle, s.f32(numbers(rows * cols, seed)), code, rows, cols)
  const out = s.alloc(rows * cols * 4)
  s.k.dequantize(out, handle, code, rows, cols)
  return { handle, code, values: await s.readF32(out) }
}

interface Layer {
  readonly format: Format
  readonly n: number
  readonly rank: number
  readonly bias: boolean
}

/** Outputs of a group of layers over `m` rows, and what they should be with the sizes of their terms. */
const group = async (s: Session, m: number, k: number, x: Float32Array, layers: readonly Layer[], most = m) => {
  const scale = 0.75
  const outputs: { out: Float32Array; want: Float64Array; terms: Float64Array }[] = []
  const args: (number | bigint)[] = []
  const made = []
  for (let i = 0; i < 3; i++) {
    const layer = layers[i]
    if (layer === undefined) {
      args.push(NONE, NONE, 0, 0, NONE, NONE, NONE, 0, 0)
      continue
    }
    const { n, rank } = layer
    const w = await store(s, layer.format, n, k, 11 * i + 1)
    const [a, b, bias] = [numbers(rank * k, 7 + i), numbers(n * rank, 9 + i), numbers(n, 3 + i)]
    const out = s.alloc(most * n * 4)
    args.push(out, w.handle, w.code, n, layer.bias ? s.f32(bias) : NONE)
    args.push(rank > 0 ? s.f32(a) : NONE, rank > 0 ? s.f32(b) : NONE, rank, scale)
    made.push({ layer, out, values: w.values, a, b, bias })
  }
  s.k.linearGroup(...([s.f32(x.subarray(0, m * k)), m, k, ...args] as unknown as Parameters<typeof s.k.linearGroup>))
  for (const { layer, out, values, a, b, bias } of made) {
    const { n, rank } = layer
    const want = new Float64Array(m * n)
    const terms = new Float64Array(m * n)
    for (let i = 0; i < m; i++) {
      const low = Array.from({ length: rank }, (_, r) => {
        let [sum, size] = [0, 0]
        for (let p = 0; p < k; p++) {
          sum += x[i * k + p]! * a[r * k + p]!
          size += Math.abs(x[i * k + p]! * a[r * k + p]!)
        }
        return [sum * scale, size * scale] as const
      })
      for (let j = 0; j < n; j++) {
        let [sum, size] = layer.bias ? [bias[j]!, Math.abs(bias[j]!)] : [0, 0]
        for (let block = 0; block < k; block += 32) {
          let [largest, sizeOfX, own] = [0, 0, 0]
          for (let p = block; p < block + 32; p++) {
            sum += x[i * k + p]! * values[j * k + p]!
            own += Math.abs(x[i * k + p]! * values[j * k + p]!)
            largest = Math.max(largest, Math.abs(values[j * k + p]!))
            sizeOfX += Math.abs(x[i * k + p]!)
          }
          // Up to 8 rows integers are multiplied with 16 added and taken off again: partial sums of up to 8 · max|w| · Σ|x| (see precision.test.ts).
          size += m <= 8 ? 8 * largest * sizeOfX : own
        }
        for (const [r, [value, most]] of low.entries()) {
          sum += value * b[j * rank + r]!
          size += most * Math.abs(b[j * rank + r]!)
        }
        want[i * n + j] = sum
        terms[i * n + j] = size
      }
    }
    outputs.push({ out: (await s.readF32(out)).subarray(0, m * n), want, terms })
  }
  return outputs
}

describe.each(isas)("products of few rows (%s)", (isa) => {
  // Widths around vectors of 16 columns and tasks, inner dimensions of one, two and three stretches.
  const cases: readonly (readonly [m: number, k: number, layers: readonly Layer[]])[] = [
    [2, 64, [{ format: "q4_1", n: 5, rank: 0, bias: true }]],
    [
      3,
      1600,
      [
        { format: "q8_0", n: 47, rank: 3, bias: false },
        { format: "q4_0", n: 300, rank: 16, bias: false },
      ],
    ],
    [5, 576, [{ format: "q4_1", n: 123, rank: 16, bias: true }]],
    [
      8,
      416,
      [
        { format: "q4_0", n: 33, rank: 5, bias: true },
        { format: "q8_0", n: 16, rank: 0, bias: false },
        { format: "q4_1", n: 1, rank: 33, bias: true },
      ],
    ],
    [9, 64, [{ format: "q4_1", n: 5, rank: 0, bias: true }]],
    [16, 576, [{ format: "q4_1", n: 123, rank: 16, bias: false }]],
    [
      17,
      416,
      [
        { format: "q4_0", n: 33, rank: 5, bias: true },
        { format: "q8_0", n: 16, rank: 0, bias: false },
        { format: "q4_1", n: 1, rank: 33, bias: true },
      ],
    ],
    [
      25,
      800,
      [
        { format: "q8_0", n: 47, rank: 3, bias: false },
        { format: "q4_0", n: 300, rank: 16, bias: false },
      ],
    ],
    [32, 96, [{ format: "q4_0", n: 123, rank: 1, bias: true }]],
    [12, 32, [{ format: "q8_0", n: 15, rank: 20, bias: true }]],
  ]
  test.each(cases)("%d rows of %d values", async (m, k, layers) => {
    const x = numbers(m * k, 5)
    await onThreads(isa, async (s) => {
      const outputs = await group(s, m, k, x, layers)
      for (const [g, { out, want, terms }] of outputs.entries())
        for (let i = 0; i < out.length; i++)
          // Each of k + rank + 3 operations rounds once, by at most 2^-24 of the sum of the terms' sizes; the low-rank values round k + 1 times before.
          expect(Math.abs(out[i]! - want[i]!)).toBeLessThanOrEqual(
            (2 * k + layers[g]!.rank + 4) * 2 ** -24 * terms[i]! + 1e-30,
          )
      return outputs.map(({ out }) => out)
    })
  })

  // On AVX-512 the path of few rows adds up as the general product does, so a row's result does not depend on how many others there are.
  test.skipIf(!isa.startsWith("avx512"))("have the bits of the same rows among many", async () => {
    const [k, most] = [608, 70]
    const x = numbers(most * k, 21)
    const layers = [
      { format: "q4_1", n: 90, rank: 16, bias: true },
      { format: "q8_0", n: 48, rank: 0, bias: false },
      { format: "q4_0", n: 33, rank: 7, bias: false },
    ] as const
    await session(isa, 2, async (s) => {
      const many = await group(s, most, k, x, layers)
      for (const m of [9, 16, 23, 32]) {
        const few = await group(s, m, k, x, layers)
        for (const [g, { out }] of few.entries()) expect(out).toEqual(many[g]!.out.subarray(0, out.length))
      }
    })
  })
})
