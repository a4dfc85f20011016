import { clamp, sigmoid } from "../internal/math.ts"
import {
  correctionRatios,
  logRatios,
  maskedCount,
  throughLogRatios,
  type CorrectionSettings,
  type ImportanceLevel,
} from "./importance.ts"
import { klTerm, type KlEstimator } from "./kl.ts"

/** Names of the losses, as TRL has them. */
export const POLICY_LOSSES = ["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "vespo", "luspo"] as const

/** Name of a policy loss. */
export type PolicyLoss = (typeof POLICY_LOSSES)[number]

/** One completion. All arrays have an entry a token of it; log-probs and entropies in nats. */
export interface PolicySequence {
  /** log p under the policy that is trained. */
  readonly policy: Float64Array
  /** The same when the update began; the policy's own when absent. */
  readonly old?: Float64Array
  /** log p under the reference; needed with `beta`. */
  readonly reference?: Float64Array
  /** log p with which the engine sampled, where another engine did. */
  readonly sampling?: Float64Array
  /** Entropy of the policy's distribution; needed with an entropy mask or bonus. */
  readonly entropy?: Float64Array
  /** 0 for tokens that the model did not write, or that must not count; all 1 when absent. */
  readonly mask?: Uint8Array
  /** Of the whole completion, or of each token. */
  readonly advantage: number | Float64Array
}

/** Settings of {@link policyLoss}; the defaults are those of TRL 1.13. */
export interface PolicyLossSettings {
  readonly loss: PolicyLoss
  readonly importance: ImportanceLevel
  /** The ratio is held above 1 - epsilon. */
  readonly epsilon: number
  /** The ratio is held below 1 + epsilonHigh; with cispo below epsilonHigh itself. */
  readonly epsilonHigh: number
  /** Largest ratio that counts for negative advantages too (two-sided clipping). */
  readonly delta?: number
  /** Weight of the KL divergence from the reference. */
  readonly beta: number
  readonly klEstimator: KlEstimator
  /** Weighs the KL estimate by the importance ratio, which makes its gradient unbiased off policy. */
  readonly klCorrection: boolean
  readonly sapoTemperaturePositive: number
  readonly sapoTemperatureNegative: number
  readonly vespo: {
    readonly kPositive: number
    readonly lambdaPositive: number
    readonly kNegative: number
    readonly lambdaNegative: number
  }
  /** Only tokens of at least this entropy count. */
  readonly entropyThreshold?: number
  /** Weight of the entropy bonus. */
  readonly entropyCoef: number
  /** Completions of negative advantage are left out whose mean of sampling - policy is above this. */
  readonly offPolicyThreshold?: number
  readonly correction?: CorrectionSettings
  /** Length that dr_grpo divides by, tokens. */
  readonly maxCompletionLength: number
}

/** The settings when nothing is said. */
export const POLICY_LOSS_DEFAULTS: PolicyLossSettings = {
  loss: "dapo",
  importance: "token",
  epsilon: 0.2,
  epsilonHigh: 0.2,
  beta: 0,
  klEstimator: "k3",
  klCorrection: true,
  sapoTemperaturePositive: 1,
  sapoTemperatureNegative: 1.05,
  vespo: { kPositive: 2, lambdaPositive: 3, kNegative: 3, lambdaNegative: 2 },
  entropyCoef: 0,
  maxCompletionLength: 512,
}

/** Numbers of the whole optimizer step that means are taken over. */
export interface PolicyTotals {
  /** Completions. */
  readonly rows: number
  /** Tokens that the masks keep. */
  readonly tokens: number
  /** Tokens that dapo, cispo and vespo divide by: those of an average step of the generated batch; `tokens` when absent. */
  readonly generationTokens?: number
  /** Tokens that an entropy mask keeps; `tokens` when absent. */
  readonly entropyTokens?: number
}

/** What a policy loss gives. */
export interface PolicyResult {
  readonly loss: number
  /** d loss / d policy log-prob, an array a completion. */
  readonly gradients: readonly Float64Array[]
  /** d loss / d entropy; absent without an entropy bonus. */
  readonly entropyGradients?: readonly Float64Array[]
  /** Share of clipped tokens in each completion, low and high. */
  readonly clipped: { readonly low: Float64Array; readonly high: Float64Array }
  /** Parts that add up over the step. */
  readonly metrics: Readonly<Record<string, number>>
}

const LOWEST_LOG = Math.log(1e-8)
const HIGHEST_LOG = 20

/** VESPO's weight of a completion: large where the ratio of the whole completion is near 1. Source: TRL 1.13, `loss_type="vespo"`. */
const vespoWeight = (
  { policy, old, mask }: PolicySequence,
  correction: Float64Array | undefined,
  advantage: number,
  settings: PolicyLossSettings["vespo"],
): number => {
  let total = 0
  for (let t = 0; t < policy.length; t++) {
    if (mask !== undefined && mask[t] === 0) continue
    total += old === undefined ? 0 : clamp(policy[t]! - old[t]!, -HIGHEST_LOG, HIGHEST_LOG)
    if (correction !== undefined) total += clamp(Math.log(correction[t]!), LOWEST_LOG, HIGHEST_LOG)
  }
  const l = clamp(total, LOWEST_LOG, HIGHEST_LOG)
  const [k, lambda] =
    advantage >= 0 ? [settings.kPositive, settings.lambdaPositive] : [settings.kNegative, settings.lambdaNegative]
  const weight = Math.exp(lambda + k * l - lambda * Math.exp(l))
  return Number.isFinite(weight) ? weight : 0
}

/** Value of a token's loss with its derivatives by the log-ratio and by the log-prob itself. */
type Term = readonly [value: number, byRatio: number, byPolicy: number]

const clippedTerm = (ratio: number, a: number, { epsilon, epsilonHigh, delta }: PolicyLossSettings): Term => {
  const plain = delta === undefined ? ratio : Math.min(ratio, delta)
  const held = clamp(ratio, 1 - epsilon, 1 + epsilonHigh)
  if (plain * a <= held * a) return [-plain * a, plain === ratio ? -a * ratio : 0, 0]
  return [-held * a, held === ratio ? -a * ratio : 0, 0]
}

const tokenTerm = (ratio: number, policy: number, a: number, weight: number, settings: PolicyLossSettings): Term => {
  switch (settings.loss) {
    case "cispo": {
      const held = Math.min(ratio, settings.epsilonHigh)
      return [-held * a * policy, 0, -held * a]
    }
    case "sapo": {
      const tau = a > 0 ? settings.sapoTemperaturePositive : settings.sapoTemperatureNegative
      const s = sigmoid(tau * (ratio - 1))
      return [(-a * s * 4) / tau, -a * 4 * s * (1 - s) * ratio, 0]
    }
    case "vespo":
      return [-weight * a * policy, 0, -weight * a]
    default:
      return clippedTerm(ratio, a, settings)
  }
}

/** What the sum over a completion's tokens is divided by. */
const divisor = (loss: PolicyLoss, length: number, totals: PolicyTotals, maxCompletionLength: number): number => {
  switch (loss) {
    case "grpo":
    case "sapo":
      return Math.max(1, length) * totals.rows
    case "bnpo":
      return Math.max(1, totals.tokens)
    case "dr_grpo":
      return totals.rows * maxCompletionLength
    case "luspo":
      return totals.rows
    default:
      return Math.max(1, totals.generationTokens ?? totals.tokens)
  }
}

/** Share of sampling over policy log-probs that a completion has drifted, mean over its tokens. */
const drift = ({ policy, old, sampling, mask }: PolicySequence): number => {
  const from = sampling ?? old
  if (from === undefined) return 0
  let total = 0
  for (let t = 0; t < policy.length; t++) {
    const d = from[t]! - policy[t]!
    if ((mask === undefined || mask[t] === 1) && !Number.isNaN(d)) total += d
  }
  return total / Math.max(1, maskedCount(mask, policy.length))
}

/**
 * The GRPO family over completions, as a part of a step with the totals given. In this order: the token's loss, the off-policy mask, the entropy mask, the correction of
 * the sampling engine, then the KL divergence, which these do not touch, and last the entropy bonus.
 * Source: Shao et al. 2024 (GRPO), Yu et al. 2025 (DAPO), Liu et al. 2025 (Dr. GRPO), Zheng et al. 2025 (GSPO), MiniMax 2025 (CISPO); as TRL 1.13.
 */
export const policyLoss = (
  sequences: readonly PolicySequence[],
  settings: PolicyLossSettings,
  totals: PolicyTotals,
): PolicyResult => {
  const { importance, epsilon, epsilonHigh, delta, beta, entropyThreshold, entropyCoef, offPolicyThreshold } = settings
  const isClipped = settings.loss !== "cispo" && settings.loss !== "vespo" && settings.loss !== "sapo"
  const entropyTokens = Math.max(1, totals.entropyTokens ?? totals.tokens)
  const tokens = Math.max(1, totals.tokens)
  let [loss, kl, entropy, low, high, bounded, gap, ratioSum, weights] = Array<number>(9).fill(0) as [
    number,
    number,
    number,
    number,
    number,
    number,
    number,
    number,
    number,
  ]
  const clipped = { low: new Float64Array(sequences.length), high: new Float64Array(sequences.length) }
  const entropyGradients: Float64Array[] = []
  const gradients = sequences.map((sequence, i) => {
    const { policy, old, reference, sampling, mask, advantage } = sequence
    const n = policy.length
    const length = maskedCount(mask, n)
    const share = 1 / divisor(settings.loss, length, totals, settings.maxCompletionLength)
    const ratios = logRatios(policy, old, mask, importance).map(Math.exp)
    const correction =
      settings.correction === undefined || sampling === undefined
        ? undefined
        : correctionRatios(old ?? policy, sampling, mask, settings.correction)
    const isDrifted = offPolicyThreshold !== undefined && drift(sequence) > offPolicyThreshold
    const byRatio = new Float64Array(n)
    const byPolicy = new Float64Array(n)
    const byEntropy = new Float64Array(n)
    const first = typeof advantage === "number" ? advantage : (advantage[0] ?? 0)
    const weight = settings.loss === "vespo" ? vespoWeight(sequence, correction, first, settings.vespo) : 1
    weights += weight
    for (let t = 0; t < n; t++) {
      if (mask !== undefined && mask[t] === 0) continue
      const a = typeof advantage === "number" ? advantage : advantage[t]!
      const ratio = ratios[t]!
      const certain = entropyThreshold !== undefined && sequence.entropy![t]! < entropyThreshold
      const kept =
        (isDrifted && a < 0) || certain ? 0 : correction === undefined || settings.loss === "vespo" ? 1 : correction[t]!
      const [value, dRatio, dPolicy] = tokenTerm(ratio, policy[t]!, a, weight, settings)
      loss += value * kept * share
      byRatio[t] = dRatio * kept * share
      byPolicy[t] = dPolicy * kept * share
      if (beta !== 0) {
        const term = klTerm(settings.klEstimator, policy[t]!, reference![t]!)
        const factor = settings.klCorrection ? ratio : 1
        loss += beta * term.value * factor * share
        byPolicy[t]! += beta * term.slope * factor * share
        if (settings.klCorrection) byRatio[t]! += beta * term.value * ratio * share
        kl += (term.value * factor) / tokens
      }
      if (sequence.entropy !== undefined) {
        entropy += sequence.entropy[t]! / tokens
        if (entropyCoef !== 0 && !certain) {
          loss -= (entropyCoef * sequence.entropy[t]!) / entropyTokens
          byEntropy[t] = -entropyCoef / entropyTokens
        }
      }
      const counted = delta === undefined ? ratio : Math.min(ratio, delta)
      if (isClipped && counted < 1 - epsilon && a < 0) clipped.low[i]! += 1
      if (isClipped && counted > 1 + epsilonHigh && a > 0) clipped.high[i]! += 1
      if (settings.loss === "cispo" && ratio > epsilonHigh && a > 0) bounded++
      if (sampling !== undefined) {
        const d = Math.abs((old ?? policy)[t]! - sampling[t]!)
        gap += Number.isNaN(d) ? 0 : d / tokens
      }
      if (correction !== undefined) ratioSum += correction[t]! / tokens
    }
    low += clipped.low[i]!
    high += clipped.high[i]!
    clipped.low[i]! /= Math.max(1, length)
    clipped.high[i]! /= Math.max(1, length)
    entropyGradients.push(byEntropy)
    const through = throughLogRatios(byRatio, mask, importance)
    return byPolicy.map((g, t) => g + through[t]!)
  })
  const has = (part: keyof PolicySequence): boolean => sequences.some((sequence) => sequence[part] !== undefined)
  return {
    loss,
    gradients,
    ...(entropyCoef === 0 ? {} : { entropyGradients }),
    clipped,
    metrics: {
      ...(beta === 0 ? {} : { kl }),
      ...(has("entropy") ? { entropy } : {}),
      ...(isClipped
        ? {
            "clip_ratio/low_mean": low / tokens,
            "clip_ratio/high_mean": high / tokens,
            "clip_ratio/region_mean": (low + high) / tokens,
          }
        : {}),
      ...(settings.loss === "cispo" ? { cispo_clip_ratio: bounded / tokens } : {}),
      ...(settings.loss === "vespo" ? { "vespo/phi_seq_mean": weights / Math.max(1, totals.rows) } : {}),
      ...(has("sampling") ? { "sampling/sampling_logp_difference/mean": gap } : {}),
      ...(has("sampling") && settings.correction !== undefined
        ? { "sampling/importance_sampling_ratio/mean": ratioSum }
        : {}),
    },
  }
}

/**
 * The entropy that a share of the tokens reaches, and how many do: the threshold for the top `share` of all tokens of a step (linear interpolation between ranks).
 * Source: Wang et al. 2025, "Beyond the 80/20 rule"; as TRL 1.13.
 */
export const entropyThreshold = (
  sequences: readonly Pick<PolicySequence, "entropy" | "mask">[],
  share: number,
): { readonly threshold: number; readonly tokens: number } => {
  const values = sequences
    .flatMap(({ entropy, mask }) => Array.from(entropy!).filter((_, t) => mask === undefined || mask[t] === 1))
    .sort((a, b) => a - b)
  if (values.length === 0) return { threshold: 0, tokens: 0 }
  const at = (1 - share) * (values.length - 1)
  const below = Math.floor(at)
  const above = Math.min(below + 1, values.length - 1)
  const threshold = values[below]! + (at - below) * (values[above]! - values[below]!)
  return { threshold, tokens: values.filter((x) => x >= threshold).length }
}

/** State of an entropy bonus that steers towards a target entropy. */
export interface AdaptiveEntropy {
  readonly coef: number
  /** Entropy of the last step, nats; infinite before the first. */
  readonly lastEntropy: number
}

/** The weight of the bonus in the next step: none while the entropy is above its target. Source: He et al. 2025 (Skywork-OR1); as TRL 1.13. */
export const bonusWeight = ({ coef, lastEntropy }: AdaptiveEntropy, target: number): number =>
  lastEntropy <= target ? coef : 0

/** The state after a step with this entropy. */
export const adaptEntropy = (
  { coef }: AdaptiveEntropy,
  entropy: number,
  settings: { readonly target: number; readonly delta: number; readonly min: number; readonly max: number },
): AdaptiveEntropy => ({
  coef: clamp(entropy <= settings.target ? coef + settings.delta : coef - settings.delta, settings.min, settings.max),
  lastEntropy: entropy,
})
