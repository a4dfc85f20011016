import { SlothError } from "@sloth/core"
import { loadPeftAdapter, savePeftAdapter } from "@sloth/model"
import type { Exporter, TrainedModel } from "./contract.ts"
import { bytesOnDisk, writeFolder } from "./folder-writer.ts"
import { adapterTensors, StoredTensors } from "./stored-tensors.ts"
import { allowedDifference, compareOpinions, opinionOf } from "./verify.ts"

/** The LoRA of a model. Errors: SLOTH_EXPORT_NO_ADAPTER. */
export const requireLora = (trained: TrainedModel, format: string): NonNullable<TrainedModel["lora"]> => {
  if (trained.lora === undefined)
    throw new SlothError("SLOTH_EXPORT_NO_ADAPTER", {
      what: `The format "${format}" writes an adapter, but this model has none.`,
      why: "It was fully fine-tuned, or is a base model.",
      next: "Export it as safetensors or gguf.",
      fields: { format },
    })
  return trained.lora
}

/** adapter_config.json and adapter_model.safetensors, as PEFT, vLLM and SGLang load them. */
export const peftExporter: Exporter<"peft"> = {
  name: "peft",
  description: "the adapter alone, for PEFT, vLLM and transformers",
  adapterOnly: true,
  extension: "",
  export: async (trained, to) => {
    const started = performance.now()
    const lora = requireLora(trained, "peft")
    const expected = await opinionOf(trained.model, trained.texts)
    const verification = await writeFolder(
      to,
      "adapter_config.json",
      (folder) => savePeftAdapter(trained.model, folder, lora, trained.base),
      async (folder) => {
        using copy = trained.files.build(trained.model.engine)
        loadPeftAdapter(copy, folder)
        const stored = new StoredTensors()
        for (const [name, tensor] of adapterTensors(trained.model))
          stored.note(name, "f32", await trained.model.engine.backend.memory.read(tensor.handle, 0, tensor.size * 4))
        const equal = await stored.compare(to, copy, adapterTensors(copy))
        return compareOpinions(to, expected, await opinionOf(copy, trained.texts), allowedDifference("f32"), equal)
      },
    )
    return {
      format: "peft",
      path: to,
      bytes: bytesOnDisk(to),
      seconds: (performance.now() - started) / 1000,
      verification,
      hint: `sloth chat --model <base> --adapter ${to}`,
    }
  },
}
