import { afterEach, describe, expect, test } from "bun:test"

import { NONE } from "@sloth/core"

import golden from "../../../../tests/golden/ops.json" with { type: "json" }
import { createReferenceBackend, type ReferenceBackend } from "./backend.ts"

// The golden numbers are float64 results with nine digits.
const near = (actual: ArrayLike<number>, expected: readonly number[], tolerance = 1e-7): void => {
  expect(actual.length).toBe(expected.length)
  for (let i = 0; i < expected.length; i++) {
    expect(Math.abs(actual[i]! - expected[i]!)).toBeLessThanOrEqual(tolerance * Math.max(1, Math.abs(expected[i]!)))
  }
}

const flat = (nested: unknown): number[] =>
  Array.isArray(nested) ? (nested as unknown[]).flat(Infinity).map(Number) : [Number(nested)]

interface Desk {
  readonly backend: ReferenceBackend
  put(values: unknown): number
  room(n: number, value?: number): number
  ints(values: readonly number[]): number
  get(handle: number): Float64Array
}

const backend = createReferenceBackend({ float64: true })
const made: number[] = []

afterEach(() => {
  for (const handle of made.splice(0)) backend.memory.free(handle)
  expect(backend.memory.stats()).toMatchObject({ liveBuffers: 0, liveBytes: 0 })
})

const desk = (): Desk => {
  const put = (values: unknown): number => {
    const numbers = flat(values)
    const handle = backend.memory.alloc(numbers.length * 4)
    backend.writeFloat64(handle, numbers)
    made.push(handle)
    return handle
  }
  return {
    backend,
    put,
    room: (n, value = 0) => put(Array.from({ length: n }, () => value)),
    ints(values) {
      const handle = backend.memory.alloc(values.length * 4)
      backend.memory.write(handle, Int32Array.from(values))
      made.push(handle)
      return handle
    },
    get: (handle) => backend.readFloat64(handle),
  }
}

describe("attention against torch", () => {
  for (const item of golden.attention) {
    test(item.name, () => {
      const { backend, put, room, ints, get } = desk()
      const { heads, kvHeads, headDim, scale } = item
      const tokens = item.q.length
      const [width, kvWidth] = [heads * headDim, kvHeads * headDim]
      const [q, k, v, dout] = [put(item.q), put(item.k), put(item.v), put(item.dOut)]
      const segments = ints(item.segments.flatMap((s) => [s.start, s.length, s.parent ?? -1]))
      const count = item.segments.length
      const sinks = item.sinks === null ? NONE : put(item.sinks)
      const dsinks = item.sinks === null ? NONE : room(heads)
      const [window, softcap] = [item.window ?? 0, item.softcap ?? 0]
      const [out, lse] = [room(tokens * width), room(tokens * heads)]
      const shape = [segments, count, tokens, heads, kvHeads, headDim, scale, window, softcap, sinks] as const
      backend.kernels.attention(out, lse, q, width, k, kvWidth, v, kvWidth, ...shape)
      near(get(out), flat(item.out))
      near(get(lse), flat(item.lse))
      const [dq, dk, dv] = [room(tokens * width), room(tokens * kvWidth), room(tokens * kvWidth)]
      backend.kernels.attentionBackward(dq, dk, dv, dsinks, dout, out, lse, q, width, k, kvWidth, v, kvWidth, ...shape)
      near(get(dq), flat(item.dq))
      near(get(dk), flat(item.dk))
      near(get(dv), flat(item.dv))
      if (item.dsinks !== null) near(get(dsinks), flat(item.dsinks))
    })
  }
})

describe("cross entropy against torch", () => {
  for (const item of golden.crossEntropy) {
    test(item.name, () => {
      const { backend, put, room, ints, get } = desk()
      const scored = item.labels.flatMap((label, i) => (label >= 0 ? [i] : []))
      const rows = scored.length
      const [vocab, hidden] = [item.weight.length, item.hidden[0]!.length]
      const h = put(scored.map((i) => item.hidden[i]))
      const w = put(item.weight)
      const targets = ints(scored.map((i) => item.labels[i]!))
      const coef = room(rows, 1 / rows)
      const head = [rows, vocab, hidden, item.softcap ?? 0, item.logitScale] as const
      const [nll, dh, dw] = [room(rows), room(rows * hidden), room(vocab * hidden)]
      backend.kernels.linearCrossEntropy(nll, dh, dw, h, w, 0, targets, coef, ...head)
      near([get(nll).reduce((a, b) => a + b, 0) / rows], [item.loss])
      const expectedDh = scored.flatMap((i) => item.dHidden[i]!)
      near(get(dh), expectedDh)
      near(get(dw), flat(item.dWeight))
      const [logp, lse, entropy] = [room(rows), room(rows), room(rows)]
      const slope = room(rows * hidden)
      backend.kernels.linearLogprobs(logp, lse, entropy, slope, h, w, 0, targets, ...head)
      // The loss is the mean of -logp.
      near(
        get(slope).map((d) => -d / rows),
        expectedDh,
      )
      const expectedLogp = scored.map((i) => item.logprobs[i]!)
      near(get(logp), expectedLogp)
      const expectedEntropy = scored.map((i) => item.entropy[i]!)
      near(get(entropy), expectedEntropy)
      const dlogp = room(rows, -1 / rows)
      const [dh2, dw2] = [room(rows * hidden), room(vocab * hidden)]
      backend.kernels.linearLogprobsBackward(dh2, dw2, dlogp, lse, NONE, NONE, h, w, 0, targets, ...head)
      near(get(dh2), expectedDh)
      near(get(dw2), flat(item.dWeight))
    })
  }
})

describe("RMS norm against torch", () => {
  for (const item of golden.rmsNorm) {
    test(item.name, () => {
      const { backend, put, room, get } = desk()
      const [rows, cols, offset] = [item.x.length, item.weight.length, item.unitOffset ? 1 : 0]
      const [x, w, dy] = [put(item.x), put(item.weight), put(item.dOut)]
      const [y, rstd, dx, dw] = [room(rows * cols), room(rows), room(rows * cols), room(cols)]
      backend.kernels.rmsNorm(y, rstd, x, w, rows, cols, item.eps, offset)
      near(get(y), flat(item.out))
      backend.kernels.rmsNormBackward(dx, dw, dy, x, w, rstd, rows, cols, offset, 0)
      near(get(dx), flat(item.dx))
      near(get(dw), flat(item.dWeight))
    })
  }
})

describe("gated activations against torch", () => {
  for (const item of golden.glu) {
    test(item.name, () => {
      const { backend, put, room, get } = desk()
      const act = ["silu", "gelu_tanh", "gelu"].indexOf(item.name)
      const n = flat(item.gate).length
      const [gate, up, dh] = [put(item.gate), put(item.up), put(item.dOut)]
      const h = room(n)
      backend.kernels.gatedActivation(h, gate, up, act, n)
      near(get(h), flat(item.out))
      // In place, as the contract allows.
      backend.kernels.gatedActivationBackward(gate, up, dh, gate, up, act, n)
      near(get(gate), flat(item.dGate))
      near(get(up), flat(item.dUp))
    })
  }
})

describe("AdamW against torch", () => {
  for (const item of golden.adamw) {
    test(item.name, () => {
      const { backend, put, room, get } = desk()
      const n = item.start.length
      const [p, m, v] = [put(item.start), room(n), room(n)]
      item.steps.forEach((step, index) => {
        const g = put(step.grad)
        // clip_grad_norm_ of torch: the gradient times min(1, clip / (norm + 1e-6)).
        const gradScale = item.clip === null ? 1 : Math.min(1, item.clip / (step.gradNorm + 1e-6))
        const { beta1, beta2, eps, weightDecay } = item
        backend.kernels.adamw(p, g, m, v, n, step.learningRate, beta1, beta2, eps, weightDecay, index + 1, gradScale)
        near(get(p), step.param)
        near(get(m), step.m)
        near(get(v), step.v)
      })
    })
  }
})
