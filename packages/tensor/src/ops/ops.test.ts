import { afterAll, describe, expect, test } from "bun:test"
import { checkpoint } from "../checkpoint.ts"
import { Engine } from "../engine.ts"
import { createReferenceBackend } from "../reference/index.ts"
import { SequenceLayout } from "../sequence-layout.ts"
import type { Tensor } from "../tensor.ts"
import { gatedActivation } from "./activation.ts"
import { attention, rope } from "./attention.ts"
import { add, dropout, mul, scale } from "./elementwise.ts"
import { linear } from "./linear.ts"
import { linearCrossEntropy, linearLogprobs } from "./loss.ts"
import { rmsNorm } from "./norm.ts"
import { embedding, gatherRows, scatterRows } from "./rows.ts"

// Buffers hold doubles here, so a central difference of step h has an error of h² from the third derivative and 1e-16/h from rounding: 1e-5 balances both near 1e-10.
const backend = createReferenceBackend({ float64: true })
const engine = new Engine(backend)
const STEP = 1e-5
const TOLERANCE = 1e-6

afterAll(() => {
  expect(backend.memory.stats().liveBuffers).toBe(0)
  engine[Symbol.dispose]()
})

let state = 1
const values = (n: number, spread = 1): Float64Array =>
  Float64Array.from(
    { length: n },
    () => ((state = (state * 48271) % 2147483647), (state / 2147483647 - 0.5) * 2 * spread),
  )
const leaf = (shape: number[], spread = 1): Tensor => {
  const t = engine.unscoped(shape)
  backend.writeFloat64(t.handle, values(t.size, spread))
  return engine.parameter(t)
}
const read = (t: Tensor): Promise<Float64Array> =>
  Promise.resolve(backend.readFloat64(t.handle)).then((v) => v.slice(0, t.size))

/** Checks the gradient of Σ weight · f(leaves) in every element of every leaf. */
const check = async (leaves: Tensor[], f: () => Tensor): Promise<void> => {
  let weights: Float64Array | undefined
  const objective = async (): Promise<number> => {
    const out = engine.scope(f)
    const v = await read(out)
    weights ??= values(v.length)
    out.dispose()
    return v.reduce((a, x, i) => a + x * weights![i]!, 0)
  }
  await objective()
  for (const policy of ["keep", "recompute"] as const) {
    engine.policy = policy
    engine.scope(() => {
      const { result, tape } = engine.record(f)
      const seed = engine.empty(result.shape)
      backend.writeFloat64(seed.handle, weights!)
      tape.backward([{ tensor: result, gradient: seed }])
    })
    for (const [l, t] of leaves.entries()) {
      const got = await read(t.grad!)
      const base = await read(t)
      for (let i = 0; i < base.length; i++) {
        const moved = base.slice()
        moved[i] = base[i]! + STEP
        backend.writeFloat64(t.handle, moved)
        const up = await objective()
        moved[i] = base[i]! - STEP
        backend.writeFloat64(t.handle, moved)
        const down = await objective()
        backend.writeFloat64(t.handle, base)
        const expected = (up - down) / (2 * STEP)
        if (Math.abs(got[i]! - expected) > TOLERANCE * Math.max(1, Math.abs(expected)))
          throw new Error(`leaf ${l}, element ${i} (${policy}): ${got[i]} instead of ${expected}`)
      }
      t.slot!.clear()
    }
  }
  engine.policy = "keep"
  for (const t of leaves) t.dispose()
}

const AT = { seed: 5, stream: 1, step: 2 }

describe("gradients are those of finite differences in double precision", () => {
  test("add, mul, scale, a value used twice", async () => {
    const [a, b] = [leaf([3, 5]), leaf([3, 5])]
    await check([a, b], () => add(mul(a, b), scale(add(a, a), 0.3)))
  })
  test("dropout repeats its mask", async () => {
    const x = leaf([4, 6])
    await check([x], () => dropout(mul(x, x), 0.4, AT))
  })
  for (const [name, bias, low, drop] of [
    ["plain", false, false, 0],
    ["bias", true, false, 0],
    ["LoRA", false, true, 0],
    ["LoRA with bias and dropout", true, true, 0.3],
  ] as const)
    test(`linear, ${name}`, async () => {
      const [x, w, b] = [leaf([4, 5]), leaf([3, 5]), leaf([3])]
      const [la, lb] = [leaf([2, 5]), leaf([3, 2])]
      const used = [x, w, ...(bias ? [b] : []), ...(low ? [la, lb] : [])]
      for (const t of [b, la, lb]) if (!used.includes(t)) t.dispose()
      await check(used, () =>
        linear(x, w, bias ? b : undefined, low ? { a: la, b: lb, scale: 1.7, dropout: { ...AT, p: drop } } : undefined),
      )
    })
  test("linear with a frozen weight, and with a frozen A", async () => {
    const [x, la, lb] = [leaf([4, 5]), leaf([2, 5]), leaf([3, 2])]
    const w = engine.unscoped([3, 5])
    backend.writeFloat64(w.handle, values(15))
    await check([x, la, lb], () => linear(x, w, undefined, { a: la, b: lb, scale: 0.5 }))
    const [x2, b2] = [leaf([4, 5]), leaf([3, 2])]
    const a2 = engine.unscoped([2, 5])
    backend.writeFloat64(a2.handle, values(10))
    await check([x2, b2], () => linear(x2, w, undefined, { a: a2, b: b2, scale: 0.5 }))
    w.dispose()
    a2.dispose()
  })
  test("rmsNorm with and without weight and offset", async () => {
    const [x, w] = [leaf([3, 7]), leaf([7])]
    await check([x, w], () => rmsNorm(x, w, 1e-5, 1))
    const y = leaf([3, 7])
    await check([y], () => rmsNorm(y, undefined, 1e-5))
  })
  for (const activation of ["silu", "gelu-tanh", "gelu"] as const)
    test(`gated ${activation}`, async () => {
      const [g, u] = [leaf([3, 5], 3), leaf([3, 5])]
      await check([g, u], () => gatedActivation(g, u, activation))
    })
  test("embedding with repeated ids, gathered rows with repeats", async () => {
    const w = leaf([6, 4])
    const ids = engine.keep(engine.from(Int32Array.from([5, 0, 5, 2])))
    const rows = engine.keep(engine.from(Int32Array.from([3, 0, 0])))
    await check([w], () => gatherRows(embedding(w, ids, 1.5), rows))
    ids.dispose()
    rows.dispose()
  })
  test("scattered rows", async () => {
    const x = leaf([3, 4])
    const rows = engine.keep(engine.from(Int32Array.from([4, 1, 2])))
    await check([x], () => scatterRows(mul(x, x), rows, 6))
    rows.dispose()
  })
  test("rope rotates in place and back", async () => {
    const x = leaf([3, 8])
    const cos = engine.keep(
      engine.from(
        Float32Array.from({ length: 8 }, (_, i) => Math.cos(i)),
        [4, 2],
      ),
    )
    const sin = engine.keep(
      engine.from(
        Float32Array.from({ length: 8 }, (_, i) => Math.sin(i)),
        [4, 2],
      ),
    )
    const positions = engine.keep(engine.from(Int32Array.from([0, 3, 1])))
    await check([x], () => rope(scale(x, 1), cos, sin, positions, 2, 4))
    for (const t of [cos, sin, positions]) t.dispose()
  })
  for (const [window, softcap] of [
    [0, 0],
    [3, 0],
    [0, 2],
    [2, 1.5],
  ] as const)
    test(`attention over a forest, window ${window}, soft cap ${softcap}`, async () => {
      const layout = new SequenceLayout([
        { start: 0, length: 3, parent: null },
        { start: 3, length: 2, parent: 0 },
        { start: 5, length: 1, parent: 0 },
        { start: 6, length: 2, parent: 1 },
        { start: 8, length: 2, parent: null },
      ])
      expect([...layout.positions]).toEqual([0, 1, 2, 3, 4, 3, 5, 6, 0, 1])
      const segments = engine.keep(engine.from(layout.table, [5, 3]))
      const [q, k, v, sinks] = [leaf([10, 8]), leaf([10, 4]), leaf([10, 4]), leaf([4])]
      await check([q, k, v, sinks], () =>
        attention(q, k, v, segments, { heads: 4, kvHeads: 2, headDim: 2, scale: 0.7, window, softcap }, sinks),
      )
      segments.dispose()
    })
  test("log-probs with soft cap and scale", async () => {
    const [h, w] = [leaf([4, 3]), leaf([6, 3])]
    const targets = engine.keep(engine.from(Int32Array.from([0, 5, 2, 2])))
    await check([h, w], () => linearLogprobs(h, w, targets, { softcap: 3, logitScale: 1.3 }).logprobs)
    targets.dispose()
  })
  test("log-probs over a frozen output layer, whose gradient the forward pass makes", async () => {
    const h = leaf([4, 3])
    const [w, targets] = [
      engine.keep(
        engine.from(
          Float32Array.from({ length: 18 }, (_, i) => Math.sin(i)),
          [6, 3],
        ),
      ),
      engine.keep(engine.from(Int32Array.from([0, 5, 2, 2]))),
    ]
    await check([h], () => linearLogprobs(h, w, targets, { softcap: 3, logitScale: 1.3, entropy: true }).logprobs)
    w.dispose()
    targets.dispose()
  })
  test("a checkpointed block inside a residual", async () => {
    const [x, w] = [leaf([4, 5]), leaf([5, 5])]
    await check([x, w], () =>
      add(
        x,
        checkpoint(engine, x, (y) => rmsNorm(linear(y, w), undefined, 1e-5), { anchor: w }),
      ),
    )
  })
})

test("the fused cross-entropy makes the gradient of Σ coef · nll", async () => {
  const [h, w] = [leaf([4, 3]), leaf([6, 3])]
  const targets = engine.keep(engine.from(Int32Array.from([0, 5, 2, 2])))
  const coef = engine.keep(engine.from(Float32Array.from([0.5, 0.25, 0, 1])))
  const loss = async () => {
    const nll = engine.scope(() => linearCrossEntropy(h, w, targets, coef, { softcap: 2, logitScale: 0.8 }))
    const v = await read(nll)
    nll.dispose()
    return v[0]! * 0.5 + v[1]! * 0.25 + v[3]!
  }
  engine.scope(() => {
    const { result, tape } = engine.record(() =>
      linearCrossEntropy(h, w, targets, coef, { softcap: 2, logitScale: 0.8 }),
    )
    tape.backward([{ tensor: result, upstream: 2 }])
  })
  for (const t of [h, w]) {
    const got = await read(t.grad!)
    const base = await read(t)
    for (let i = 0; i < base.length; i++) {
      const moved = base.slice()
      moved[i] = base[i]! + STEP
      backend.writeFloat64(t.handle, moved)
      const up = await loss()
      moved[i] = base[i]! - STEP
      backend.writeFloat64(t.handle, moved)
      const down = await loss()
      backend.writeFloat64(t.handle, base)
      expect(Math.abs(got[i]! - (2 * (up - down)) / (2 * STEP))).toBeLessThan(TOLERANCE)
    }
    t.slot!.clear()
  }
  for (const t of [h, w, targets, coef]) t.dispose()
})

describe("scopes and the tape", () => {
  test("a value that a rule reads cannot be rotated away, a disposed tensor cannot be used", () => {
    const x = leaf([3, 4])
    const tables = engine.keep(engine.from(new Float32Array(6), [3, 2]))
    const positions = engine.keep(engine.from(Int32Array.from([0, 1, 2])))
    const code = (f: () => unknown): string => {
      try {
        f()
        return "none"
      } catch (error) {
        return (error as { code: string }).code
      }
    }
    engine.scope(() => {
      const { tape, result } = engine.record(() => {
        const y = scale(x, 2)
        mul(y, y)
        return code(() => rope(y, tables, tables, positions, 1, 4))
      })
      expect(result).toBe("SLOTH_TAPE_OVERWRITE")
      tape.dispose()
    })
    const gone = engine.unscoped([2])
    gone.dispose()
    expect(code(() => engine.scope(() => scale(gone, 1)))).toBe("SLOTH_TENSOR_DISPOSED")
    expect(code(() => linear(x, tables))).toBe("SLOTH_TENSOR_SHAPE")
    engine.scope(() => {
      const { result, tape } = engine.record(() => scale(tables, 1))
      expect(code(() => tape.backward([{ tensor: result }]))).toBe("SLOTH_TAPE_NO_GRADIENT")
    })
    for (const t of [x, tables, positions]) t.dispose()
  })
  test("a scope keeps what it returns and frees the rest, also when it throws", () => {
    const before = backend.memory.stats().liveBuffers
    const { a, list } = engine.scope(() => ({
      a: engine.zeros([2]),
      list: [engine.zeros([1])],
      lost: engine.zeros([9]) && 1,
    }))
    expect(backend.memory.stats().liveBuffers).toBe(before + 2)
    a.dispose()
    list[0]!.dispose()
    expect(() =>
      engine.scope(() => {
        engine.zeros([3])
        throw new Error("no")
      }),
    ).toThrow("no")
    expect(backend.memory.stats().liveBuffers).toBe(before)
  })
})
