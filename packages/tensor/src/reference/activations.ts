/** Activation functions and their derivatives in double precision. */

const sigmoid = (x: number): number => (x >= 0 ? 1 / (1 + Math.exp(-x)) : Math.exp(x) / (1 + Math.exp(x)))

/** x · sigmoid(x). */
export const silu = (x: number): number => x * sigmoid(x)

export const siluDerivative = (x: number): number => {
  const s = sigmoid(x)
  return s + x * s * (1 - s)
}

const TANH_SCALE = Math.sqrt(2 / Math.PI)

/** x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³))). Source: Hendrycks and Gimpel 2016, section 2. */
export const geluTanh = (x: number): number => 0.5 * x * (1 + Math.tanh(TANH_SCALE * (x + 0.044715 * x ** 3)))

export const geluTanhDerivative = (x: number): number => {
  const t = Math.tanh(TANH_SCALE * (x + 0.044715 * x ** 3))
  return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * TANH_SCALE * (1 + 3 * 0.044715 * x * x)
}

/** x · Φ(x), with the normal distribution function Φ. */
export const gelu = (x: number): number => 0.5 * x * erfc(-x * Math.SQRT1_2)

export const geluDerivative = (x: number): number =>
  0.5 * erfc(-x * Math.SQRT1_2) + (x * Math.exp(-0.5 * x * x)) / Math.sqrt(2 * Math.PI)

/**
 * Complementary error function to about 1e-15 relative.
 * Source: NIST Digital Library of Mathematical Functions, 7.6.2 (series) and 7.9.1 (continued fraction).
 */
export function erfc(x: number): number {
  if (x < 0) return 2 - erfc(-x)
  if (Number.isNaN(x)) return NaN
  if (x > 27.5) return 0
  const square = x * x
  if (x < 2) {
    // erf(x) = 2/√π · exp(-x²) · Σ 2ⁿ x^(2n+1) / (1·3·…·(2n+1)): all terms have one sign, so nothing cancels.
    let term = x
    let sum = x
    for (let n = 1; term > sum * 1e-17; n++) {
      term *= (2 * square) / (2 * n + 1)
      sum += term
    }
    return 1 - (2 / Math.sqrt(Math.PI)) * Math.exp(-square) * sum
  }
  // exp(-x²)/√π · 1/(x + (1/2)/(x + 1/(x + (3/2)/(x + …)))), from the inside out.
  let tail = 0
  for (let k = 160; k >= 1; k--) tail = k / 2 / (x + tail)
  return Math.exp(-square) / (Math.sqrt(Math.PI) * (x + tail))
}
