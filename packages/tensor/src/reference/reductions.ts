import type { RequiredKernels } from "@sloth/core"

import type { Define } from "./call.ts"

/** Kernels that reduce a tensor to a few numbers. */
export const reductionKernels = (
  define: Define,
): Pick<RequiredKernels, "sumSquares" | "sum" | "sumRows" | "countNonFinite"> => ({
  sumSquares: define("sumSquares", (c, out, slot, x, n) => {
    c.whole("n", n)
    c.whole("slot", slot)
    const source = c.float("x", x, n)
    const target = c.doubleOut("out", out, slot + 1)
    let total = 0
    for (let i = 0; i < n; i++) total += source[i]! * source[i]!
    target[slot] = total
  }),

  sum: define("sum", (c, out, slot, x, n) => {
    c.whole("n", n)
    c.whole("slot", slot)
    const source = c.float("x", x, n)
    const target = c.doubleOut("out", out, slot + 1)
    let total = 0
    for (let i = 0; i < n; i++) total += source[i]!
    target[slot] = total
  }),

  sumRows: define("sumRows", (c, out, x, rows, cols, accumulate) => {
    c.whole("rows", rows)
    c.whole("cols", cols)
    c.whole("accumulate", accumulate, 0, 1)
    const source = c.float("x", x, rows * cols)
    const target = c.floatOut("out", out, cols)
    for (let col = 0; col < cols; col++) {
      let total = accumulate ? target[col]! : 0
      for (let r = 0; r < rows; r++) total += source[r * cols + col]!
      target[col] = total
    }
  }),

  countNonFinite: define("countNonFinite", (c, out, slot, x, n) => {
    c.whole("n", n)
    c.whole("slot", slot)
    const source = c.float("x", x, n)
    const target = c.intOut("out", out, slot + 1)
    let count = 0
    for (let i = 0; i < n; i++) if (!Number.isFinite(source[i]!)) count++
    target[slot] = count
  }),
})
