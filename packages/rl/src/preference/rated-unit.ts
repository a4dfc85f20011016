import type { LogprobBatch } from "@sloth/train"
import type { RatedExample } from "../data/examples.ts"
import { packCounts, unpackCounts } from "../internal/counts.ts"
import { sum } from "../internal/math.ts"
import { completionLogprobs, completionsUnit, type CompletionsUnit, type ScoredText } from "./completions-unit.ts"

/** A rated completion as a unit; a second completion, where there is one, is that of another prompt, for KTO's estimate of the KL divergence. */
export interface RatedUnit extends CompletionsUnit {
  readonly desirable: boolean
  /** Summed log-prob of the completion under the reference, nats, where the row brings it. */
  readonly referenceSum?: number
}

/** Log-probs of a rated completion, nats. */
export interface RatedLogprobs {
  readonly policy: Float64Array
  /** Of each token under the reference, or their sum. */
  readonly reference: Float64Array | number
  readonly desirable: boolean
}

/** What a loss over rated completions gives. */
export interface RatedResult {
  readonly loss: number
  /** d loss / d log-prob, the same for every token of a completion. */
  readonly gradients: Float64Array
  readonly metrics: Readonly<Record<string, number>>
}

/** One prompt with the completion of another row. */
const mismatch = (own: ScoredText, other: ScoredText): ScoredText => {
  const prompt = own.scored.indexOf(1)
  const start = other.scored.indexOf(1)
  const tokens = new Int32Array(prompt + other.tokens.length - start)
  const scored = new Uint8Array(tokens.length)
  tokens.set(own.tokens.subarray(0, prompt))
  tokens.set(other.tokens.subarray(start), prompt)
  scored.set(other.scored.subarray(start), prompt)
  return { tokens, scored }
}

const extras = (example: RatedExample): Pick<RatedUnit, "desirable" | "referenceSum"> => ({
  desirable: example.desirable,
  ...(example.reference === undefined ? {} : { referenceSum: example.reference }),
})

/** Rated rows as units, each alone. */
export const ratedUnits = (examples: readonly RatedExample[]): RatedUnit[] =>
  examples.map((example) => ({ ...completionsUnit([example.text], example.row), ...extras(example) }))

/**
 * Rated rows as units that share their prompt with the completion of the row before, the first of each block with that of the block's last row. Source: the rotation
 * within a batch of TRL 1.13, `KTOTrainer`.
 */
export const mismatchedUnits = (examples: readonly RatedExample[], block: number): RatedUnit[] =>
  examples.map((example, i) => {
    const first = i - (i % block)
    const last = Math.min(first + block, examples.length) - 1
    const other = examples[i === first ? last : i - 1]!
    return {
      ...completionsUnit([example.text, mismatch(example.text, other.text)], example.row),
      ...extras(example),
    }
  })

/** Rows of a step, and how many of them are desirable. */
export interface RatedCounts {
  readonly rows: number
  readonly desirable: number
}

/** The counts of a unit as the one number that the trainer adds up. */
export const ratedSize = (unit: RatedUnit): number => packCounts(1, unit.desirable ? 1 : 0)

/** The counts of a step. */
export const ratedCounts = (normaliser: number): RatedCounts => {
  const { rows, tokens: desirable } = unpackCounts(normaliser)
  return { rows, desirable }
}

/** Sum of a completion's log-probs, and of log policy - log reference. */
export const ratedSums = ({
  policy,
  reference,
}: RatedLogprobs): { readonly policy: number; readonly ratio: number } => {
  const total = sum(policy)
  return { policy: total, ratio: total - (typeof reference === "number" ? reference : sum(reference)) }
}

/** Means over the desirable and over the other rows of a step, as parts that add up. */
export const ratedMetrics = (
  rows: readonly RatedLogprobs[],
  sums: readonly { readonly policy: number; readonly ratio: number }[],
  beta: number,
  counts: RatedCounts,
): Record<string, number> => {
  const out: Record<string, number> = {}
  for (const [side, count] of [
    ["chosen", counts.desirable],
    ["rejected", counts.rows - counts.desirable],
  ] as const) {
    if (count === 0) continue
    const mine = sums.filter((_, i) => rows[i]!.desirable === (side === "chosen"))
    out[`rewards/${side}`] = mine.reduce((n, { ratio }) => n + beta * ratio, 0) / count
    out[`logps/${side}`] = mine.reduce((n, { policy }) => n + policy, 0) / count
  }
  if (out["rewards/chosen"] !== undefined && out["rewards/rejected"] !== undefined)
    out["rewards/margins"] = out["rewards/chosen"] - out["rewards/rejected"]
  return out
}

/** Log-probs of the rated completions of a micro-batch; a sum that the row brings goes before the batch's reference. */
export const ratedLogprobs = (batch: LogprobBatch<RatedUnit>, fromRow: boolean): RatedLogprobs[] =>
  completionLogprobs(batch, 0).map(({ policy, reference }, u) => ({
    policy,
    reference: fromRow ? batch.units[u]!.referenceSum! : reference!,
    desirable: batch.units[u]!.desirable,
  }))
