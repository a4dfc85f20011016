import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import type { CausalLM, ModelFiles } from "@sloth/model"
import { Engine } from "@sloth/tensor"
import {
  attachGoldenLora,
  gradientDifference,
  greedyAgreement,
  logprobDifference,
  openSmollm2,
  SMOLLM2_ABSENT,
  smollm2Path,
} from "./support/smollm2.ts"
import { cpuBackend } from "./support/cpu.ts"

const backend = smollm2Path === undefined ? undefined : await cpuBackend()
if (smollm2Path === undefined) console.log(`(skip) ${SMOLLM2_ABSENT}`)
else if (backend === undefined)
  console.log("(skip) the native CPU backend is not available; the reference backend is too slow for 135 M parameters")

describe.skipIf(backend === undefined)("SmolLM2-135M-Instruct Q4_1 against transformers and PEFT", () => {
  let engine: Engine
  let files: ModelFiles
  let model: CausalLM

  beforeAll(async () => {
    engine = new Engine(backend!)
    files = await openSmollm2()
    model = files.build(engine)
  })
  afterAll(() => {
    model[Symbol.dispose]()
    expect(engine.backend.memory.stats().liveBuffers).toBe(0)
    engine[Symbol.dispose]()
  })

  test("the file is recognised", () => {
    expect(files.family.name).toBe("llama")
    expect(files.config).toMatchObject({ vocab: 49152, hidden: 576, layers: 30, tied: true })
    expect(files.unused).toEqual([])
  })

  // The bar of 2e-3 nats: f32 on both sides, 30 layers of sums over 576 to 1536 terms in different order.
  test("log-probs of texts of 200 and more tokens", async () => {
    expect(await logprobDifference(model)).toBeLessThan(2e-3)
  }, 120_000)

  test("64 greedy tokens after ten prompts", async () => {
    expect(await greedyAgreement(model, files.tokenizer)).toEqual({ equal: 10, of: 10 })
  }, 300_000)

  test("gradient of every LoRA tensor, packed, split and recomputed", async () => {
    using lora = files.build(engine)
    attachGoldenLora(lora, 0.02)
    for (const options of [
      {},
      { perPass: 1 },
      { policy: "recompute" as const, perPass: 2 },
      { policy: "checkpoint" as const },
    ]) {
      const d = await gradientDifference(lora, options)
      expect(d.tensors).toBe(420)
      expect(d.loss).toBeLessThan(1e-4)
      expect(d.worst).toBeLessThan(1e-4)
    }
  }, 300_000)
})
