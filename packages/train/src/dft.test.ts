import { afterAll, describe, expect, test } from "bun:test"
import { createReferenceBackend, Engine, linearCrossEntropy, linearLogprobs } from "@sloth/tensor"
import { dynamicLoss } from "./dft.ts"
import type { LogprobBatch } from "./objective.ts"

const engine = new Engine(createReferenceBackend())
afterAll(() => {
  expect(engine.backend.memory.stats().liveBuffers).toBe(0)
  engine[Symbol.dispose]()
})

const VOCAB = 5
const head = { softcap: 0, logitScale: 1 }

/** The toy of TRL's tests: logits 2 sin(.7 b + 1.3 t + .9 v + phase) of the places, as hidden states that the identity turns into logits. */
const toy = (places: readonly (readonly [number, number])[], phase = 0) => {
  const h = engine.from(
    Float32Array.from(
      places.flatMap(([b, t]) =>
        Array.from({ length: VOCAB }, (_, v) => 2 * Math.sin(0.7 * b + 1.3 * t + 0.9 * v + phase)),
      ),
    ),
    [places.length, VOCAB],
  )
  const w = engine.from(
    Float32Array.from({ length: VOCAB * VOCAB }, (_, i) => (i % (VOCAB + 1) === 0 ? 1 : 0)),
    [VOCAB, VOCAB],
  )
  return { h, w }
}

const batchOf = (logprobs: Float32Array, normaliser: number): LogprobBatch => ({
  units: [],
  starts: [],
  indices: [],
  normaliser,
  step: 1,
  logprobs,
  reference: undefined,
  entropy: undefined,
})

// Labels [[-100, 1, 2], [4, -100, 3]]: the label at t is predicted by the logits at t - 1, and the first label of a row by nothing.
const places = [
  [0, 0],
  [0, 1],
  [1, 1],
] as const
const labels = Int32Array.from([1, 2, 3])

describe("golden values of TRL 1.13's SFT losses, float64", () => {
  // f32 logits and log-probs: 1e-7 of values near 4, a few of them in the sum.
  const close = (value: number, golden: number) => expect(Math.abs(value / golden - 1)).toBeLessThan(1e-6)

  test("nll", async () => {
    using nll = engine.scope(() => {
      const { h, w } = toy(places)
      return engine.noGrad(() => linearCrossEntropy(h, w, engine.from(labels), engine.zeros([3]), head))
    })
    const sum = (await nll.readFloats()).reduce((a, b) => a + b, 0)
    close(sum / 3, 2.60860753)
    close(sum / 5, 1.56516445)
  })

  test("dft", async () => {
    using logprobs = engine.scope(() => {
      const { h, w } = toy(places)
      return engine.noGrad(() => linearLogprobs(h, w, engine.from(labels), head).logprobs)
    })
    const values = await logprobs.readFloats()
    close(dynamicLoss.compute(batchOf(values, 3)).loss, 0.21093472)
    close(dynamicLoss.compute(batchOf(values, 5)).loss, 0.12656083)
    close(dynamicLoss.compute(batchOf(values, 3)).metrics!["nats"]!, 2.60860753)
  })
})

test("the entropy of the completions in TRL's DPO toy", async () => {
  // Lengths 6, 5, 4, 6, completions from t = 2: predicted by the logits from t = 1.
  const rows = [6, 5, 4, 6].flatMap((length, b) => Array.from({ length: length - 2 }, (_, i) => [b, i + 1] as const))
  using entropy = engine.scope(() => {
    const { h, w } = toy(rows)
    const targets = engine.from(new Int32Array(rows.length))
    return engine.noGrad(() => linearLogprobs(h, w, targets, { ...head, entropy: true }).entropy!)
  })
  const values = await entropy.readFloats()
  expect(Math.abs(values.reduce((a, b) => a + b, 0) / values.length / 1.04908516 - 1)).toBeLessThan(1e-6)
})

test("the gradient is that of the cross-entropy times the probability", () => {
  const values = Float32Array.from([-0.1, -2, -7])
  const { dlogp } = dynamicLoss.compute(batchOf(values, 2))
  for (const [i, d] of dlogp.entries()) expect(d).toBeCloseTo(-Math.exp(values[i]!) / 2, 12)
  // By finite differences of −p₀ log p with p₀ fixed.
  const held = (logp: number, p: number) => (-p * logp) / 2
  for (const [i, v] of values.entries()) {
    const p = Math.exp(v)
    expect(dlogp[i]!).toBeCloseTo((held(v + 1e-4, p) - held(v - 1e-4, p)) / 2e-4, 8)
  }
})
