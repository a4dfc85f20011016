import { afterAll, describe, expect, test } from "bun:test"
import { createReferenceBackend, Engine } from "@sloth/tensor"
import { resolveTrainConfig, type TrainConfigInput } from "./config.ts"
import { randomFiles, tinyFiles } from "./internal/testing/tiny.ts"
import { makeTrainable } from "./model-files.ts"
import { AdamW, clipFactor, parameterGroups } from "./optimizer.ts"

const engine = new Engine(createReferenceBackend())
afterAll(() => {
  expect(engine.backend.memory.stats().liveBuffers).toBe(0)
  engine[Symbol.dispose]()
})

test("clipping is torch's: max_norm / (norm + 1e-6), at most 1; 0 switches it off", () => {
  expect(clipFactor(0.5, 1)).toBe(1)
  expect(clipFactor(4, 1)).toBe(1 / (4 + 1e-6))
  expect(clipFactor(1, 1)).toBe(1 / (1 + 1e-6))
  expect(clipFactor(4, 0)).toBe(1)
  expect(clipFactor(0, 1)).toBe(1)
})

const groupsOf = (input: TrainConfigInput, name = "untied") => {
  const config = resolveTrainConfig({ learningRate: 1e-3, weightDecay: 0.1, ...input })
  using model = tinyFiles(name).build(engine)
  makeTrainable(model, config)
  return new Map(parameterGroups(model, config).map((p) => [p.name, { rate: p.learningRate, decay: p.weightDecay }]))
}

describe("parameter groups", () => {
  test("norms do not decay, tables learn at their own rate", () => {
    const groups = groupsOf({ full: true, embeddingLearningRate: 1e-4 })
    expect(groups.get("model.norm.weight")).toEqual({ rate: 1e-3, decay: 0 })
    expect(groups.get("model.layers.0.mlp.up_proj.weight")).toEqual({ rate: 1e-3, decay: 0.1 })
    expect(groups.get("model.embed_tokens.weight")).toEqual({ rate: 1e-4, decay: 0.1 })
    expect(groups.get("lm_head.weight")).toEqual({ rate: 1e-4, decay: 0.1 })
  })

  test("LoRA+ speeds up B alone; both decay, as transformers does it", () => {
    const groups = groupsOf({ rank: 2, loraPlusRatio: 16, modulesToSave: ["lm_head"] })
    const path = "base_model.model.model.layers.1.mlp.down_proj"
    expect(groups.get(`${path}.lora_A.weight`)).toEqual({ rate: 1e-3, decay: 0.1 })
    expect(groups.get(`${path}.lora_B.weight`)).toEqual({ rate: 1.6e-2, decay: 0.1 })
    expect(groups.get("lm_head.weight")).toEqual({ rate: 1e-3, decay: 0.1 })
  })
})

describe("states", () => {
  const bytesOf = (optimizer: "adamw" | "adamw8bit") => {
    const config = resolveTrainConfig({ optimizer, rank: 2, modulesToSave: ["embed_tokens"] })
    using model = randomFiles({ vocab: 160 }).build(engine)
    makeTrainable(model, config)
    using adamw = new AdamW(engine, parameterGroups(model, config), config)
    const names = [...adamw.states().keys()].filter((n) => n.includes("embed_tokens"))
    return { bytes: adamw.bytes, parameters: model.trainables().reduce((n, t) => n + t.tensor.size, 0), names }
  }

  test("8 bytes a parameter, or 2 and a little for tensors of at least 4096 elements", () => {
    const whole = bytesOf("adamw")
    expect(whole.bytes).toBe(8 * whole.parameters)
    const eight = bytesOf("adamw8bit")
    const table = 160 * 32
    expect(eight.bytes).toBe(8 * (eight.parameters - table) + 2 * table + (8 * table) / 256)
    expect(eight.names.map((n) => n.split(".")[0]!)).toEqual(["m8", "v8", "mAbs", "vAbs"])
  })

  test("a tensor without a gradient is left alone", () => {
    const config = resolveTrainConfig({ rank: 2, weightDecay: 0.5 })
    using model = randomFiles().build(engine)
    makeTrainable(model, config)
    using adamw = new AdamW(engine, parameterGroups(model, config), config)
    const tensor = adamw.parameters[0]!.tensor
    const before = engine.backend.memory.read(tensor.handle)
    adamw.step(1, 1, 1)
    return Promise.all([before, engine.backend.memory.read(tensor.handle)]).then(([a, b]) => expect(b).toEqual(a))
  })
})
