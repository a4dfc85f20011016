import type { RequiredKernels } from "@sloth/core"

import type { Define } from "./call.ts"
import type { FloatArray } from "./memory.ts"
import { philox, uniformOf } from "./random.ts"

/** Settings of one row. A top-k of 0, a top-p of 0 or 1, a min-p of 0 and a penalty of 0 or 1 are off. */
interface Settings {
  readonly temperature: number
  readonly topK: number
  readonly topP: number
  readonly minP: number
  readonly penalty: number
}

/** Softmax of the logits of `ids`. */
function probabilities(logits: Float64Array, ids: readonly number[]): number[] {
  const most = ids.reduce((a, id) => Math.max(a, logits[id]!), -Infinity)
  const weights = ids.map((id) => Math.exp(logits[id]! - most))
  const total = weights.reduce((a, b) => a + b, 0)
  return weights.map((weight) => weight / total)
}

/** Tokens that pass all filters, likeliest first (ties: lower id first), with their tempered logits. */
function candidates(tempered: Float64Array, settings: Settings): number[] {
  const { topK, topP, minP } = settings
  let ids = Array.from(tempered.keys())
  ids.sort((a, b) => tempered[b]! - tempered[a]! || a - b)
  if (topK > 0) ids = ids.slice(0, topK)
  if (topP > 0 && topP < 1) {
    // Nucleus (Holtzman et al. 2020): the fewest likeliest tokens whose probabilities, among those left so far, reach topP.
    const p = probabilities(tempered, ids)
    let before = 0
    let keep = 0
    while (keep < ids.length && (keep === 0 || before < topP)) before += p[keep++]!
    ids = ids.slice(0, keep)
  }
  if (minP > 0) {
    // Nguyen et al. 2024: at least minP times the probability of the likeliest.
    const floor = tempered[ids[0]!]! + Math.log(minP)
    ids = ids.filter((id, i) => i === 0 || tempered[id]! >= floor)
  }
  return ids
}

/** Logits after the repetition penalty of Keskar et al. 2019 (positive ones divided, negative ones multiplied), once for every distinct id. */
function penalised(logits: FloatArray, history: Int32Array, penalty: number): Float64Array {
  const out = new Float64Array(logits)
  if (penalty === 1 || penalty === 0) return out
  for (const id of new Set(history)) {
    if (id >= 0 && id < out.length) out[id] = out[id]! > 0 ? out[id]! / penalty : out[id]! * penalty
  }
  return out
}

function pick(logits: Float64Array, settings: Settings, uniform: () => number): number {
  if (settings.temperature === 0) {
    let best = 0
    for (let id = 1; id < logits.length; id++) if (logits[id]! > logits[best]!) best = id
    return best
  }
  const tempered = logits.map((logit) => logit / settings.temperature)
  const ids = candidates(tempered, settings)
  const p = probabilities(tempered, ids)
  const wanted = uniform()
  let cumulative = 0
  for (let i = 0; i < ids.length; i++) {
    cumulative += p[i]!
    if (cumulative > wanted) return ids[i]!
  }
  return ids.at(-1)!
}

/** Log of the softmax denominator. */
function logSumExp(logits: FloatArray): number {
  let most = -Infinity
  for (const logit of logits) most = Math.max(most, logit)
  let total = 0
  for (const logit of logits) total += Math.exp(logit - most)
  return most + Math.log(total)
}

/** Choice of the next token. */
export const samplingKernels = (define: Define): Pick<RequiredKernels, "sample"> => ({
  sample: define("sample", (c, ids, logp, logits, rows, vocab, params, rng, history, maxHistory) => {
    c.whole("rows", rows)
    c.whole("vocab", vocab, 1)
    c.whole("maxHistory", maxHistory)
    const all = c.float("logits", logits, rows * vocab)
    const settings = c.float("params", params, rows * 8)
    const words = c.int("rng", rng, rows * 4)
    const past = maxHistory === 0 ? new Int32Array(0) : c.int("history", history, rows * maxHistory)
    const chosen = c.intOut("ids", ids, rows)
    const logs = c.floatOut("logp", logp, rows)
    for (let r = 0; r < rows; r++) {
      const row = all.subarray(r * vocab, (r + 1) * vocab)
      const [temperature, topK, topP, minP, penalty] = settings.subarray(r * 8, r * 8 + 5) as unknown as [
        number,
        number,
        number,
        number,
        number,
      ]
      const [seedLow, seedHigh, stream, step] = words.subarray(r * 4, r * 4 + 4) as unknown as [
        number,
        number,
        number,
        number,
      ]
      const adjusted = penalised(row, past.subarray(r * maxHistory, (r + 1) * maxHistory), penalty)
      const id = pick(adjusted, { temperature, topK, topP, minP, penalty }, () =>
        uniformOf(philox([0, step >>> 0, stream >>> 0, 0], [seedLow >>> 0, seedHigh >>> 0])[0]),
      )
      chosen[r] = id
      logs[r] = row[id]! - logSumExp(row)
    }
  }),
})
