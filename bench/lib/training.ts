import { attachLora, DEFAULT_LORA, type CausalLM } from "@sloth/model"
import { policyObjectiveLoss, sampledUnits, type SampledUnit } from "@sloth/rl"
import type { ActivationPolicy, Engine } from "@sloth/tensor"
import {
  AdamW,
  parameterGroups,
  resolveTrainConfig,
  StepRunner,
  unitFromTokens,
  type ObjectiveLoss,
  type TrainingUnit,
} from "@sloth/train"
import type { Row } from "./rows.ts"

/** How a measured step trains. */
export interface TrainingOptions {
  readonly full: boolean
  readonly rank: number
  /** Most tokens in a micro-batch. */
  readonly budget: number
}

/** A model ready for optimizer steps. */
export interface Training<Unit extends TrainingUnit = TrainingUnit> {
  /** Steps under an activation policy. */
  readonly runner: (policy: ActivationPolicy) => StepRunner<Unit>
  readonly optimizer: AdamW
  readonly units: readonly Unit[]
}

/** Attaches a LoRA on all linear layers (or trains all weights) and makes the optimizer, for units of any loss. */
export const prepareUnits = <Unit extends TrainingUnit>(
  engine: Engine,
  model: CausalLM,
  units: readonly Unit[],
  loss: ObjectiveLoss<Unit>,
  options: TrainingOptions,
): Training<Unit> => {
  const config = resolveTrainConfig(
    options.full ? { full: true, learningRate: 1e-5 } : { learningRate: 2e-4, rank: options.rank },
  )
  if (options.full) model.trainAllWeights()
  else attachLora(model, { ...DEFAULT_LORA, rank: options.rank, alpha: 2 * options.rank }, 1)
  const optimizer = new AdamW(engine, parameterGroups(model, config), config)
  const runner = (policy: ActivationPolicy): StepRunner<Unit> =>
    new StepRunner<Unit>(model, optimizer, {
      loss,
      policy,
      seed: 1,
      maxGradNorm: 1,
      tokenBudget: options.budget,
      packing: true,
    })
  return { runner, optimizer, units }
}

/** `prepareUnits` for supervised rows. */
export const prepareTraining = (
  engine: Engine,
  model: CausalLM,
  rows: readonly Row[],
  options: TrainingOptions,
): Training => {
  const units = rows.map((row, i) => unitFromTokens(Int32Array.from(row.tokens), (t) => row.mask[t] === 1, i)!)
  return prepareUnits(engine, model, units, { kind: "cross-entropy" }, options)
}

/** `prepareUnits` for the update of a GRPO step: `prompts` prompts with a group of completions each, as the trainer cuts them to the token budget. */
export const prepareUpdate = (
  engine: Engine,
  model: CausalLM,
  shape: { readonly prompts: number; readonly prompt: number; readonly group: number; readonly completion: number },
  options: TrainingOptions,
): Training<SampledUnit> => {
  const ids = (seed: number, length: number) =>
    Array.from({ length }, (_, t) => 100 + ((seed * 7919 + t * 131) % 40000))
  const units = Array.from({ length: shape.prompts }, (_, row) =>
    sampledUnits(
      ids(row, shape.prompt),
      Array.from({ length: shape.group }, (_, k) => ({
        tokens: ids(1000 + row * shape.group + k, shape.completion),
        advantage: Math.sin(k + 1),
      })),
      row,
      options.budget,
    ),
  ).flat()
  return prepareUnits(engine, model, units, policyObjectiveLoss({ loss: "dapo", beta: 0 }), options)
}
