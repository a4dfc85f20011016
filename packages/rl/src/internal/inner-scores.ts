import { SlothError, type Reward, type RewardSample } from "@sloth/core"
import type { DefinedReward, RewardContext } from "../rewards/define-reward.ts"

/** One score a completion, null where there is none. */
export type Scores = readonly (number | null)[]

/**
 * Scores of rewards inside another one, checked before they are combined: a sum or a comparison would hide what is wrong with them.
 * Errors: SLOTH_REWARD_LENGTH, SLOTH_REWARD_NOT_A_NUMBER, SLOTH_JUDGE_PAIRS.
 */
export const innerScores = (
  rewards: readonly Reward[],
  samples: readonly RewardSample[],
  context: RewardContext,
): Promise<Scores[]> =>
  Promise.all(
    rewards.map(async (reward): Promise<Scores> => {
      if (reward.pairs === true)
        throw new SlothError("SLOTH_JUDGE_PAIRS", {
          what: `The judge "${reward.name}" says which of two completions is the better one: that is no score to combine.`,
          next: "Use it alone, or a judge that scores one completion: llmJudge.",
          fields: { judge: reward.name },
        })
      const scores: Scores = await (reward as DefinedReward).score(samples, context)
      if (!Array.isArray(scores) || scores.length !== samples.length)
        throw new SlothError("SLOTH_REWARD_LENGTH", {
          what: `The reward "${reward.name}" gave ${Array.isArray(scores) ? scores.length : "no list of"} scores for ${samples.length} completions.`,
          next: "It must return one number, or null, a completion, in order.",
          fields: { reward: reward.name, completions: samples.length },
        })
      const wrong = scores.findIndex((score) => score !== null && !Number.isFinite(score))
      if (wrong >= 0)
        throw new SlothError("SLOTH_REWARD_NOT_A_NUMBER", {
          what: `The reward "${reward.name}" gave ${String(scores[wrong])} for completion ${wrong}.`,
          next: "Return a finite number, or null where there is nothing to say.",
          fields: { reward: reward.name, samples: [wrong] },
        })
      return scores
    }),
  )
