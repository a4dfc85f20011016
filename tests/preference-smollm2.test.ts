import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import type { ModelFiles } from "@sloth/model"
import { Engine } from "@sloth/tensor"
import { cpuBackend } from "./support/cpu.ts"
import { preferenceDifference, PREFERENCE_METHODS } from "./support/preference.ts"
import { openSmollm2, SMOLLM2_ABSENT, smollm2Path } from "./support/smollm2.ts"

const backend = smollm2Path === undefined ? undefined : await cpuBackend()
if (smollm2Path === undefined) console.log(`(skip) ${SMOLLM2_ABSENT}`)
else if (backend === undefined)
  console.log("(skip) the native CPU backend is not available; the reference backend is too slow for 135 M parameters")

describe.skipIf(backend === undefined)("Steps of SmolLM2-135M-Instruct against TRL's trainers", () => {
  let engine: Engine
  let files: ModelFiles

  beforeAll(async () => {
    engine = new Engine(backend!)
    files = await openSmollm2()
  })
  afterAll(() => {
    expect(engine.backend.memory.stats().liveBuffers).toBe(0)
    engine[Symbol.dispose]()
  })

  // All 20 steps: bun run parity --only preference. The bar of 1e-3: f32 on both sides through 30 layers, and AdamW's first steps turn rounding of tiny gradients into steps of full size.
  for (const method of PREFERENCE_METHODS)
    test(`${method}: loss and reward margins of its first steps within 1e-3`, async () => {
      const { loss, margins } = await preferenceDifference(engine, files, method, { steps: 5 })
      expect(loss).toBeLessThan(1e-3)
      expect(margins).toBeLessThan(1e-3)
    }, 240_000)
})
