import * as Schema from "effect/Schema"
import { field } from "@sloth/core"

/** Flags of commands that read rows without training on them. */
export const rowFields = {
  mask: field
    .choice(["assistant", "last-assistant", "all"], {
      description:
        "Which tokens of a conversation count: all answers, the last answer, or everything. assistant when absent.",
    })
    .pipe(Schema.optionalKey),
  maxLength: field
    .int({ description: "Longest row, the rest is cut off; the model's context when absent.", unit: "tokens", min: 2 })
    .pipe(Schema.optionalKey),
}
