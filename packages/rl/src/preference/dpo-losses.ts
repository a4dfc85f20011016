import { argsort, logSigmoid, sigmoid } from "../internal/math.ts"

/** Names of the losses, as TRL has them. */
export const DPO_LOSSES = [
  "sigmoid",
  "hinge",
  "ipo",
  "exo_pair",
  "nca_pair",
  "robust",
  "bco_pair",
  "sppo_hard",
  "aot",
  "aot_unpaired",
  "apo_zero",
  "apo_down",
  "discopop",
  "sft",
  "sigmoid_norm",
] as const

/** Name of a DPO loss. */
export type DpoLoss = (typeof DPO_LOSSES)[number]

/** Losses that sort the pairs of a step. */
export const SORTING_LOSSES: readonly DpoLoss[] = ["aot", "aot_unpaired"]

/** Losses in which a divergence other than reverse KL has a place. */
export const DIVERGENCE_LOSSES: readonly DpoLoss[] = [
  "sigmoid",
  "sigmoid_norm",
  "hinge",
  "ipo",
  "exo_pair",
  "robust",
  "discopop",
  "sft",
]

/** Losses that are a function of one pair. */
export type PairLoss = Exclude<DpoLoss, "aot" | "aot_unpaired" | "sft">

/** What a pair is to a loss: summed log-probs (nats) compared with the reference's. */
export interface PairTerms {
  /** log policy - log reference of the chosen completion. */
  readonly chosen: number
  /** The same of the rejected one. */
  readonly rejected: number
  /** Scores of the divergence with their derivatives by the log-ratios. */
  readonly chosenScore: { readonly score: number; readonly slope: number }
  readonly rejectedScore: { readonly score: number; readonly slope: number }
  /** Tokens. */
  readonly chosenLength: number
  readonly rejectedLength: number
}

/** Settings of the losses. */
export interface PairLossSettings {
  readonly beta: number
  readonly labelSmoothing: number
  readonly discopopTau: number
}

/** A value and its derivatives by the two summed log-probs. */
export interface PairValue {
  readonly value: number
  readonly dChosen: number
  readonly dRejected: number
}

type Rule = (pair: PairTerms, settings: PairLossSettings) => PairValue

/** A loss that only sees a scaled difference of scores: `f` gives its value and its derivative by z = beta · (a · chosen score - b · rejected score). */
const ofMargin =
  (f: (z: number, settings: PairLossSettings) => readonly [value: number, slope: number], perToken = false): Rule =>
  (pair, settings) => {
    const a = settings.beta / (perToken ? Math.max(1, pair.chosenLength) : 1)
    const b = settings.beta / (perToken ? Math.max(1, pair.rejectedLength) : 1)
    const [value, slope] = f(a * pair.chosenScore.score - b * pair.rejectedScore.score, settings)
    return {
      value,
      dChosen: slope * a * pair.chosenScore.slope,
      dRejected: -slope * b * pair.rejectedScore.slope,
    }
  }

/** A sum of a function of each log-ratio. */
const ofEach =
  (
    f: (d: number, settings: PairLossSettings) => readonly [number, number],
    g: (d: number, settings: PairLossSettings) => readonly [number, number],
  ): Rule =>
  (pair, settings) => {
    const [chosen, dChosen] = f(pair.chosen, settings)
    const [rejected, dRejected] = g(pair.rejected, settings)
    return { value: chosen + rejected, dChosen, dRejected }
  }

/** The derivative of sigmoid. */
const bump = (x: number): number => sigmoid(x) * sigmoid(-x)

/** -(1-e) log s(z) - e log s(-z) with its derivative. */
export const smoothedSigmoid = (z: number, e: number): readonly [number, number] => [
  -(1 - e) * logSigmoid(z) - e * logSigmoid(-z),
  -(1 - e) * sigmoid(-z) + e * sigmoid(z),
]

/** max(0, 1 - z) with its derivative. */
export const hinge = (z: number): readonly [number, number] => (z < 1 ? [1 - z, -1] : [0, 0])

/** The losses of one pair. Sources: the paper in each line; values as TRL 1.13. */
export const PAIR_LOSSES: Readonly<Record<PairLoss, Rule>> = {
  // Rafailov et al. 2023.
  sigmoid: ofMargin((z) => smoothedSigmoid(z, 0)),
  // The same on means over tokens.
  sigmoid_norm: ofMargin((z) => smoothedSigmoid(z, 0), true),
  // Zhao et al. 2023, SLiC.
  hinge: ofMargin(hinge),
  // Azar et al. 2023, on means over tokens: (margin - 1 / 2beta)^2 with margin = z / beta.
  ipo: ofMargin((z, { beta }) => {
    const e = z / beta - 1 / (2 * beta)
    return [e * e, (2 * e) / beta]
  }, true),
  // Ji et al. 2024: KL from the model's preference to (1 - e, e).
  exo_pair: ofMargin((z, { labelSmoothing: e }) => {
    const chosen = logSigmoid(z) - Math.log1p(-e)
    const rejected = logSigmoid(-z) - Math.log(e)
    // The derivatives of the two logs cancel: s(z)·s(-z) - s(-z)·s(z).
    return [sigmoid(z) * chosen + sigmoid(-z) * rejected, bump(z) * (chosen - rejected)]
  }),
  // Chen et al. 2024.
  nca_pair: ofEach(
    (d, { beta }) => [
      -logSigmoid(beta * d) - 0.5 * logSigmoid(-beta * d),
      beta * (-sigmoid(-beta * d) + 0.5 * sigmoid(beta * d)),
    ],
    (d, { beta }) => [-0.5 * logSigmoid(-beta * d), 0.5 * beta * sigmoid(beta * d)],
  ),
  // Chowdhury et al. 2024.
  robust: ofMargin((z, { labelSmoothing: e }) => [
    (-(1 - e) * logSigmoid(z) + e * logSigmoid(-z)) / (1 - 2 * e),
    (-(1 - e) * sigmoid(-z) - e * sigmoid(z)) / (1 - 2 * e),
  ]),
  // Jung et al. 2024, without the running mean.
  bco_pair: ofEach(
    (d, { beta }) => [-logSigmoid(beta * d), -beta * sigmoid(-beta * d)],
    (d, { beta }) => [-logSigmoid(-beta * d), beta * sigmoid(beta * d)],
  ),
  // Wu et al. 2024, with probabilities 1 and 0.
  sppo_hard: ofEach(
    (d, { beta }) => [(d - 0.5 / beta) ** 2, 2 * (d - 0.5 / beta)],
    (d, { beta }) => [(d + 0.5 / beta) ** 2, 2 * (d + 0.5 / beta)],
  ),
  // D'Oosterlinck et al. 2024, equation 7.
  apo_zero: ofEach(
    (d, { beta }) => [sigmoid(-beta * d), -beta * bump(beta * d)],
    (d, { beta }) => [sigmoid(beta * d), beta * bump(beta * d)],
  ),
  // Its equation 8.
  apo_down: ({ chosen, rejected }, { beta }) => {
    const margin = beta * (chosen - rejected)
    return {
      value: sigmoid(beta * chosen) + sigmoid(-margin),
      dChosen: beta * bump(beta * chosen) - beta * bump(margin),
      dRejected: beta * bump(margin),
    }
  },
  // Lu et al. 2024, equation 5.
  discopop: ofMargin((z, { discopopTau: tau }) => {
    const gate = sigmoid(z / tau)
    const [logistic, exponential] = [-logSigmoid(z), Math.exp(-z)]
    return [
      (1 - gate) * logistic + gate * exponential,
      (1 - gate) * -sigmoid(-z) - gate * exponential + (bump(z / tau) / tau) * (exponential - logistic),
    ]
  }),
}

/**
 * AOT: the sorted margins of the policy against the sorted margins of the reference (paired), or sorted chosen against sorted rejected log-ratios (unpaired), over all
 * pairs given. Source: Melnyk et al. 2024. Returns a value for each rank, and derivatives by the summed log-probs of each pair, of the sum of all values.
 */
export const alignmentLoss = (
  name: "aot" | "aot_unpaired",
  policy: { readonly chosen: Float64Array; readonly rejected: Float64Array },
  reference: { readonly chosen: Float64Array; readonly rejected: Float64Array },
  { beta, labelSmoothing }: PairLossSettings,
): { readonly values: Float64Array; readonly dChosen: Float64Array; readonly dRejected: Float64Array } => {
  const minus = (a: Float64Array, b: Float64Array): Float64Array => a.map((x, i) => x - b[i]!)
  const n = policy.chosen.length
  const upper = name === "aot" ? minus(policy.chosen, policy.rejected) : minus(policy.chosen, reference.chosen)
  const lower =
    name === "aot" ? minus(reference.chosen, reference.rejected) : minus(policy.rejected, reference.rejected)
  const [upperOrder, lowerOrder] = [argsort(upper), argsort(lower)]
  const [values, dChosen, dRejected] = [new Float64Array(n), new Float64Array(n), new Float64Array(n)]
  for (let k = 0; k < n; k++) {
    const [i, j] = [upperOrder[k]!, lowerOrder[k]!]
    const [value, slope] = smoothedSigmoid(beta * (upper[i]! - lower[j]!), labelSmoothing)
    values[k] = value
    dChosen[i]! += beta * slope
    // Paired, the lower side is the reference's alone; unpaired, it is the rejected completions'.
    dRejected[name === "aot" ? i : j]! -= beta * slope
  }
  return { values, dChosen, dRejected }
}
