import { describe, expect, test } from "bun:test"
import { describeConfig, isSlothError, parseFlags, type ConfigIssue } from "@sloth/core"
import {
  backendOptionsOf,
  datasetOptionsOf,
  loraConfigOf,
  readTrainConfig,
  resolveTrainConfig,
  TrainConfigSchema,
} from "./config.ts"
import { TRAIN_CONFIG_NAMES } from "./config-names.ts"

const issuesOf = (input: unknown): readonly ConfigIssue[] => {
  try {
    resolveTrainConfig(input)
  } catch (error) {
    if (isSlothError(error)) return error.fields["issues"] as readonly ConfigIssue[]
    throw error
  }
  throw new Error("nothing was refused")
}

describe("the training configuration", () => {
  test("every key has a description, a name in other tools or none on purpose, and a default or is optional", () => {
    for (const field of describeConfig(TrainConfigSchema)) {
      expect(field.description, field.key).toBeTruthy()
      expect(Object.keys(TRAIN_CONFIG_NAMES)).toContain(field.key)
      expect(field.required, field.key).toBe(false)
    }
    expect(Object.keys(TRAIN_CONFIG_NAMES).sort()).toEqual(
      describeConfig(TrainConfigSchema)
        .map((f) => f.key)
        .sort(),
    )
  })

  test("defaults are those of the field: no warm-up, no decay, clip 1, AdamW's usual constants", () => {
    expect(resolveTrainConfig({})).toMatchObject({
      batch: 8,
      learningRate: 2e-4,
      schedule: "linear",
      warmupSteps: 0,
      weightDecay: 0,
      maxGradNorm: 1,
      beta1: 0.9,
      beta2: 0.999,
      epsilon: 1e-8,
      rank: 16,
      alpha: 32,
      targets: "all-linear",
      packing: true,
      policy: "auto",
    })
  })

  test("all wrong keys are reported at once, names of other tools included", () => {
    const issues = issuesOf({ rank: 0, learning_rate: 1, dropout: 1, shedule: "cosine", keepCheckpoints: 0 })
    expect(issues.map((i) => i.key).sort()).toEqual(["dropout", "keepCheckpoints", "learning_rate", "rank", "shedule"])
    expect(issues.find((i) => i.key === "learning_rate")!.suggestion).toBe("learningRate")
    expect(issues.find((i) => i.key === "shedule")!.suggestion).toBe("schedule")
  })

  test("a key that would do nothing beside another is refused", () => {
    expect(issuesOf({ full: true, rank: 8, targets: ["q_proj"] }).map((i) => i.key)).toEqual(["rank", "targets"])
    expect(issuesOf({ warmupSteps: 1, warmupRatio: 0.1 }).map((i) => i.key)).toEqual(["warmupRatio"])
    expect(issuesOf({ steps: 1, epochs: 2 }).map((i) => i.key)).toEqual(["epochs"])
    expect(issuesOf({ evalData: "x", evalFraction: 0.1 }).map((i) => i.key)).toEqual(["evalFraction"])
  })

  test("a stored configuration reads back as it was", () => {
    const config = resolveTrainConfig({ full: true, steps: 4, evalData: ["a"], tokenBudget: 9 })
    expect(readTrainConfig(JSON.parse(JSON.stringify(config)))).toEqual(config)
  })

  test("flags of a command line become a configuration", () => {
    const input = parseFlags(
      TrainConfigSchema,
      { "learning-rate": "1e-3", targets: "q_proj,v_proj", "no-packing": true, layers: "0,2", schedule: "cosine" },
      { name: "train" },
    )
    expect(resolveTrainConfig(input)).toMatchObject({
      learningRate: 1e-3,
      targets: ["q_proj", "v_proj"],
      packing: false,
      layers: [0, 2],
      schedule: "cosine",
    })
  })

  test("each consumer gets its part", () => {
    const config = resolveTrainConfig({ threads: 2, memoryBudget: 5, mask: "all", evalFraction: 0.2, seed: 3, rank: 2 })
    expect(backendOptionsOf(config)).toEqual({ threads: 2, memoryBudget: 5, precision: "f32" })
    expect(backendOptionsOf(resolveTrainConfig({ precision: "bf16" }))).toEqual({ precision: "bf16" })
    expect(datasetOptionsOf(config)).toEqual({
      mask: "all",
      maxLength: 1024,
      overlong: "truncate",
      heldOut: 0.2,
      seed: 3,
    })
    expect(loraConfigOf(config)).toEqual({
      rank: 2,
      alpha: 32,
      dropout: 0,
      targets: "all-linear",
      rankStabilized: false,
      modulesToSave: [],
    })
  })
})
