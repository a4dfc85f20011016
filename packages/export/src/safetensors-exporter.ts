import { join } from "node:path"
import { requireDisk, SlothError } from "@sloth/core"
import { openModelFiles, SCORE_WEIGHT, writeSafetensorsFolder, type CausalLM } from "@sloth/model"
import { writeFileSync } from "node:fs"
import type { Exporter, TrainedModel } from "./contract.ts"
import { encodedWeight } from "./effective-weights.ts"
import { bytesOnDisk, writeFolder, writeJson } from "./folder-writer.ts"
import { StoredTensors, weightTensors } from "./stored-tensors.ts"
import { allowedDifference, compareOpinions, compareTokenizers, opinionOf } from "./verify.ts"

const TYPES = { f32: "F32", f16: "F16", bf16: "BF16" } as const
const TORCH = { f32: "float32", f16: "float16", bf16: "bfloat16" } as const

/** The configuration of a sequence classifier with one output, as transformers reads reward models. */
const classifierConfig = ({ model, files: { tokenizer } }: TrainedModel): Readonly<Record<string, unknown>> => {
  const config = model.family.toHuggingFace(model.config)
  const architectures = (config["architectures"] as readonly string[]).map((name) =>
    name.replace(/ForCausalLM$/, "ForSequenceClassification"),
  )
  return {
    ...config,
    architectures,
    num_labels: 1,
    id2label: { "0": "LABEL_0" },
    label2id: { LABEL_0: 0 },
    pad_token_id: tokenizer.special.pad ?? tokenizer.special.eos ?? null,
  }
}

/** Errors: SLOTH_EXPORT_DIFFERS where the score head does not read back as it is in memory. */
const compareScoreHeads = async (to: string, model: CausalLM, copy: CausalLM): Promise<void> => {
  const [own, read] = await Promise.all([model.scoreHead.tensor.readFloats(), copy.scoreHead.tensor.readFloats()])
  if (own.every((value, i) => Object.is(value, read[i]))) return
  throw new SlothError("SLOTH_EXPORT_DIFFERS", {
    what: `The score head in ${to} is not that of the model in memory.`,
    next: "Report this, with the model.",
    fields: { path: to },
  })
}

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
          [
            ...(model.hasScoreHead
              ? [
                  {
                    name: SCORE_WEIGHT,
                    dtype: "F32" as const,
                    shape: model.scoreHead.tensor.shape,
                    bytes: model.scoreHead.tensor.size * 4,
                    data: () =>
                      model.engine.backend.memory.read(
                        model.scoreHead.tensor.handle,
                        0,
                        model.scoreHead.tensor.size * 4,
                      ),
                  },
                ]
              : []),
            ...refs.map((ref) => ({
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
          ],
          { maxShardBytes: options.maxShardBytes },
        )
        writeJson(join(folder, "config.json"), {
          ...(model.hasScoreHead ? classifierConfig(trained) : model.family.toHuggingFace(model.config)),
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
        if (model.hasScoreHead) await compareScoreHeads(to, model, copy)
        return compareOpinions(to, expected, await opinionOf(copy, trained.texts), allowedDifference(type), tensors)
      },
    )
    return {
      format: `safetensors-${type}`,
      path: to,
      bytes: bytesOnDisk(to),
      seconds: (performance.now() - started) / 1000,
      verification,
      hint: model.hasScoreHead ? `sloth train --method grpo --reward ${to}` : `sloth chat --model ${to}`,
    }
  },
})

/** Merged safetensors in the three float types. */
export const safetensorsExporters = [
  safetensorsExporter("bf16"),
  safetensorsExporter("f16"),
  safetensorsExporter("f32"),
] as const
