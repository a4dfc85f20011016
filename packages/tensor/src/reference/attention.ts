import type { RequiredKernels } from "@sloth/core"

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

  cacheWrite: define("cacheWrite", (c, kCache, vCache, k, ldk, v, ldv, slots, rows, width) => {
    c.whole("rows", rows)
    c.whole("width", width, 1)
    c.whole("ldk", ldk, width)
    c.whole("ldv", ldv, width)
    const where = c.int("slots", slots, rows)
    const keys = c.float("k", k, extent(rows, width, ldk))
    const values = c.float("v", v, extent(rows, width, ldv))
    const capacity = Math.floor(Math.min(c.size("kCache", kCache), c.size("vCache", vCache)) / 4 / width)
    const keyOut = c.floatOut("kCache", kCache, capacity * width)
    const valueOut = c.floatOut("vCache", vCache, capacity * width)
    for (const slot of where) {
      c.data(slot >= -1 && slot < capacity, "slots", `has ${slot}, but the caches have ${capacity} slots`)
    }
    for (let r = 0; r < rows; r++) {
      const slot = where[r]!
      if (slot === -1) continue
      keyOut.set(keys.subarray(r * ldk, r * ldk + width), slot * width)
      valueOut.set(values.subarray(r * ldv, r * ldv + width), slot * width)
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
      const blocks = Math.floor(
        Math.min(c.size("kCache", kCache), c.size("vCache", vCache)) / 4 / (blockSize * kvWidth),
      )
      const queries = c.float("q", q, extent(rows, width, ldq))
      const keys = c.float("kCache", kCache, blocks * blockSize * kvWidth)
      const values = c.float("vCache", vCache, blocks * blockSize * kvWidth)
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
        // Start of each visible position's row in the caches.
        const seen: number[] = []
        for (let at = first; at <= p; at++) {
          const block = table[s * maxBlocks + Math.floor(at / blockSize)]!
          c.data(block >= 0 && block < blocks, "blockTable", `has ${block}, but the caches have ${blocks} blocks`)
          seen.push((block * blockSize + (at % blockSize)) * kvWidth)
        }
        const scores = new Float64Array(seen.length)
        for (let head = 0; head < heads; head++) {
          const kvStart = Math.floor(head / group) * headDim
          for (let j = 0; j < seen.length; j++) {
            scores[j] = cap(scale * dot(queries, r * ldq + head * headDim, keys, seen[j]! + kvStart, headDim), softcap)
          }
          softmax(scores, sink?.[head])
          sum.fill(0)
          for (let j = 0; j < seen.length; j++) {
            addScaled(sum, 0, scores[j]!, values, seen[j]! + kvStart, headDim)
          }
          target.set(sum, r * width + head * headDim)
        }
      }
    },
  ),
})
