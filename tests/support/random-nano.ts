import { cpSync, mkdirSync, readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { CausalLM, openModelFiles, randomWeights, writeSafetensorsFolder, type ModelFiles } from "@sloth/model"
import { llamaFamily } from "@sloth/model-llama"
import { createReferenceBackend, Engine, ModuleBuilder } from "@sloth/tensor"

const nano = join(import.meta.dirname, "../../packages/nano/model")

/** A model folder with nano's tokenizer and random weights, smaller than nano: fast on the reference backend. */
export const writeRandomNano = async (folder: string, overrides: Record<string, unknown> = {}): Promise<ModelFiles> => {
  mkdirSync(folder, { recursive: true })
  for (const name of readdirSync(nano))
    if (name !== "config.json" && /json|jinja/.test(name) && !name.includes("safetensors"))
      cpSync(join(nano, name), join(folder, name))
  const raw = {
    ...(JSON.parse(readFileSync(join(nano, "config.json"), "utf8")) as Record<string, unknown>),
    hidden_size: 64,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    head_dim: 16,
    intermediate_size: 96,
    ...overrides,
  }
  using engine = new Engine(createReferenceBackend())
  const config = llamaFamily.fromHuggingFace(raw)
  using model = new CausalLM(llamaFamily, config, new ModuleBuilder(engine, randomWeights(engine, 7, 0.15)))
  await writeSafetensorsFolder(
    folder,
    await Promise.all(
      [...model.weights.values()].map(async (ref) => {
        const data = (await engine.backend.memory.read(ref.tensor.handle)).slice(0, ref.tensor.size * 4)
        return { name: ref.name, dtype: "F32", shape: ref.shape, bytes: data.length, data }
      }),
    ),
  )
  const { writeFileSync } = await import("node:fs")
  writeFileSync(join(folder, "config.json"), JSON.stringify(raw))
  return openModelFiles(folder, [llamaFamily])
}
