import { afterAll, describe, expect, test } from "bun:test"

import { NONE } from "@sloth/core"
import { createReferenceBackend } from "@sloth/tensor"

import { Data } from "./internal/data.ts"
import { checkGradient, finiteDifference } from "./internal/finite-difference.ts"

// Every gradient kernel of the reference backend against finite differences of its forward kernel, in double precision.

const backend = createReferenceBackend({ float64: true })
const { kernels, memory } = backend
const made: number[] = []

const floats = (values: ArrayLike<number>): number => {
  const handle = memory.alloc(values.length * 4)
  backend.writeFloat64(handle, values)
  made.push(handle)
  return handle
}
const room = (n: number): number => floats(new Float64Array(n))
const ints = (values: readonly number[]): number => {
  const handle = memory.alloc(values.length * 4)
  memory.write(handle, Int32Array.from(values))
  made.push(handle)
  return handle
}

/** Σ weight · value over a buffer. */
const weighted = (handle: number, weights: ArrayLike<number>): number => {
  const values = backend.readFloat64(handle)
  let total = 0
  for (let i = 0; i < weights.length; i++) total += values[i]! * weights[i]!
  return total
}

/** A test whose buffers are freed at its end. */
const gradientTest = (name: string, body: (d: Data) => void): void =>
  test(name, () => {
    body(new Data(name.length))
    for (const handle of made.splice(0)) memory.free(handle)
  })

const gradient = (actual: number, input: number, loss: () => number, label: string): void =>
  checkGradient(backend.readFloat64(actual), finiteDifference(backend, input, loss), label)

afterAll(() => expect(memory.stats()).toMatchObject({ liveBuffers: 0, liveBytes: 0 }))

describe("attentionBackward", () => {
  const forest = [0, 4, -1, 4, 3, 0, 7, 2, 0, 9, 3, 1, 12, 2, -1]
  const cases = [
    { name: "causal", segments: [0, 7, -1], window: 0, softcap: 0, sinks: false },
    { name: "forest", segments: forest, window: 0, softcap: 0, sinks: false },
    { name: "window", segments: [0, 9, -1], window: 3, softcap: 0, sinks: false },
    { name: "window over a forest", segments: forest, window: 4, softcap: 0, sinks: false },
    { name: "soft cap", segments: [0, 6, -1], window: 0, softcap: 0.8, sinks: false },
    { name: "sinks", segments: [0, 6, -1], window: 0, softcap: 0, sinks: true },
    { name: "everything on a forest", segments: forest, window: 5, softcap: 1.2, sinks: true },
  ]
  for (const { name, segments, window, softcap, sinks } of cases) {
    gradientTest(name, (d) => {
      const [heads, kvHeads, dim, scale] = [4, 2, 3, 0.6]
      const count = segments.length / 3
      const tokens = segments.at(-3)! + segments.at(-2)!
      const [width, kvWidth] = [heads * dim, kvHeads * dim]
      // q, k and v interleaved in one buffer with a gap: leading dimensions are part of the check.
      const ld = width + 2 * kvWidth + 1
      const all = floats(d.floats(tokens * ld))
      const part = (start: number): number => {
        const view = memory.view(all, start * 4, (tokens * ld - start) * 4)
        made.push(view)
        return view
      }
      const [q, k, v] = [part(0), part(width), part(width + kvWidth)]
      const sink = sinks ? floats(d.floats(heads)) : NONE
      const table = ints(segments)
      const [out, lse] = [room(tokens * width), room(tokens * heads)]
      const weights = d.floats(tokens * width)
      const tail = [table, count, tokens, heads, kvHeads, dim, scale, window, softcap, sink] as const
      const loss = (): number => {
        kernels.attention(out, lse, q, ld, k, ld, v, ld, ...tail)
        return weighted(out, weights)
      }
      loss()
      const dout = floats(weights)
      const [dq, dk, dv] = [room(tokens * width), room(tokens * kvWidth), room(tokens * kvWidth)]
      const dsinks = sinks ? room(heads) : NONE
      kernels.attentionBackward(dq, dk, dv, dsinks, dout, out, lse, q, ld, k, ld, v, ld, ...tail)
      // One sweep over the shared buffer gives the gradients of all three; the gap has none.
      const expected = finiteDifference(backend, all, loss)
      const columns = (start: number, n: number): Float64Array =>
        Float64Array.from({ length: tokens * n }, (_, i) => expected[Math.floor(i / n) * ld + start + (i % n)]!)
      checkGradient(backend.readFloat64(dq), columns(0, width), "dq")
      checkGradient(backend.readFloat64(dk), columns(width, kvWidth), "dk")
      checkGradient(backend.readFloat64(dv), columns(width + kvWidth, kvWidth), "dv")
      expect(Math.max(...columns(ld - 1, 1))).toBe(0)
      if (sinks) gradient(dsinks, sink, loss, "dsinks")
    })
  }
})

describe("rmsNormBackward", () => {
  for (const offset of [0, 1]) {
    gradientTest(`offset ${offset}`, (d) => {
      const [rows, cols] = [3, 7]
      const [x, w] = [floats(d.floats(rows * cols)), floats(d.floats(cols))]
      const weights = d.floats(rows * cols)
      const [y, rstd, dy] = [room(rows * cols), room(rows), floats(weights)]
      const loss = (): number => {
        kernels.rmsNorm(y, rstd, x, w, rows, cols, 1e-3, offset)
        return weighted(y, weights)
      }
      loss()
      const [dx, dw] = [room(rows * cols), room(cols)]
      kernels.rmsNormBackward(dx, dw, dy, x, w, rstd, rows, cols, offset, 0)
      gradient(dx, x, loss, "dx")
      gradient(dw, w, loss, "dw")
      // Adding a second time doubles both.
      loss()
      const once = backend.readFloat64(dx).map((value) => 2 * value)
      kernels.rmsNormBackward(dx, dw, dy, x, w, rstd, rows, cols, offset, 1)
      checkGradient(backend.readFloat64(dx), once, "dx added")
    })
  }
})

describe("gatedActivationBackward", () => {
  for (const [act, name] of ["silu", "gelu tanh", "gelu"].entries()) {
    gradientTest(name, (d) => {
      const n = 40
      const [gate, up] = [floats(d.floats(n, 3)), floats(d.floats(n))]
      const weights = d.floats(n)
      const [h, dh, dgate, dup] = [room(n), floats(weights), room(n), room(n)]
      const loss = (): number => {
        kernels.gatedActivation(h, gate, up, act, n)
        return weighted(h, weights)
      }
      kernels.gatedActivationBackward(dgate, dup, dh, gate, up, act, n)
      gradient(dgate, gate, loss, "dgate")
      gradient(dup, up, loss, "dup")
    })
  }
})

gradientTest("rope: the inverse is the gradient", (d) => {
  const [rows, heads, dim, rotary, ld] = [4, 2, 6, 4, 13]
  const angles = d.floats(10 * (rotary / 2))
  const [cos, sin] = [floats(angles.map(Math.cos)), floats(angles.map(Math.sin))]
  const positions = ints([0, 9, 3, 5])
  const x = floats(d.floats(rows * ld))
  const weights = d.floats(rows * ld)
  const rotated = room(rows * ld)
  const loss = (): number => {
    kernels.copy(rotated, x, rows * ld * 4)
    kernels.rope(rotated, ld, cos, sin, positions, rows, heads, dim, rotary, 0)
    return weighted(rotated, weights)
  }
  const dx = floats(weights)
  kernels.rope(dx, ld, cos, sin, positions, rows, heads, dim, rotary, 1)
  gradient(dx, x, loss, "dx")
})

describe("the output layer", () => {
  for (const [softcap, logitScale] of [
    [0, 1],
    [1.5, 1],
    [2, 0.4],
  ] as const) {
    // More rows than one chunk of the reference.
    const [rows, vocab, hidden] = [66, 7, 3]
    const prepare = (d: Data) => ({
      h: floats(d.floats(rows * hidden)),
      w: floats(d.floats(vocab * hidden)),
      targets: ints([...d.integers(rows, vocab)]),
      shape: [rows, vocab, hidden, softcap, logitScale] as const,
    })

    gradientTest(`linearCrossEntropy, soft cap ${softcap}, scale ${logitScale}`, (d) => {
      const { h, w, targets, shape } = prepare(d)
      const weights = d.floats(rows)
      const [nll, coef] = [room(rows), floats(weights)]
      const loss = (): number => {
        kernels.linearCrossEntropy(nll, NONE, NONE, h, w, 0, targets, NONE, ...shape)
        return weighted(nll, weights)
      }
      const [dh, dw] = [room(rows * hidden), room(vocab * hidden)]
      kernels.linearCrossEntropy(nll, dh, dw, h, w, 0, targets, coef, ...shape)
      gradient(dh, h, loss, "dh")
      gradient(dw, w, loss, "dw")
    })

    gradientTest(`linearLogprobsBackward, soft cap ${softcap}, scale ${logitScale}`, (d) => {
      const { h, w, targets, shape } = prepare(d)
      const [weights, entropyWeights] = [d.floats(rows), d.floats(rows)]
      const [logp, lse, entropy] = [room(rows), room(rows), room(rows)]
      const [dlogp, dentropy] = [floats(weights), floats(entropyWeights)]
      for (const byEntropy of [false, true]) {
        const loss = (): number => {
          kernels.linearLogprobs(logp, lse, entropy, NONE, h, w, 0, targets, ...shape)
          return weighted(logp, weights) + (byEntropy ? weighted(entropy, entropyWeights) : 0)
        }
        loss()
        const [dh, dw] = [room(rows * hidden), room(vocab * hidden)]
        const given = byEntropy ? ([dentropy, entropy] as const) : ([NONE, NONE] as const)
        kernels.linearLogprobsBackward(dh, dw, dlogp, lse, ...given, h, w, 0, targets, ...shape)
        gradient(dh, h, loss, "dh")
        gradient(dw, w, loss, "dw")
      }
    })
  }
})

for (const beta of [0, 0.1, 0.5, 1])
  gradientTest(`divergence, beta ${beta}`, (d) => {
    const [rows, vocab, hidden, softcap, scale] = [3, 7, 4, 3, 0.8]
    const h = floats(d.floats(rows * hidden))
    const w = floats(d.floats(vocab * hidden))
    const zt = floats(d.floats(rows * vocab))
    const weights = d.floats(rows)
    const [zs, out, dz, dh, coef] = [
      room(rows * vocab),
      room(rows),
      room(rows * vocab),
      room(rows * hidden),
      floats(weights),
    ]
    const loss = (): number => {
      kernels.logits(zs, h, w, 0, rows, vocab, hidden, softcap, scale)
      kernels.divergence(out, NONE, zs, zt, NONE, rows, vocab, beta, softcap, scale)
      return weighted(out, weights)
    }
    loss()
    kernels.divergence(out, dz, zs, zt, coef, rows, vocab, beta, softcap, scale)
    kernels.linearBackwardInput(dh, dz, w, 0, rows, vocab, hidden, NONE, NONE, 0, 0)
    gradient(dh, h, loss, "dh")
  })

gradientTest("linearBackwardInput, with an adapter", (d) => {
  const [m, n, k, r] = [3, 5, 4, 2]
  const x = floats(d.floats(m * k))
  const [w, a, b] = [floats(d.floats(n * k)), floats(d.floats(r * k)), floats(d.floats(n * r))]
  const weights = d.floats(m * n)
  const [y, t, dt, dx, dy] = [room(m * n), room(m * r), room(m * r), room(m * k), floats(weights)]
  const s = 0.5
  const loss = (): number => {
    kernels.matmul(t, x, a, m, r, k, 0, 1, s, 0)
    kernels.linear(y, x, w, 0, m, n, k, NONE, t, b, r, 0)
    return weighted(y, weights)
  }
  kernels.matmul(dt, dy, b, m, r, n, 0, 0, s, 0)
  kernels.linearBackwardInput(dx, dy, w, 0, m, n, k, dt, a, r, 0)
  gradient(dx, x, loss, "dx")
})

describe("rows", () => {
  gradientTest("embeddingBackward", (d) => {
    const [rows, vocab, cols] = [6, 4, 3]
    const ids = ints([0, 3, 3, 1, 0, 3])
    const w = floats(d.floats(vocab * cols))
    const weights = d.floats(rows * cols)
    const [out, dw, dy] = [room(rows * cols), room(vocab * cols), floats(weights)]
    const loss = (): number => {
      kernels.embedding(out, w, 0, ids, rows, vocab, cols, 1.7)
      return weighted(out, weights)
    }
    kernels.embeddingBackward(dw, dy, ids, rows, vocab, cols, 1.7)
    gradient(dw, w, loss, "dw")
  })

  gradientTest("scatterRows is the gradient of gatherRows", (d) => {
    const [rows, sources, cols] = [5, 4, 3]
    const index = ints([2, 0, 2, 2, 1])
    const x = floats(d.floats(sources * cols))
    const weights = d.floats(rows * cols)
    const [out, dx, dout] = [room(rows * cols), room(sources * cols), floats(weights)]
    const loss = (): number => {
      kernels.gatherRows(out, x, index, rows, cols)
      return weighted(out, weights)
    }
    kernels.scatterRows(dx, dout, index, rows, cols, sources, 0)
    gradient(dx, x, loss, "dx")
  })

  gradientTest("scaleRows and dropout are their own gradients", (d) => {
    const [rows, cols] = [4, 5]
    const n = rows * cols
    const [x, s] = [floats(d.floats(n)), floats(d.floats(rows))]
    const weights = d.floats(n)
    const [out, dx, dout] = [room(n), room(n), floats(weights)]
    const loss = (): number => {
      kernels.scaleRows(out, x, s, rows, cols, 0)
      kernels.dropout(out, out, 0.4, n, 1, 2, 3, 0)
      return weighted(out, weights)
    }
    kernels.dropout(dx, dout, 0.4, n, 1, 2, 3, 0)
    kernels.scaleRows(dx, dx, s, rows, cols, 0)
    gradient(dx, x, loss, "dx")
  })
})
