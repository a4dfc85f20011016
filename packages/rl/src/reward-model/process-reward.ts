import * as Schema from "effect/Schema"
import { field, withDefault } from "@sloth/core"
import type { TrainingUnit, ValueLoss } from "@sloth/train"
import type { StepsExample } from "../data/examples.ts"
import { rowObjective } from "../data/open.ts"
import { openSteps } from "../data/steps.ts"
import { logSigmoid, sigmoid } from "../internal/math.ts"

/** Settings of a process reward model. */
export const ProcessRewardSettingsSchema = Schema.Struct({
  lastStepOnly: field
    .boolean({
      description: "Learn only whether the last step of a solution is right.",
      aka: ["train_on_last_step_only"],
    })
    .pipe(withDefault(false)),
})

/**
 * The loss of a process reward model: the mean over the `steps` rated steps of an optimizer step of -log p(label), where p(right) = sigmoid(score). That is the
 * cross-entropy of a classifier with two classes, whose logits count only by their difference. Source: Lightman et al. 2023; as TRL 1.13, `PRMTrainer`.
 */
export const processRewardLoss = (
  scores: ArrayLike<number>,
  labels: readonly boolean[],
  steps: number,
): {
  readonly loss: number
  readonly gradients: Float64Array
  readonly metrics: Readonly<Record<string, number>>
} => {
  let loss = 0
  let right = 0
  const gradients = new Float64Array(labels.length)
  for (const [i, label] of labels.entries()) {
    const z = (label ? 1 : -1) * scores[i]!
    loss -= logSigmoid(z) / steps
    right += z > 0 ? 1 : 0
    gradients[i] = ((label ? -1 : 1) * sigmoid(-z)) / steps
  }
  const total = Array.from(labels, (label, i) => (label ? scores[i]! : -scores[i]!)).reduce((n, z) => n + z, 0)
  return {
    loss,
    gradients,
    metrics: {
      "steps/accuracies": right / steps,
      "steps/margins": total / steps,
      "steps/good": labels.filter(Boolean).length / steps,
    },
  }
}

/** A solution that is judged at the last token of its steps. */
export interface StepsUnit extends TrainingUnit {
  /** One a scored position. */
  readonly labels: readonly boolean[]
}

/** A solution as a unit; with `lastOnly` only its last step counts. */
export const stepsUnit = ({ tokens, ends, labels, row }: StepsExample, lastOnly: boolean): StepsUnit => {
  const rows = lastOnly ? ends.subarray(ends.length - 1) : ends
  const length = rows.at(-1)! + 1
  return {
    tokens: tokens.subarray(0, length),
    segments: [{ length, parent: null }],
    scoredRows: Int32Array.from(rows),
    targets: new Int32Array(rows.length),
    sourceTokens: tokens.length,
    row,
    labels: labels.slice(labels.length - rows.length),
  }
}

/** A process reward model: a scalar head that says after each step of a solution whether it is right. Source: Lightman et al. 2023; TRL 1.13, `PRMTrainer`. */
export const processReward = rowObjective<StepsExample, StepsUnit>()({
  name: "prm",
  config: ProcessRewardSettingsSchema,
  open: openSteps,
  prepare: (rows, { settings }) =>
    rows.map((row) => stepsUnit(row, (settings as typeof ProcessRewardSettingsSchema.Type).lastStepOnly)),
  loss: (): ValueLoss<StepsUnit> => ({
    kind: "values",
    compute: ({ units, values, normaliser }) => {
      const { loss, gradients, metrics } = processRewardLoss(
        values,
        units.flatMap(({ labels }) => labels),
        normaliser,
      )
      return { loss, dvalues: gradients, metrics }
    },
  }),
})
