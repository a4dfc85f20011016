import { afterAll, expect, test } from "bun:test"
import { Engine } from "../engine.ts"
import { createReferenceBackend } from "../reference/index.ts"
import { linearDivergence } from "./divergence.ts"

const engine = new Engine(createReferenceBackend())
afterAll(() => {
  expect(engine.backend.memory.stats().liveBuffers).toBe(0)
  engine[Symbol.dispose]()
})

test("rows in blocks: values and gradients of each row are those that it has alone, whatever the padding of the tables", async () => {
  // 32 MB hold 209 rows of this vocabulary.
  const [rows, vocab, hidden, theirs] = [250, 40_000, 2, 3]
  const wave = (n: number, by: number) => Float32Array.from({ length: n }, (_, i) => Math.sin(by * i + 1))
  using w = engine.parameter(engine.keep(engine.from(wave(vocab * hidden, 0.37), [vocab, hidden])))
  using wt = engine.keep(engine.from(wave((vocab + 7) * theirs, 0.11), [vocab + 7, theirs]))
  const [h, ht, factors] = [wave(rows * hidden, 0.7), wave(rows * theirs, 0.9), wave(rows, 0.3)]
  const shape = { student: { softcap: 0, logitScale: 1 }, teacher: { softcap: 4, logitScale: 0.5 }, beta: 0.3 }
  /** Rows from `from` to `to`: divergences, and gradients by their hidden states and by the table. */
  const part = async (from: number, to: number) => {
    using x = engine.parameter(engine.keep(engine.from(h.slice(from * hidden, to * hidden), [to - from, hidden])))
    const { result, tape } = engine.record(() =>
      engine.scope(() =>
        engine.keep(
          linearDivergence(
            { h: x, w },
            { h: engine.from(ht.slice(from * theirs, to * theirs), [to - from, theirs]), w: wt },
            engine.from(factors.slice(from, to)),
            shape,
          ),
        ),
      ),
    )
    engine.scope(() => tape.backward([{ tensor: result }]))
    const values = await result.readFloats()
    result.dispose()
    const [dh, dw] = [await x.grad!.readFloats(), await w.grad!.readFloats()]
    x.slot!.clear()
    w.slot!.clear()
    return { values, dh, dw }
  }
  const [whole, first, second] = [await part(0, rows), await part(0, 100), await part(100, rows)]
  expect(whole.values).toEqual(Float32Array.from([...first.values, ...second.values]))
  expect(whole.dh).toEqual(Float32Array.from([...first.dh, ...second.dh]))
  // Sums over rows in another order: a few roundings of terms up to 1.
  for (let i = 0; i < 1000; i++) expect(Math.abs(whole.dw[i]! - first.dw[i]! - second.dw[i]!)).toBeLessThan(1e-6)
  expect(whole.values.every((x) => x > 0)).toBe(true)
}, 60_000)
