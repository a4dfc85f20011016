import { mkdir, rm, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { replaceDirectoryAtomic, temporarySibling } from "@sloth/core"
import { savePeftAdapter, type CausalLM, type LoraConfig } from "@sloth/model"
import { writeTrainedWeights } from "./checkpoint.ts"

/** Writes a folder under a temporary name and puts it in place whole. */
const writeFolder = async (folder: string, fill: (temporary: string) => Promise<void>): Promise<void> => {
  const temporary = temporarySibling(folder)
  try {
    await mkdir(temporary, { recursive: true })
    await fill(temporary)
    await replaceDirectoryAtomic(temporary, folder)
  } catch (error) {
    await rm(temporary, { recursive: true, force: true }).catch(() => undefined)
    throw error
  }
}

/** Writes the final adapter in PEFT form, without a score head that was only its critic. Errors: SLOTH_DISK_FULL and the other codes of file errors; an earlier folder is unchanged then. */
export const writeAdapterFolder = (
  model: CausalLM,
  folder: string,
  lora: LoraConfig,
  base: string,
  options: { readonly critic?: boolean } = {},
): Promise<void> =>
  writeFolder(folder, (temporary) =>
    savePeftAdapter(model, temporary, lora, base, { scoreHead: options.critic !== true }),
  )

/** What `weights.json` beside fully trained weights says. */
export interface TrainedWeightsInfo {
  readonly format: 1
  /** The model that they replace the weights of: path or hub id. */
  readonly base: string
  /** Fingerprint of that model. */
  readonly fingerprint: string
  readonly step: number
}

/**
 * Writes fully trained weights: `model.safetensors` with every trained weight by its Hugging Face name, f32, and `weights.json` ({@link TrainedWeightsInfo}). Loading
 * means building the base model and replacing these tensors; an exporter adds configuration and tokenizer of the base.
 */
export const writeWeightsFolder = (
  model: CausalLM,
  folder: string,
  info: TrainedWeightsInfo,
  options: { readonly critic?: boolean } = {},
): Promise<void> =>
  writeFolder(folder, async (temporary) => {
    await writeTrainedWeights(model, join(temporary, "model.safetensors"), options)
    await writeFile(join(temporary, "weights.json"), `${JSON.stringify(info, null, 2)}\n`)
  })
