import type { Example } from "@sloth/data"
import type { Objective, TrainingUnit } from "./objective.ts"

/**
 * One text as a unit. `scored(t)` says whether token t is learnt; the first never is, because nothing precedes it. Rows after the last one that predicts something
 * are left out: causal attention makes that exact. Undefined where nothing is scored.
 */
export const unitFromTokens = (
  tokens: Int32Array,
  scored: (t: number) => boolean,
  row: number,
): TrainingUnit | undefined => {
  const rows: number[] = []
  for (let t = 1; t < tokens.length; t++) if (scored(t)) rows.push(t - 1)
  const last = rows.at(-1)
  if (last === undefined) return undefined
  return {
    tokens: tokens.subarray(0, last + 1),
    segments: [{ length: last + 1, parent: null }],
    scoredRows: Int32Array.from(rows),
    targets: Int32Array.from(rows, (r) => tokens[r + 1]!),
    sourceTokens: tokens.length,
    row,
  }
}

/** One data example as a unit, scored where its mask says. */
export const unitFromExample = (example: Example): TrainingUnit | undefined =>
  unitFromTokens(example.tokens, (t) => example.mask[t] === 1, example.row)

/** Supervised fine-tuning: mean cross-entropy over the scored tokens of the step. */
export const sft: Objective<Example> = {
  name: "sft",
  prepare: (rows) => rows.flatMap((example) => unitFromExample(example) ?? []),
  loss: () => ({ kind: "cross-entropy" }),
}

/** Continued pretraining: every token of every row is learnt, whatever its mask. */
export const pretraining: Objective<Example> = {
  name: "pretrain",
  prepare: (rows) => rows.flatMap((example) => unitFromTokens(example.tokens, () => true, example.row) ?? []),
  loss: () => ({ kind: "cross-entropy" }),
}
