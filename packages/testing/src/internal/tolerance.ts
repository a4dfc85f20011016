/**
 * How far a result may lie from the exact one.
 *
 * Every f32 operation rounds with a relative error of at most 2^-24. The errors of a sum of K terms in any order add up like a random walk: about
 * √K · 2^-24 · Σ|terms|. The factor 2 leaves room for its spread, the 4 for the roundings of operands and result. Cancellation is covered because the bound
 * is relative to Σ|terms|, not to the sum.
 */

/** Unit roundoff of f32. */
export const F32 = 2 ** -24

/** Allowed error of a sum of `terms` products of which Σ|terms| is `magnitude`. */
export const sumError = (terms: number, magnitude: number, epsilon = F32): number =>
  epsilon * (4 + 2 * Math.sqrt(terms)) * magnitude

/** Σ_k |x[i, k]| · |w[j, k]| for x [m, k] and w [n, k], as [m, n]. */
export function productMagnitude(
  x: ArrayLike<number>,
  w: ArrayLike<number>,
  m: number,
  n: number,
  k: number,
): Float64Array {
  const out = new Float64Array(m * n)
  for (let i = 0; i < m; i++) {
    for (let j = 0; j < n; j++) {
      let total = 0
      for (let p = 0; p < k; p++) total += Math.abs(x[i * k + p]! * w[j * k + p]!)
      out[i * n + j] = total
    }
  }
  return out
}

/** The transpose of x [rows, cols]. */
export function transpose(x: Float32Array, rows: number, cols: number): Float32Array {
  const out = new Float32Array(x.length)
  for (let r = 0; r < rows; r++) for (let c = 0; c < cols; c++) out[c * rows + r] = x[r * cols + c]!
  return out
}

/** Largest magnitude of some numbers. */
export const largest = (x: ArrayLike<number>): number => {
  let most = 0
  for (let i = 0; i < x.length; i++) most = Math.max(most, Math.abs(x[i]!))
  return most
}
