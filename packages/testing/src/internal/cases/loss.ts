import { NONE, type RequiredKernels } from "@sloth/core"
import { weightFormats } from "@sloth/tensor"

import { Data } from "../data.ts"
import { F32, largest, productMagnitude, sumError } from "../tolerance.ts"
import type { KernelCase, Twin } from "../twin.ts"

type Cases<N extends keyof RequiredKernels> = Record<N, KernelCase[]>

interface Shape {
  readonly rows: number
  readonly vocab: number
  readonly hidden: number
  readonly softcap: number
  readonly logitScale: number
}

const SHAPES: readonly Shape[] = [
  { rows: 1, vocab: 1, hidden: 1, softcap: 0, logitScale: 1 },
  { rows: 5, vocab: 33, hidden: 5, softcap: 0, logitScale: 0.5 },
  { rows: 33, vocab: 123, hidden: 33, softcap: 3, logitScale: 1 },
  { rows: 66, vocab: 517, hidden: 64, softcap: 0, logitScale: 1 },
  { rows: 13, vocab: 300, hidden: 160, softcap: 5, logitScale: 0.4 },
]

interface Inputs extends Shape {
  readonly h: Float32Array
  readonly w: { bytes: Uint8Array; values: Float32Array }
  readonly targets: Int32Array
  /** Largest error of a logit. */
  readonly logitError: number
  readonly data: Data
}

function prepare(shape: Shape, code: number, blockSize: number, epsilon: number): Inputs {
  const hidden = Math.ceil(shape.hidden / blockSize) * blockSize
  const data = new Data(shape.vocab + code)
  const h = data.floats(shape.rows * hidden)
  const w = data.weight(code, shape.vocab, hidden, 2 / Math.sqrt(hidden))
  const targets = data.integers(shape.rows, shape.vocab)
  targets[0] = shape.vocab - 1
  const magnitude = productMagnitude(h, w.values, shape.rows, shape.vocab, hidden)
  const logitError = sumError(hidden, largest(magnitude) * shape.logitScale, epsilon)
  return { ...shape, hidden, h, w, targets, logitError, data }
}

const everyFormat = (run: (t: Twin, x: Inputs, format: number) => Promise<void>): KernelCase[] =>
  weightFormats()
    .filter((format) => format.quantizeRow !== undefined)
    .flatMap((format) =>
      // The largest shape splits rows into chunks, which has nothing to do with the format: f32 stands for all.
      SHAPES.filter((shape) => format.code === 0 || shape.rows < 64).map((shape) => ({
        label: `${format.id} ${shape.rows} of ${shape.vocab}x${shape.hidden}${shape.softcap ? ", soft cap" : ""}`,
        run: (t: Twin) => run(t, prepare(shape, format.code, format.blockSize, t.epsilon), format.code),
      })),
    )

// A sum over the vocabulary, and exp and log themselves.
const softmaxError = (x: Inputs): number => 2 * x.logitError + F32 * (16 + 2 * Math.sqrt(x.vocab))

/** Largest magnitude of d nll / dh: probabilities and the target's one each sum to 1. */
const gradientScale = (x: Inputs): number => 2 * x.logitScale * largest(x.w.values)

// The soft cap's slope 1 - (z / cap)² doubles the logit's error.
const slopeFactor = (x: Inputs): number => (x.softcap > 0 ? 3 : 1)

/** Cases of the output layer. */
export const lossCases: Cases<
  "linearCrossEntropy" | "linearLogprobs" | "linearLogprobsBackward" | "divergence" | "logits"
> = {
  linearCrossEntropy: everyFormat(async (t, x, format) => {
    const { rows, vocab, hidden, softcap, logitScale } = x
    const [h, w, targets] = [t.floats(x.h), t.bytes(x.w.bytes), t.integers(x.targets)]
    const factors = x.data.floats(rows, 0.5)
    const coef = t.floats(factors)
    const dw0 = x.data.floats(vocab * hidden, 0.1)
    // With and without gradients: of h, of h and W.
    for (const [wantsH, wantsW] of [
      [false, false],
      [true, false],
      [true, true],
    ] as const) {
      const nll = t.output(rows)
      const dh = wantsH ? t.output(rows * hidden) : NONE
      const dw = wantsW ? t.output(vocab * hidden, dw0) : NONE
      t.call("linearCrossEntropy", nll, dh, dw, h, w, format, targets, coef, rows, vocab, hidden, softcap, logitScale)
      const exact = t.exact(nll)
      await t.compare(nll, (i) => softmaxError(x) + 4 * F32 * (Math.abs(exact[i]!) + 8), "nll")
      if (typeof dh !== "number") {
        const bound = softmaxError(x) * slopeFactor(x) * gradientScale(x)
        await t.compare(dh, (i) => bound * Math.abs(factors[Math.floor(i / hidden)]!), "dh")
      }
      if (typeof dw !== "number") {
        // Rows add up; |p - onehot| is at most 1 each.
        const bound =
          softmaxError(x) * slopeFactor(x) * logitScale * largest(factors) * largest(x.h) * (1 + Math.sqrt(rows))
        await t.compare(dw, bound + 4 * F32 * largest(dw0), "dw")
      }
    }
  }),

  linearLogprobs: everyFormat(async (t, x, format) => {
    const { rows, vocab, hidden, softcap, logitScale } = x
    const [h, w, targets] = [t.floats(x.h), t.bytes(x.w.bytes), t.integers(x.targets)]
    const shape = [rows, vocab, hidden, softcap, logitScale] as const
    for (const [wantsEntropy, wantsGradient] of [
      [true, false],
      [false, false],
      [true, true],
      [false, true],
    ] as const) {
      const [logp, lse] = [t.output(rows), t.output(rows)]
      const entropy = wantsEntropy ? t.output(rows) : NONE
      const dh = wantsGradient ? t.output(rows * hidden) : NONE
      t.call("linearLogprobs", logp, lse, entropy, dh, h, w, format, targets, ...shape)
      const [exactLogp, exactLse] = [t.exact(logp), t.exact(lse)]
      await t.compare(logp, (i) => softmaxError(x) + 4 * F32 * (8 + Math.abs(exactLogp[i]!)), "logp")
      await t.compare(lse, (i) => softmaxError(x) + 4 * F32 * (8 + Math.abs(exactLse[i]!)), "lse")
      if (typeof entropy !== "number") {
        await t.compare(entropy, 2 * softmaxError(x) * (2 + Math.log(vocab) + largest(exactLse)), "entropy")
      }
      if (typeof dh !== "number") await t.compare(dh, softmaxError(x) * slopeFactor(x) * gradientScale(x), "dh")
    }
  }),

  linearLogprobsBackward: everyFormat(async (t, x, format) => {
    const { rows, vocab, hidden, softcap, logitScale } = x
    const [h, w, targets] = [t.floats(x.h), t.bytes(x.w.bytes), t.integers(x.targets)]
    const shape = [rows, vocab, hidden, softcap, logitScale] as const
    const [logp, freshLse, freshEntropy] = [t.output(rows), t.output(rows), t.output(rows)]
    t.call("linearLogprobs", logp, freshLse, freshEntropy, NONE, h, w, format, targets, ...shape)
    const lse = t.floats(t.exact(freshLse))
    const entropies = t.exact(freshEntropy)
    const entropy = t.floats(entropies)
    const factors = x.data.floats(rows, 0.5)
    const dlogp = t.floats(factors)
    const dw0 = x.data.floats(vocab * hidden, 0.1)
    const entropyFactors = x.data.floats(rows, 0.5)
    const dentropy = t.floats(entropyFactors)
    // exp(logit - lse) with a given lse: its own f32 rounding counts as well.
    const relative = (softmaxError(x) + F32 * largest(t.exact(freshLse))) * slopeFactor(x)
    const bound = relative * gradientScale(x)
    for (const wantsW of [false, true]) {
      const dh = t.output(rows * hidden)
      const dw = wantsW ? t.output(vocab * hidden, dw0) : NONE
      t.call("linearLogprobsBackward", dh, dw, dlogp, lse, NONE, NONE, h, w, format, targets, ...shape)
      await t.compare(dh, (i) => bound * Math.abs(factors[Math.floor(i / hidden)]!), "dh")
      if (typeof dw !== "number") {
        const bound = relative * logitScale * largest(factors) * largest(x.h) * (1 + Math.sqrt(rows))
        await t.compare(dw, bound + 4 * F32 * largest(dw0), "dw")
      }
    }
    // By the entropy the gradient is p · (log p + entropy). Its error is that of p, times the factor, and that of the factor: log p has the logit's and the rounding of
    // numbers as large as it is. p · |log p| is at most 1/e, and sums to the entropy.
    const factorError = relative + F32 * (largest(t.exact(freshLse)) + 4 * largest(entropies) + 16)
    const entropyBound = (relative * 2 * (1 + largest(entropies)) + factorError * slopeFactor(x)) * gradientScale(x)
    for (const wantsW of [false, true]) {
      const dh = t.output(rows * hidden)
      const dw = wantsW ? t.output(vocab * hidden, dw0) : NONE
      t.call("linearLogprobsBackward", dh, dw, dlogp, lse, dentropy, entropy, h, w, format, targets, ...shape)
      const of = (i: number): number =>
        bound * Math.abs(factors[Math.floor(i / hidden)]!) +
        entropyBound * Math.abs(entropyFactors[Math.floor(i / hidden)]!)
      await t.compare(dh, of, "dh with the entropy")
      if (typeof dw !== "number") {
        const size = logitScale * largest(x.h) * (1 + Math.sqrt(rows))
        const both =
          relative * largest(factors) + (entropyBound / Math.max(1e-30, gradientScale(x))) * largest(entropyFactors)
        await t.compare(dw, both * size + 4 * F32 * largest(dw0), "dw with the entropy")
      }
    }
  }),

  divergence: [0, 0.1, 0.5, 1].flatMap((beta) =>
    [
      { rows: 1, vocab: 1, softcap: 0, logitScale: 1 },
      { rows: 5, vocab: 33, softcap: 0, logitScale: 0.5 },
      { rows: 3, vocab: 1301, softcap: 6, logitScale: 1 },
    ].map((shape) => ({
      label: `beta ${beta}, ${shape.rows} of ${shape.vocab}${shape.softcap > 0 ? ", soft cap" : ""}`,
      run: async (t: Twin) => {
        const { rows, vocab, softcap, logitScale } = shape
        const data = new Data(vocab + rows)
        const [student, teacher] = [data.floats(rows * vocab, 4), data.floats(rows * vocab, 4)]
        const factors = data.floats(rows, 0.5)
        const [zt, coef] = [t.floats(teacher), t.floats(factors)]
        // log-probs are differences of numbers as large as the logits and log(vocab), each rounded; exp, log and the sums come on top.
        const size = Math.max(largest(student), largest(teacher)) + Math.log(vocab)
        const e = F32 * (16 + 2 * Math.sqrt(vocab) + 4 * size)
        // Terms are p · (log p - log q), a factor of at most twice the size.
        const bound = e * (2 + 2 * size)
        for (const wantsGradient of [false, true]) {
          const zs = t.floats(student)
          const out = t.output(rows)
          const dz = wantsGradient ? t.output(rows * vocab) : NONE
          t.call("divergence", out, dz, zs, zt, coef, rows, vocab, beta, softcap, logitScale)
          await t.compare(out, bound, "value")
          if (typeof dz !== "number")
            // Forward: s - t; else s · (a difference of log-probs - its mean). A probability is at most 1.
            await t.compare(dz, (i) => 2 * bound * logitScale * Math.abs(factors[Math.floor(i / vocab)]!), "dz")
        }
      },
    })),
  ),

  logits: everyFormat(async (t, x, format) => {
    const { rows, vocab, hidden, softcap, logitScale } = x
    const out = t.output(rows * vocab)
    t.call("logits", out, t.floats(x.h), t.bytes(x.w.bytes), format, rows, vocab, hidden, softcap, logitScale)
    const exact = t.exact(out)
    await t.compare(out, (i) => x.logitError + 8 * F32 * Math.abs(exact[i]!), "logits")
  }),
}
