import * as Schema from "effect/Schema"
import { field } from "@sloth/core"
import type { Completion } from "@sloth/infer"

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

/** Flags of how the engine generates. */
export const engineFields = {
  kvCache: field
    .choice(["f32", "f16", "q8_0"], {
      description: "How keys and values of the text are kept: f32 is exact; f16 takes half the memory, q8_0 a quarter.",
    })
    .pipe(Schema.optionalKey),
  speculate: field
    .text({
      description:
        "Guesses tokens and checks several in one pass: lookup guesses what stood in the text before; a smaller model with the same tokenizer guesses what it would say.",
    })
    .pipe(Schema.optionalKey),
}

/** What a completion's cache took and how good its guesses were, in words. */
export const engineWords = (
  completion: Pick<Completion, "cacheBytes" | "speculation">,
  kvCache: string | undefined,
): string => {
  const kilobytes = completion.cacheBytes / 1e3
  const size = kilobytes < 1000 ? `${kilobytes.toFixed(0)} kB` : `${(kilobytes / 1e3).toFixed(1)} MB`
  const cache = `cache ${size}${kvCache === undefined ? "" : ` (${kvCache})`}`
  if (completion.speculation === undefined) return cache
  const { proposed, accepted } = completion.speculation
  return `${cache}, ${proposed === 0 ? "nothing to guess from" : `${accepted} of ${proposed} guesses right (${Math.round((100 * accepted) / proposed)} %)`}`
}
