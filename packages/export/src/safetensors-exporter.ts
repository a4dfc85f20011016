import { join } from "node:path"
import { requireDisk } from "@sloth/core"
import { openModelFiles, writeSafetensorsFolder } from "@sloth/model"
import { writeFileSync } from "node:fs"
import type { Exporter } from "./contract.ts"
import { encodedWeight } from "./effective-weights.ts"
import { bytesOnDisk, writeFolder, writeJson } from "./folder-writer.ts"
import { StoredTensors, weightTensors } from "./stored-tensors.ts"
import { allowedDifference, compareOpinions, compareTokenizers, opinionOf } from "./verify.ts"

const TYPES = { f32: "F32", f16: "F16", bf16: "BF16" } as const
const TORCH = { f32: "float32", f16: "float16", bf16: "bfloat16" } as const

const safetensorsExporter = <T extends keyof typeof TYPES>(type: T): Exporter<`safetensors-${T}`> => ({
  name: `safetensors-${type}`,
  description: `the merged model in ${TORCH[type]} with its configuration and tokenizer, for transformers, vLLM and SGLang`,
  adapterOnly: false,
  extension: "",
  export: async (trained, to, options = {}) => {
    const started = performance.now()
    const { model, files } = trained
    const size = type === "f32" ? 4 : 2
    const total = model.parameterCount * size
    await requireDisk(to, total + (1 << 20), `the export ${to}`)
    const expected = await opinionOf(model, trained.texts)
    const refs = [...model.weights.values()]
    const stored = new StoredTensors()
    let done = 0
    const verification = await writeFolder(
      to,
      "config.json",
      async (folder) => {
        await writeSafetensorsFolder(
          folder,
          refs.map((ref) => ({
            name: ref.name,
            dtype: TYPES[type],
            shape: ref.shape,
            bytes: ref.shape.reduce((a, b) => a * b, 1) * size,
            data: async () => {
              options.onProgress?.(ref.name, ++done, refs.length)
              const bytes = await encodedWeight(model, ref, type)
              stored.note(ref.name, type, bytes, ref.shape.length === 1)
              return bytes
            },
          })),
          { maxShardBytes: options.maxShardBytes },
        )
        writeJson(join(folder, "config.json"), {
          ...model.family.toHuggingFace(model.config),
          torch_dtype: TORCH[type],
          dtype: TORCH[type],
        })
        const { tokenizer } = files
        writeFileSync(join(folder, "tokenizer.json"), tokenizer.files.tokenizerJson)
        writeJson(join(folder, "tokenizer_config.json"), tokenizer.files.tokenizerConfig)
        if (tokenizer.chatTemplate !== undefined)
          writeFileSync(join(folder, "chat_template.jinja"), tokenizer.chatTemplate)
        writeJson(join(folder, "generation_config.json"), {
          bos_token_id: tokenizer.special.bos ?? null,
          eos_token_id: [...tokenizer.endOfGeneration],
          pad_token_id: tokenizer.special.pad ?? tokenizer.special.eos ?? null,
        })
      },
      async (folder) => {
        const written = await openModelFiles(folder, [model.family])
        compareTokenizers(to, files.tokenizer, written.tokenizer, trained.texts[0]!)
        using copy = written.build(model.engine)
        const tensors = await stored.compare(to, copy, weightTensors(copy))
        return compareOpinions(to, expected, await opinionOf(copy, trained.texts), allowedDifference(type), tensors)
      },
    )
    return {
      format: `safetensors-${type}`,
      path: to,
      bytes: bytesOnDisk(to),
      seconds: (performance.now() - started) / 1000,
      verification,
      hint: `sloth chat --model ${to}`,
    }
  },
})

/** Merged safetensors in the three float types. */
export const safetensorsExporters = [
  safetensorsExporter("bf16"),
  safetensorsExporter("f16"),
  safetensorsExporter("f32"),
] as const
