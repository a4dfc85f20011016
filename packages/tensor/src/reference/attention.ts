import type { RequiredKernels } from "@sloth/core"

import { bytesFor, type WeightFormat } from "../weight-format.ts"
import type { FloatArray } from "./memory.ts"
import { extent, type Call, type Define } from "./call.ts"
import { addScaled, dot } from "./products.ts"

/** A segment of the forest with the row numbers of all its ancestors, the root's first. */
interface PathSegment {
  readonly start: number
  readonly length: number
  readonly ancestors: readonly number[]
}

const checkCommon = (
  c: Call,
  heads: number,
  kvHeads: number,
  headDim: number,
  window: number,
  softcap: number,
): void => {
  c.whole("heads", heads, 1)
  c.whole("kvHeads", kvHeads, 1)
  c.whole("headDim", headDim, 1)
  c.whole("window", window)
  c.require(heads % kvHeads === 0, "heads", `${heads} must be a multiple of kvHeads ${kvHeads}`)
  c.require(softcap >= 0, "softcap", `must be at least 0, not ${softcap}`)
}

const readForest = (c: Call, table: Int32Array, tokens: number): PathSegment[] => {
  const segments: PathSegment[] = []
  let end = 0
  for (let i = 0; i < table.length / 3; i++) {
    const [start, length, parent] = [table[3 * i]!, table[3 * i + 1]!, table[3 * i + 2]!]
    c.data(start >= end && length >= 0, "segments", `are not in row order at segment ${i}`)
    c.data(start + length <= tokens, "segments", `reach row ${start + length}, but there are ${tokens}`)
    c.data(parent >= -1 && parent < i, "segments", `have parent ${parent} at segment ${i}; parents come first`)
    const above = segments[parent]
    const ancestors = above === undefined ? [] : [...above.ancestors, ...rowsOf(above)]
    segments.push({ start, length, ancestors })
    end = start + length
  }
  return segments
}

const rowsOf = (segment: PathSegment): number[] => Array.from({ length: segment.length }, (_, i) => segment.start + i)

/** The rows that row i of a segment sees, in path order, its own last. */
const visible = (segment: PathSegment, i: number, window: number): number[] => {
  const path = [...segment.ancestors, ...rowsOf(segment).slice(0, i + 1)]
  return window > 0 ? path.slice(-window) : path
}

const cap = (score: number, softcap: number): number => (softcap > 0 ? softcap * Math.tanh(score / softcap) : score)

/** Softmax of scores and an optional extra logit; writes probabilities over the scores and returns log of the denominator. */
function softmax(scores: Float64Array, sink: number | undefined): number {
  let most = sink ?? -Infinity
  for (const score of scores) most = Math.max(most, score)
  let total = sink === undefined ? 0 : Math.exp(sink - most)
  for (const score of scores) total += Math.exp(score - most)
  const lse = most + Math.log(total)
  for (let i = 0; i < scores.length; i++) scores[i] = Math.exp(scores[i]! - lse)
  return lse
}

/** The format of a cache whose rows of `cols` elements are whole blocks. */
const cacheFormat = (c: Call, code: number, argument: string, cols: number): WeightFormat => {
  c.require(
    code === 0 || code === 1 || code === 8,
    "format",
    `${code} is not a format of a cache (f32 0, f16 1, q8_0 8)`,
  )
  const format = c.format(code)
  c.require(
    cols % format.blockSize === 0,
    argument,
    `${cols} must be a multiple of ${format.blockSize} for ${format.id}`,
  )
  return format
}

/** Attention of training and of generation. */
export const attentionKernels = (
  define: Define,
): Pick<RequiredKernels, "attention" | "attentionBackward" | "cacheWrite" | "pagedAttention"> => ({
  attention: define(
    "attention",
    (
      c,
      out,
      lse,
      q,
      ldq,
      k,
      ldk,
      v,
      ldv,
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
    ) => {
      checkCommon(c, heads, kvHeads, headDim, window, softcap)
      c.whole("count", count)
      c.whole("tokens", tokens)
      const [width, kvWidth, group] = [heads * headDim, kvHeads * headDim, heads / kvHeads]
      c.whole("ldq", ldq, width)
      c.whole("ldk", ldk, kvWidth)
      c.whole("ldv", ldv, kvWidth)
      const forest = readForest(c, c.int("segments", segments, 3 * count), tokens)
      const queries = c.float("q", q, extent(tokens, width, ldq))
      const keys = c.float("k", k, extent(tokens, kvWidth, ldk))
      const values = c.float("v", v, extent(tokens, kvWidth, ldv))
      const sink = c.maybeFloat("sinks", sinks, heads)
      const target = c.floatOut("out", out, tokens * width)
      const logs = c.floatOut("lse", lse, tokens * heads)
      // Rows outside all segments see nothing: both results are 0.
      target.fill(0)
      logs.fill(0)
      const sum = new Float64Array(headDim)
      for (const segment of forest) {
        for (let i = 0; i < segment.length; i++) {
          const row = segment.start + i
          const seen = visible(segment, i, window)
          const scores = new Float64Array(seen.length)
          for (let head = 0; head < heads; head++) {
            const kvStart = Math.floor(head / group) * headDim
            const qStart = row * ldq + head * headDim
            for (let j = 0; j < seen.length; j++) {
              scores[j] = cap(scale * dot(queries, qStart, keys, seen[j]! * ldk + kvStart, headDim), softcap)
            }
            logs[row * heads + head] = softmax(scores, sink?.[head])
            sum.fill(0)
            for (let j = 0; j < seen.length; j++) {
              addScaled(sum, 0, scores[j]!, values, seen[j]! * ldv + kvStart, headDim)
            }
            target.set(sum, row * width + head * headDim)
          }
        }
      }
    },
  ),

  // Source: Dao 2023 (FlashAttention-2), section 3.1: with P from lse and D = dout · out, dS = P · (dP - D).
  attentionBackward: define(
    "attentionBackward",
    (
      c,
      dq,
      dk,
      dv,
      dsinks,
      dout,
      out,
      lse,
      q,
      ldq,
      k,
      ldk,
      v,
      ldv,
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
    ) => {
      checkCommon(c, heads, kvHeads, headDim, window, softcap)
      c.whole("count", count)
      c.whole("tokens", tokens)
      const [width, kvWidth, group] = [heads * headDim, kvHeads * headDim, heads / kvHeads]
      c.whole("ldq", ldq, width)
      c.whole("ldk", ldk, kvWidth)
      c.whole("ldv", ldv, kvWidth)
      const forest = readForest(c, c.int("segments", segments, 3 * count), tokens)
      const gradient = c.float("dout", dout, tokens * width)
      const forward = c.float("out", out, tokens * width)
      const logs = c.float("lse", lse, tokens * heads)
      const queries = c.float("q", q, extent(tokens, width, ldq))
      const keys = c.float("k", k, extent(tokens, kvWidth, ldk))
      const values = c.float("v", v, extent(tokens, kvWidth, ldv))
      const sink = c.maybeFloat("sinks", sinks, heads)
      const queryOut = c.floatOut("dq", dq, tokens * width)
      const keyOut = c.floatOut("dk", dk, tokens * kvWidth)
      const valueOut = c.floatOut("dv", dv, tokens * kvWidth)
      const sinkOut = c.maybeFloatOut("dsinks", dsinks, heads)
      c.require(sinkOut === undefined || sink !== undefined, "dsinks", "was given without sinks")
      const queryTotal = new Float64Array(tokens * width)
      const keyTotal = new Float64Array(tokens * kvWidth)
      const valueTotal = new Float64Array(tokens * kvWidth)
      const sinkTotal = new Float64Array(heads)
      for (const segment of forest) {
        for (let i = 0; i < segment.length; i++) {
          const row = segment.start + i
          const seen = visible(segment, i, window)
          for (let head = 0; head < heads; head++) {
            const kvStart = Math.floor(head / group) * headDim
            const at = row * width + head * headDim
            const qStart = row * ldq + head * headDim
            const log = logs[row * heads + head]!
            const inner = dot(gradient, at, forward, at, headDim)
            for (const key of seen) {
              const raw = scale * dot(queries, qStart, keys, key * ldk + kvStart, headDim)
              const score = cap(raw, softcap)
              const probability = Math.exp(score - log)
              const dScore = probability * (dot(gradient, at, values, key * ldv + kvStart, headDim) - inner)
              // d(cap · tanh(x / cap))/dx = 1 - tanh²
              const slope = softcap > 0 ? 1 - (score / softcap) ** 2 : 1
              const dRaw = dScore * slope * scale
              const kvAt = key * kvWidth + kvStart
              addScaled(queryTotal, at, dRaw, keys, key * ldk + kvStart, headDim)
              addScaled(keyTotal, kvAt, dRaw, queries, qStart, headDim)
              addScaled(valueTotal, kvAt, probability, gradient, at, headDim)
            }
            if (sink !== undefined) sinkTotal[head]! -= Math.exp(sink[head]! - log) * inner
          }
        }
      }
      queryOut.set(queryTotal)
      keyOut.set(keyTotal)
      valueOut.set(valueTotal)
      if (sinkOut !== undefined) for (let head = 0; head < heads; head++) sinkOut[head]! += sinkTotal[head]!
    },
  ),

  cacheWrite: define("cacheWrite", (c, kCache, vCache, code, k, ldk, v, ldv, slots, rows, width) => {
    c.whole("rows", rows)
    c.whole("width", width, 1)
    c.whole("ldk", ldk, width)
    c.whole("ldv", ldv, width)
    const format = cacheFormat(c, code, "width", width)
    const where = c.int("slots", slots, rows)
    const keys = c.float("k", k, extent(rows, width, ldk))
    const values = c.float("v", v, extent(rows, width, ldv))
    const rowBytes = bytesFor(format, width)
    const capacity = Math.floor(Math.min(c.size("kCache", kCache), c.size("vCache", vCache)) / rowBytes)
    for (const slot of where) {
      c.data(slot >= -1 && slot < capacity, "slots", `has ${slot}, but the caches have ${capacity} slots`)
    }
    for (const [name, cache, source, ld] of [
      ["kCache", kCache, keys, ldk],
      ["vCache", vCache, values, ldv],
    ] as const) {
      // f32 caches hold doubles on a float64 backend.
      const floats = code === 0 ? c.floatOut(name, cache, capacity * width) : undefined
      const bytes = code === 0 ? undefined : c.rawOut(name, cache, capacity * rowBytes)
      for (let r = 0; r < rows; r++) {
        const slot = where[r]!
        if (slot === -1) continue
        const row = source.subarray(r * ld, r * ld + width)
        floats?.set(row, slot * width)
        if (bytes !== undefined)
          format.quantizeRow!(Float32Array.from(row), bytes.subarray(slot * rowBytes, (slot + 1) * rowBytes), width)
      }
    }
  }),

  pagedAttention: define(
    "pagedAttention",
    (
      c,
      out,
      q,
      ldq,
      kCache,
      vCache,
      code,
      blockTable,
      maxBlocks,
      blockSize,
      rowSequence,
      rowPosition,
      rows,
      heads,
      kvHeads,
      headDim,
      scale,
      window,
      softcap,
      sinks,
    ) => {
      checkCommon(c, heads, kvHeads, headDim, window, softcap)
      const [width, kvWidth, group] = [heads * headDim, kvHeads * headDim, heads / kvHeads]
      c.whole("rows", rows)
      c.whole("maxBlocks", maxBlocks, 1)
      c.whole("blockSize", blockSize, 1)
      c.whole("ldq", ldq, width)
      const sequences = Math.floor(c.size("blockTable", blockTable) / 4 / maxBlocks)
      const format = cacheFormat(c, code, "headDim", headDim)
      const blocks = Math.floor(
        Math.min(c.size("kCache", kCache), c.size("vCache", vCache)) / (blockSize * bytesFor(format, kvWidth)),
      )
      const queries = c.float("q", q, extent(rows, width, ldq))
      const keys = c.weight("kCache", kCache, code, blocks * blockSize, kvWidth)
      const values = c.weight("vCache", vCache, code, blocks * blockSize, kvWidth)
      const table = c.int("blockTable", blockTable, sequences * maxBlocks)
      const sequence = c.int("rowSequence", rowSequence, rows)
      const position = c.int("rowPosition", rowPosition, rows)
      const sink = c.maybeFloat("sinks", sinks, heads)
      const target = c.floatOut("out", out, rows * width)
      const sum = new Float64Array(headDim)
      for (let r = 0; r < rows; r++) {
        const [s, p] = [sequence[r]!, position[r]!]
        c.data(s >= 0 && s < sequences, "rowSequence", `has ${s} at row ${r}, but there are ${sequences} sequences`)
        c.data(p >= 0 && p < maxBlocks * blockSize, "rowPosition", `has ${p} at row ${r}, beyond the block table`)
        const first = window > 0 ? Math.max(0, p - window + 1) : 0
        // Keys and values of each visible position.
        const seen: (readonly [FloatArray, FloatArray])[] = []
        for (let at = first; at <= p; at++) {
          const block = table[s * maxBlocks + Math.floor(at / blockSize)]!
          c.data(block >= 0 && block < blocks, "blockTable", `has ${block}, but the caches have ${blocks} blocks`)
          const slot = block * blockSize + (at % blockSize)
          seen.push([keys.row(slot).slice(), values.row(slot).slice()])
        }
        const scores = new Float64Array(seen.length)
        for (let head = 0; head < heads; head++) {
          const kvStart = Math.floor(head / group) * headDim
          for (let j = 0; j < seen.length; j++) {
            scores[j] = cap(scale * dot(queries, r * ldq + head * headDim, seen[j]![0], kvStart, headDim), softcap)
          }
          softmax(scores, sink?.[head])
          sum.fill(0)
          for (let j = 0; j < seen.length; j++) {
            addScaled(sum, 0, scores[j]!, seen[j]![1], kvStart, headDim)
          }
          target.set(sum, r * width + head * headDim)
        }
      }
    },
  ),
})
