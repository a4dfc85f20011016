import { SlothError } from "@sloth/core"
import type { CausalLM } from "@sloth/model"

/** Refuses a reward model where the format has no place for its score head. Errors: SLOTH_EXPORT_UNSUPPORTED. */
export const refuseScoreHead = (model: CausalLM, format: string): void => {
  if (!model.hasScoreHead) return
  throw new SlothError("SLOTH_EXPORT_UNSUPPORTED", {
    what: `The format "${format}" has no place for the score head of a reward model.`,
    next: "Export it as safetensors (a sequence classifier of transformers) or as peft.",
    fields: { format },
  })
}
