import { SlothError, type Reward } from "@sloth/core"
import { innerScores } from "../internal/inner-scores.ts"
import { defineReward, type DefinedReward } from "./define-reward.ts"

interface Named {
  readonly name?: string
  readonly weight?: number
}

const positive = (name: string, value: number, what: string): void => {
  if (Number.isInteger(value) && value > 0) return
  throw new SlothError("SLOTH_REWARD_DEFINITION", {
    what: `${name}: ${what} is ${value}.`,
    next: "Give a whole number of tokens above 0.",
    fields: { name, [what]: value },
  })
}

/** 1 for completions of `min` to `max` tokens, falling to 0 at no token and at twice `max`. */
export const lengthWithin = (
  options: Named & {
    /** Fewest tokens; 0 when absent. */
    readonly min?: number
    /** Most tokens. */
    readonly max: number
  },
): DefinedReward => {
  const { name = "length", weight, min = 0, max } = options
  positive(name, max, "max")
  return defineReward({
    name,
    weight,
    each: ({ completionTokens: { length } }) =>
      length < min ? length / min : length > max ? Math.max(0, 1 - (length - max) / max) : 1,
  })
}

/** 0 up to `maxLength - cache` tokens, falling to -1 at `maxLength` and -1 beyond. Source: Yu et al. 2025 (DAPO), equation 13. */
export const softOverlong = (
  options: Named & {
    /** Tokens. */
    readonly maxLength: number
    /** Tokens before the limit at which the penalty starts. */
    readonly cache: number
  },
): DefinedReward => {
  const { name = "soft_overlong", weight, maxLength, cache } = options
  positive(name, maxLength, "maxLength")
  positive(name, cache, "cache")
  return defineReward({
    name,
    weight,
    each: ({ completionTokens: { length } }) =>
      length <= maxLength - cache ? 0 : length <= maxLength ? (maxLength - cache - length) / cache : -1,
  })
}

/** Takes off up to `penalty` by the share of n-grams of tokens that repeat an earlier one; completions shorter than `n` have 0. Source: TRL 1.13, `get_repetition_penalty_reward`. */
export const repetitionPenalty = (
  options: Named & {
    /** Tokens of an n-gram; 3 when absent. */
    readonly n?: number
    /** Score when everything repeats, negative; -1 when absent. */
    readonly penalty?: number
  } = {},
): DefinedReward => {
  const { name = "repetition", weight, n = 3, penalty = -1 } = options
  positive(name, n, "n")
  return defineReward({
    name,
    weight,
    each: ({ completionTokens }) => {
      const total = completionTokens.length - n + 1
      if (total < 1) return 0
      const seen = new Set<string>()
      for (let t = 0; t < total; t++) seen.add(completionTokens.slice(t, t + n).join(" "))
      return (1 - seen.size / total) * penalty
    },
  })
}

/**
 * Scores right answers higher when they are short and wrong ones lower when they are short, along a cosine. What `reward` scores above 0.5 is right; its null stays null.
 * Source: Yeo et al. 2025; as TRL 1.13, `get_cosine_scaled_reward`.
 */
export const cosineScaled = (
  reward: Reward,
  options: Named & {
    /** Tokens. */
    readonly maxLength: number
    /** Scores of right answers at `maxLength` and at no length; [0.5, 1] when absent. */
    readonly right?: readonly [long: number, short: number]
    /** Scores of wrong answers at `maxLength` and at no length; [-0.5, -1] when absent. */
    readonly wrong?: readonly [long: number, short: number]
  },
): DefinedReward => {
  const { name = `cosine_${reward.name}`, weight, maxLength, right = [0.5, 1], wrong = [-0.5, -1] } = options
  positive(name, maxLength, "maxLength")
  return defineReward({
    name,
    weight,
    score: async (samples, context) => {
      const [scores] = await innerScores([reward], samples, context)
      return scores!.map((score, i) => {
        if (score === null) return null
        const [long, short] = score > 0.5 ? right : wrong
        const progress = Math.min(1, samples[i]!.completionTokens.length / maxLength)
        return long + 0.5 * (short - long) * (1 + Math.cos(Math.PI * progress))
      })
    },
  })
}
