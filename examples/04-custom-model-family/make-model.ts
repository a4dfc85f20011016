import { cpSync, mkdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { CausalLM, randomWeights, writeSafetensorsFolder } from "@sloth/model"
import { nanoFiles } from "@sloth/nano"
import { createReferenceBackend, Engine, ModuleBuilder } from "@sloth/tensor"
import { qwen2Family } from "./plugin.ts"

/** A Qwen2 of a few layers; its vocabulary is that of nano's tokenizer. */
export const smallConfig = {
  architectures: ["Qwen2ForCausalLM"],
  model_type: "qwen2",
  vocab_size: 2048,
  hidden_size: 64,
  intermediate_size: 160,
  num_hidden_layers: 3,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 512,
  rms_norm_eps: 1e-6,
  rope_theta: 10000,
  tie_word_embeddings: true,
  use_sliding_window: false,
  bos_token_id: 0,
  eos_token_id: 2,
}

/** Writes a small untrained Qwen2 as a folder that any tool for Qwen2 can open. */
export const makeModel = async (folder: string): Promise<string> => {
  mkdirSync(folder, { recursive: true })
  for (const name of ["tokenizer.json", "tokenizer_config.json"])
    cpSync(join(nanoFiles().model, name), join(folder, name))
  writeFileSync(join(folder, "config.json"), JSON.stringify(smallConfig, null, 2))
  using engine = new Engine(createReferenceBackend())
  const config = qwen2Family.fromHuggingFace(smallConfig)
  using model = new CausalLM(qwen2Family, config, new ModuleBuilder(engine, randomWeights(engine, 1, 0.08)))
  await writeSafetensorsFolder(
    folder,
    [...model.weights.values()].map(({ name, shape, tensor }) => ({
      name,
      dtype: "F32",
      shape,
      bytes: tensor.size * 4,
      data: () => engine.backend.memory.read(tensor.handle, 0, tensor.size * 4),
    })),
  )
  return folder
}
