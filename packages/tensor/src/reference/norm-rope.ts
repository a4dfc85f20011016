import type { RequiredKernels } from "@sloth/core"

import { extent, type Define } from "./call.ts"

/** RMS normalisation and rotary positions. */
export const normRopeKernels = (define: Define): Pick<RequiredKernels, "rmsNorm" | "rmsNormBackward" | "rope"> => ({
  rmsNorm: define("rmsNorm", (c, y, rstd, x, w, rows, cols, eps, offset) => {
    c.whole("rows", rows)
    c.whole("cols", cols)
    const source = c.float("x", x, rows * cols)
    const weight = c.maybeFloat("w", w, cols)
    const target = c.floatOut("y", y, rows * cols)
    const kept = c.maybeFloatOut("rstd", rstd, rows)
    for (let r = 0; r < rows; r++) {
      let squares = 0
      for (let i = r * cols; i < (r + 1) * cols; i++) squares += source[i]! * source[i]!
      const inverse = 1 / Math.sqrt(squares / cols + eps)
      for (let col = 0; col < cols; col++) {
        target[r * cols + col] = source[r * cols + col]! * inverse * ((weight?.[col] ?? 1) + offset)
      }
      if (kept !== undefined) kept[r] = inverse
    }
  }),

  // With x̂ = x · rstd and g = dy · (w + offset): dx = rstd · (g - x̂ · mean(g · x̂)), dw = Σ_r dy · x̂. Source: derivative of Zhang and Sennrich 2019, equation 4.
  rmsNormBackward: define("rmsNormBackward", (c, dx, dw, dy, x, w, rstd, rows, cols, offset, accumulate) => {
    c.whole("rows", rows)
    c.whole("cols", cols)
    c.whole("accumulate", accumulate, 0, 1)
    const gradient = c.float("dy", dy, rows * cols)
    const source = c.float("x", x, rows * cols)
    const weight = c.maybeFloat("w", w, cols)
    const kept = c.float("rstd", rstd, rows)
    const target = c.maybeFloatOut("dx", dx, rows * cols)
    const weightOut = c.maybeFloatOut("dw", dw, cols)
    const weightTotal = new Float64Array(weightOut === undefined ? 0 : cols)
    for (let r = 0; r < rows; r++) {
      const inverse = kept[r]!
      let projection = 0
      for (let col = 0; col < cols; col++) {
        const at = r * cols + col
        projection += gradient[at]! * ((weight?.[col] ?? 1) + offset) * source[at]! * inverse
      }
      projection /= cols
      for (let col = 0; col < cols; col++) {
        const at = r * cols + col
        const normal = source[at]! * inverse
        const d = gradient[at]!
        const value = inverse * (d * ((weight?.[col] ?? 1) + offset) - normal * projection)
        if (weightOut !== undefined) weightTotal[col]! += d * normal
        if (target !== undefined) target[at] = value + (accumulate ? target[at]! : 0)
      }
    }
    if (weightOut !== undefined) for (let col = 0; col < cols; col++) weightOut[col]! += weightTotal[col]!
  }),

  rope: define("rope", (c, x, ldx, cos, sin, positions, rows, heads, headDim, rotary, inverse) => {
    for (const [name, value] of Object.entries({ ldx, rows, heads, headDim, rotary })) c.whole(name, value)
    c.whole("inverse", inverse, 0, 1)
    c.require(rotary % 2 === 0 && rotary <= headDim, "rotary", `must be even and at most ${headDim}, not ${rotary}`)
    c.require(ldx >= heads * headDim, "ldx", `must be at least ${heads * headDim}, not ${ldx}`)
    const half = rotary / 2
    const where = c.int("positions", positions, rows)
    const tableRows =
      half === 0 || rows === 0 ? 0 : Math.floor(Math.min(c.size("cos", cos), c.size("sin", sin)) / 4 / half)
    const cosines = c.float("cos", cos, tableRows * half)
    const sines = c.float("sin", sin, tableRows * half)
    const values = c.floatOut("x", x, extent(rows, heads * headDim, ldx))
    for (let r = 0; r < (half === 0 ? 0 : rows); r++) {
      const position = where[r]!
      c.data(
        position >= 0 && position < tableRows,
        "positions",
        `has ${position} at row ${r}, but the tables have ${tableRows} rows`,
      )
    }
    for (let r = 0; r < rows; r++) {
      for (let head = 0; head < heads; head++) {
        const start = r * ldx + head * headDim
        for (let i = 0; i < half; i++) {
          const cosine = cosines[where[r]! * half + i]!
          const sine = inverse ? -sines[where[r]! * half + i]! : sines[where[r]! * half + i]!
          const first = values[start + i]!
          const second = values[start + half + i]!
          values[start + i] = first * cosine - second * sine
          values[start + half + i] = second * cosine + first * sine
        }
      }
    }
  }),
})
