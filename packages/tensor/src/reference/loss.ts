import type { RequiredKernels } from "@sloth/core"

import type { Call, Define, WeightRows } from "./call.ts"
import type { FloatArray } from "./memory.ts"
import { addScaled, dot } from "./products.ts"

type Names = "linearCrossEntropy" | "linearLogprobs" | "linearLogprobsBackward" | "divergence" | "logits"

// Rows of h whose logits are held at once: every weight row is decoded once a chunk.
const CHUNK = 64

interface Head {
  readonly h: FloatArray
  readonly weight: WeightRows
  readonly vocab: number
  readonly hidden: number
  readonly softcap: number
  readonly logitScale: number
}

/** Logits of rows [first, first + count): softcap(logitScale · h · Wᵀ), [count, vocab]. */
function chunkLogits(head: Head, first: number, count: number): Float64Array {
  const { h, weight, vocab, hidden, softcap, logitScale } = head
  const logits = new Float64Array(count * vocab)
  for (let token = 0; token < vocab; token++) {
    const row = weight.row(token)
    for (let i = 0; i < count; i++) {
      const raw = logitScale * dot(h, (first + i) * hidden, row, 0, hidden)
      logits[i * vocab + token] = softcap > 0 ? softcap * Math.tanh(raw / softcap) : raw
    }
  }
  return logits
}

/** log Σ exp of one row. */
function logSumExp(row: ArrayLike<number>, start: number, n: number): number {
  let most = -Infinity
  for (let i = 0; i < n; i++) most = Math.max(most, row[start + i]!)
  if (!Number.isFinite(most)) return most
  let total = 0
  for (let i = 0; i < n; i++) total += Math.exp(row[start + i]! - most)
  return most + Math.log(total)
}

/**
 * Adds the gradient of Σ factor[i] · nll[i] of one chunk: d nll / d logit = softmax - onehot(target), times the slope of the soft cap. With `entropy` also that of
 * Σ entropy.factor[i] · entropy[i]: d entropy / d logit = -p · (log p + entropy).
 * hiddenTotal [count, hidden] and weightTotal [vocab, hidden] receive it when they are given.
 */
function addGradient(
  head: Head,
  first: number,
  count: number,
  logits: Float64Array,
  lse: Float64Array,
  targets: Int32Array,
  factor: Float64Array,
  hiddenTotal: Float64Array | undefined,
  weightTotal: Float64Array | undefined,
  entropy?: { readonly factor: Float64Array; readonly value: Float64Array },
): void {
  const { h, weight, vocab, hidden, softcap, logitScale } = head
  for (let token = 0; token < vocab; token++) {
    const row = weight.row(token)
    for (let i = 0; i < count; i++) {
      const logit = logits[i * vocab + token]!
      const slope = softcap > 0 ? 1 - (logit / softcap) ** 2 : 1
      const log = logit - lse[i]!
      const p = Math.exp(log)
      let d = factor[i]! * (p - (targets[first + i] === token ? 1 : 0))
      // A logit of -infinity has probability 0 and no gradient.
      if (entropy !== undefined && p > 0) d -= entropy.factor[i]! * p * (log + entropy.value[i]!)
      d *= slope * logitScale
      if (hiddenTotal !== undefined) addScaled(hiddenTotal, i * hidden, d, row, 0, hidden)
      if (weightTotal !== undefined) addScaled(weightTotal, token * hidden, d, h, (first + i) * hidden, hidden)
    }
  }
}

const checkHead = (
  c: Call,
  h: number,
  w: number,
  format: number,
  rows: number,
  vocab: number,
  hidden: number,
  softcap: number,
  logitScale: number,
): Head => {
  c.whole("rows", rows)
  c.whole("vocab", vocab, 1)
  c.whole("hidden", hidden)
  c.require(softcap >= 0, "softcap", `must be at least 0, not ${softcap}`)
  return {
    h: c.float("h", h, rows * hidden),
    weight: c.weight("w", w, format, vocab, hidden),
    vocab,
    hidden,
    softcap,
    logitScale,
  }
}

const checkTargets = (c: Call, targets: number, rows: number, vocab: number): Int32Array => {
  const wanted = c.int("targets", targets, rows)
  for (let i = 0; i < rows; i++) {
    const target = wanted[i]!
    c.data(target >= 0 && target < vocab, "targets", `has ${target} at row ${i}, which is not in 0..${vocab - 1}`)
  }
  return wanted
}

/** Adds f64 totals to an f32 buffer. */
const addTotals = (target: FloatArray, totals: Float64Array): void => {
  for (let i = 0; i < totals.length; i++) target[i]! += totals[i]!
}

/** The output layer with its loss or log-probabilities, on scored rows. */
export const lossKernels = (define: Define): Pick<RequiredKernels, Names> => ({
  linearCrossEntropy: define(
    "linearCrossEntropy",
    (c, nll, dh, dw, h, w, format, targets, coef, rows, vocab, hidden, softcap, logitScale) => {
      const head = checkHead(c, h, w, format, rows, vocab, hidden, softcap, logitScale)
      const wanted = checkTargets(c, targets, rows, vocab)
      const losses = c.floatOut("nll", nll, rows)
      const hiddenOut = c.maybeFloatOut("dh", dh, rows * hidden)
      const weightOut = c.maybeFloatOut("dw", dw, vocab * hidden)
      const wantsGradient = hiddenOut !== undefined || weightOut !== undefined
      const given = wantsGradient ? c.float("coef", coef, rows) : c.maybeFloat("coef", coef, rows)
      const factors = wantsGradient ? given : undefined
      const weightTotal = weightOut && new Float64Array(vocab * hidden)
      for (let first = 0; first < rows; first += CHUNK) {
        const count = Math.min(CHUNK, rows - first)
        const logits = chunkLogits(head, first, count)
        const lse = new Float64Array(count)
        for (let i = 0; i < count; i++) {
          lse[i] = logSumExp(logits, i * vocab, vocab)
          losses[first + i] = lse[i]! - logits[i * vocab + wanted[first + i]!]!
        }
        if (factors === undefined) continue
        const hiddenTotal = hiddenOut && new Float64Array(count * hidden)
        const factor = new Float64Array(factors.subarray(first, first + count))
        addGradient(head, first, count, logits, lse, wanted, factor, hiddenTotal, weightTotal)
        if (hiddenTotal !== undefined) hiddenOut?.set(hiddenTotal, first * hidden)
      }
      if (weightOut !== undefined && weightTotal !== undefined) addTotals(weightOut, weightTotal)
    },
  ),

  linearLogprobs: define(
    "linearLogprobs",
    (c, logp, lse, entropy, dh, h, w, format, targets, rows, vocab, hidden, softcap, logitScale) => {
      const head = checkHead(c, h, w, format, rows, vocab, hidden, softcap, logitScale)
      const wanted = checkTargets(c, targets, rows, vocab)
      const out = c.floatOut("logp", logp, rows)
      const logs = c.floatOut("lse", lse, rows)
      const entropies = c.maybeFloatOut("entropy", entropy, rows)
      const hiddenOut = c.maybeFloatOut("dh", dh, rows * hidden)
      for (let first = 0; first < rows; first += CHUNK) {
        const count = Math.min(CHUNK, rows - first)
        const logits = chunkLogits(head, first, count)
        const chunkLogs = new Float64Array(count)
        for (let i = 0; i < count; i++) {
          const log = logSumExp(logits, i * vocab, vocab)
          chunkLogs[i] = log
          logs[first + i] = log
          out[first + i] = logits[i * vocab + wanted[first + i]!]! - log
          if (entropies === undefined) continue
          let total = 0
          for (let token = 0; token < vocab; token++) {
            const value = logits[i * vocab + token]! - log
            // A logit of -infinity has probability 0 and adds nothing.
            if (value > -Infinity) total -= Math.exp(value) * value
          }
          entropies[first + i] = total
        }
        if (hiddenOut === undefined) continue
        const hiddenTotal = new Float64Array(count * hidden)
        // logp is -nll.
        addGradient(
          head,
          first,
          count,
          logits,
          chunkLogs,
          wanted,
          new Float64Array(count).fill(-1),
          hiddenTotal,
          undefined,
        )
        hiddenOut.set(hiddenTotal, first * hidden)
      }
    },
  ),

  linearLogprobsBackward: define(
    "linearLogprobsBackward",
    (c, dh, dw, dlogp, lse, dentropy, entropy, h, w, format, targets, rows, vocab, hidden, softcap, logitScale) => {
      const head = checkHead(c, h, w, format, rows, vocab, hidden, softcap, logitScale)
      const wanted = checkTargets(c, targets, rows, vocab)
      const factors = c.float("dlogp", dlogp, rows)
      const logs = c.float("lse", lse, rows)
      const entropyFactors = c.maybeFloat("dentropy", dentropy, rows)
      const entropies =
        entropyFactors === undefined ? c.maybeFloat("entropy", entropy, rows) : c.float("entropy", entropy, rows)
      const hiddenOut = c.floatOut("dh", dh, rows * hidden)
      const weightOut = c.maybeFloatOut("dw", dw, vocab * hidden)
      const weightTotal = weightOut && new Float64Array(vocab * hidden)
      for (let first = 0; first < rows; first += CHUNK) {
        const count = Math.min(CHUNK, rows - first)
        const logits = chunkLogits(head, first, count)
        const hiddenTotal = new Float64Array(count * hidden)
        // logp is -nll.
        const factor = new Float64Array(factors.subarray(first, first + count)).map((value) => -value)
        const lseOfChunk = new Float64Array(logs.subarray(first, first + count))
        const part = (values: FloatArray): Float64Array => new Float64Array(values.subarray(first, first + count))
        const byEntropy =
          entropyFactors === undefined ? undefined : { factor: part(entropyFactors), value: part(entropies!) }
        addGradient(head, first, count, logits, lseOfChunk, wanted, factor, hiddenTotal, weightTotal, byEntropy)
        hiddenOut.set(hiddenTotal, first * hidden)
      }
      if (weightOut !== undefined && weightTotal !== undefined) addTotals(weightOut, weightTotal)
    },
  ),

  divergence: define("divergence", (c, out, dz, zs, zt, coef, rows, vocab, beta, softcap, logitScale) => {
    c.whole("rows", rows)
    c.whole("vocab", vocab, 1)
    c.require(beta >= 0 && beta <= 1, "beta", `must be from 0 to 1, not ${beta}`)
    c.require(softcap >= 0, "softcap", `must be at least 0, not ${softcap}`)
    const [student, teacher] = [c.float("zs", zs, rows * vocab), c.float("zt", zt, rows * vocab)]
    const values = c.floatOut("out", out, rows)
    const gradients = c.maybeFloatOut("dz", dz, rows * vocab)
    const factors = gradients === undefined ? c.maybeFloat("coef", coef, rows) : c.float("coef", coef, rows)
    for (let i = 0; i < rows; i++) {
      const at = i * vocab
      const [lseS, lseT] = [logSumExp(student, at, vocab), logSumExp(teacher, at, vocab)]
      /** log s, log t and the log of what s and t are compared with. */
      const logs = (token: number): readonly [number, number, number] => {
        const [s, t] = [student[at + token]! - lseS, teacher[at + token]! - lseT]
        return [s, t, beta === 0 ? s : beta === 1 ? t : Math.log((1 - beta) * Math.exp(s) + beta * Math.exp(t))]
      }
      let [own, other] = [0, 0]
      for (let token = 0; token < vocab; token++) {
        const [s, t, m] = logs(token)
        own += Math.exp(s) * (s - m)
        other += Math.exp(t) * (t - m)
      }
      values[i] = beta === 0 ? other : beta === 1 ? own : beta * other + (1 - beta) * own
      if (gradients === undefined) continue
      for (let token = 0; token < vocab; token++) {
        const [s, t, m] = logs(token)
        const z = student[at + token]!
        const slope = (softcap > 0 ? 1 - (z / softcap) ** 2 : 1) * logitScale * factors![i]!
        const d = beta === 0 ? Math.exp(s) - Math.exp(t) : (beta === 1 ? 1 : 1 - beta) * Math.exp(s) * (s - m - own)
        gradients[at + token] = d * slope
      }
    }
  }),

  logits: define("logits", (c, out, h, w, format, rows, vocab, hidden, softcap, logitScale) => {
    const head = checkHead(c, h, w, format, rows, vocab, hidden, softcap, logitScale)
    const target = c.floatOut("out", out, rows * vocab)
    for (let first = 0; first < rows; first += CHUNK) {
      target.set(chunkLogits(head, first, Math.min(CHUNK, rows - first)), first * vocab)
    }
  }),
})
