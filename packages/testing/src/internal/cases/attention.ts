import { NONE, type RequiredKernels } from "@sloth/core"
import { weightFormat } from "@sloth/tensor"

import { Data, whole } from "../data.ts"
import { F32, largest, sumError } from "../tolerance.ts"
import type { KernelCase, Twin, Twinned } from "../twin.ts"

type Cases<N extends keyof RequiredKernels> = Record<N, KernelCase[]>

interface Shape {
  readonly label: string
  /** (length, parent) of each segment. */
  readonly segments: readonly (readonly [number, number])[]
  readonly heads: number
  readonly kvHeads: number
  readonly headDim: number
  readonly window?: number
  readonly softcap?: number
  readonly sinks?: boolean
  /** Rows that belong to no segment, after every segment. */
  readonly gap?: number
  /** q, k and v are parts of one buffer, as a fused projection leaves them. */
  readonly fused?: boolean
}

/** What keys and values may be stored as. */
const CACHE_FORMATS = ["f32", "f16", "q8_0"].map((id) => weightFormat(id))

const SHAPES: readonly Shape[] = [
  { label: "one row", segments: [[1, -1]], heads: 1, kvHeads: 1, headDim: 1 },
  { label: "causal", segments: [[33, -1]], heads: 3, kvHeads: 3, headDim: 5 },
  { label: "grouped heads", segments: [[40, -1]], heads: 6, kvHeads: 2, headDim: 16, fused: true },
  {
    label: "packed",
    segments: [
      [5, -1],
      [123, -1],
      [1, -1],
      [33, -1],
    ],
    heads: 2,
    kvHeads: 1,
    headDim: 64,
    fused: true,
  },
  {
    label: "forest",
    segments: [
      [7, -1],
      [5, 0],
      [12, 0],
      [3, 2],
      [1, 3],
      [9, -1],
      [4, 5],
    ],
    heads: 4,
    kvHeads: 2,
    headDim: 24,
    fused: true,
  },
  {
    label: "long prompt with completions",
    segments: [
      [130, -1],
      [20, 0],
      [33, 0],
      [17, 1],
    ],
    heads: 2,
    kvHeads: 2,
    headDim: 32,
  },
  {
    label: "many completions of a prompt",
    segments: [
      [40, -1],
      [31, 0],
      [110, 0],
      [70, 0],
      [40, 0],
      [97, 0],
      [99, 0],
      [64, 0],
    ],
    heads: 3,
    kvHeads: 1,
    headDim: 20,
  },
  { label: "window", segments: [[123, -1]], heads: 2, kvHeads: 1, headDim: 33, window: 10 },
  {
    label: "window over a forest",
    segments: [
      [70, -1],
      [9, 0],
      [30, 0],
      [5, 1],
    ],
    heads: 2,
    kvHeads: 2,
    headDim: 16,
    window: 12,
    fused: true,
  },
  {
    label: "rows in no segment",
    segments: [
      [5, -1],
      [33, -1],
      [3, 1],
    ],
    heads: 2,
    kvHeads: 1,
    headDim: 16,
    gap: 3,
  },
  { label: "wide heads", segments: [[40, -1]], heads: 2, kvHeads: 1, headDim: 256 },
  { label: "window of one", segments: [[6, -1]], heads: 1, kvHeads: 1, headDim: 4, window: 1 },
  { label: "soft cap", segments: [[50, -1]], heads: 2, kvHeads: 1, headDim: 128, softcap: 1.5 },
  { label: "sinks", segments: [[50, -1]], heads: 4, kvHeads: 2, headDim: 20, sinks: true },
  {
    label: "everything",
    segments: [
      [60, -1],
      [33, 0],
      [5, 0],
      [12, 1],
      [70, -1],
    ],
    heads: 6,
    kvHeads: 3,
    headDim: 48,
    window: 40,
    softcap: 2,
    sinks: true,
    fused: true,
  },
]

/** Inputs of one shape on all backends. */
interface Inputs {
  readonly tokens: number
  readonly q: Twinned
  readonly k: Twinned
  readonly v: Twinned
  readonly ld: readonly [number, number, number]
  readonly segments: Twinned
  readonly sinks: Twinned | number
  readonly most: readonly [q: number, k: number, v: number]
  readonly scale: number
}

function place(t: Twin, shape: Shape, d: Data): Inputs {
  const { heads, kvHeads, headDim, fused } = shape
  const [width, kvWidth] = [heads * headDim, kvHeads * headDim]
  const table: number[] = []
  let tokens = 0
  for (const [length, parent] of shape.segments) {
    table.push(tokens, length, parent)
    tokens += length + (shape.gap ?? 0)
  }
  const segments = t.integers(table)
  const sinks = shape.sinks ? t.floats(d.floats(heads)) : NONE
  const scale = 1 / Math.sqrt(headDim)
  if (!fused) {
    const [q, k, v] = [d.floats(tokens * width), d.floats(tokens * kvWidth), d.floats(tokens * kvWidth)]
    const most = [largest(q), largest(k), largest(v)] as const
    const ld = [width, kvWidth, kvWidth] as const
    return { tokens, q: t.floats(q), k: t.floats(k), v: t.floats(v), ld, segments, sinks, most, scale }
  }
  const ldAll = width + 2 * kvWidth
  const all = d.floats(tokens * ldAll)
  const buffer = t.floats(all)
  const view = (start: number, part: number): Twinned => t.view(buffer, start, (tokens - 1) * ldAll + part)
  const most = largest(all)
  return {
    tokens,
    q: view(0, width),
    k: view(width, kvWidth),
    v: view(width + kvWidth, kvWidth),
    ld: [ldAll, ldAll, ldAll],
    segments,
    sinks,
    most: [most, most, most],
    scale,
  }
}

/**
 * Error of a score: its rounded dot product, by the largest factors. exp turns it into a relative error of a probability, which the normalisation at most
 * doubles; a sum of up to `tokens` such terms and exp itself add their own roundings.
 */
const scoreError = (headDim: number, scale: number, q: number, k: number, epsilon: number): number =>
  scale * sumError(headDim, Math.sqrt(headDim) * 2 * q * k, epsilon)

const probabilityError = (tokens: number, score: number): number => 2 * score + F32 * (16 + 2 * Math.sqrt(tokens))

/** Cases of attention and its cache. */
export const attentionCases: Cases<"attention" | "attentionBackward" | "cacheWrite" | "pagedAttention"> = {
  attention: SHAPES.map((shape) => ({
    label: shape.label,
    async run(t) {
      const { heads, kvHeads, headDim, window = 0, softcap = 0 } = shape
      const { tokens, q, k, v, ld, segments, sinks, most, scale } = place(t, shape, new Data(headDim + heads))
      const [out, lse] = [t.output(tokens * heads * headDim), t.output(tokens * heads)]
      const count = shape.segments.length
      t.call(
        "attention",
        out,
        lse,
        q,
        ld[0],
        k,
        ld[1],
        v,
        ld[2],
        segments,
        count,
        tokens,
        heads,
        kvHeads,
        headDim,
        scale,
        window,
        softcap,
        sinks,
      )
      const score = scoreError(headDim, scale, most[0], most[1], t.epsilon)
      await t.compare(out, probabilityError(tokens, score) * most[2], "out")
      const exact = t.exact(lse)
      await t.compare(lse, (i) => score + F32 * (8 + Math.sqrt(tokens) + Math.abs(exact[i]!)), "lse")
    },
  })),

  attentionBackward: SHAPES.map((shape) => ({
    label: shape.label,
    async run(t) {
      const { heads, kvHeads, headDim, window = 0, softcap = 0 } = shape
      const d = new Data(headDim + heads)
      const { tokens, q, k, v, ld, segments, sinks, most, scale } = place(t, shape, d)
      const [width, kvWidth, group] = [heads * headDim, kvHeads * headDim, heads / kvHeads]
      const count = shape.segments.length
      const gradient = d.floats(tokens * width)
      const tail = [segments, count, tokens, heads, kvHeads, headDim, scale, window, softcap, sinks] as const
      const [freshOut, freshLse] = [t.output(tokens * width), t.output(tokens * heads)]
      t.call("attention", freshOut, freshLse, q, ld[0], k, ld[1], v, ld[2], ...tail)
      // The backward pass is checked by itself: all get the reference's forward results.
      const [out, lse] = [t.floats(t.exact(freshOut)), t.floats(t.exact(freshLse))]
      const dout = t.floats(gradient)
      const [dq, dk, dv] = [t.output(tokens * width), t.output(tokens * kvWidth), t.output(tokens * kvWidth)]
      const before = d.floats(heads)
      const dsinks = sinks === NONE ? NONE : t.output(heads, before)
      t.call("attentionBackward", dq, dk, dv, dsinks, dout, out, lse, q, ld[0], k, ld[1], v, ld[2], ...tail)
      const probability = probabilityError(tokens, scoreError(headDim, scale, most[0], most[1], t.epsilon))
      // dP and D are dot products of dout with v or out, each at most √headDim spread wide; the soft cap's slope adds one more rounding of the score.
      const inner = 4 * Math.sqrt(headDim) * largest(gradient) * most[2]
      const dScore = (probability + t.epsilon * (8 + 2 * Math.sqrt(headDim))) * inner * (softcap > 0 ? 2 : 1)
      // A query's probabilities sum to 1. A key may be seen by all queries of its group of heads.
      const seen = 1 + Math.sqrt(tokens * group)
      await t.compare(dq, dScore * scale * most[1], "dq")
      await t.compare(dk, dScore * scale * most[0] * seen, "dk")
      await t.compare(dv, probability * largest(gradient) * seen, "dv")
      if (typeof dsinks !== "number") await t.compare(dsinks, dScore * seen + F32 * 4 * largest(before), "dsinks")
    },
  })),

  cacheWrite: CACHE_FORMATS.flatMap(({ code, id, blockSize, blockBytes }) =>
    (
      [
        // rows, blocks or elements of width, slots, gap
        [1, 1, 1, 0],
        [5, 33, 12, 4],
        [33, 64, 100, 0],
        [123, 48, 130, 96],
      ] as const
    ).map(([rows, wanted, slots, gap]) => ({
      label: `${id}, ${rows} rows of ${whole(wanted, blockSize)} into ${slots} slots`,
      async run(t: Twin) {
        const d = new Data(rows + code)
        const width = whole(wanted, blockSize)
        const ld = width + gap
        const where = d.permutation(slots).slice(0, rows)
        if (rows > 2) where[1] = -1
        const [k, v] = [d.floats((rows - 1) * ld + width), d.floats((rows - 1) * ld + width)]
        const cache = (): Twinned => {
          if (code === 0) return t.output(slots * width, d.floats(slots * width))
          return t.outputBytes(((slots * width) / blockSize) * blockBytes)
        }
        const [kCache, vCache] = [cache(), cache()]
        t.call("cacheWrite", kCache, vCache, code, t.floats(k), ld, t.floats(v), ld, t.integers(where), rows, width)
        await t.same(kCache, "k cache")
        await t.same(vCache, "v cache")
      },
    })),
  ),

  pagedAttention: (
    [
      // [new rows, last position] of each sequence, block size, heads, kvHeads, headDim, window, softcap, sinks
      { label: "one row", sequences: [[1, 0]], blockSize: 1, heads: 1, kvHeads: 1, headDim: 1 },
      {
        label: "decode",
        sequences: [
          [1, 4],
          [1, 99],
          [1, 0],
          [1, 31],
          [1, 32],
        ],
        blockSize: 16,
        heads: 6,
        kvHeads: 2,
        headDim: 32,
      },
      {
        label: "prefill and decode",
        sequences: [
          [33, 32],
          [1, 60],
          [5, 70],
        ],
        blockSize: 8,
        heads: 4,
        kvHeads: 4,
        headDim: 20,
      },
      {
        label: "window, soft cap, sinks",
        sequences: [
          [12, 90],
          [3, 4],
          [1, 123],
        ],
        blockSize: 5,
        heads: 4,
        kvHeads: 2,
        headDim: 64,
        window: 11,
        softcap: 2,
        sinks: true,
      },
    ] as const
  ).flatMap((shape) =>
    CACHE_FORMATS.map((format): KernelCase => ({
      label: `${format.id}, ${shape.label}`,
      async run(t) {
        const { sequences, blockSize, heads, kvHeads } = shape
        const headDim = whole(shape.headDim, format.blockSize)
        const {
          window = 0,
          softcap = 0,
          sinks = false,
        } = shape as { window?: number; softcap?: number; sinks?: boolean }
        const d = new Data(headDim)
        const blocksOf = sequences.map(([, last]) => Math.floor(last / blockSize) + 1)
        const maxBlocks = Math.max(...blocksOf) + 1
        const blocks = blocksOf.reduce((a, b) => a + b, 0) + 2
        const order = d.permutation(blocks)
        const table: number[] = []
        const [rowSequence, rowPosition]: [number[], number[]] = [[], []]
        sequences.forEach(([fresh, last], s) => {
          const own = order.splice(0, blocksOf[s]!)
          table.push(...own, ...Array.from({ length: maxBlocks - own.length }, () => -1))
          for (let i = 0; i < fresh; i++) {
            rowSequence.push(s)
            rowPosition.push(last - fresh + 1 + i)
          }
        })
        const rows = rowSequence.length
        const [width, kvWidth] = [heads * headDim, kvHeads * headDim]
        const ldq = width + 2 * kvWidth
        const [q, k, v] = [
          d.floats((rows - 1) * ldq + width),
          d.weight(format.code, blocks * blockSize, kvWidth),
          d.weight(format.code, blocks * blockSize, kvWidth),
        ]
        const out = t.output(rows * width)
        const scale = 1 / Math.sqrt(headDim)
        t.call(
          "pagedAttention",
          out,
          t.floats(q),
          ldq,
          t.bytes(k.bytes),
          t.bytes(v.bytes),
          format.code,
          t.integers(table),
          maxBlocks,
          blockSize,
          t.integers(rowSequence),
          t.integers(rowPosition),
          rows,
          heads,
          kvHeads,
          headDim,
          scale,
          window,
          softcap,
          sinks ? t.floats(d.floats(heads)) : NONE,
        )
        // Stored values are exact in f32 whatever the format (11 bits of scale times 8 of q at most), so the bound is that of f32 on what is stored.
        const score = scoreError(headDim, scale, largest(q), largest(k.values), t.epsilon)
        await t.compare(out, probabilityError(Math.max(...rowPosition), score) * largest(v.values), "out")
      },
    })),
  ),
}
