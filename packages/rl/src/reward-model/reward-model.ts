import * as Schema from "effect/Schema"
import { field, withDefault } from "@sloth/core"
import type { TrainingUnit, ValueLoss } from "@sloth/train"
import type { PreferenceExample } from "../data/examples.ts"
import { openPreferences, rowObjective } from "../data/open.ts"
import { logSigmoid, sigmoid } from "../internal/math.ts"

/** Settings of a reward model. */
export const RewardModelSettingsSchema = Schema.Struct({
  centring: field
    .number({
      description: "Weight of the squared sum of a pair's rewards, which keeps rewards around 0.",
      min: 0,
      aka: ["center_rewards_coefficient"],
    })
    .pipe(withDefault(0)),
})

/** Decoded {@link RewardModelSettingsSchema}. */
export type RewardModelSettings = typeof RewardModelSettingsSchema.Type

/** Rewards of a pair. */
export interface RewardPair {
  readonly chosen: number
  readonly rejected: number
  /** By how much the chosen one should be the better one. */
  readonly margin: number
}

/**
 * The loss of a reward model over pairs, as a part of a step of `rows` pairs: the mean of -log sigmoid(chosen - rejected - margin) + centring · (chosen + rejected)²,
 * with its derivatives. Source: Bradley & Terry 1952; Touvron et al. 2023 (margin); Eisenstein et al. 2023 (centring); as TRL 1.13, `RewardTrainer`.
 */
export const rewardModelLoss = (
  pairs: readonly RewardPair[],
  { centring }: RewardModelSettings,
  rows: number,
): {
  readonly loss: number
  readonly gradients: readonly { readonly chosen: number; readonly rejected: number }[]
  readonly metrics: Readonly<Record<string, number>>
} => {
  let loss = 0
  const metrics = {
    "rewards/chosen": 0,
    "rewards/rejected": 0,
    "rewards/accuracies": 0,
    "rewards/margins": 0,
    "rewards/mean": 0,
  }
  const gradients = pairs.map(({ chosen, rejected, margin }) => {
    const z = chosen - rejected - margin
    const sum = chosen + rejected
    loss += (-logSigmoid(z) + centring * sum * sum) / rows
    metrics["rewards/chosen"] += chosen / rows
    metrics["rewards/rejected"] += rejected / rows
    metrics["rewards/accuracies"] += (chosen > rejected ? 1 : 0) / rows
    metrics["rewards/margins"] += (chosen - rejected) / rows
    metrics["rewards/mean"] += sum / 2 / rows
    const [apart, together] = [-sigmoid(-z), 2 * centring * sum]
    return { chosen: (apart + together) / rows, rejected: (-apart + together) / rows }
  })
  return { loss, gradients, metrics }
}

/** A pair that is judged at the last token of each text: positions 0 (chosen) and 1 (rejected). */
export interface RewardUnit extends TrainingUnit {
  readonly margin: number
}

/** A pair of whole texts as a forest that shares its beginning, read at the last token of each. */
export const rewardUnit = ({ chosen, rejected, margin = 0, row }: PreferenceExample): RewardUnit => {
  const texts = [chosen.tokens, rejected.tokens] as const
  // Each text keeps a row of its own to be read at.
  const most = Math.min(...texts.map(({ length }) => length)) - 1
  let shared = 0
  while (shared < most && texts[0][shared] === texts[1][shared]) shared++
  const tails = texts.map((tokens) => tokens.subarray(shared))
  const parent = shared > 0 ? 0 : null
  const tokens = new Int32Array(shared + tails[0]!.length + tails[1]!.length)
  tokens.set(texts[0])
  tokens.set(tails[1]!, texts[0].length)
  return {
    tokens,
    segments: [
      ...(shared > 0 ? [{ length: shared, parent: null }] : []),
      ...tails.map(({ length }) => ({ length, parent })),
    ],
    scoredRows: Int32Array.of(texts[0].length - 1, tokens.length - 1),
    // Nothing is predicted; the head reads the row.
    targets: new Int32Array(2),
    sourceTokens: texts[0].length + texts[1].length,
    row,
    margin,
  }
}

/**
 * A reward model: a scalar head that scores whole texts, learnt from pairs. A text is judged at its last token, so one that is too long is left out and never cut.
 * Source: Ouyang et al. 2022; TRL 1.13, `RewardTrainer`.
 */
export const rewardModel = rowObjective<PreferenceExample, RewardUnit>()({
  name: "reward",
  config: RewardModelSettingsSchema,
  open: (source, options) => openPreferences(source, { ...options, overlong: "drop" }),
  prepare: (rows) => rows.map(rewardUnit),
  loss: (settings): ValueLoss<RewardUnit> => ({
    kind: "values",
    size: () => 1,
    compute: ({ units, starts, values, normaliser }) => {
      const pairs = units.map(({ margin }, u) => ({
        chosen: values[starts[u]!]!,
        rejected: values[starts[u]! + 1]!,
        margin,
      }))
      const { loss, gradients, metrics } = rewardModelLoss(pairs, settings as RewardModelSettings, normaliser)
      const dvalues = Float64Array.from(gradients.flatMap(({ chosen, rejected }) => [chosen, rejected]))
      return { loss, dvalues, metrics }
    },
  }),
})
