import { sum } from "../internal/math.ts"
import { hinge, smoothedSigmoid } from "./dpo-losses.ts"

/** Forms of a preference loss without a reference. */
export type ReferenceFreeLoss = "sigmoid" | "hinge" | "ipo" | "simpo"

/** Settings of {@link referenceFreePair}. */
export interface ReferenceFreeSettings {
  readonly loss: ReferenceFreeLoss
  readonly beta: number
  readonly labelSmoothing: number
  /** Margin that `simpo` asks for, in units of beta · log-prob. */
  readonly gamma: number
  /** Curvature of AlphaPO's rewards; 0 leaves log-probs as they are. */
  readonly alpha: number
}

/** AlphaPO's reward of a probability e^x, (1 - e^(-alpha x)) / alpha, with its slope. Source: Gupta et al. 2025. */
const alphaReward = (x: number, alpha: number): readonly [number, number] =>
  alpha === 0 ? [x, 1] : [-Math.expm1(-alpha * x) / alpha, Math.exp(-alpha * x)]

/** True for the losses that take means over tokens in place of sums. */
export const isPerToken = (loss: ReferenceFreeLoss): boolean => loss === "ipo" || loss === "simpo"

/**
 * The loss of a pair from the log-probs of its completions (sums, or means for `ipo` and `simpo`), with its derivatives by them.
 * Source: Xu et al. 2024 (CPO), Meng et al. 2024 (SimPO); as TRL 1.13.
 */
export const referenceFreePair = (
  chosen: number,
  rejected: number,
  { loss, beta, labelSmoothing, gamma, alpha }: ReferenceFreeSettings,
): { readonly value: number; readonly dChosen: number; readonly dRejected: number } => {
  const [rewardChosen, slopeChosen] = alphaReward(chosen, alpha)
  const [rewardRejected, slopeRejected] = alphaReward(rejected, alpha)
  const margin = rewardChosen - rewardRejected
  let value: number
  let slope: number
  if (loss === "ipo") {
    value = (margin - 1 / (2 * beta)) ** 2
    slope = 2 * (margin - 1 / (2 * beta))
  } else {
    const z = beta * margin - (loss === "simpo" ? gamma : 0)
    const [v, d] = loss === "hinge" ? hinge(z) : smoothedSigmoid(z, labelSmoothing)
    value = v
    slope = d * beta
  }
  return { value, dChosen: slope * slopeChosen, dRejected: -slope * slopeRejected }
}

/** The number that a loss sees of a completion, and what each of its tokens adds to it. */
export const summarise = (
  logprobs: Float64Array,
  perToken: boolean,
): { readonly x: number; readonly share: number } => {
  const share = perToken ? 1 / Math.max(1, logprobs.length) : 1
  return { x: sum(logprobs) * share, share }
}
