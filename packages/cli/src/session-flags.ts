import * as Schema from "effect/Schema"
import { field } from "@sloth/core"

/** Flags of every command that works with models. */
export const SessionFlagsSchema = Schema.Struct({
  config: field
    .text({ description: "Configuration file; sloth.config.* of this folder or one above it when absent." })
    .pipe(Schema.optionalKey),
  plugin: field
    .list(Schema.String, { description: "A plugin to load, by package name or path; may be repeated." })
    .pipe(Schema.optionalKey),
  backend: field
    .text({ description: "Backend to compute on; the best that can run here when absent." })
    .pipe(Schema.optionalKey),
  isa: field.text({ description: "Forces an instruction set: avx512, avx2, x86-64, neon." }).pipe(Schema.optionalKey),
  threads: field
    .int({ description: "Threads of the backend; all cores when absent. Results do not depend on it.", min: 1 })
    .pipe(Schema.optionalKey),
  memoryBudget: field
    .int({ description: "Memory the backend may take.", unit: "bytes", min: 1 })
    .pipe(Schema.optionalKey),
  precision: field
    .choice(["f32", "bf16", "int8"], {
      description:
        "Precision of the large products: f32 when absent; bf16 rounds operands, int8 the activations that meet Q4_0, Q4_1 and Q8_0 weights (not for training).",
    })
    .pipe(Schema.optionalKey),
  offline: field.boolean({ description: "Download nothing; use what is in the cache." }).pipe(Schema.optionalKey),
})

/** `--model`, which most commands need. */
export const modelField = field.text({
  description: "Model: a hub id org/name[@revision], a folder of safetensors, a .gguf file, a run folder, or nano.",
})

/** `--adapter`. */
export const adapterField = field.text({ description: "Folder of a PEFT adapter to put on the model." })

/** `--json`. */
export const jsonField = field.boolean({ description: "Print the result as JSON on stdout." })
