import { logSigmoid, sigmoid } from "../internal/math.ts"

/** Divergences that DPO can keep the policy near its reference by. */
export const DIVERGENCES = ["reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"] as const

/** Name of a divergence. */
export type Divergence = (typeof DIVERGENCES)[number]

// exp of more than this is of no use to a sum of scores in any float format.
const LARGEST_EXPONENT = 80

/**
 * f'(e^d) of a divergence f at a log-ratio d, with its derivative by d: the score that takes the log-ratio's place in DPO. `alpha` is that of the alpha divergence.
 * Source: Wang et al. 2023, "Beyond Reverse KL"; constants as TRL 1.13.
 */
export const divergenceScore = (
  divergence: Divergence,
  d: number,
  alpha: number,
): { readonly score: number; readonly slope: number } => {
  switch (divergence) {
    case "reverse_kl":
      return { score: d, slope: 1 }
    case "forward_kl":
      return { score: -Math.expm1(-d), slope: Math.exp(-d) }
    case "js_divergence":
      return { score: Math.LN2 + logSigmoid(d), slope: sigmoid(-d) }
    case "alpha_divergence": {
      if (Math.abs(alpha - 1) < 1e-6) return { score: d, slope: 1 }
      const exponent = (alpha - 1) * d
      return exponent > LARGEST_EXPONENT
        ? { score: Math.expm1(LARGEST_EXPONENT) / (alpha - 1), slope: 0 }
        : { score: Math.expm1(exponent) / (alpha - 1), slope: Math.exp(exponent) }
    }
  }
}
