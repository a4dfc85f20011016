import { scoreTexts, type ScoreTextsOptions, type ScoringModel } from "../reward-model/score-texts.ts"
import { defineReward, type DefinedReward } from "./define-reward.ts"

/** Options of {@link rewardModelScorer}. */
export interface RewardModelOptions extends Omit<ScoreTextsOptions, "signal"> {
  /** Its name in events and samples; "reward_model" when absent. */
  readonly name?: string
  /** Factor in the sum of rewards; 1 when absent. */
  readonly weight?: number
}

/**
 * A reward that is the score of a reward model, such as one that the method `reward` trained and `sloth.open` opened. A completion without text has no score.
 * Errors, when it scores: those of {@link scoreTexts}.
 */
export const rewardModelScorer = (judge: ScoringModel, options: RewardModelOptions = {}): DefinedReward => {
  const { name = "reward_model", weight, ...how } = options
  return defineReward({
    name,
    ...(weight === undefined ? {} : { weight }),
    score: async (samples, { signal }) => {
      const spoken = samples.flatMap(({ completion }, i) => (completion === "" ? [] : [i]))
      const out: (number | null)[] = samples.map(() => null)
      if (spoken.length === 0) return out
      const scores = await scoreTexts(
        judge,
        spoken.map((i) => samples[i]!),
        { ...how, signal },
      )
      for (const [k, i] of spoken.entries()) out[i] = scores[k]!
      return out
    },
  })
}
