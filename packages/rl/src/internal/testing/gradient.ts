/** Central differences of a function of several arrays, in doubles. */
export const finiteDifferences = (
  f: (inputs: readonly Float64Array[]) => number,
  inputs: readonly Float64Array[],
  step = 1e-6,
): Float64Array[] =>
  inputs.map((array, a) =>
    Float64Array.from(array, (x, i) => {
      const at = (value: number): number =>
        f(inputs.map((other, b) => (a === b ? Float64Array.from(array, (y, j) => (i === j ? value : y)) : other)))
      return (at(x + step) - at(x - step)) / (2 * step)
    }),
  )

/** The largest difference between two lists of arrays. */
export const largestDifference = (a: readonly ArrayLike<number>[], b: readonly ArrayLike<number>[]): number => {
  let worst = 0
  for (let k = 0; k < Math.max(a.length, b.length); k++) {
    if (a[k]?.length !== b[k]?.length) return Number.POSITIVE_INFINITY
    for (let i = 0; i < a[k]!.length; i++) {
      const difference = Math.abs(a[k]![i]! - b[k]![i]!)
      if (!(difference <= worst)) worst = difference
    }
  }
  return worst
}
