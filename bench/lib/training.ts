import { attachLora, DEFAULT_LORA, type CausalLM } from "@sloth/model"
import type { ActivationPolicy, Engine } from "@sloth/tensor"
import { AdamW, parameterGroups, resolveTrainConfig, StepRunner, unitFromTokens, type TrainingUnit } from "@sloth/train"
import type { Row } from "./rows.ts"

/** How a measured step trains. */
export interface TrainingOptions {
  readonly full: boolean
  readonly rank: number
  /** Most tokens in a micro-batch. */
  readonly budget: number
}

/** A model ready for optimizer steps. */
export interface Training {
  /** Steps under an activation policy. */
  readonly runner: (policy: ActivationPolicy) => StepRunner
  readonly optimizer: AdamW
  readonly units: readonly TrainingUnit[]
}

/** Attaches a LoRA on all linear layers (or trains all weights) and makes the optimizer. */
export const prepareTraining = (
  engine: Engine,
  model: CausalLM,
  rows: readonly Row[],
  options: TrainingOptions,
): Training => {
  const config = resolveTrainConfig(
    options.full ? { full: true, learningRate: 1e-5 } : { learningRate: 2e-4, rank: options.rank },
  )
  if (options.full) model.trainAllWeights()
  else attachLora(model, { ...DEFAULT_LORA, rank: options.rank, alpha: 2 * options.rank }, 1)
  const optimizer = new AdamW(engine, parameterGroups(model, config), config)
  const units = rows.map((row, i) => unitFromTokens(Int32Array.from(row.tokens), (t) => row.mask[t] === 1, i)!)
  const runner = (policy: ActivationPolicy): StepRunner =>
    new StepRunner(model, optimizer, {
      loss: { kind: "cross-entropy" },
      policy,
      seed: 1,
      maxGradNorm: 1,
      tokenBudget: options.budget,
      packing: true,
    })
  return { runner, optimizer, units }
}
