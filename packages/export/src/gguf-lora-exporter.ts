import { readFileSync } from "node:fs"
import { SlothError } from "@sloth/core"
import {
  ggufNameOf,
  ggufNumber,
  interleavedRow,
  Lora,
  readGguf,
  writeGguf,
  type CausalLM,
  type GgufInput,
  type GgufValue,
} from "@sloth/model"
import type { Exporter } from "./contract.ts"
import { interleaveRows } from "./effective-weights.ts"
import { bytesOnDisk, writeFile } from "./folder-writer.ts"
import { requireLora } from "./peft-exporter.ts"
import { refuseScoreHead } from "./score-head.ts"
import { adapterTensors, StoredTensors } from "./stored-tensors.ts"
import { allowedDifference, compareOpinions, opinionOf } from "./verify.ts"

/** Attaches a GGUF LoRA file to a model, frozen. Errors: SLOTH_ADAPTER_FILE. */
export const loadGgufLora = (model: CausalLM, path: string): void => {
  const table = readGguf(path)
  const alpha = ggufNumber(table.metadata, "adapter.lora.alpha")
  if (alpha === undefined)
    throw new SlothError("SLOTH_ADAPTER_FILE", {
      what: `${path} has no adapter.lora.alpha.`,
      next: "Give a GGUF file that holds a LoRA.",
      fields: { path },
    })
  const byName = new Map(table.tensors.map((t) => [t.name, t]))
  const file = readFileSync(path)
  const floats = (name: string): { values: Float32Array; shape: readonly number[] } | undefined => {
    const t = byName.get(name)
    if (t === undefined) return undefined
    byName.delete(name)
    if (t.dtype !== "F32")
      throw new SlothError("SLOTH_ADAPTER_FILE", {
        what: `${path} stores ${name} as ${t.dtype}; only F32 adapters can be loaded.`,
        next: "Convert the adapter with F32 output.",
        fields: { path, tensor: name },
      })
    return {
      values: new Float32Array(file.buffer.slice(file.byteOffset + t.offset, file.byteOffset + t.offset + t.bytes)),
      shape: t.shape,
    }
  }
  const { engine } = model
  for (const [stream, [name, layer]] of [...model.linears].entries()) {
    const mapped = ggufNameOf(model.family, model.config, `${name}.weight`)
    const a = mapped && floats(`${mapped.gguf}.lora_a`)
    const b = mapped && floats(`${mapped.gguf}.lora_b`)
    if (a === undefined || b === undefined) continue
    const rank = a.shape[0]!
    let rows = b.values
    const headDim = mapped!.permute === undefined ? undefined : layer.out / mapped!.permute.heads
    if (headDim !== undefined) {
      rows = new Float32Array(b.values.length)
      for (let r = 0; r < layer.out; r++)
        rows.set(
          b.values.subarray(interleavedRow(r, headDim) * rank, (interleavedRow(r, headDim) + 1) * rank),
          r * rank,
        )
    }
    const [at, bt] = [engine.unscoped([rank, layer.inner]), engine.unscoped([layer.out, rank])]
    at.write(a.values)
    bt.write(rows)
    layer.adapter = new Lora(at, bt, alpha / rank, 0, stream)
  }
  if (byName.size > 0)
    throw new SlothError("SLOTH_ADAPTER_FILE", {
      what: `${path} holds ${byName.size} tensors that fit no layer, the first is ${[...byName.keys()][0]}.`,
      next: "Use the base model the adapter was made for.",
      fields: { path },
    })
}

/** The adapter as a GGUF file that llama.cpp and Ollama apply to the base model at load time. */
export const ggufLoraExporter: Exporter<"gguf-lora"> = {
  name: "gguf-lora",
  description: "the adapter alone as a GGUF file, for llama.cpp --lora and Ollama ADAPTER",
  adapterOnly: true,
  extension: ".gguf",
  export: async (trained, to) => {
    const started = performance.now()
    const lora = requireLora(trained, "gguf-lora")
    const { model } = trained
    refuseScoreHead(model, "gguf-lora")
    if (lora.modulesToSave.length > 0)
      throw new SlothError("SLOTH_EXPORT_UNSUPPORTED", {
        what: "A GGUF adapter cannot hold the whole modules that this run trained (modulesToSave).",
        next: "Export the merged model with a gguf format.",
        fields: { modulesToSave: lora.modulesToSave },
      })
    const expected = await opinionOf(model, trained.texts)
    const architecture = model.family.toGguf(model.config).metadata.find(([k]) => k === "general.architecture")!
    // llama.cpp scales by alpha / rank; a rank-stabilized scale is written as the alpha that gives it.
    const alpha = lora.rankStabilized ? lora.alpha * Math.sqrt(lora.rank) : lora.alpha
    const metadata: (readonly [string, GgufValue])[] = [
      architecture,
      ["general.type", { type: "string", value: "adapter" }],
      ["adapter.type", { type: "string", value: "lora" }],
      ["adapter.lora.alpha", { type: "f32", value: alpha }],
    ]
    const tensors: GgufInput[] = []
    const stored = new StoredTensors()
    for (const [name, layer] of model.linears) {
      if (!(layer.adapter instanceof Lora)) continue
      const mapped = ggufNameOf(model.family, model.config, `${name}.weight`)!
      const { a, b } = layer.adapter
      const headDim = mapped.permute === undefined ? undefined : layer.out / mapped.permute.heads
      const read = (t: typeof a) => model.engine.backend.memory.read(t.handle, 0, t.size * 4)
      const noted = async (t: typeof a, side: string): Promise<Uint8Array> => {
        const bytes = await read(t)
        stored.note(`base_model.model.${name}.lora_${side}.weight`, "f32", bytes)
        return bytes
      }
      tensors.push({ name: `${mapped.gguf}.lora_a`, dtype: "F32", shape: a.shape, data: () => noted(a, "A") })
      tensors.push({
        name: `${mapped.gguf}.lora_b`,
        dtype: "F32",
        shape: b.shape,
        data: async () =>
          headDim === undefined ? noted(b, "B") : interleaveRows(await noted(b, "B"), layer.out, headDim),
      })
    }
    const verification = await writeFile(
      to,
      { extension: ".gguf", magic: "GGUF" },
      async (path) => void (await writeGguf(path, metadata, tensors)),
      async (path) => {
        using copy = trained.files.build(model.engine)
        loadGgufLora(copy, path)
        const equal = await stored.compare(to, copy, adapterTensors(copy))
        return compareOpinions(to, expected, await opinionOf(copy, trained.texts), allowedDifference("f32"), equal)
      },
    )
    return {
      format: "gguf-lora",
      path: to,
      bytes: bytesOnDisk(to),
      seconds: (performance.now() - started) / 1000,
      verification,
      hint: `llama-cli -m <base.gguf> --lora ${to}`,
    }
  },
}
