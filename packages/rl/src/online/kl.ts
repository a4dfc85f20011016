/** Estimators of KL(policy, reference) from one sample: the log-ratio, half its square, and the one that is never negative. */
export const KL_ESTIMATORS = ["k1", "k2", "k3"] as const

/** Name of a KL estimator. */
export type KlEstimator = (typeof KL_ESTIMATORS)[number]

/** The estimate at a token, with its derivative by the policy's log-prob. Source: Schulman 2020, "Approximating KL divergence". */
export const klTerm = (
  estimator: KlEstimator,
  policy: number,
  reference: number,
): { readonly value: number; readonly slope: number } => {
  const u = reference - policy
  switch (estimator) {
    case "k1":
      return { value: -u, slope: 1 }
    case "k2":
      return { value: 0.5 * u * u, slope: -u }
    case "k3":
      return { value: Math.expm1(u) - u, slope: -Math.expm1(u) }
  }
}
