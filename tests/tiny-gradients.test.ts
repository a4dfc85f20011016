import { afterAll, describe, expect, test } from "bun:test"
import { join } from "node:path"
import { loadPeftAdapter } from "@sloth/model"
import { ACTIVATION_POLICIES, createReferenceBackend, Engine } from "@sloth/tensor"
import { floatsOf, goldenDir, goldenJson, relativeError } from "./support/golden.ts"
import { buildTiny, lossAndGradients, type Row } from "./support/tiny.ts"

interface Golden {
  readonly rows: Row[]
  readonly full: { loss: number; scored: number; gradNorm: number }
  readonly lora: { loss: number; scored: number; gradNorm: number }
}

// The issue asks for 1e-4; f32 sums of at most 131 terms on both sides stay an order of magnitude below it.
const GRADIENT = 1e-4

const engine = new Engine(createReferenceBackend())
afterAll(() => {
  expect(engine.backend.memory.stats().liveBuffers).toBe(0)
  engine[Symbol.dispose]()
})

for (const name of ["untied", "tied", "llama3"])
  describe(`tiny ${name} against transformers + PEFT`, () => {
    const golden = goldenJson<Golden>("tiny", name, "golden.json")
    const tensors = floatsOf(join(goldenDir, "tiny", name, "golden.safetensors"))
    for (const policy of ACTIVATION_POLICIES)
      for (const split of [false, true])
        test(`LoRA gradients, ${policy}, ${split ? "a text a micro-batch" : "packed"}`, async () => {
          using model = buildTiny(engine, name)
          loadPeftAdapter(model, join(goldenDir, "tiny", name, "adapter"), { trainable: true })
          const { loss, scored } = await lossAndGradients(model, golden.rows, { policy, split })
          expect(scored).toBe(golden.lora.scored)
          expect(loss).toBeCloseTo(golden.lora.loss, 5)
          for (const t of model.trainables()) {
            const expected = tensors.get(`lora.grad.${t.name}`)
            expect(expected, t.name).toBeDefined()
            expect(relativeError(await t.tensor.grad!.readFloats(), expected!.values), t.name).toBeLessThan(GRADIENT)
          }
        })
    test("gradients of every weight (full fine-tuning)", async () => {
      using model = buildTiny(engine, name)
      model.trainAllWeights()
      const { loss } = await lossAndGradients(model, golden.rows)
      expect(loss).toBeCloseTo(golden.full.loss, 5)
      for (const t of model.trainables())
        expect(
          relativeError(await t.tensor.grad!.readFloats(), tensors.get(`grad.${t.name}`)!.values),
          t.name,
        ).toBeLessThan(GRADIENT)
    })
  })
