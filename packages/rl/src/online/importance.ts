import { clamp } from "../internal/math.ts"

/** Where the ratio of a policy loss is formed: each token, the geometric mean of the sequence (GSPO), or that mean with each token's own gradient (GSPO-token). */
export const IMPORTANCE_LEVELS = ["token", "sequence", "sequence_token"] as const

/** Name of an importance level. */
export type ImportanceLevel = (typeof IMPORTANCE_LEVELS)[number]

/** Number of tokens that a mask keeps. */
export const maskedCount = (mask: Uint8Array | undefined, length: number): number => {
  if (mask === undefined) return length
  let n = 0
  for (let t = 0; t < length; t++) n += mask[t]!
  return n
}

/** Log-ratios of new to old probabilities at a level; all tokens of a sequence level have the same. */
export const logRatios = (
  policy: Float64Array,
  old: Float64Array | undefined,
  mask: Uint8Array | undefined,
  level: ImportanceLevel,
): Float64Array => {
  // Without old log-probs the sampling policy is the policy itself: a ratio of 1 that still has a gradient.
  const token = policy.map((x, t) => (old === undefined ? 0 : x - old[t]!))
  if (level === "token") return token
  let total = 0
  for (let t = 0; t < token.length; t++) if (mask === undefined || mask[t] === 1) total += token[t]!
  return token.fill(total / Math.max(1, maskedCount(mask, token.length)))
}

/** The gradient by the log-probs from the gradient by the log-ratios of {@link logRatios}. */
export const throughLogRatios = (
  gradient: Float64Array,
  mask: Uint8Array | undefined,
  level: ImportanceLevel,
): Float64Array => {
  if (level !== "sequence") return gradient
  let total = 0
  for (const g of gradient) total += g
  const share = total / Math.max(1, maskedCount(mask, gradient.length))
  return gradient.map((_, t) => (mask === undefined || mask[t] === 1 ? share : 0))
}

/** How a difference between the engine that sampled and the one that trains is corrected. */
export const CORRECTION_MODES = ["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"] as const

/** Settings of {@link correctionRatios}. */
export interface CorrectionSettings {
  readonly mode: (typeof CORRECTION_MODES)[number]
  /** Largest ratio; truncation cuts there, masking drops what is beyond. */
  readonly max?: number
  readonly min?: number
}

/**
 * Ratios of the probabilities that training computes to those the tokens were sampled with, truncated or masked, a token or a whole sequence at a time.
 * Source: Yao et al. 2025 (truncated importance sampling); as TRL 1.13.
 */
export const correctionRatios = (
  old: Float64Array,
  sampling: Float64Array,
  mask: Uint8Array | undefined,
  { mode, min = 0, max = Number.POSITIVE_INFINITY }: CorrectionSettings,
): Float64Array => {
  const difference = old.map((x, t) => {
    const d = x - sampling[t]!
    return (mask === undefined || mask[t] === 1) && !Number.isNaN(d) ? d : 0
  })
  if (mode.startsWith("sequence")) difference.fill(difference.reduce((a, b) => a + b, 0))
  return difference.map((d) => {
    const ratio = Math.exp(d)
    if (mode.endsWith("truncate")) return clamp(ratio, min, max)
    return ratio >= min && ratio <= max ? ratio : 0
  })
}
