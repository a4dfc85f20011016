import { afterAll, expect, test } from "bun:test"
import { join } from "node:path"
import { loadPeftAdapter } from "@sloth/model"
import { createReferenceBackend, Engine } from "@sloth/tensor"
import { goldenDir } from "./support/golden.ts"
import { grpoDifferences } from "./support/grpo.ts"
import { buildTiny } from "./support/tiny.ts"

const engine = new Engine(createReferenceBackend())
afterAll(() => {
  expect(engine.backend.memory.stats().liveBuffers).toBe(0)
  engine[Symbol.dispose]()
})

test("one step of TRL's GRPOTrainer on its own completions: advantages, loss, and the gradient of every LoRA tensor, in fourteen forms", async () => {
  using model = buildTiny(engine, "untied")
  loadPeftAdapter(model, join(goldenDir, "tiny", "untied", "adapter"), { trainable: true })
  const all = await grpoDifferences(model)
  expect(all).toHaveLength(14)
  for (const { name, advantages, loss, logprobs, gradient, tensors } of all) {
    expect(tensors).toBe(28)
    // TRL makes advantages in float32 from rewards of size 1; the rest is our float32 against float64.
    expect([name, advantages < 1e-6, advantages]).toEqual([name, true, advantages])
    expect([name, logprobs < 1e-5, logprobs]).toEqual([name, true, logprobs])
    expect([name, loss < 1e-5, loss]).toEqual([name, true, loss])
    expect([name, gradient < 1e-4, gradient]).toEqual([name, true, gradient])
  }
}, 60_000)
