import { describe, expect, test } from "bun:test"

import { NONE, SlothError, type Precision } from "@sloth/core"

import { createCpuBackend } from "./index.ts"
import { isas, numbers, onThreads, session, type Session } from "../test-kit/session.ts"

const FORMATS = { f32: 0, f16: 1, q4_0: 2, q4_1: 3, q8_0: 8, bf16: 30 } as const
type Format = keyof typeof FORMATS
const BYTES32: Record<Format, number> = { f32: 128, f16: 64, q4_0: 18, q4_1: 20, q8_0: 34, bf16: 64 }
const blocked = (format: Format): boolean => format.startsWith("q")

const offered: Record<string, readonly Precision[]> = {}
for (const isa of isas) {
  using backend = await createCpuBackend({ isa, threads: 1 })
  offered[isa] = backend.device.precisions
}
const withPrecision = (precision: Precision): string[] => isas.filter((isa) => offered[isa]!.includes(precision))

/** Nearest bf16, ties to even; denormals count as 0, as for the instruction. */
const toBf16 = (x: number): number => {
  const bits = new Uint32Array(Float32Array.of(x).buffer)
  const rounded = new Uint32Array([((bits[0]! + 0x7fff + ((bits[0]! >>> 16) & 1)) & 0xffff0000) >>> 0])
  const value = new Float32Array(rounded.buffer)[0]!
  return Math.abs(value) < 2 ** -126 ? 0 : value
}
const rounded = (x: ArrayLike<number>): Float64Array => Float64Array.from(x, toBf16)

/** A stored weight and the exact values that it stands for. */
const store = async (s: Session, x: Float32Array, format: Format, rows: number, cols: number) => {
  const handle = s.alloc((rows * cols * BYTES32[format]) / 32)
  s.k.quantize(handle, s.f32(x), FORMATS[format], rows, cols)
  const out = s.alloc(rows * cols * 4)
  s.k.dequantize(out, handle, FORMATS[format], rows, cols)
  return { handle, values: await s.readF32(out) }
}

interface Sums {
  readonly values: Float64Array
  /** Σ|terms| of each. */
  readonly sizes: Float64Array
}
/** Σ_p a[i, p] · b[j, p], exactly. */
const products = (a: ArrayLike<number>, b: ArrayLike<number>, m: number, n: number, k: number): Sums => {
  const values = new Float64Array(m * n)
  const sizes = new Float64Array(m * n)
  for (let i = 0; i < m; i++)
    for (let j = 0; j < n; j++)
      for (let p = 0; p < k; p++) {
        const term = a[i * k + p]! * b[j * k + p]!
        values[i * n + j]! += term
        sizes[i * n + j]! += Math.abs(term)
      }
  return { values, sizes }
}
/**
 * Sizes of the sums of blocks of 32 whose integers are multiplied before their scales: partial sums of (16 + q) · x with what is taken off for the 16 (24 of q4_0). The
 * quantisers use the whole range, so that 8 steps of q4_0 and 7.5 of q4_1 are at most the largest value of the block, and q4_1's lowest value is another: (31 + 24) / 8 or
 * (31 + 16) / 7.5 + 1 times max|w| · Σ|x| is below 8 times that. Bytes of q8_0 are multiplied as they are. Where the bound is another, `times` says so.
 */
const inBlocks = (
  x: ArrayLike<number>,
  w: ArrayLike<number>,
  m: number,
  n: number,
  k: number,
  times = 8,
): Float64Array => {
  const sizes = new Float64Array(m * n)
  for (let i = 0; i < m; i++)
    for (let j = 0; j < n; j++)
      for (let block = 0; block < k; block += 32) {
        let [largest, sum] = [0, 0]
        for (let p = block; p < block + 32; p++) {
          largest = Math.max(largest, Math.abs(w[j * k + p]!))
          sum += Math.abs(x[i * k + p]!)
        }
        sizes[i * n + j]! += times * largest * sum
      }
  return sizes
}
const transposed = (x: ArrayLike<number>, rows: number, cols: number): Float64Array => {
  const out = new Float64Array(rows * cols)
  for (let r = 0; r < rows; r++) for (let c = 0; c < cols; c++) out[c * rows + r] = x[r * cols + c]!
  return out
}
/**
 * Every addition of a sum rounds its partial result, which is at most Σ|terms|, by 2^-24 of it at most; so a sum of n additions is off by n · 2^-24 · Σ|terms|
 * at most, in any order. Nothing else may differ: operands are rounded alike on both sides.
 */
const expectSums = (actual: Float32Array, expected: Sums, additions: number): void => {
  expect(actual.length).toBe(expected.values.length)
  let worst = 0
  for (let i = 0; i < actual.length; i++) {
    const allowed = additions * 2 ** -24 * expected.sizes[i]! + 2 ** -126
    const error = Math.abs(actual[i]! - expected.values[i]!) / allowed
    if (!(error <= worst)) worst = error
  }
  expect(worst).toBeLessThanOrEqual(1)
}
const plus = (...parts: Sums[]): Sums => ({
  values: parts[0]!.values.map((_, i) => parts.reduce((sum, p) => sum + p.values[i]!, 0)),
  sizes: parts[0]!.sizes.map((_, i) => parts.reduce((sum, p) => sum + p.sizes[i]!, 0)),
})
const constant = (values: ArrayLike<number>): Sums => ({
  values: Float64Array.from(values),
  sizes: Float64Array.from(values, Math.abs),
})
const same = (a: Float32Array, b: Float32Array): boolean => Buffer.from(a.buffer).equals(Buffer.from(b.buffer))

describe("a precision that is not offered is a coded error", () => {
  for (const isa of isas)
    for (const precision of ["bf16", "int8"] as const)
      test(`${precision}, ${isa}`, async () => {
        if (offered[isa]!.includes(precision)) {
          using backend = await createCpuBackend({ isa, threads: 1, precision })
          expect(backend.device.precision).toBe(precision)
          return
        }
        const error = await createCpuBackend({ isa, precision }).then(
          () => undefined,
          (e: unknown) => e,
        )
        expect(error).toBeInstanceOf(SlothError)
        expect((error as SlothError).code).toBe("SLOTH_BACKEND_PRECISION")
        expect((error as SlothError).message).toContain(`precision ${precision}`)
      })
})

for (const isa of withPrecision("bf16"))
  describe(`bf16, ${isa}: products of operands rounded once`, () => {
    for (const format of Object.keys(FORMATS) as Format[])
      for (const [m, n, k] of [
        [33, 5, 96],
        [61, 70, blocked(format) ? 64 : 45],
        [123, 224, blocked(format) ? 1600 : 1601],
      ] as const)
        test(`linear and its way back, ${format} ${m} x ${n} x ${k}`, async () => {
          const [x, w, bias, rank] = [numbers(m * k, 1), numbers(n * k, 2), numbers(n, 3), 7]
          const [t, b, a] = [numbers(m * rank, 4), numbers(n * rank, 5), numbers(rank * k, 6)]
          const [dy, before] = [numbers(m * n, 7), numbers(m * n, 8)]
          const run = (s: Session) => async () => {
            const weight = await store(s, w, format, n, k)
            const y = s.f32(before)
            const [tb, bb] = [s.f32(t), s.f32(b)]
            s.k.linear(y, s.f32(x), weight.handle, FORMATS[format], m, n, k, s.f32(bias), tb, bb, rank, 1)
            const dx = s.alloc(m * k * 4)
            s.k.linearBackwardInput(dx, s.f32(dy), weight.handle, FORMATS[format], m, n, k, tb, s.f32(a), rank, 0)
            return [await s.readF32(y), await s.readF32(dx), weight.values] as const
          }
          const [y, dx, values] = await onThreads(isa, (s) => run(s)(), "bf16")
          const r = rounded(values)
          const forward = plus(
            products(rounded(x), r, m, n, k),
            products(t, b, m, n, rank),
            constant(Array.from({ length: m * n }, (_, i) => bias[i % n]!)),
            constant(before),
          )
          // Stretches of the sum and the low-rank part are added to what is there.
          expectSums(y, forward, k + rank + 8)
          const back = plus(
            products(rounded(dy), transposed(r, n, k), m, k, n),
            products(t, transposed(a, rank, k), m, k, rank),
          )
          expectSums(dx, back, n + rank + 8)
        })

    test("a rank longer than a strip", async () => {
      const [m, n, k, rank] = [40, 33, 64, 400]
      const [x, w, t, b] = [numbers(m * k, 1), numbers(n * k, 2), numbers(m * rank, 3), numbers(n * rank, 4)]
      const [y] = await onThreads(
        isa,
        async (s) => {
          const out = s.alloc(m * n * 4)
          s.k.linear(out, s.f32(x), s.f32(w), 0, m, n, k, NONE, s.f32(t), s.f32(b), rank, 0)
          return [await s.readF32(out)] as const
        },
        "bf16",
      )
      expectSums(y, plus(products(rounded(x), rounded(w), m, n, k), products(t, b, m, n, rank)), k + rank + 8)
    })

    test("gradients of weights are rounded, products with an adapter's factors are not", async () => {
      const [out, inner, tokens, rank] = [130, 141, 1003, 16]
      const [dy, x, dt] = [numbers(tokens * out, 1), numbers(tokens * inner, 2), numbers(tokens * rank, 3)]
      const body = async (s: Session) => {
        const [dyb, xb] = [s.f32(dy), s.f32(x)]
        const [dw, da, low] = [s.alloc(out * inner * 4), s.alloc(rank * inner * 4), s.alloc(tokens * rank * 4)]
        s.k.matmul(dw, dyb, xb, out, inner, tokens, 1, 0, 0.5, 0)
        s.k.matmul(da, s.f32(dt), xb, rank, inner, tokens, 1, 0, 1, 0)
        s.k.matmul(low, xb, s.f32(numbers(rank * inner, 4)), tokens, rank, inner, 0, 1, 1, 0)
        return [await s.readF32(dw), await s.readF32(da), await s.readF32(low)] as const
      }
      const [dw, ...small] = await onThreads(isa, body, "bf16")
      const expected = products(
        transposed(rounded(dy), tokens, out),
        transposed(rounded(x), tokens, inner),
        out,
        inner,
        tokens,
      )
      expectSums(dw, { values: expected.values.map((v) => v / 2), sizes: expected.sizes.map((v) => v / 2) }, tokens + 8)
      const [, ...exact] = await session(isa, 1, body)
      small.forEach((values, i) => expect(same(values, exact[i]!)).toBe(true))
    })

    for (const format of ["q4_0", "q4_1", "q8_0"] as const)
      for (const [m, n, k] of [
        [2, 5, 32],
        [7, 33, 96],
        [8, 70, 1600],
        [16, 40, 576],
        [17, 16, 64],
        [32, 123, 224],
      ] as const)
        test(`few rows are rounded, integers of blocks are not, ${format} ${m} x ${n} x ${k}`, async () => {
          const [x, w, bias, rank] = [numbers(m * k, 1), numbers(n * k, 2), numbers(n, 3), 7]
          const [t, b, before] = [numbers(m * rank, 4), numbers(n * rank, 5), numbers(m * n, 6)]
          const body = async (s: Session) => {
            const weight = await store(s, w, format, n, k)
            const [y, bare, code] = [s.f32(before), s.alloc(m * n * 4), FORMATS[format]]
            s.k.linear(y, s.f32(x), weight.handle, code, m, n, k, s.f32(bias), s.f32(t), s.f32(b), rank, 1)
            s.k.logits(bare, s.f32(x), weight.handle, code, m, n, k, 0, 1)
            return [await s.readF32(y), await s.readF32(bare), weight.values] as const
          }
          const [y, bare, values] = await onThreads(isa, body, "bf16")
          const wide = {
            values: products(rounded(x), values, m, n, k).values,
            sizes: inBlocks(rounded(x), values, m, n, k),
          }
          // 32 additions of a block and 31 of its sum of x, and two for every block.
          const additions = 64 + k / 16
          expectSums(bare, wide, additions)
          const all = plus(
            wide,
            products(t, b, m, n, rank),
            constant(Array.from({ length: m * n }, (_, i) => bias[i % n]!)),
            constant(before),
          )
          expectSums(y, all, additions + rank + 8)
          const [, exact] = await session(isa, 1, body)
          expect(same(bare, exact)).toBe(false)
        })

    test("one row, and few rows of other formats, are f32", async () => {
      const [n, k] = [40, 96]
      const body = async (s: Session) => {
        const all: Float32Array[] = []
        for (const [format, m] of [
          ["q4_1", 1],
          ["q8_0", 1],
          ["f32", 32],
          ["f16", 8],
          ["bf16", 16],
        ] as const) {
          const weight = await store(s, numbers(n * k, 1), format, n, k)
          const y = s.alloc(m * n * 4)
          s.k.linear(y, s.f32(numbers(m * k, 2)), weight.handle, FORMATS[format], m, n, k, NONE, NONE, NONE, 0, 0)
          all.push(await s.readF32(y))
        }
        return all
      }
      const [asked, exact] = [await session(isa, 1, body, "bf16"), await session(isa, 1, body)]
      asked.forEach((values, i) => expect(same(values, exact[i]!)).toBe(true))
    })

    for (const format of ["f32", "q8_0"] as const)
      test(`loss and its gradient, ${format}`, async () => {
        const [rows, vocab, hidden] = [45, 1000, 96]
        const [h, w, coef] = [numbers(rows * hidden, 1, 2), numbers(vocab * hidden, 2, 0.5), numbers(rows, 3)]
        const targets = Array.from({ length: rows }, (_, i) => (i * 97) % vocab)
        const [nll, dh, values] = await onThreads(
          isa,
          async (s) => {
            const weight = await store(s, w, format, vocab, hidden)
            const [loss, gradient] = [s.alloc(rows * 4), s.alloc(rows * hidden * 4)]
            const code = FORMATS[format]
            s.k.linearCrossEntropy(
              loss,
              gradient,
              NONE,
              s.f32(h),
              weight.handle,
              code,
              s.i32(targets),
              s.f32(coef),
              rows,
              vocab,
              hidden,
              0,
              1,
            )
            return [await s.readF32(loss), await s.readF32(gradient), weight.values] as const
          },
          "bf16",
        )
        const r = rounded(values)
        const z = products(rounded(h), r, rows, vocab, hidden)
        for (let i = 0; i < rows; i++) {
          const row = z.values.subarray(i * vocab, (i + 1) * vocab)
          const top = row.reduce((a, b) => Math.max(a, b))
          const lse = top + Math.log(row.reduce((sum, v) => sum + Math.exp(v - top), 0))
          // A logit is off by δ = hidden · 2^-24 · Σ|terms| (f32 sums); so are their log-sum-exp and the target's own. Exponentials and the result round a few times.
          const delta =
            (hidden + 8) * 2 ** -24 * z.sizes.subarray(i * vocab, (i + 1) * vocab).reduce((a, b) => Math.max(a, b))
          const target = targets[i]!
          expect(Math.abs(nll[i]! - (lse - row[target]!))).toBeLessThanOrEqual(
            2 * delta + 2 ** -20 * (1 + Math.abs(lse - row[target]!)),
          )
          for (let c = 0; c < hidden; c++) {
            let sum = 0
            let size = 0
            for (let v = 0; v < vocab; v++) {
              const p = Math.exp(row[v]! - lse)
              // The target's row of the weight is not rounded: its term is made apart from the products.
              const term = v === target ? (p - 1) * values[v * hidden + c]! : p * r[v * hidden + c]!
              sum += term
              size += Math.abs(term)
            }
            // exp(z - m) is rounded to bf16 (2^-9); 2δ from the logits; f32 sums over the vocabulary.
            const allowed = (2 ** -9 + 2 * delta + (vocab + 64) * 2 ** -24) * size * Math.abs(coef[i]!)
            expect(Math.abs(dh[i * hidden + c]! - sum * coef[i]!)).toBeLessThanOrEqual(allowed + 2 ** -126)
          }
        }
      })

    for (const [name, segments, headDim, window] of [
      [
        "packed",
        [
          [0, 37, -1],
          [37, 70, -1],
        ],
        32,
        0,
      ],
      [
        "completions of a prompt",
        [
          [0, 61, -1],
          [61, 33, 0],
          [94, 21, 0],
        ],
        20,
        0,
      ],
      ["a window", [[0, 115, -1]], 33, 11],
    ] as const)
      test(`attention and its way back, ${name}`, async () => {
        const [heads, kvHeads, scale] = [4, 2, 0.3]
        const tokens = segments.reduce((n, [, length]) => n + length, 0)
        const [wide, narrow] = [heads * headDim, kvHeads * headDim]
        const [q, k, v, dout] = [
          numbers(tokens * wide, 1),
          numbers(tokens * narrow, 2),
          numbers(tokens * narrow, 3),
          numbers(tokens * wide, 4),
        ]
        const [out, lse, dq, dk, dv] = await onThreads(
          isa,
          async (s) => {
            const [qb, kb, vb, table] = [s.f32(q), s.f32(k), s.f32(v), s.i32(segments.flat())]
            const made = [tokens * wide, tokens * heads, tokens * wide, tokens * narrow, tokens * narrow].map((n) =>
              s.alloc(n * 4),
            )
            const [o, l, a, b, c] = made as [number, number, number, number, number]
            const shape = [segments.length, tokens, heads, kvHeads, headDim, scale, window, 0, NONE] as const
            s.k.attention(o, l, qb, wide, kb, narrow, vb, narrow, table, ...shape)
            s.k.attentionBackward(a, b, c, NONE, s.f32(dout), o, l, qb, wide, kb, narrow, vb, narrow, table, ...shape)
            const [o2, l2, a2, b2, c2] = [
              await s.readF32(o),
              await s.readF32(l),
              await s.readF32(a),
              await s.readF32(b),
              await s.readF32(c),
            ]
            return [o2, l2, a2, b2, c2] as const
          },
          "bf16",
        )
        // Position on the path, and the rows that each row sees.
        const seen: number[][] = Array.from({ length: tokens }, () => [])
        for (const [i, [start, length]] of segments.entries())
          for (let r = 0; r < length; r++) {
            const path: number[] = []
            for (let at: number = i; at >= 0; at = segments[at]![2])
              path.unshift(
                ...Array.from({ length: at === i ? r + 1 : segments[at]![1] }, (_, t) => segments[at]![0] + t),
              )
            seen[start + r] = window > 0 ? path.slice(-window) : path
          }
        const [rk, rv, ro] = [rounded(k), rounded(v), rounded(dout)]
        const rq = rounded(q.map((x) => Math.fround(x * Math.fround(scale))))
        const [qs, ks, vs] = [new Float64Array(dq.length), new Float64Array(dk.length), new Float64Array(dv.length)]
        const [qe, ke, ve] = [new Float64Array(dq.length), new Float64Array(dk.length), new Float64Array(dv.length)]
        // bf16 numbers from 1 to 2 are 2^-7 apart: rounding moves a number by 2^-8 of itself at most. An f32 sum of n terms is off by n · 2^-24 of their sizes.
        const [half, sum] = [2 ** -8, (n: number) => (n + 8) * 2 ** -24]
        const worst = [0, 0]
        const near = (slot: number, actual: number, expected: number, allowed: number): void => {
          worst[slot] = Math.max(worst[slot]!, Math.abs(actual - expected) / (allowed + 2 ** -100))
        }
        for (let r = 0; r < tokens; r++)
          for (let h = 0; h < heads; h++) {
            const at = (r * heads + h) * headDim
            const keys = seen[r]!
            const group = Math.floor((h * kvHeads) / heads)
            const key = (j: number) => (j * kvHeads + group) * headDim
            const [scores, delta, dp, dpError] = [[] as number[], [] as number[], [] as number[], [] as number[]]
            for (const j of keys) {
              let [s, size, d, dSize] = [0, 0, 0, 0]
              for (let c = 0; c < headDim; c++) {
                s += rq[at + c]! * rk[key(j) + c]!
                size += Math.abs(rq[at + c]! * rk[key(j) + c]!)
                d += ro[at + c]! * rv[key(j) + c]!
                dSize += Math.abs(ro[at + c]! * rv[key(j) + c]!)
              }
              scores.push(s)
              delta.push(sum(headDim) * size)
              dp.push(d)
              dpError.push(sum(headDim) * dSize)
            }
            const most = Math.max(...scores)
            const log = most + Math.log(scores.reduce((n, s) => n + Math.exp(s - most), 0))
            const off = Math.max(...delta) * 2 + 2 ** -20
            near(0, lse[r * heads + h]!, log, off + 2 ** -22 * Math.abs(log))
            let [dot, dotSize] = [0, 0]
            for (let c = 0; c < headDim; c++) {
              let [o, size] = [0, 0]
              for (const [i, j] of keys.entries()) {
                const term = Math.exp(scores[i]! - log) * rv[key(j) + c]!
                o += term
                size += Math.abs(term)
              }
              near(0, out[at + c]!, o, (half + 2 * off + sum(keys.length)) * size)
              // The way back reads what the kernel made.
              dot += dout[at + c]! * out[at + c]!
              dotSize += Math.abs(dout[at + c]! * out[at + c]!)
            }
            for (const [i, j] of keys.entries()) {
              const p = Math.exp(scores[i]! - lse[r * heads + h]!)
              const pError = p * (delta[i]! + 2 ** -20)
              const ds = p * (dp[i]! - dot)
              const dsError =
                pError * Math.abs(dp[i]! - dot) + p * (dpError[i]! + sum(headDim) * dotSize) + half * Math.abs(ds)
              for (let c = 0; c < headDim; c++) {
                qs[at + c]! += ds * rk[key(j) + c]! * scale
                qe[at + c]! +=
                  dsError * Math.abs(rk[key(j) + c]!) * scale * (1 + half) +
                  sum(tokens) * Math.abs(ds * rk[key(j) + c]!) * scale
                ks[key(j) + c]! += ds * rq[at + c]!
                ke[key(j) + c]! +=
                  dsError * Math.abs(rq[at + c]!) * (1 + half) + sum(2 * tokens) * Math.abs(ds * rq[at + c]!)
                vs[key(j) + c]! += p * ro[at + c]!
                ve[key(j) + c]! +=
                  (pError + half * p) * Math.abs(ro[at + c]!) * (1 + half) + sum(2 * tokens) * p * Math.abs(ro[at + c]!)
              }
            }
          }
        for (const [actual, expected, allowed] of [
          [dq, qs, qe],
          [dk, ks, ke],
          [dv, vs, ve],
        ] as const)
          for (let i = 0; i < actual.length; i++) near(1, actual[i]!, expected[i]!, allowed[i]!)
        expect(worst[0]).toBeLessThanOrEqual(1)
        expect(worst[1]).toBeLessThanOrEqual(1)
        // Operands were rounded: f32 products would be far nearer.
        expect(worst[1]).toBeGreaterThan(0.01)
      })
  })

/** Activations in blocks of 32 int8 with an f32 scale each, as the kernels' comment says. */
const quantized = (x: Float32Array): { q: Float64Array; d: Float64Array } => {
  const q = new Float64Array(x.length)
  const d = new Float64Array(x.length / 32)
  for (let b = 0; b < d.length; b++) {
    let most = 0
    for (let i = 0; i < 32; i++) most = Math.max(most, Math.abs(x[b * 32 + i]!))
    d[b] = Math.fround(most / 127)
    const inverse = most > 1e-36 ? Math.fround(127 / most) : 0
    for (let i = 0; i < 32; i++) {
      const v = Math.fround(x[b * 32 + i]! * inverse)
      const low = Math.floor(v)
      const rest = v - low
      q[b * 32 + i] = rest > 0.5 || (rest === 0.5 && low % 2 !== 0) ? low + 1 : low
    }
  }
  return { q, d }
}

for (const isa of withPrecision("int8"))
  describe(`int8, ${isa}: products of activations rounded to int8`, () => {
    for (const format of ["q4_0", "q4_1", "q8_0"] as const)
      for (const m of [1, 2, 3, 4, 5, 8, 9, 12, 13, 50])
        test(`linear, ${format}, ${m} rows`, async () => {
          for (const [n, k] of [
            [1, 32],
            [3, 96],
            [77, 576],
          ] as const) {
            const [x, w, bias, rank] = [numbers(m * k, 1), numbers(n * k, 2), numbers(n, 3), 5]
            x.fill(0, 0, 32) // a block of zeros
            const [t, b, before] = [numbers(m * rank, 4), numbers(n * rank, 5), numbers(m * n, 6)]
            const [y, plain, values] = await onThreads(
              isa,
              async (s) => {
                const weight = await store(s, w, format, n, k)
                const [full, bare, xb, code] = [s.f32(before), s.alloc(m * n * 4), s.f32(x), FORMATS[format]]
                s.k.linear(full, xb, weight.handle, code, m, n, k, s.f32(bias), s.f32(t), s.f32(b), rank, 1)
                s.k.logits(bare, xb, weight.handle, code, m, n, k, 0, 1)
                return [await s.readF32(full), await s.readF32(bare), weight.values] as const
              },
              "int8",
            )
            const { q, d } = quantized(x)
            const stood = q.map((v, i) => v * d[i >> 5]!)
            const exact = products(stood, values, m, n, k)
            // The integer sum of a block is exact; its terms before the zero point is taken off are larger than the block's products: |w| up to 15 (255) steps
            // instead of 8 (127), so at most 2 · max|w| · Σ|x| of the block. Five roundings a block (scales, conversion, two sums), and those of what is added.
            const sizes = inBlocks(stood, values, m, n, k, 2)
            const wide = { values: exact.values, sizes }
            expectSums(plain, wide, k / 32 + 5)
            const all = plus(
              wide,
              products(t, b, m, n, rank),
              constant(Array.from({ length: m * n }, (_, i) => bias[i % n]!)),
              constant(before),
            )
            expectSums(y, all, k / 32 + rank + 8)
          }
        })

    test("other formats, and the way back, are those of f32", async () => {
      const [m, n, k] = [40, 33, 64]
      const body = async (s: Session) => {
        const x = s.f32(numbers(m * k, 1))
        const all: Float32Array[] = []
        for (const format of ["f32", "f16", "bf16"] as const) {
          const y = s.alloc(m * n * 4)
          s.k.linear(
            y,
            x,
            (await store(s, numbers(n * k, 2), format, n, k)).handle,
            FORMATS[format],
            m,
            n,
            k,
            NONE,
            NONE,
            NONE,
            0,
            0,
          )
          all.push(await s.readF32(y))
        }
        const dx = s.alloc(m * k * 4)
        const weight = await store(s, numbers(n * k, 2), "q4_0", n, k)
        s.k.linearBackwardInput(dx, s.f32(numbers(m * n, 3)), weight.handle, FORMATS.q4_0, m, n, k, NONE, NONE, 0, 0)
        all.push(await s.readF32(dx))
        return all
      }
      const [asked, exact] = [await session(isa, 2, body, "int8"), await session(isa, 2, body)]
      asked.forEach((values, i) => expect(same(values, exact[i]!)).toBe(true))
    })

    test("a value that is not finite is not hidden", async () => {
      for (const m of [1, 20])
        for (const bad of [NaN, Infinity]) {
          const [n, k] = [20, 64]
          const x = numbers(m * k, 1)
          x[k - 1] = bad
          const y = await session(
            isa,
            1,
            async (s) => {
              const out = s.alloc(m * n * 4)
              const weight = await store(s, numbers(n * k, 2), "q8_0", n, k)
              s.k.linear(out, s.f32(x), weight.handle, FORMATS.q8_0, m, n, k, NONE, NONE, NONE, 0, 0)
              return s.readF32(out)
            },
            "int8",
          )
          expect([...y.subarray(0, n)].some(Number.isFinite)).toBe(false)
          expect([...y.subarray(n)].every(Number.isFinite)).toBe(true)
        }
    })
  })

for (const precision of ["bf16", "int8"] as const)
  for (const isa of withPrecision(precision))
    describe(`${precision}, ${isa}: a group has the precision of its layers`, () => {
      // Few rows of bf16 group their low-rank products, which adds up otherwise; their precision is tested above and with few rows.
      for (const m of precision === "int8" ? [3, 40] : [40])
        test(`${m} rows`, async () => {
          const [k, rank, sizes] = [96, 5, [40, 33]] as const
          const [together, alone] = await session(
            isa,
            2,
            async (s) => {
              const x = s.f32(numbers(m * k, 1))
              const layers = await Promise.all(
                sizes.map(async (n, i) => {
                  const w = (await store(s, numbers(n * k, 2 + i), i === 0 ? "q4_1" : "q8_0", n, k)).handle
                  const [a, b, bias] = [numbers(rank * k, 4 + i), numbers(n * rank, 6 + i), numbers(n, 8 + i)]
                  const format = i === 0 ? FORMATS.q4_1 : FORMATS.q8_0
                  return { n, w, format, a: s.f32(a), b: s.f32(b), bias: s.f32(bias), y: s.alloc(m * n * 4) }
                }),
              )
              const group = layers.map(({ y, w, format, n, bias, a, b }) => [y, w, format, n, bias, a, b, rank, 0.5])
              const args = [...group.flat(), ...Array<number>(9).fill(0)]
              ;(s.k.linearGroup as (...args: number[]) => void)(x, m, k, ...args)
              const read = () => Promise.all(layers.map(({ y }) => s.readF32(y)))
              const grouped = await read()
              for (const { y, w, format, n, bias, a, b } of layers) {
                const low = s.alloc(m * rank * 4)
                s.k.matmul(low, x, a, m, rank, k, 0, 1, 0.5, 0)
                s.k.linear(y, x, w, format, m, n, k, bias, low, b, rank, 0)
              }
              return [grouped, await read()] as const
            },
            precision,
          )
          together.forEach((values, i) => expect(same(values, alone[i]!)).toBe(true))
        })
    })
