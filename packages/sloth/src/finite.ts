import { SlothError } from "@sloth/core"
import type { OpenedModel } from "./opened-model.ts"

/**
 * Refuses numbers of a model that are not finite: an answer made of them would look like one.
 * Errors: SLOTH_MODEL_NAN, naming the first weight or adapter tensor that is bad, where it is one.
 */
export const requireFinite = async (opened: OpenedModel, values: Iterable<number | null>): Promise<void> => {
  let fine = true
  for (const value of values) if (value !== null && Number.isNaN(value)) fine = false
  if (fine) return
  const { firstNonFinite, firstNonFiniteFrozen } = await import("@sloth/train")
  const { model } = opened
  const trained = model.trainables()
  const bad =
    (await firstNonFiniteFrozen(model)) ??
    (await firstNonFinite(model, trained).then((name) => (name === undefined ? undefined : { kind: "adapter", name })))
  throw new SlothError("SLOTH_MODEL_NAN", {
    what: `The model gives numbers that are not finite${bad === undefined ? "." : `: its ${bad.kind} ${bad.name} holds one.`}`,
    why:
      bad === undefined
        ? "All its weights are finite; activations grew out of range."
        : "The file is damaged or was made from a failed run.",
    next: bad === undefined ? "Use another model or another prompt." : "Fetch the file again, or use another.",
    fields: { model: opened.source.base, ...(bad === undefined ? {} : { tensor: `${bad.kind} ${bad.name}` }) },
  })
}
