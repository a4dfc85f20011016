import { clamp } from "../internal/math.ts"
import type { PolicyResult, PolicySequence } from "./policy-loss.ts"

/**
 * RLOO's loss over completions, as a part of a step with `rows` of them: the ratio of whole completions (the exponential of the sum over tokens, not of the mean), clipped.
 * Source: Ahmadian et al. 2024; as TRL 1.13.
 */
export const rlooLoss = (
  sequences: readonly PolicySequence[],
  settings: { readonly epsilon: number; readonly epsilonHigh: number },
  rows: number,
): PolicyResult => {
  const clipped = { low: new Float64Array(sequences.length), high: new Float64Array(sequences.length) }
  let [loss, low, high] = [0, 0, 0]
  const gradients = sequences.map(({ policy, old, mask, advantage }, i) => {
    const a = typeof advantage === "number" ? advantage : (advantage[0] ?? 0)
    const counts = (t: number): boolean => mask === undefined || mask[t] === 1
    let total = 0
    for (let t = 0; t < policy.length; t++) if (counts(t) && old !== undefined) total += policy[t]! - old[t]!
    const ratio = Math.exp(total)
    const held = clamp(ratio, 1 - settings.epsilon, 1 + settings.epsilonHigh)
    const isPlain = ratio * a <= held * a
    loss -= ((isPlain ? ratio : held) * a) / rows
    clipped.low[i] = ratio < 1 - settings.epsilon && a < 0 ? 1 : 0
    clipped.high[i] = ratio > 1 + settings.epsilonHigh && a > 0 ? 1 : 0
    low += clipped.low[i]! / rows
    high += clipped.high[i]! / rows
    const slope = isPlain || held === ratio ? (-a * ratio) / rows : 0
    return policy.map((_, t) => (counts(t) ? slope : 0))
  })
  return {
    loss,
    gradients,
    clipped,
    metrics: { "clip_ratio/low_mean": low, "clip_ratio/high_mean": high, "clip_ratio/region_mean": low + high },
  }
}
