import type { CausalLM, ModelFiles } from "@sloth/model"
import { attachLora, loadPeftAdapter, type LoraConfig } from "@sloth/model"
import { loraConfigOf, type TrainConfig } from "./config.ts"

/** What training needs of a model: `ModelFiles` of `@sloth/model` is one, and so is anything else that can build a model. */
export interface TrainModel extends Pick<ModelFiles, "name" | "path" | "fingerprint" | "bytes" | "config" | "build"> {}

/**
 * Makes a model trainable as the configuration says: a fresh LoRA, a LoRA from a folder, or all weights. Returns the LoRA's settings, undefined with full fine-tuning.
 * Errors: SLOTH_ADAPTER_*.
 */
export const makeTrainable = (
  model: CausalLM,
  config: TrainConfig,
  adapterFolder = config.adapter,
): LoraConfig | undefined => {
  if (config.full) {
    model.trainAllWeights()
    return undefined
  }
  if (adapterFolder !== undefined) return loadPeftAdapter(model, adapterFolder, { trainable: true }).config
  const lora = loraConfigOf(config)
  attachLora(model, lora, config.seed)
  return lora
}
