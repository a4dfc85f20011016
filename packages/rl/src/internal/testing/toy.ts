/**
 * The toy batch of the golden values, computed with the loss functions of TRL 1.13.0 in float64: logits[b,t,v] = 2 sin(.7b + 1.3t + .9v + phase) for rows of 6
 * positions and 5 tokens, phase 0 for the policy and 0.5 for the reference; ids (3b + 2t + bt) mod 5; rows of 6, 5, 4, 6, 5 and 6 tokens whose completions start at 2.
 */
export const toyLengths = [6, 5, 4, 6, 5, 6]
const start = 2
const vocab = 5

const logits = (b: number, t: number, phase: number): number[] =>
  Array.from({ length: vocab }, (_, v) => 2 * Math.sin(0.7 * b + 1.3 * t + 0.9 * v + phase))

const logSumExp = (values: readonly number[], factor = 1): number => {
  const top = Math.max(...values) * factor
  return top + Math.log(values.reduce((sum, x) => sum + Math.exp(factor * x - top), 0))
}

/** Log-probs of the completion of row `b` under the toy model with this phase. */
export const toyLogprobs = (b: number, phase: number): Float64Array =>
  Float64Array.from({ length: toyLengths[b]! - start }, (_, k) => {
    const t = start + k
    const row = logits(b, t - 1, phase)
    return row[(3 * b + 2 * t + b * t) % vocab]! - logSumExp(row)
  })

/** Log of the sum of squared probabilities at each position of row `b`. */
export const toyCollision = (b: number): Float64Array =>
  Float64Array.from({ length: toyLengths[b]! - start }, (_, k) => {
    const row = logits(b, start + k - 1, 0)
    return logSumExp(row, 2) - 2 * logSumExp(row)
  })
