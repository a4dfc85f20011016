/** Middle value; the mean of the two middle ones when their number is even. NaN of nothing. */
export const median = (values: readonly number[]): number => {
  const s = values.toSorted((a, b) => a - b)
  const half = s.length >> 1
  return s.length === 0 ? Number.NaN : s.length % 2 === 1 ? s[half]! : (s[half - 1]! + s[half]!) / 2
}

/** Middle value with the smallest and the largest. */
export interface Spread {
  readonly median: number
  readonly low: number
  readonly high: number
  readonly samples: number
}

/** Spread of measured values. */
export const spread = (values: readonly number[]): Spread => ({
  median: median(values),
  low: Math.min(...values),
  high: Math.max(...values),
  samples: values.length,
})

/** Half the range over the middle, as a share: how much to trust the middle. */
export const relativeSpread = (s: Spread): number => (s.high - s.low) / 2 / s.median
