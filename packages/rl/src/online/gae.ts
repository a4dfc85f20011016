import { clamp, sum } from "../internal/math.ts"

/** Rewards of the tokens of a completion: minus the weighted KL divergence (old - reference) at each, plus the score at the last. */
export const tokenRewards = (score: number, kl: Float64Array, klCoef: number): Float64Array =>
  kl.map((x, t) => -klCoef * x + (t === kl.length - 1 ? score : 0))

/**
 * Generalised advantage estimation over the tokens of one completion, whose values are those before each token; nothing follows the last.
 * Source: Schulman et al. 2016, equation 16.
 */
export const generalisedAdvantages = (
  rewards: Float64Array,
  values: Float64Array,
  settings: { readonly gamma: number; readonly lambda: number },
): { readonly advantages: Float64Array; readonly returns: Float64Array } => {
  const { gamma, lambda } = settings
  const advantages = new Float64Array(rewards.length)
  let running = 0
  for (let t = rewards.length - 1; t >= 0; t--) {
    const delta = rewards[t]! + gamma * (values[t + 1] ?? 0) - values[t]!
    running = delta + gamma * lambda * running
    advantages[t] = running
  }
  return { advantages, returns: advantages.map((a, t) => a + values[t]!) }
}

/** Values of the tokens of one completion, for the loss of a value head. */
export interface ValueSequence {
  /** Under the head that is trained. */
  readonly values: Float64Array
  /** When the completion was sampled. */
  readonly old: Float64Array
  readonly returns: Float64Array
}

/**
 * PPO's clipped value loss over all tokens: half the mean of the larger of the squared errors with and without the value held near its old one. `tokens` is the
 * number of tokens in the whole step. Source: Schulman et al. 2017 in the form of TRL 1.10.
 */
export const valueLoss = (
  sequences: readonly ValueSequence[],
  clipRange: number,
  tokens: number,
): { readonly loss: number; readonly gradients: readonly Float64Array[]; readonly clipFraction: number } => {
  let clipped = 0
  let loss = 0
  const gradients = sequences.map(({ values, old, returns }) =>
    values.map((v, t) => {
      const held = clamp(v, old[t]! - clipRange, old[t]! + clipRange)
      const [plain, other] = [(v - returns[t]!) ** 2, (held - returns[t]!) ** 2]
      loss += (0.5 * Math.max(plain, other)) / tokens
      if (other > plain) clipped++
      // A held value has no slope, and where it is not held both errors are the same.
      return other > plain ? 0 : (v - returns[t]!) / tokens
    }),
  )
  return { loss, gradients, clipFraction: clipped / Math.max(1, tokens) }
}

/** KL divergence of a completion from its reference at each token (k1), and their sum. */
export const klPenalty = (
  old: Float64Array,
  reference: Float64Array,
): { readonly perToken: Float64Array; readonly total: number } => {
  const perToken = old.map((x, t) => x - reference[t]!)
  return { perToken, total: sum(perToken) }
}
