import { expect, test } from "bun:test"
import { Engine } from "@sloth/tensor"
import { cpuBackend } from "./support/cpu.ts"
import { grpoDifferences } from "./support/grpo.ts"
import { attachGoldenLora, openSmollm2, SMOLLM2_ABSENT, smollm2Path } from "./support/smollm2.ts"

const backend = smollm2Path === undefined ? undefined : await cpuBackend()
if (smollm2Path === undefined) console.log(`(skip) ${SMOLLM2_ABSENT}`)
else if (backend === undefined)
  console.log("(skip) the native CPU backend is not available; the reference backend is too slow for 135 M parameters")

test.skipIf(backend === undefined)(
  "SmolLM2-135M: one step over completions that TRL sampled, in three forms: advantages, loss, and the gradient of every LoRA tensor",
  async () => {
    using engine = new Engine(backend!)
    const files = await openSmollm2()
    {
      using model = files.build(engine)
      attachGoldenLora(model, 0.02)
      const all = await grpoDifferences(model, "smollm2")
      expect(all.map(({ name }) => name)).toEqual(["dapo", "dapo-kl", "gspo"])
      for (const { name, advantages, loss, logprobs, gradient, tensors } of all) {
        expect(tensors).toBe(420)
        // TRL makes advantages in float32 from rewards of size 1. The rest is f32 through 30 layers against float64: 1e-4 is the bar of all gradients of this model.
        expect([name, advantages < 1e-6, advantages]).toEqual([name, true, advantages])
        expect([name, logprobs < 1e-3, logprobs]).toEqual([name, true, logprobs])
        expect([name, loss < 1e-4, loss]).toEqual([name, true, loss])
        expect([name, gradient < 1e-4, gradient]).toEqual([name, true, gradient])
      }
    }
    expect(engine.backend.memory.stats().liveBuffers).toBe(0)
  },
  240_000,
)
