import { SlothError } from "@sloth/core"
import type { LogprobBatch, TrainingUnit } from "@sloth/train"

/** Rows and tokens that the means of a step are taken over. */
export interface StepCounts {
  /** Pairs, or rated completions. */
  readonly rows: number
  /** Tokens of a token mean: those of the completions to be learnt. */
  readonly tokens: number
}

// A step has one normaliser, a double, and several of these losses take two kinds of mean. Tokens stand in the low 32 bits: sums of packed counts are packed sums
// exactly, up to 4 billion tokens and 2 million rows.
const ROW = 2 ** 32

/** Both counts of a unit as the one number that the trainer adds up. */
export const packCounts = (rows: number, tokens: number): number => rows * ROW + tokens

/** The counts of a whole step, from the sum of its units. */
export const unpackCounts = (normaliser: number): StepCounts => {
  const rows = Math.floor(normaliser / ROW)
  return { rows, tokens: normaliser - rows * ROW }
}

/**
 * Checks that a micro-batch is the whole optimizer step, for losses that compare rows with each other. An evaluation (step 0) compares within its own batches.
 * Errors: SLOTH_RL_STEP_SPLIT.
 */
export const requireWholeStep = <Unit extends TrainingUnit>(
  batch: LogprobBatch<Unit>,
  size: (unit: Unit) => number,
  name: string,
): void => {
  if (batch.step === 0) return
  const here = batch.units.reduce((n, unit) => n + size(unit), 0)
  if (here === batch.normaliser) return
  const tokens = batch.units.reduce((n, unit) => n + unit.tokens.length, 0)
  throw new SlothError("SLOTH_RL_STEP_SPLIT", {
    what: `${name} compares all rows of an optimizer step with each other, but the step does not fit into one micro-batch.`,
    why: `This micro-batch has ${batch.units.length} of ${unpackCounts(batch.normaliser).rows} rows and ${tokens} tokens.`,
    next: "Raise tokenBudget above the tokens of a step and leave packing on, or lower batch or maxLength.",
    fields: { rows: batch.units.length, stepRows: unpackCounts(batch.normaliser).rows, tokens },
  })
}
