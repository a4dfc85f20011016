import { describe, expect, test } from "bun:test"

import { NONE } from "@sloth/core"

import { isas, numbers, onThreads } from "../test-kit/session.ts"

const CACHES = { f32: [0, 128], f16: [1, 64], q8_0: [8, 34] } as const

/** Sequences whose tables begin alike: how many blocks each has in common with the one before it, and the positions of their single rows. */
interface Case {
  readonly name: string
  readonly common: readonly number[]
  readonly positions: readonly number[]
  readonly heads: number
  readonly kvHeads: number
  readonly headDim: number
  readonly window?: number
  readonly softcap?: number
  readonly sinks?: boolean
}
const BLOCK = 16
const cases: readonly Case[] = [
  {
    name: "completions of one prompt",
    common: [0, 6, 6, 6, 6],
    positions: [96, 97, 111, 150, 300],
    heads: 9,
    kvHeads: 3,
    headDim: 64,
  },
  {
    name: "two prompts, then a text alone",
    common: [0, 20, 20, 0, 3, 3, 0],
    positions: [330, 321, 325, 48, 49, 60, 5],
    heads: 4,
    kvHeads: 2,
    headDim: 32,
    softcap: 3,
    sinks: true,
  },
  {
    name: "a text that has too little in common, and a window",
    common: [0, 40, 2, 2],
    positions: [700, 655, 700, 33],
    heads: 2,
    kvHeads: 1,
    headDim: 96,
  },
  { name: "a window", common: [0, 6, 6], positions: [120, 121, 122], heads: 3, kvHeads: 1, headDim: 64, window: 40 },
]

describe.each(isas)("single rows whose texts begin with the same blocks (%s)", (isa) => {
  for (const [cache, [code, bytes32]] of Object.entries(CACHES))
    test.each(cases.map((c) => [c.name, c] as const))(`${cache}: %s`, async (_, c) => {
      const { heads, kvHeads, headDim, window = 0, softcap = 0 } = c
      const rows = c.positions.length
      const width = kvHeads * headDim
      const maxBlocks = Math.max(...c.positions.map((p) => Math.floor(p / BLOCK) + 1))
      const table = new Int32Array(rows * maxBlocks)
      let blocks = 0
      for (let s = 0; s < rows; s++)
        for (let b = 0; b * BLOCK <= c.positions[s]!; b++)
          table[s * maxBlocks + b] = b < c.common[s]! ? table[(s - 1) * maxBlocks + b]! : blocks++
      const size = blocks * BLOCK * width
      const scale = 1 / Math.sqrt(headDim)
      const q = numbers(rows * heads * headDim, 3, 3)
      const sinks = numbers(heads, 8)
      await onThreads(isa, async (s) => {
        const stored = async (seed: number) => {
          const handle = s.alloc((size * bytes32) / 32)
          s.k.quantize(handle, s.f32(numbers(size, seed)), code, blocks * BLOCK, width)
          const plain = s.alloc(size * 4)
          s.k.dequantize(plain, handle, code, blocks * BLOCK, width)
          return { handle, values: await s.readF32(plain) }
        }
        const [k, v] = [await stored(1), await stored(2)]
        const out = s.alloc(rows * heads * headDim * 4)
        s.k.pagedAttention(
          out,
          s.f32(q),
          heads * headDim,
          k.handle,
          v.handle,
          code,
          s.i32(table),
          maxBlocks,
          BLOCK,
          s.i32(Int32Array.from({ length: rows }, (_x, i) => i)),
          s.i32(c.positions),
          rows,
          heads,
          kvHeads,
          headDim,
          scale,
          window,
          softcap,
          c.sinks === true ? s.f32(sinks) : NONE,
        )
        const got = await s.readF32(out)
        for (let r = 0; r < rows; r++)
          for (let h = 0; h < heads; h++) {
            const last = c.positions[r]!
            const first = window > 0 ? Math.max(0, last - window + 1) : 0
            const head = Math.floor((h * kvHeads) / heads) * headDim
            const slots = Array.from({ length: last - first + 1 }, (_x, i) => {
              const p = first + i
              return (table[r * maxBlocks + Math.floor(p / BLOCK)]! * BLOCK + (p % BLOCK)) * width + head
            })
            const scores = slots.map((at) => {
              let dot = 0
              for (let d = 0; d < headDim; d++) dot += q[(r * heads + h) * headDim + d]! * k.values[at + d]!
              return softcap > 0 ? softcap * Math.tanh((dot * scale) / softcap) : dot * scale
            })
            const top = Math.max(...scores, c.sinks === true ? sinks[h]! : -Infinity)
            const weights = scores.map((x) => Math.exp(x - top))
            const total = weights.reduce((a, b) => a + b, c.sinks === true ? Math.exp(sinks[h]! - top) : 0)
            for (let d = 0; d < headDim; d++) {
              const want = slots.reduce((sum, at, i) => sum + weights[i]! * v.values[at + d]!, 0) / total
              // Scores of up to |q| · |k| · √headDim ≈ 20 carry headDim roundings of 2^-24, which exp turns into relative errors of the weights; values are below 1.
              expect(Math.abs(got[(r * heads + h) * headDim + d]! - want)).toBeLessThan(20 * headDim * 2 ** -24)
            }
          }
        return [got]
      })
    })
})
