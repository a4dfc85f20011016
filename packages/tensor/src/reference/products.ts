import type { BufferHandle, RequiredKernels } from "@sloth/core"

import type { Define } from "./call.ts"
import type { FloatArray } from "./memory.ts"

/** Σ a[aStart + i] · b[bStart + i] over n elements, in double precision. */
export function dot(a: FloatArray, aStart: number, b: FloatArray, bStart: number, n: number): number {
  let total = 0
  for (let i = 0; i < n; i++) total += a[aStart + i]! * b[bStart + i]!
  return total
}

/** totals[start + i] += factor · x[xStart + i] over n elements. */
export function addScaled(
  totals: Float64Array,
  start: number,
  factor: number,
  x: FloatArray,
  xStart: number,
  n: number,
): void {
  for (let i = 0; i < n; i++) totals[start + i]! += factor * x[xStart + i]!
}

/** Matrix products. */
export const productKernels = (
  define: Define,
): Pick<RequiredKernels, "matmul" | "linear" | "linearGroup" | "linearBackwardInput"> => ({
  matmul: define("matmul", (call, c, a, b, m, n, k, transA, transB, alpha, accumulate) => {
    call.whole("m", m)
    call.whole("n", n)
    call.whole("k", k)
    call.whole("transA", transA, 0, 1)
    call.whole("transB", transB, 0, 1)
    call.whole("accumulate", accumulate, 0, 1)
    const left = call.float("a", a, m * k)
    const right = call.float("b", b, k * n)
    const target = call.floatOut("c", c, m * n)
    // Steps between neighbours along k: a is [m, k] or [k, m], b is [k, n] or [n, k].
    const [aRow, aStep] = transA ? [1, m] : [k, 1]
    const [bCol, bStep] = transB ? [k, 1] : [1, n]
    for (let i = 0; i < m; i++) {
      for (let j = 0; j < n; j++) {
        let total = 0
        for (let p = 0, x = i * aRow, y = j * bCol; p < k; p++, x += aStep, y += bStep) total += left[x]! * right[y]!
        target[i * n + j] = alpha * total + (accumulate ? target[i * n + j]! : 0)
      }
    }
  }),

  linear: define("linear", (c, y, x, w, format, m, n, k, bias, t, b, r, accumulate) => {
    c.whole("m", m)
    c.whole("n", n)
    c.whole("k", k)
    c.whole("r", r)
    c.whole("accumulate", accumulate, 0, 1)
    const source = c.float("x", x, m * k)
    const weight = c.weight("w", w, format, n, k)
    const offset = c.maybeFloat("bias", bias, n)
    const low = c.maybeFloat("t", t, m * r)
    const up = c.maybeFloat("b", b, n * r)
    c.require((low === undefined) === (up === undefined), "t", "and b must be given together")
    const target = c.floatOut("y", y, m * n)
    for (let j = 0; j < n; j++) {
      const row = weight.row(j)
      for (let i = 0; i < m; i++) {
        let total = dot(source, i * k, row, 0, k)
        if (low !== undefined && up !== undefined) total += dot(low, i * r, up, j * r, r)
        if (offset !== undefined) total += offset[j]!
        target[i * n + j] = total + (accumulate ? target[i * n + j]! : 0)
      }
    }
  }),

  linearGroup: define("linearGroup", (c, x, m, k, ...layers) => {
    c.whole("m", m)
    c.whole("k", k)
    const source = c.float("x", x, m * k)
    for (let i = 0; i < 3; i++) {
      const [y, w, format, n, bias, a, b, r, scale] = layers.slice(i * 9, i * 9 + 9) as [
        BufferHandle,
        BufferHandle,
        number,
        number,
        BufferHandle,
        BufferHandle,
        BufferHandle,
        number,
        number,
      ]
      c.whole(`n${i}`, n)
      c.whole(`r${i}`, r)
      if (n === 0) continue
      const weight = c.weight(`w${i}`, w, format, n, k)
      const offset = c.maybeFloat(`bias${i}`, bias, n)
      const down = c.maybeFloat(`a${i}`, a, r * k)
      const up = c.maybeFloat(`b${i}`, b, n * r)
      c.require((down === undefined) === (up === undefined), `a${i}`, `and b${i} must be given together`)
      const target = c.floatOut(`y${i}`, y, m * n)
      for (let row = 0; row < m; row++) {
        const low = Float64Array.from({ length: down === undefined ? 0 : r }, (_, q) =>
          dot(source, row * k, down!, q * k, k),
        )
        for (let j = 0; j < n; j++)
          target[row * n + j] =
            dot(source, row * k, weight.row(j), 0, k) +
            (up === undefined ? 0 : scale * dot(low, 0, up, j * r, r)) +
            (offset?.[j] ?? 0)
      }
    }
  }),

  linearBackwardInput: define("linearBackwardInput", (c, dx, dy, w, format, m, n, k, dt, a, r, accumulate) => {
    c.whole("m", m)
    c.whole("n", n)
    c.whole("k", k)
    c.whole("r", r)
    c.whole("accumulate", accumulate, 0, 1)
    const gradient = c.float("dy", dy, m * n)
    const weight = c.weight("w", w, format, n, k)
    const low = c.maybeFloat("dt", dt, m * r)
    const down = c.maybeFloat("a", a, r * k)
    c.require((low === undefined) === (down === undefined), "dt", "and a must be given together")
    const target = c.floatOut("dx", dx, m * k)
    const totals = new Float64Array(m * k)
    for (let j = 0; j < n; j++) {
      const row = weight.row(j)
      for (let i = 0; i < m; i++) addScaled(totals, i * k, gradient[i * n + j]!, row, 0, k)
    }
    if (low !== undefined && down !== undefined) {
      for (let i = 0; i < m; i++) for (let q = 0; q < r; q++) addScaled(totals, i * k, low[i * r + q]!, down, q * k, k)
    }
    for (let i = 0; i < m * k; i++) target[i] = totals[i]! + (accumulate ? target[i]! : 0)
  }),
})
