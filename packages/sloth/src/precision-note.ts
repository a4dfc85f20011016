import type { CausalLM } from "@sloth/model"

/** Formats whose products with int8 activations are made of integers. */
const INTEGER: readonly string[] = ["q4_0", "q4_1", "q8_0"]

/** What a precision means for the products of a model. */
export interface PrecisionNote {
  readonly text: string
  /** True where matrices are left out of the precision that was asked for. */
  readonly partial: boolean
}

/** Says which matrices of a model are multiplied with `int8` activations and which keep exact f32 products; undefined for the other precisions. */
export const precisionNote = (model: CausalLM): PrecisionNote | undefined => {
  if (model.engine.backend.device.precision !== "int8") return undefined
  const untied = model.weights.has("lm_head.weight")
  const matrices = [...model.weights.values()].filter(
    // A table of embeddings that is not the output layer too is looked up, not multiplied.
    ({ name, shape }) => shape.length === 2 && !(untied && name.includes("embed_tokens")),
  )
  const exact = new Map<string, number>()
  for (const { tensor } of matrices)
    if (!INTEGER.includes(tensor.dtype)) exact.set(tensor.dtype, (exact.get(tensor.dtype) ?? 0) + 1)
  const left = [...exact.values()].reduce((a, b) => a + b, 0)
  const text =
    left === 0
      ? `precision int8: all ${matrices.length} matrices are multiplied with int8 activations; attention, norms and adapters are f32.`
      : `precision int8: ${matrices.length - left} of ${matrices.length} matrices are multiplied with int8 activations; the others have exact f32 products (${[
          ...exact,
        ]
          .map(([format, n]) => `${n} in ${format}`)
          .join(", ")}), because only Q4_0, Q4_1 and Q8_0 can take part.`
  return { text, partial: left > 0 }
}
