import { expect, test } from "bun:test"
import { loadPeftAdapter, packedContext, type CausalLM } from "@sloth/model"
import {
  ACTIVATION_POLICIES,
  createMeterBackend,
  createReferenceBackend,
  Engine,
  gatherRows,
  linearCrossEntropy,
  SequenceLayout,
  type ActivationPolicy,
} from "@sloth/tensor"
import { goldenDir } from "./support/golden.ts"
import { buildTiny } from "./support/tiny.ts"
import { join } from "node:path"

const ids = Array.from({ length: 90 }, (_, i) => (i * 17) % 131)

/** One forward and backward pass of two packed texts. */
const pass = (model: CausalLM, policy: ActivationPolicy): void => {
  const { engine } = model
  engine.scope(() => {
    const { result, tape } = engine.record(() => {
      const hidden = model.hidden(
        packedContext(engine, SequenceLayout.fromLengths([60, 30]), { policy }),
        engine.from(Int32Array.from(ids)),
      )
      const h = gatherRows(hidden, engine.from(Int32Array.from([3, 50, 70])))
      return linearCrossEntropy(
        h,
        model.head.weight.tensor,
        engine.from(Int32Array.from([1, 2, 3])),
        engine.from(new Float32Array(3).fill(1 / 3)),
        model.head,
      )
    })
    tape.backward([{ tensor: result }])
  })
}

for (const policy of ACTIVATION_POLICIES)
  test(`the meter counts exactly the bytes that the reference backend holds, policy ${policy}`, () => {
    const peaks = [createMeterBackend({ round: (b) => b }), createReferenceBackend()].map((backend) => {
      const engine = new Engine(backend)
      using model = buildTiny(engine, "untied")
      if (backend.name === "meter") {
        // Adapter files are read by the host; the meter takes their sizes.
        loadPeftAdapter(model, join(goldenDir, "tiny", "untied", "adapter"), { trainable: true })
      } else loadPeftAdapter(model, join(goldenDir, "tiny", "untied", "adapter"), { trainable: true })
      backend.memory.resetPeak()
      const before = backend.memory.stats().liveBytes
      pass(model, policy)
      return { peak: backend.memory.stats().peakBytes - before, live: backend.memory.stats().liveBytes - before }
    })
    expect(peaks[0]).toEqual(peaks[1]!)
    expect(peaks[0]!.peak).toBeGreaterThan(50_000)
  })

test("the policies hold less and less, and checkpointing computes more", () => {
  const readings = (["keep", "recompute", "checkpoint"] as const).map((policy) => {
    const backend = createMeterBackend()
    const engine = new Engine(backend)
    using model = buildTiny(engine, "untied")
    loadPeftAdapter(model, join(goldenDir, "tiny", "untied", "adapter"), { trainable: true })
    backend.restart()
    pass(model, policy)
    return backend.reading()
  })
  expect(readings[0]!.peakBytes).toBeGreaterThan(readings[1]!.peakBytes)
  expect(readings[1]!.peakBytes).toBeGreaterThan(readings[2]!.peakBytes)
  expect(readings[0]!.flops).toBe(readings[1]!.flops)
  expect(readings[2]!.flops).toBeGreaterThan(readings[0]!.flops * 1.2)
})

test("the arithmetic of a pass is what the layout says", () => {
  const flops = (lengths: number[]): number => {
    const backend = createMeterBackend()
    const engine = new Engine(backend)
    using model = buildTiny(engine, "untied")
    backend.restart()
    engine.noGrad(() =>
      engine.scope(
        () =>
          void model.hidden(
            packedContext(engine, SequenceLayout.fromLengths(lengths)),
            engine.from(Int32Array.from(ids)),
          ),
      ),
    )
    return backend.reading().flops
  }
  // 2 layers, hidden 48, 4 heads of 12, 2 key heads, ff 80: products of 90 rows, attention over the lower triangles of each text.
  const products = 2 * 2 * 90 * (48 * 48 * 2 + 48 * 24 * 2 + 48 * 80 * 3)
  const attention = (n: number) => 2 * 4 * 4 * 12 * ((n * (n + 1)) / 2)
  expect(flops([90])).toBe(products + attention(90))
  expect(flops([60, 30])).toBe(products + attention(60) + attention(30))
})
