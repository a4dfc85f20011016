import type { CausalLM } from "@sloth/model"
import { buildMicroBatch, readLogprobs, splitUnits } from "@sloth/train"
import type { PreferenceExample, RatedExample } from "../data/examples.ts"
import { sum } from "../internal/math.ts"
import { completionsUnit, pick, type ScoredText } from "./completions-unit.ts"

/** Options of {@link precomputePairReferences} and {@link precomputeRatedReferences}. */
export interface PrecomputeOptions {
  /** Most tokens in a pass; 2048 when absent. */
  readonly tokenBudget?: number
  /** Runs the model with its adapters; without them when absent, as `reference: "base"` does. */
  readonly adapters?: boolean
  readonly signal?: AbortSignal
}

/** Summed log-probs (nats) of each completion of each row under the model, prompts shared, without gradients. */
const completionSums = async (
  model: CausalLM,
  rows: readonly (readonly ScoredText[])[],
  { tokenBudget = 2048, adapters = false, signal }: PrecomputeOptions,
): Promise<number[][]> => {
  const units = rows.map((texts, row) => completionsUnit(texts, row))
  const out: number[][] = rows.map(() => [])
  for (const indices of splitUnits(units, { tokenBudget, packing: true })) {
    signal?.throwIfAborted()
    const batch = buildMicroBatch(indices.map((i) => units[i]!))
    const { logprobs } = await readLogprobs(model, batch, { adapters })
    for (const [u, i] of indices.entries())
      out[i] = units[i]!.completions.map((positions) => sum(pick(logprobs, batch.starts[u]!, positions)))
  }
  return out
}

/** Adds the reference's log-probs to pairs, once, so that training with `reference: "row"` needs no pass of the reference. Any model may be the reference. */
export const precomputePairReferences = async (
  model: CausalLM,
  examples: readonly PreferenceExample[],
  options: PrecomputeOptions = {},
): Promise<PreferenceExample[]> => {
  const sums = await completionSums(
    model,
    examples.map(({ chosen, rejected }) => [chosen, rejected]),
    options,
  )
  return examples.map((example, i) => ({ ...example, reference: { chosen: sums[i]![0]!, rejected: sums[i]![1]! } }))
}

/** The same for rated completions. */
export const precomputeRatedReferences = async (
  model: CausalLM,
  examples: readonly RatedExample[],
  options: PrecomputeOptions = {},
): Promise<RatedExample[]> => {
  const sums = await completionSums(
    model,
    examples.map(({ text }) => [text]),
    options,
  )
  return examples.map((example, i) => ({ ...example, reference: sums[i]![0]! }))
}
