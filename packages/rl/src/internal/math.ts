/** 1 / (1 + e^-x), without overflow. */
export const sigmoid = (x: number): number => {
  if (x >= 0) return 1 / (1 + Math.exp(-x))
  const e = Math.exp(x)
  return e / (1 + e)
}

/** log(1 / (1 + e^-x)), without overflow. */
export const logSigmoid = (x: number): number => Math.min(x, 0) - Math.log1p(Math.exp(-Math.abs(x)))

/** log(1 - e^x) for x < 0. Source: Maechler 2012, "Accurately computing log(1 - exp(-|a|))". */
export const log1mexp = (x: number): number => (x > -Math.LN2 ? Math.log(-Math.expm1(x)) : Math.log1p(-Math.exp(x)))

/** The value held between `low` and `high`. */
export const clamp = (x: number, low: number, high: number): number => Math.min(Math.max(x, low), high)

/** Sum of an array. */
export const sum = (values: ArrayLike<number>): number => {
  let total = 0
  for (let i = 0; i < values.length; i++) total += values[i]!
  return total
}

/** Mean of an array; NaN when it is empty. */
export const mean = (values: ArrayLike<number>): number => sum(values) / values.length

/** Standard deviation with Bessel's correction; NaN with fewer than two values. */
export const standardDeviation = (values: ArrayLike<number>): number => {
  const m = mean(values)
  let squares = 0
  for (let i = 0; i < values.length; i++) squares += (values[i]! - m) ** 2
  return values.length < 2 ? Number.NaN : Math.sqrt(squares / (values.length - 1))
}

/** Indices that put the values in ascending order; equal values keep their order. */
export const argsort = (values: ArrayLike<number>): number[] =>
  Array.from({ length: values.length }, (_, i) => i).sort((a, b) => values[a]! - values[b]! || a - b)
