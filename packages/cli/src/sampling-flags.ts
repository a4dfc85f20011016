import * as Schema from "effect/Schema"
import { field } from "@sloth/core"

/** Flags of everything that generates; defaults are those of `@sloth/infer`. */
export const samplingFields = {
  maxTokens: field
    .int({ description: "Most tokens to generate; 256 when absent.", unit: "tokens", min: 1 })
    .pipe(Schema.optionalKey),
  temperature: field
    .number({
      description: "0 takes the likeliest token each time; higher values take more chances.",
      min: 0,
      max: 100,
    })
    .pipe(Schema.optionalKey),
  topK: field.int({ description: "Draw from the k likeliest tokens; 0 means all.", min: 0 }).pipe(Schema.optionalKey),
  topP: field
    .number({
      description: "Draw from the smallest set of likeliest tokens whose probabilities reach this; 1 means all.",
      min: 0,
      max: 1,
    })
    .pipe(Schema.optionalKey),
  minP: field
    .number({
      description: "Draw from tokens at least this fraction as likely as the likeliest; 0 means all.",
      min: 0,
      max: 1,
    })
    .pipe(Schema.optionalKey),
  repetitionPenalty: field
    .number({ description: "Above 1 makes tokens that were already there less likely.", min: 0.01, max: 100 })
    .pipe(Schema.optionalKey),
  seed: field
    .int({ description: "Equal seeds give equal completions.", min: 0, max: Number.MAX_SAFE_INTEGER })
    .pipe(Schema.optionalKey),
  stop: field
    .list(Schema.String, { description: "Text that ends the completion; may be repeated." })
    .pipe(Schema.optionalKey),
}
