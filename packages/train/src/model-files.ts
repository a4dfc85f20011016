import { SlothError } from "@sloth/core"
import type { CausalLM, ModelFiles, Tokenizer } from "@sloth/model"
import { attachLora, loadPeftAdapter, readPeftConfig, type LoraConfig } from "@sloth/model"
import { loraConfigOf, type TrainConfig, type TrainConfigInput } from "./config.ts"

/** What training needs of a model: `ModelFiles` of `@sloth/model` is one, and so is anything else that can build a model. */
export interface TrainModel extends Pick<ModelFiles, "name" | "path" | "fingerprint" | "bytes" | "config" | "build"> {
  /** Needed by methods that generate during training. */
  readonly tokenizer?: Tokenizer
}

/**
 * Takes rank, alpha, dropout and targets from the adapter that a configuration starts from, so that the configuration says what is trained.
 * Errors: SLOTH_TRAIN_ADAPTER_SETTINGS where the user asked for something else, SLOTH_ADAPTER_FILE.
 */
export const withAdapterSettings = (config: TrainConfig, given: TrainConfigInput): TrainConfig => {
  if (config.adapter === undefined) return config
  const { config: adapter } = readPeftConfig(config.adapter)
  const differences = Object.entries(adapter).flatMap(([key, now]) => {
    const asked = given[key as keyof TrainConfigInput]
    return asked === undefined || JSON.stringify(asked) === JSON.stringify(now) ? [] : [{ key, asked, adapter: now }]
  })
  // Targets can be written in many ways; the same layers under another spelling are no difference that could be seen here.
  const serious = differences.filter((d) => d.key !== "targets" && d.key !== "layers")
  if (serious.length > 0)
    throw new SlothError("SLOTH_TRAIN_ADAPTER_SETTINGS", {
      what: `The adapter ${config.adapter} has other settings than asked for.`,
      why: serious.map((d) => `${d.key} is ${JSON.stringify(d.adapter)}, not ${JSON.stringify(d.asked)}.`).join(" "),
      next: "Leave these settings out: a run that starts from an adapter keeps the adapter's.",
      fields: { adapter: config.adapter, differences: serious },
    })
  return { ...config, ...adapter }
}

/**
 * Makes a model trainable as the configuration says: a fresh LoRA, a LoRA from a folder, or all weights. Returns the LoRA's settings, undefined with full fine-tuning.
 * With `scoreHead` the model's score head is trained too; it gets one unless it has one or the folder brought one. With `reference` passes with adapters off are those of the adapter that the
 * configuration starts from, as it was.
 * Errors: SLOTH_ADAPTER_*.
 */
export const makeTrainable = (
  model: CausalLM,
  config: TrainConfig,
  adapterFolder = config.adapter,
  options: { readonly scoreHead?: boolean; readonly reference?: boolean } = {},
): LoraConfig | undefined => {
  const withHead = (): void => {
    if (options.scoreHead !== true) return
    if (model.hasScoreHead) model.trainScoreHead()
    else model.addScoreHead(config.seed)
  }
  if (config.full) {
    model.trainAllWeights()
    withHead()
    return undefined
  }
  if (adapterFolder !== undefined) {
    // Modules that are trained whole have no second copy to compare with; the step refuses them.
    const copied = options.reference === true && config.adapter !== undefined && config.referenceModel === "start"
    if (copied && readPeftConfig(config.adapter).config.modulesToSave.length === 0) {
      loadPeftAdapter(model, config.adapter)
      model.keepAsReference()
    }
    const { config: lora } = loadPeftAdapter(model, adapterFolder, { trainable: true })
    withHead()
    return lora
  }
  const lora = loraConfigOf(config)
  attachLora(model, lora, config.seed)
  withHead()
  return lora
}
