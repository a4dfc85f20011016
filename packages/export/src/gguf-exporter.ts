import { basename } from "node:path"
import { requireDisk, SlothError } from "@sloth/core"
import {
  ggufNameOf,
  openModelFiles,
  tokenizerToGgufMetadata,
  writeGguf,
  type GgufInput,
  type GgufValue,
} from "@sloth/model"
import { weightFormat } from "@sloth/tensor"
import type { Exporter, TrainedModel } from "./contract.ts"
import { encodedWeight, interleaveRows } from "./effective-weights.ts"
import { bytesOnDisk, writeFile } from "./folder-writer.ts"
import { refuseScoreHead } from "./score-head.ts"
import { StoredTensors, weightTensors } from "./stored-tensors.ts"
import { allowedDifference, compareOpinions, compareTokenizers, opinionOf } from "./verify.ts"

/** `general.file_type` of each format (llama.cpp's llama_ftype). */
const FILE_TYPES = { f32: 0, f16: 1, q8_0: 7, bf16: 32 } as const

const text = (value: string): GgufValue => ({ type: "string", value })
const u32 = (value: number): GgufValue => ({ type: "u32", value })

/** Header of a GGUF file of this model. */
const metadataOf = (
  trained: TrainedModel,
  format: keyof typeof FILE_TYPES,
  to: string,
): (readonly [string, GgufValue])[] => {
  const { model, files } = trained
  const { metadata } = model.family.toGguf(model.config)
  const architecture = metadata.filter(([k]) => k === "general.architecture")
  return [
    ...architecture,
    ["general.type", text("model")],
    ["general.name", text(basename(to, ".gguf"))],
    ["general.base_model.count", u32(1)],
    ["general.base_model.0.name", text(files.name)],
    ["general.quantization_version", u32(2)],
    ["general.file_type", u32(FILE_TYPES[format])],
    ...metadata.filter(([k]) => k !== "general.architecture"),
    ...tokenizerToGgufMetadata(files.tokenizer, { vocabRows: model.config.vocab }),
  ]
}

/** The stored type of a weight: vectors stay f32; rows that no block divides fall back to f16, as llama.cpp's converter does. */
const storedType = (shape: readonly number[], format: keyof typeof FILE_TYPES): string => {
  if (shape.length < 2) return "f32"
  return shape.at(-1)! % weightFormat(format).blockSize === 0 ? format : "f16"
}

const ggufExporter = <T extends keyof typeof FILE_TYPES>(format: T): Exporter<`gguf-${T}`> => ({
  name: `gguf-${format}`,
  description: `the merged model as a ${format.toUpperCase()} GGUF file, for llama.cpp, Ollama and LM Studio`,
  adapterOnly: false,
  extension: ".gguf",
  export: async (trained, to, options = {}) => {
    const started = performance.now()
    const { model } = trained
    refuseScoreHead(model, `gguf-${format}`)
    const { family, config } = model
    const refs = [...model.weights.values()]
    const f = weightFormat(format)
    await requireDisk(to, (model.parameterCount / f.blockSize) * f.blockBytes + (16 << 20), `the export ${to}`)
    const expected = await opinionOf(model, trained.texts)
    const stored = new StoredTensors()
    let done = 0
    const tensors: GgufInput[] = [
      ...family.toGguf(config).tensors.map(({ name, values }) => ({
        name,
        dtype: "F32",
        shape: [values.length],
        data: new Uint8Array(values.buffer),
      })),
      ...refs.map((ref): GgufInput => {
        const mapped = ggufNameOf(family, config, ref.name)
        if (mapped === undefined)
          throw new SlothError("SLOTH_EXPORT_UNSUPPORTED", {
            what: `The family "${family.name}" has no GGUF name for ${ref.name}.`,
            next: "Export safetensors instead.",
            fields: { weight: ref.name },
          })
        const type = storedType(ref.shape, format)
        return {
          name: mapped.gguf,
          dtype: type.toUpperCase(),
          shape: ref.shape,
          data: async () => {
            options.onProgress?.(ref.name, ++done, refs.length)
            const bytes = await encodedWeight(model, ref, type)
            stored.note(ref.name, type, bytes, ref.shape.length === 1)
            return mapped.permute === undefined
              ? bytes
              : interleaveRows(bytes, ref.shape[0]!, ref.shape[0]! / mapped.permute.heads)
          },
        }
      }),
    ]
    const verification = await writeFile(
      to,
      { extension: ".gguf", magic: "GGUF" },
      async (path) => void (await writeGguf(path, metadataOf(trained, format, to), tensors)),
      async (path) => {
        const written = await openModelFiles(path, [family])
        compareTokenizers(to, trained.files.tokenizer, written.tokenizer, trained.texts[0]!)
        using copy = written.build(model.engine)
        const tensors = await stored.compare(to, copy, weightTensors(copy))
        return compareOpinions(to, expected, await opinionOf(copy, trained.texts), allowedDifference(format), tensors)
      },
    )
    return {
      format: `gguf-${format}`,
      path: to,
      bytes: bytesOnDisk(to),
      seconds: (performance.now() - started) / 1000,
      verification,
      hint: `llama-cli -m ${to} -cnv`,
    }
  },
})

/** GGUF files of the merged model. */
export const ggufExporters = [
  ggufExporter("q8_0"),
  ggufExporter("f16"),
  ggufExporter("bf16"),
  ggufExporter("f32"),
] as const
